//! What a training says of itself.

use std::fmt;

use serde::Serialize;

use crate::risk::{
    Example, Metrics, Model,
    calibration::{Bin, calibration},
};

/// A model, and how good it is on rows it has not seen.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Coefficients, means and deviations by feature, intercept, rows, iterations, and where the rows came from.
    #[serde(flatten)]
    pub model: Model,
    /// `None` when nothing was held out: then nothing is known.
    pub held_out: Option<HeldOut>,
}

/// How good a model is on the held-out rows.
#[derive(Clone, Debug, Serialize)]
pub struct HeldOut {
    /// The measures.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Probabilities beside what came true.
    pub calibration: Vec<Bin>,
    /// The rows' probabilities and ends, for the plots.
    #[serde(skip)]
    pub scored: Vec<(f64, bool)>,
}

impl Report {
    /// Judges a model by the held-out rows, if there are any.
    pub fn of(model: &Model, held_out: &[Example]) -> Self {
        let probability = |example: &Example| model.probability(&example.features);
        let scored: Vec<_> = held_out.iter().map(|row| (probability(row), row.default)).collect();
        let held_out = Metrics::scored(&scored).map(|metrics| HeldOut {
            metrics,
            calibration: calibration(&scored),
            scored,
        });
        Self { model: model.clone(), held_out }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, held_out } = self;
        let (rows, source, steps) = (model.rows(), model.training_data(), model.iterations());
        write!(f, "trained on {rows} rows ({source}) in {steps} iterations")?;
        let Some(HeldOut { metrics, .. }) = held_out else {
            return write!(f, "; nothing was held out to judge by");
        };
        write!(f, "\nheld out: {} rows", metrics.rows)?;
        if let Some(auc) = metrics.roc_auc {
            write!(f, ", roc_auc {auc:.4}")?;
        }
        let Metrics { accuracy, f1_score, log_loss, brier, .. } = metrics;
        write!(
            f,
            ", accuracy {accuracy:.4}, f1_score {f1_score:.4}, log_loss {log_loss:.4}, brier {brier:.4}"
        )
    }
}
