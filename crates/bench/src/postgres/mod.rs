//! The Postgres pool: one row by its key, prepared, from 64 and from 256 tasks over 10 + 20 connections.
//!
//! All subjects ask the same server, on this machine and without `fsync`, one after the other; the client's
//! processor time is the subject's own, the server takes its share of the same machine.

mod bb8;
mod deadpool;
mod faults;
mod goals;
mod ours;
mod sqlx;
mod subjects;

use std::time::Duration;

use testkit::Postgres;

use self::subjects::{Subject, Subjects};
use crate::{
    Fault, Plan,
    load::Tally,
    report::Report,
    runs::{Metric, Runs, in_turn},
    say,
};

const SIZE: u32 = 10;
const OVERFLOW: u32 = 20;
/// For pools that know no overflow.
const CONNECTIONS: u32 = SIZE + OVERFLOW;

const ACCOUNTS: i32 = 1_000;
const TABLE: &str = "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, owner text NOT NULL); \
     INSERT INTO accounts SELECT id, id * 7, 'owner ' || id FROM generate_series(1, 1000) id; \
     GRANT SELECT ON accounts TO app; ANALYZE accounts";
const FIND: &str = "SELECT balance, owner FROM accounts WHERE id = $1";

const OPERATIONS: Metric = Metric { name: "operations", unit: "1/s" };
const FAIRNESS: Metric = Metric { name: "least/most served task", unit: "ratio" };
const P50: Metric = Metric { name: "latency, median", unit: "ms" };
const P99: Metric = Metric { name: "latency, 99th percentile", unit: "ms" };
const LONGEST: Metric = Metric { name: "latency, longest", unit: "ms" };
const CPU: Metric = Metric { name: "client's processor time", unit: "us/operation" };

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    balance: i64,
    owner: String,
}

impl Account {
    fn expected(id: i32) -> Self {
        Self { balance: i64::from(id) * 7, owner: format!("owner {id}") }
    }
}

/// A pool with the look-up that is measured.
trait Store: Clone + Send + Sync + 'static {
    fn find(&self, id: i32) -> impl Future<Output = Result<Account, Fault>> + Send;

    /// Begins to close what is open.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Runs all of it.
pub(crate) async fn measure(plan: Plan) -> Result<Report, Fault> {
    let server = testkit::postgres().await;
    server.admin_query(TABLE).await;
    let mut runs = Runs::default();
    let mut subjects = Subjects::start(server.url(), &mut runs).await;
    compare_answers(&mut subjects, &mut runs).await;
    for (case, tasks, all) in [(goals::FEW, 64, Subject::ALL), (goals::MANY, 256, Subject::MANY)] {
        for round in 0..plan.runs {
            for subject in in_turn(all, round) {
                if runs.faults.contains_key(subject.name()) {
                    continue;
                }
                match subjects.run(subject, tasks, plan.measured).await {
                    Ok(tally) => add(&mut runs, case, subject.name(), &tally),
                    Err(fault) => runs.fail(subject.name(), fault.to_string()),
                }
                settle(&server).await;
            }
            say(&format!("{case}: {} of {} rounds", round + 1, plan.runs));
        }
    }
    subjects.end().await;
    faults::measure(&server, plan, &mut runs).await;
    Ok(Report::new("postgres", goals::GOALS, runs))
}

/// Every subject gives the same answers, or is not timed.
async fn compare_answers(subjects: &mut Subjects, runs: &mut Runs) {
    let ids: Vec<i32> = (1..=ACCOUNTS).step_by(37).collect();
    let expected: Vec<_> = ids.iter().map(|id| Account::expected(*id)).collect();
    for subject in Subject::ALL {
        if runs.faults.contains_key(subject.name()) {
            continue;
        }
        match subjects.find(*subject, &ids).await {
            Ok(accounts) if accounts == expected => {}
            Ok(_) => runs.fail(subject.name(), "its answers differ from what is in the table".to_owned()),
            Err(fault) => runs.fail(subject.name(), fault.to_string()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn add(runs: &mut Runs, case: &'static str, subject: &'static str, tally: &Tally) {
    let operations = tally.served.iter().sum::<u64>() as f64;
    let least = tally.served.iter().min().copied().unwrap_or_default() as f64;
    let most = tally.served.iter().max().copied().unwrap_or_default() as f64;
    let values = [
        (OPERATIONS, operations / tally.seconds),
        (FAIRNESS, least / most),
        (P50, tally.p50),
        (P99, tally.p99),
        (LONGEST, tally.longest),
        (CPU, tally.cpu_seconds / operations * 1e6),
    ];
    for (metric, value) in values {
        runs.add(case, subject, metric, value);
    }
}

/// A subject's connections are gone before the next one begins.
async fn settle(server: &Postgres) {
    testkit::until_async(Duration::from_secs(30), async || server.all_connections().await == 0).await;
}
