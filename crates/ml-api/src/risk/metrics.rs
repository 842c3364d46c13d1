//! How good probabilities are, measured on rows whose end is known. Definitions are scikit-learn's.

use serde::{Deserialize, Serialize};

use super::features::{Example, Features};

#[cfg(test)]
mod tests;

/// Measures of a predictor on one set of rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// How many rows.
    pub rows: usize,
    /// Share of right predictions.
    pub accuracy: f64,
    /// Share of predicted defaults that were some; 0 when none was predicted.
    pub precision: f64,
    /// Share of defaults that were predicted; 0 when there were none.
    pub recall: f64,
    /// Harmonic mean of the two; 0 when both are.
    pub f1_score: f64,
    /// Chance that a default is ranked above a repaid loan, ties counting half. `None` with one class only.
    pub roc_auc: Option<f64>,
    /// Mean negative log likelihood, probabilities clipped to ε..1-ε of a double.
    pub log_loss: f64,
    /// Mean squared error of the probabilities.
    pub brier: f64,
    /// `[[repaid as repaid, repaid as default], [default as repaid, default as default]]`.
    pub confusion_matrix: [[usize; 2]; 2],
}

impl Metrics {
    /// Measures `predict` on `examples`; `None` without any.
    pub fn of(predict: impl Fn(&Features) -> f64, examples: &[Example]) -> Option<Self> {
        let scored: Vec<(f64, bool)> =
            examples.iter().map(|example| (predict(&example.features), example.default)).collect();
        Self::scored(&scored)
    }

    /// Measures probabilities by what came true; `None` without any.
    pub fn scored(scored: &[(f64, bool)]) -> Option<Self> {
        if scored.is_empty() {
            return None;
        }
        let rows = scored.len() as f64;
        let mut confusion_matrix = [[0; 2]; 2];
        for &(probability, default) in scored {
            confusion_matrix[usize::from(default)][usize::from(probability >= 0.5)] += 1;
        }
        let [[right_repaid, false_alarms], [missed, caught]] = confusion_matrix;
        Some(Self {
            rows: scored.len(),
            accuracy: share(right_repaid + caught, scored.len()),
            precision: share(caught, caught + false_alarms),
            recall: share(caught, caught + missed),
            f1_score: share(2 * caught, 2 * caught + false_alarms + missed),
            log_loss: scored.iter().map(|&(p, default)| surprise(p, default)).sum::<f64>() / rows,
            brier: scored.iter().map(|&(p, default)| squared_error(p, default)).sum::<f64>() / rows,
            roc_auc: roc_auc(scored.to_vec()),
            confusion_matrix,
        })
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn surprise(probability: f64, default: bool) -> f64 {
    let clipped = probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
    if default { -clipped.ln() } else { -(-clipped).ln_1p() }
}

fn squared_error(probability: f64, default: bool) -> f64 {
    let error = probability - f64::from(u8::from(default));
    error * error
}

/// The rank sum of the defaults (Mann and Whitney); rows of equal probability share their mean rank.
fn roc_auc(mut scored: Vec<(f64, bool)>) -> Option<f64> {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut pairs_won, mut repaid_below, mut defaults) = (0.0, 0.0, 0.0);
    for tie in scored.chunk_by(|a, b| a.0 == b.0) {
        let tied_defaults = tie.iter().filter(|&&(_, default)| default).count() as f64;
        let tied_repaid = tie.len() as f64 - tied_defaults;
        pairs_won += tied_defaults * (repaid_below + 0.5 * tied_repaid);
        repaid_below += tied_repaid;
        defaults += tied_defaults;
    }
    let pairs = defaults * repaid_below;
    (pairs > 0.0).then(|| pairs_won / pairs)
}
