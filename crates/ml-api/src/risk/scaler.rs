//! Standardising: each column to mean 0 and population deviation 1, as scikit-learn's `StandardScaler` does.
//!
//! One difference: a column that varies by rounding only (scikit-learn gives it deviation 1 and leaves the
//! rounding noise in) is 0 throughout in training, so its coefficient is exactly 0.

use super::features::{Example, FEATURE_COUNT, Features};

/// The largest standardised value. In n training rows none is above √(n-1), so this bounds only what is predicted
/// later, and keeps every sum finite.
const LIMIT: f64 = 1e9;

/// The columns' means and deviations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scaler {
    pub(super) means: Features,
    /// Above 0; 1 where a column is constant.
    pub(super) deviations: Features,
    /// Which columns are constant.
    pub(super) constant: [bool; FEATURE_COUNT],
}

impl Scaler {
    /// Measures the columns of at least one row of finite numbers.
    pub(super) fn fit(examples: &[Example]) -> Self {
        let mut scaler = Self {
            means: [0.0; FEATURE_COUNT],
            deviations: [1.0; FEATURE_COUNT],
            constant: [false; FEATURE_COUNT],
        };
        for column in 0..FEATURE_COUNT {
            let (mean, deviation) = moments(examples, column);
            scaler.means[column] = mean;
            match deviation {
                Some(deviation) => scaler.deviations[column] = deviation,
                None => scaler.constant[column] = true,
            }
        }
        scaler
    }

    /// One value of a training row.
    pub(super) fn standardise(&self, column: usize, value: f64) -> f64 {
        if self.constant[column] {
            return 0.0;
        }
        standardise(value, self.means[column], self.deviations[column])
    }
}

/// (value - mean) / deviation, halved first so that the difference cannot overflow.
pub(super) fn standardise(value: f64, mean: f64, deviation: f64) -> f64 {
    ((0.5 * value - 0.5 * mean) / (0.5 * deviation)).clamp(-LIMIT, LIMIT)
}

/// Mean and population deviation; no deviation for a column that is constant but for rounding.
fn moments(examples: &[Example], column: usize) -> (f64, Option<f64>) {
    let values = || examples.iter().map(|example| example.features[column]);
    let rows = examples.len() as f64;
    let unit = unit(values().fold(0.0, |largest, value| value.abs().max(largest)));
    let first = examples[0].features[column];
    if values().all(|value| value == first) {
        return (first, None);
    }
    let mean = values().map(|value| value / unit).sum::<f64>() / rows;
    // The sum of the differences would be 0 without rounding; it corrects the mean's own error.
    let (mut squares, mut drift) = (0.0, 0.0);
    for value in values() {
        let difference = value / unit - mean;
        squares += difference * difference;
        drift += difference;
    }
    let variance = (squares - drift * drift / rows) / rows;
    let deviation = variance.sqrt() * unit;
    // scikit-learn's bound for a variance that rounding alone explains.
    let noise = rows * f64::EPSILON * variance + (rows * mean * f64::EPSILON).powi(2);
    // Deviations below the normal range have lost their digits.
    let varies = variance > noise && deviation >= 2.0 * f64::MIN_POSITIVE;
    (mean * unit, varies.then_some(deviation))
}

/// What to divide a column by, so that its squares neither overflow nor vanish: 1 for all but absurd scales.
fn unit(largest: f64) -> f64 {
    if largest == 0.0 || (1e-140..1e140).contains(&largest) { 1.0 } else { largest }
}
