//! What a training says of itself.

use std::fmt;

use serde::Serialize;

use crate::risk::{Example, Metrics, Model};

/// Bins of equal width for the calibration.
const BINS: usize = 10;

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

/// The rows whose probability lies in a tenth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// The lowest probability that belongs here.
    pub from: f64,
    /// The lowest one that belongs to the next; 1 belongs to the last.
    pub to: f64,
    /// How many rows.
    pub rows: usize,
    /// Their mean probability; `None` without any.
    pub mean_probability: Option<f64>,
    /// The share of them that defaulted; `None` without any.
    pub default_rate: Option<f64>,
}

impl Report {
    /// Judges a model by the held-out rows, if there are any.
    pub fn of(model: &Model, held_out: &[Example]) -> Self {
        let probability = |example: &Example| model.probability(&example.features);
        let held_out = Metrics::of(|features| model.probability(features), held_out).map(|metrics| {
            let scored: Vec<_> = held_out.iter().map(|row| (probability(row), row.default)).collect();
            HeldOut { metrics, calibration: calibration(&scored), scored }
        });
        Self { model: model.clone(), held_out }
    }
}

/// Probabilities beside what came true, in tenths.
pub fn calibration(scored: &[(f64, bool)]) -> Vec<Bin> {
    let mut sums = [(0, 0.0, 0); BINS];
    for &(probability, default) in scored {
        let (rows, probabilities, defaults) = &mut sums[((probability * BINS as f64) as usize).min(BINS - 1)];
        *rows += 1;
        *probabilities += probability;
        *defaults += usize::from(default);
    }
    let edge = |bin: usize| bin as f64 / BINS as f64;
    let bin = |(bin, (rows, probabilities, defaults)): (usize, (usize, f64, usize))| Bin {
        from: edge(bin),
        to: edge(bin + 1),
        rows,
        mean_probability: (rows > 0).then(|| probabilities / rows as f64),
        default_rate: (rows > 0).then(|| defaults as f64 / rows as f64),
    };
    sums.into_iter().enumerate().map(bin).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_in_the_bin_of_its_probability_and_empty_bins_say_nothing() {
        let bins = calibration(&[(0.0, false), (0.05, true), (0.1, false), (1.0, true)]);
        assert_eq!(bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((bins[0].mean_probability, bins[0].default_rate), (Some(0.025), Some(0.5)));
        assert_eq!((bins[2].mean_probability, bins[2].default_rate), (None, None));
        assert_eq!((bins[9].from, bins[9].to), (0.9, 1.0));
    }
}
