//! What was promised, compared with what is found.

use std::{collections::HashMap, time::Duration};

use testkit::Postgres;
use tokio::time::Instant;

use super::{
    goals::{
        ACKNOWLEDGED, CUT_OFF, ERRORS, FOUND, GONE, LATE, LEFT, LONGEST_FAILURE, POOL, RECOVERY, REFUSED,
        TORN, TWICE, UNDER_WAY, UNDER_WAY_PER_KILL, UNKNOWN, UNSURE,
    },
    load::{Failure, Try, Way},
};
use crate::{
    Fault,
    runs::{Metric, Runs},
};

pub(super) const ROLE: &str = "writer";

/// No key: a row that is written twice must be found twice.
pub(super) const TABLE: &str =
    "CREATE TABLE ledger (number bigint NOT NULL); GRANT INSERT ON ledger TO writer";

pub(super) const KILL_ONE: &str = "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity \
     WHERE usename = 'writer' ORDER BY random() LIMIT 1) one";

/// A server that is back is given so long before a failure counts as late.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// When the fault began and when it was over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) down: Instant,
    pub(super) back: Instant,
    /// Server processes killed one by one.
    pub(super) kills: usize,
}

/// By metric, and errors by kind.
#[derive(Debug)]
pub(super) struct Findings {
    values: Vec<(Metric, f64)>,
    errors: Vec<(Failure, f64)>,
}

impl Findings {
    pub(super) fn add_to(&self, runs: &mut Runs, case: &'static str) {
        for (metric, value) in &self.values {
            runs.add(case, POOL, *metric, *value);
        }
        for (failure, count) in &self.errors {
            runs.add(case, failure.name(), ERRORS, *count);
        }
    }
}

/// Reads the table when nobody writes any more.
pub(super) async fn audit(
    server: &Postgres,
    tasks: &[Vec<Try>],
    marks: &Marks,
    cut_off: f64,
) -> Result<Findings, Fault> {
    let left = settled(server).await;
    let mut found = HashMap::new();
    for row in server.admin_query("SELECT number, count(*) FROM ledger GROUP BY number").await {
        found.insert(row[0].parse()?, row[1].parse()?);
    }
    let mut values = rows(tasks, found);
    values.extend(times(tasks, marks));
    let refused = server.log().matches("too many connections").count();
    values.extend([(LEFT, number(left)), (REFUSED, number(refused)), (CUT_OFF, cut_off)]);
    let failures = || tasks.iter().flatten().filter_map(|one| one.failure);
    let of = |kind: Failure| number(failures().filter(|failure| *failure == kind).count());
    Ok(Findings { values, errors: Failure::ALL.map(|kind| (kind, of(kind))).into() })
}

/// The server processes that are there a moment after the pool was drained.
async fn settled(server: &Postgres) -> usize {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let left = server.all_connections().await;
        if left == 0 || Instant::now() >= end {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every acknowledged number is there, none too often, none by half, and none that nobody wrote.
fn rows(tasks: &[Vec<Try>], mut found: HashMap<i64, usize>) -> Vec<(Metric, f64)> {
    let (mut acknowledged, mut unsure, mut gone, mut twice, mut torn) = (0, 0, 0, 0, 0);
    let all = found.values().sum();
    for one in tasks.iter().flatten() {
        let (there, whole) = (found.remove(&one.number).unwrap_or_default(), one.way.rows());
        match one.failure {
            None => {
                acknowledged += whole;
                gone += whole.saturating_sub(there);
            }
            Some(_) => unsure += there,
        }
        twice += there.saturating_sub(whole);
        torn += usize::from(one.way == Way::Transaction && there == 1);
    }
    vec![
        (ACKNOWLEDGED, number(acknowledged)),
        (FOUND, number(all)),
        (UNSURE, number(unsure)),
        (GONE, number(gone)),
        (TWICE, number(twice)),
        (TORN, number(torn)),
        (UNKNOWN, number(found.len())),
    ]
}

fn times(tasks: &[Vec<Try>], marks: &Marks) -> Vec<(Metric, f64)> {
    let first_served = tasks.iter().map(|tries| {
        let mut later = tries.iter().filter(|one| one.started >= marks.back);
        later.find(|one| one.failure.is_none()).map(|one| one.ended - marks.back)
    });
    // Who was not served at all is a fault that was reported before.
    let recovery = first_served.flatten().max().unwrap_or_default();
    let failed = || tasks.iter().flatten().filter_map(|one| Some((one, one.failure?)));
    let late = failed().filter(|(one, _)| one.started >= marks.back + LATE_AFTER).count();
    let opening = failed().filter(|(_, failure)| *failure == Failure::Open);
    let longest = opening.map(|(one, _)| one.ended - one.started).max().unwrap_or_default();
    let under_way = || failed().filter(|(one, why)| one.ended >= marks.down && why.is_under_way());
    // Many share a connection of the lane.
    let alone = under_way().filter(|(one, _)| one.way != Way::Lane).count();
    let per_kill = if marks.kills == 0 { 0.0 } else { number(alone) / number(marks.kills) };
    vec![
        (RECOVERY, recovery.as_secs_f64()),
        (LATE, number(late)),
        (LONGEST_FAILURE, longest.as_secs_f64()),
        (UNDER_WAY, number(under_way().count())),
        (UNDER_WAY_PER_KILL, per_kill),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(number: i64, way: Way, failure: Option<Failure>) -> Try {
        let now = Instant::now();
        Try { number, way, started: now, ended: now, failure }
    }

    #[test]
    fn lost_doubled_torn_and_unknown_rows_are_told_apart() {
        let lost = Some(Failure::Lost);
        let tasks = [
            vec![tried(1, Way::Lease, None), tried(2, Way::Lane, None), tried(3, Way::Transaction, None)],
            vec![tried(4, Way::Lease, lost), tried(5, Way::Transaction, lost), tried(6, Way::Lane, lost)],
        ];
        let found = HashMap::from([(2, 2), (3, 1), (4, 1), (5, 1), (7, 1)]);
        let values = rows(&tasks, found);
        let of = |metric| values.iter().find(|(name, _)| *name == metric).unwrap().1;
        assert_eq!((of(ACKNOWLEDGED), of(FOUND), of(UNSURE)), (4.0, 6.0, 2.0));
        assert_eq!((of(GONE), of(TWICE), of(TORN), of(UNKNOWN)), (2.0, 1.0, 2.0, 1.0));
    }
}
