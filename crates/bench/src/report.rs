//! Ratios, and how a result is printed.

use std::io::{self, Write};

use serde::Serialize;

use crate::runs::{Metric, Row, Runs, median};

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// At least the target.
    Higher,
    /// At most the target.
    Lower,
}

impl Better {
    pub(crate) fn met(self, value: f64, target: f64) -> bool {
        match self {
            Self::Higher => value >= target,
            Self::Lower => value <= target,
        }
    }

    pub(crate) fn worst(self, values: impl Iterator<Item = f64>) -> Option<f64> {
        match self {
            Self::Higher => values.min_by(f64::total_cmp),
            Self::Lower => values.max_by(f64::total_cmp),
        }
    }

    pub(crate) fn sign(self) -> char {
        match self {
            Self::Higher => '≥',
            Self::Lower => '≤',
        }
    }
}

/// A goal: the median of our subject over that of the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) case: &'static str,
    pub(crate) metric: Metric,
    /// Several: the worst of them counts.
    pub(crate) ours: &'static [&'static str],
    /// Several: the best of them counts. None: the value is our median itself.
    pub(crate) peers: &'static [&'static str],
    pub(crate) better: Better,
    pub(crate) target: f64,
}

/// A goal with what was measured. `value` is the median of the row (`case`, `ours`, `metric`) over that of
/// (`case`, `peer`, `metric`).
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    id: &'static str,
    name: &'static str,
    /// `null` when a subject could not be run.
    value: Option<f64>,
    target: f64,
    better: Better,
    met: bool,
    case: &'static str,
    metric: &'static str,
    ours: Option<&'static str>,
    peer: Option<&'static str>,
    /// Why there is no value, or which peer is missing from the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The result of a benchmark, in the form of its `--json` line.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    ratios: Vec<Ratio>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(name: &'static str, goals: &[Goal], mut runs: Runs) -> Self {
        runs.drop_failed();
        let ratios = goals.iter().map(|goal| goal.judge(&runs)).collect();
        Self { name, ratios, rows: runs.rows }
    }

    /// A table per case and metric, then the ratios.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        print_rows(out, &self.rows)?;
        writeln!(out, "\nratios")?;
        self.ratios.iter().try_for_each(|ratio| print_ratio(out, ratio))
    }
}

impl Goal {
    fn judge(&self, runs: &Runs) -> Ratio {
        let of = |subject: &&'static str| Some((*subject, runs.median(self.case, subject, self.metric)?));
        let all = self.ours.iter().chain(self.peers);
        let missing = all.filter_map(|subject| Some(format!("{subject}: {}", runs.faults.get(subject)?)));
        let missing: Vec<String> = missing.collect();
        let ours = self.worst(self.ours.iter().filter_map(of));
        // The one that makes the ratio worst for us is the best peer.
        let peer = match self.better {
            Better::Higher => self.peers.iter().filter_map(of).max_by(|a, b| a.1.total_cmp(&b.1)),
            Better::Lower => self.peers.iter().filter_map(of).min_by(|a, b| a.1.total_cmp(&b.1)),
        };
        let value = match (ours, peer) {
            (Some((_, ours)), None) if self.peers.is_empty() => Some(ours),
            (Some((_, ours)), Some((_, peer))) if peer > 0.0 => Some(ours / peer),
            _ => None,
        };
        // A best peer that was not asked may have been better.
        let met = missing.is_empty() && value.is_some_and(|value| self.better.met(value, self.target));
        Ratio {
            id: self.id,
            name: self.name,
            value,
            target: self.target,
            better: self.better,
            met,
            case: self.case,
            metric: self.metric.name,
            ours: ours.map(|(subject, _)| subject),
            peer: peer.map(|(subject, _)| subject),
            reason: (!missing.is_empty()).then(|| missing.join("; ")),
        }
    }

    fn worst(&self, ours: impl Iterator<Item = (&'static str, f64)>) -> Option<(&'static str, f64)> {
        let ours: Vec<_> = ours.collect();
        let worst = self.better.worst(ours.iter().map(|(_, value)| *value))?;
        ours.into_iter().find(|(_, value)| value.total_cmp(&worst).is_eq())
    }
}

/// A table per case and metric.
pub(crate) fn print_rows(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let mut printed: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let table = (row.case, row.metric);
        if printed.contains(&table) {
            continue;
        }
        printed.push(table);
        writeln!(out, "\n{}: {} [{}]", row.case, row.metric, row.unit)?;
        for row in rows.iter().filter(|row| (row.case, row.metric) == table) {
            print_row(out, row)?;
        }
    }
    Ok(())
}

fn print_row(out: &mut impl Write, row: &Row) -> io::Result<()> {
    let median = median(&row.runs).unwrap_or(f64::NAN);
    write!(out, "  {:<38} median {:>10}  runs", row.subject, short(median))?;
    row.runs.iter().try_for_each(|value| write!(out, " {:>9}", short(*value)))?;
    writeln!(out)
}

fn print_ratio(out: &mut impl Write, ratio: &Ratio) -> io::Result<()> {
    let sign = ratio.better.sign();
    let value = ratio.value.map_or_else(|| "none".to_owned(), short);
    let verdict = if ratio.met { "met" } else { "NOT MET" };
    writeln!(out, "  {:<6} {value:>9} {sign} {:<5} {verdict:<8} {}", ratio.id, ratio.target, ratio.name)?;
    ratio.reason.iter().try_for_each(|reason| writeln!(out, "         {reason}"))
}

/// Four digits or so.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size < 0.1 && size > 0.0 => format!("{value:.6}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEED: Metric = Metric { name: "speed", unit: "m/s" };
    const GOAL: Goal = Goal {
        id: "x.1",
        name: "speed against the best peer",
        case: "road",
        metric: SPEED,
        ours: &["ours"],
        peers: &["snail", "hare"],
        better: Better::Higher,
        target: 1.5,
    };

    fn measured() -> Runs {
        let mut runs = Runs::default();
        for (subject, speed) in [("ours", 16.0), ("snail", 1.0), ("hare", 10.0)] {
            runs.add("road", subject, SPEED, speed);
        }
        runs
    }

    #[test]
    fn the_best_peer_counts() {
        let ratio = GOAL.judge(&measured());
        assert_eq!((ratio.value, ratio.peer, ratio.met), (Some(1.6), Some("hare"), true));
    }

    #[test]
    fn a_peer_that_could_not_be_run_leaves_the_goal_unmet_and_says_why() {
        let mut runs = measured();
        runs.fail("hare", "asleep".to_owned());
        let report = Report::new("animals", &[GOAL], runs);
        let ratio = &report.ratios[0];
        assert!(!ratio.met);
        assert_eq!(ratio.reason.as_deref(), Some("hare: asleep"));
        assert_eq!(report.rows.len(), 2, "the rows of a failed subject are no measurement");
    }

    #[test]
    fn without_peers_the_worst_of_ours_is_the_value() {
        let goal = Goal { ours: &["ours", "hare"], peers: &[], ..GOAL };
        assert_eq!(goal.judge(&measured()).value, Some(10.0));
    }
}
