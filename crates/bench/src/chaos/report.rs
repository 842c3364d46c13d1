//! Counts with their targets, and how they are printed.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    report::{Better, print_rows, short},
    runs::{Metric, Row, Runs},
};

/// What must hold in every run of a case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) case: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) metric: Metric,
    pub(crate) better: Better,
    pub(crate) target: f64,
}

/// A goal with what was counted: the worst run of the row (`case`, `subject`, `metric`).
#[derive(Debug, Serialize)]
pub(crate) struct Count {
    id: &'static str,
    name: &'static str,
    /// `null` when the case could not be run.
    value: Option<f64>,
    target: f64,
    better: Better,
    met: bool,
    case: &'static str,
    subject: &'static str,
    metric: &'static str,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The result, in the form of its `--json` line.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    counts: Vec<Count>,
    rows: Vec<Row>,
}

impl Report {
    /// A subject that failed keeps its rows, but misses all its goals.
    pub(crate) fn new(name: &'static str, goals: &[Goal], runs: Runs) -> Self {
        let counts = goals.iter().map(|goal| goal.judge(&runs)).collect();
        Self { name, counts, rows: runs.rows }
    }

    /// Whether every count met its target.
    pub(crate) fn met(&self) -> bool {
        self.counts.iter().all(|count| count.met)
    }

    /// A table per case and metric, then the counts.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        print_rows(out, &self.rows)?;
        writeln!(out, "\ncounts, the worst run of each")?;
        self.counts.iter().try_for_each(|count| print_count(out, count))
    }
}

impl Goal {
    fn judge(&self, runs: &Runs) -> Count {
        let Self { id, name, case, subject, metric, better, target } = *self;
        let row = runs.rows.iter().find(|row| {
            row.case == case && row.subject == subject && row.metric == metric.name && row.unit == metric.unit
        });
        let value = row.and_then(|row| better.worst(row.runs.iter().copied()));
        let reason = runs.faults.get(subject).cloned();
        let met = reason.is_none() && value.is_some_and(|value| better.met(value, target));
        Count { id, name, value, target, better, met, case, subject, metric: metric.name, reason }
    }
}

fn print_count(out: &mut impl Write, count: &Count) -> io::Result<()> {
    let sign = count.better.sign();
    let value = count.value.map_or_else(|| "none".to_owned(), short);
    let verdict = if count.met { "met" } else { "NOT MET" };
    let (id, target, name, case) = (count.id, count.target, count.name, count.case);
    writeln!(out, "  {id:<22} {value:>9} {sign} {target:<6} {verdict:<8} {case}: {name}")?;
    count.reason.iter().try_for_each(|reason| writeln!(out, "         {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Metric = Metric { name: "lost", unit: "rows" };
    const GOAL: Goal = Goal {
        id: "x.lost",
        name: "acknowledged and not found",
        case: "crash",
        subject: "pool",
        metric: LOST,
        better: Better::Lower,
        target: 0.0,
    };

    #[test]
    fn one_bad_run_among_good_ones_counts() {
        let mut runs = Runs::default();
        for lost in [0.0, 2.0, 0.0] {
            runs.add("crash", "pool", LOST, lost);
        }
        let report = Report::new("animals", &[GOAL], runs);
        assert_eq!((report.counts[0].value, report.met()), (Some(2.0), false));
    }

    #[test]
    fn what_could_not_be_run_is_not_met_and_says_why() {
        let mut runs = Runs::default();
        runs.add("crash", "pool", LOST, 0.0);
        assert!(Report::new("animals", &[GOAL], runs).met());
        let mut runs = Runs::default();
        runs.fail("pool", "no server".to_owned());
        let report = Report::new("animals", &[GOAL], runs);
        assert_eq!((report.met(), report.counts[0].reason.as_deref()), (false, Some("no server")));
    }
}
