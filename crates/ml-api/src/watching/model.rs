//! What the latest predictions were worth: pure arithmetic.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::risk::{
    Metrics,
    calibration::{Bin, calibration, calibration_error},
};

/// A prediction whose loan has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Of default, as it was said.
    pub probability: f64,
    /// How it ended.
    pub default: bool,
    /// The model that said it.
    pub version: u32,
}

/// What the latest predictions were worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Live {
    /// How many.
    pub loans: usize,
    /// The usual measures; `None` without any.
    #[serde(flatten)]
    pub measured: Option<Measured>,
    /// By the model that said it.
    pub versions: Vec<OfVersion>,
}

/// Measures of at least one prediction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// As on the held-out part.
    pub metrics: Metrics,
    /// Probabilities beside what came true.
    pub calibration: Calibration,
}

/// Probabilities beside what came true.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Mean distance of the two, weighed by rows.
    pub error: f64,
    /// What was said.
    pub mean_probability: f64,
    /// What came true.
    pub default_rate: f64,
    /// The same in tenths.
    pub bins: Vec<Bin>,
}

/// What one model's predictions were worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfVersion {
    /// The model's.
    pub version: u32,
    /// How many.
    pub loans: usize,
    /// `None` with one class only.
    pub roc_auc: Option<f64>,
    /// Mean negative log likelihood.
    pub log_loss: f64,
}

impl Live {
    /// Judges predictions.
    pub fn of(judged: &[Judged]) -> Self {
        let mut by_version: BTreeMap<u32, Vec<(f64, bool)>> = BTreeMap::new();
        for &Judged { probability, default, version } in judged {
            by_version.entry(version).or_default().push((probability, default));
        }
        let of_version = |(version, scored): (u32, Vec<(f64, bool)>)| {
            let Metrics { rows, roc_auc, log_loss, .. } = Metrics::scored(&scored)?;
            Some(OfVersion { version, loans: rows, roc_auc, log_loss })
        };
        let scored: Vec<_> = judged.iter().map(|one| (one.probability, one.default)).collect();
        Self {
            loans: judged.len(),
            measured: Measured::of(&scored),
            versions: by_version.into_iter().rev().filter_map(of_version).collect(),
        }
    }
}

impl Measured {
    fn of(scored: &[(f64, bool)]) -> Option<Self> {
        let metrics = Metrics::scored(scored)?;
        let bins = calibration(scored);
        let rows = scored.len() as f64;
        let calibration = Calibration {
            error: calibration_error(&bins)?,
            mean_probability: scored.iter().map(|row| row.0).sum::<f64>() / rows,
            default_rate: scored.iter().filter(|row| row.1).count() as f64 / rows,
            bins,
        };
        Some(Self { metrics, calibration })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(probability: f64, default: bool, version: u32) -> Judged {
        Judged { probability, default, version }
    }

    #[test]
    fn predictions_are_judged_together_and_by_the_model_that_made_them() {
        let live = Live::of(&[
            judged(0.9, true, 1),
            judged(0.1, false, 1),
            judged(0.2, true, 2),
            judged(0.8, false, 2),
        ]);
        let Measured { metrics, calibration } = live.measured.unwrap();
        assert_eq!((live.loans, metrics.rows, metrics.roc_auc), (4, 4, Some(0.75)));
        assert_eq!((calibration.mean_probability, calibration.default_rate), (0.5, 0.5));
        let versions: Vec<_> = live.versions.iter().map(|v| (v.version, v.loans, v.roc_auc)).collect();
        assert_eq!(versions, [(2, 2, Some(0.0)), (1, 2, Some(1.0))]);
    }

    #[test]
    fn without_predictions_nothing_is_claimed() {
        assert_eq!(Live::of(&[]), Live { loans: 0, measured: None, versions: vec![] });
        assert_eq!(Live::of(&[judged(0.5, true, 1)]).measured.unwrap().metrics.roc_auc, None);
    }
}
