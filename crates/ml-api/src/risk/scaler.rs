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
        let moments = Moments::of(examples);
        let mut scaler = Self {
            means: [0.0; FEATURE_COUNT],
            deviations: [1.0; FEATURE_COUNT],
            constant: [false; FEATURE_COUNT],
        };
        for column in 0..FEATURE_COUNT {
            let (mean, deviation) = moments.column(column);
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

/// What means and deviations are made from. All columns are measured in one pass over the rows: a pass for each would
/// read the memory 22 times.
struct Moments {
    rows: f64,
    first: Features,
    varies: [bool; FEATURE_COUNT],
    /// What the column was divided by.
    units: Features,
    means: Features,
    squares: Features,
    /// The sum of the differences, 0 without rounding; it corrects the mean's own error.
    drifts: Features,
}

impl Moments {
    fn of(examples: &[Example]) -> Self {
        let (rows, first) = (examples.len() as f64, examples[0].features);
        let mut varies = [false; FEATURE_COUNT];
        let mut largest = [0.0; FEATURE_COUNT];
        for Example { features, .. } in examples {
            for column in 0..FEATURE_COUNT {
                varies[column] |= features[column] != first[column];
                largest[column] = features[column].abs().max(largest[column]);
            }
        }
        let units = largest.map(unit);
        let mut sums = [0.0; FEATURE_COUNT];
        for Example { features, .. } in examples {
            for column in 0..FEATURE_COUNT {
                sums[column] += features[column] / units[column];
            }
        }
        let means = sums.map(|sum| sum / rows);
        let (mut squares, mut drifts) = ([0.0; FEATURE_COUNT], [0.0; FEATURE_COUNT]);
        for Example { features, .. } in examples {
            for column in 0..FEATURE_COUNT {
                let difference = features[column] / units[column] - means[column];
                squares[column] += difference * difference;
                drifts[column] += difference;
            }
        }
        Self { rows, first, varies, units, means, squares, drifts }
    }

    /// Mean and population deviation; no deviation for a column that is constant but for rounding.
    fn column(&self, column: usize) -> (f64, Option<f64>) {
        if !self.varies[column] {
            return (self.first[column], None);
        }
        let Self { rows, .. } = *self;
        let (mean, unit, drift) = (self.means[column], self.units[column], self.drifts[column]);
        let variance = (self.squares[column] - drift * drift / rows) / rows;
        let deviation = variance.sqrt() * unit;
        // scikit-learn's bound for a variance that rounding alone explains.
        let noise = rows * f64::EPSILON * variance + (rows * mean * f64::EPSILON).powi(2);
        // Deviations below the normal range have lost their digits.
        let varies = variance > noise && deviation >= 2.0 * f64::MIN_POSITIVE;
        (mean * unit, varies.then_some(deviation))
    }
}

/// What to divide a column by, so that its squares neither overflow nor vanish: 1 for all but absurd scales.
fn unit(largest: f64) -> f64 {
    if largest == 0.0 || (1e-140..1e140).contains(&largest) { 1.0 } else { largest }
}
