//! What was acknowledged, compared with what is found.

use std::{collections::BTreeMap, time::Duration};

use testkit::Postgres;

use super::{
    goals::{
        ACKNOWLEDGED, ENDS_ACKNOWLEDGED, ENDS_GONE, FOUND, GONE, OURS, RECOVERY, REFUSED, TORN, TWICE,
        UNSURE, WRONG,
    },
    writers::{Ledger, Told},
};
use crate::{Fault, runs::Runs};

/// The start's own row does not count.
const ROWS: &str = "SELECT loan_id, loan_amount::bigint, metadata->>'note', \"default\"::int, \
    actual_repayment_time::bigint FROM loans WHERE loan_id <> 'first'";

#[derive(Debug, Default)]
pub(super) struct Findings {
    acknowledged: usize,
    ends_acknowledged: usize,
    found: usize,
    unsure: usize,
    gone: usize,
    ends_gone: usize,
    twice: usize,
    torn: usize,
    refused: usize,
    wrong: usize,
}

pub(super) async fn audit(server: &Postgres, ledger: &Ledger) -> Result<Findings, Fault> {
    let rows = server.admin_query(ROWS).await;
    let mut found: BTreeMap<&str, Vec<&[String]>> = BTreeMap::new();
    for row in &rows {
        found.entry(row[0].as_str()).or_default().push(&row[1..]);
    }
    let mut findings = Findings {
        found: rows.len(),
        twice: rows.len() - found.len(),
        refused: ledger.refused,
        wrong: ledger.wrong,
        ..Findings::default()
    };
    for (id, told) in &ledger.loans {
        findings.look(id, told, found.remove(id.as_str()).as_deref());
    }
    // Nobody wrote what is left.
    findings.torn += found.len();
    Ok(findings)
}

impl Findings {
    fn look(&mut self, id: &str, told: &Told, rows: Option<&[&[String]]>) {
        self.acknowledged += usize::from(told.recorded);
        self.ends_acknowledged += usize::from(told.ended);
        let Some([row, ..]) = rows else {
            self.gone += usize::from(told.recorded);
            self.ends_gone += usize::from(told.ended);
            return;
        };
        self.unsure += usize::from(!told.recorded);
        let number = told.number.to_string();
        let end = [(told.number % 2).to_string(), number.clone()];
        self.torn +=
            usize::from(row[0] != number || row[1] != id || (row[2..] != end && row[2..] != ["", ""]));
        self.ends_gone += usize::from(told.ended && row[2..] != end);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    pub(super) fn add_to(&self, runs: &mut Runs, case: &'static str, recovery: Duration) {
        let counts = [
            (ACKNOWLEDGED, self.acknowledged),
            (ENDS_ACKNOWLEDGED, self.ends_acknowledged),
            (FOUND, self.found),
            (UNSURE, self.unsure),
            (GONE, self.gone),
            (ENDS_GONE, self.ends_gone),
            (TWICE, self.twice),
            (TORN, self.torn),
            (REFUSED, self.refused),
            (WRONG, self.wrong),
        ];
        for (metric, count) in counts {
            runs.add(case, OURS, metric, count as f64);
        }
        runs.add(case, OURS, RECOVERY, recovery.as_secs_f64());
    }
}
