//! What was measured: one value per run, by case, subject and metric.

use std::collections::BTreeMap;

use serde::Serialize;

/// A quantity and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// All runs of one subject in one case, in the order in which they were made.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) runs: Vec<f64>,
}

/// The table of a benchmark, and why some of its rows are missing.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub(crate) rows: Vec<Row>,
    /// By subject.
    pub(crate) faults: BTreeMap<&'static str, String>,
}

impl Runs {
    /// Adds the value of one more run.
    pub(crate) fn add(&mut self, case: &'static str, subject: &'static str, metric: Metric, value: f64) {
        // Nine digits are more than any clock here tells, and keep the JSON readable.
        let value = (value * 1e6).round() / 1e6;
        let known = self
            .rows
            .iter_mut()
            .find(|row| row.case == case && row.subject == subject && row.metric == metric.name);
        match known {
            Some(row) => row.runs.push(value),
            None => {
                let Metric { name: metric, unit } = metric;
                self.rows.push(Row { case, subject, metric, unit, runs: vec![value] });
            }
        }
    }

    /// The median of a subject's runs, if it has any.
    pub(crate) fn median(&self, case: &str, subject: &str, metric: Metric) -> Option<f64> {
        let mut rows = self.rows.iter();
        let row = rows.find(|row| row.case == case && row.subject == subject && row.metric == metric.name)?;
        median(&row.runs)
    }

    /// A subject that failed is not run again: its ratios say why.
    pub(crate) fn fail(&mut self, subject: &'static str, fault: String) {
        crate::say(&format!("{subject}: {fault}"));
        self.faults.entry(subject).or_insert(fault);
    }

    /// Forgets the rows of subjects that failed: what is left of them is no measurement.
    pub(crate) fn drop_failed(&mut self) {
        self.rows.retain(|row| !self.faults.contains_key(row.subject));
    }
}

/// The middle value; the mean of the middle two of an even number.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper)) }
}

/// The subjects in the order of this round: every second one backwards, so that a machine that becomes slower
/// or faster meanwhile favours nobody.
pub(crate) fn in_turn<T: Copy>(subjects: &[T], round: u32) -> Vec<T> {
    let mut turn = subjects.to_vec();
    if round % 2 == 1 {
        turn.reverse();
    }
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEED: Metric = Metric { name: "speed", unit: "m/s" };

    #[test]
    fn a_median_is_the_middle_value() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn runs_are_kept_by_case_subject_and_metric() {
        let mut runs = Runs::default();
        for (subject, value) in [("a", 1.0), ("b", 5.0), ("a", 3.0)] {
            runs.add("case", subject, SPEED, value);
        }
        assert_eq!(runs.rows.len(), 2);
        assert_eq!(runs.median("case", "a", SPEED), Some(2.0));
        assert_eq!(runs.median("other", "a", SPEED), None);
    }

    #[test]
    fn every_second_round_goes_backwards() {
        assert_eq!(in_turn(&[1, 2, 3], 0), [1, 2, 3]);
        assert_eq!(in_turn(&[1, 2, 3], 1), [3, 2, 1]);
    }
}
