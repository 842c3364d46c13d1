//! Logistic regression on standardised features: L2 with C = 1, balanced class weights.
//!
//! Training finds the optimum that scikit-learn's `LogisticRegression(C=1, class_weight="balanced")` looks for, and
//! finds it for any two-class data of finite numbers. A model is immutable; a new training makes a new one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::category::Prediction;
use super::features::{Example, FEATURE_COUNT, Feature, Features};
use super::parts::{PART, in_parts};
use super::scaler::{Scaler, standardise};
use super::solver::{self, Problem, Row, WIDTH};

mod by_feature;
#[cfg(test)]
mod tests;

/// Rows that are predicted together: as many as two registers of AVX-512 hold, or eight of SSE2.
const BLOCK: usize = 16;

/// Where the rows came from that a model was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainingData {
    /// From the seeded generator.
    Synthetic,
    /// From a CSV file.
    File,
    /// From recorded loans, merged with the starting data.
    Recorded,
}

impl fmt::Display for TrainingData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Synthetic => "synthetic",
            Self::File => "file",
            Self::Recorded => "recorded",
        })
    }
}

/// A trained model. As JSON, `means`, `deviations` and `coefficients` are objects by feature name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Model {
    version: u32,
    training_data: TrainingData,
    rows: usize,
    iterations: u32,
    intercept: f64,
    #[serde(with = "by_feature")]
    coefficients: Features,
    #[serde(with = "by_feature")]
    means: Features,
    #[serde(with = "by_feature")]
    deviations: Features,
}

/// Why no model came out of a training.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// There is nothing to learn from.
    #[error("there are no rows to train on")]
    NoRows,
    /// There is nothing to tell apart.
    #[error("all {rows} rows to train on have default = {}: training needs both classes", u8::from(*.default))]
    OneClass {
        /// How many rows.
        rows: usize,
        /// Their label.
        default: bool,
    },
    /// A value that no arithmetic is possible with.
    #[error("row {row}: {field} is not a finite number")]
    NotFinite {
        /// The row, counted from 0.
        row: usize,
        /// The feature.
        field: &'static str,
    },
    /// The arithmetic was exhausted before the optimum was reached.
    #[error("no optimum after {iterations} steps: the gradient is still {gradient:e} per row")]
    NotConverged {
        /// How many steps.
        iterations: u32,
        /// The largest component.
        gradient: f64,
    },
}

impl Model {
    /// Trains on `examples`.
    ///
    /// Takes about 1 µs for each row: not for an async thread.
    ///
    /// # Errors
    /// No rows, one class only, a number that is not finite, or no optimum within the solver's bound.
    pub fn fit(examples: &[Example], training_data: TrainingData, version: u32) -> Result<Self, FitError> {
        let weights = balanced_weights(examples)?;
        check_finite(examples)?;
        let scaler = Scaler::fit(examples);
        let problem = Problem {
            rows: standardised(&scaler, examples),
            defaults: examples.iter().map(|example| example.default).collect(),
            weights,
        };
        let minimum = solver::minimise(&problem).map_err(|stuck| FitError::NotConverged {
            iterations: stuck.iterations,
            gradient: stuck.gradient,
        })?;
        Ok(Self {
            version,
            training_data,
            rows: examples.len(),
            iterations: minimum.iterations,
            intercept: minimum.intercept,
            coefficients: minimum.coefficients,
            means: scaler.means,
            deviations: scaler.deviations,
        })
    }

    /// The probability of default. Never NaN for finite features; allocates nothing.
    pub fn probability(&self, features: &Features) -> f64 {
        let mut margin = self.intercept;
        for (column, &value) in features.iter().enumerate() {
            let standard = standardise(value, self.means[column], self.deviations[column]);
            margin += self.coefficients[column] * standard;
        }
        logistic(margin)
    }

    /// The answer for one loan; allocates nothing.
    pub fn predict(&self, features: &Features) -> Prediction {
        Prediction::of(self.probability(features))
    }

    /// The answers for many loans, in order: bit by bit those of [`predict`](Self::predict).
    pub fn predict_batch(&self, rows: &[Features]) -> Vec<Prediction> {
        let mut predictions = Vec::with_capacity(rows.len());
        let (blocks, rest) = rows.as_chunks();
        for block in blocks {
            predictions.extend(self.margins(block).map(|margin| Prediction::of(logistic(margin))));
        }
        predictions.extend(rest.iter().map(|features| self.predict(features)));
        predictions
    }

    /// Column by column over a block of rows, which is what the processor does several at a time; the sum over one
    /// row's columns is not, because its order matters.
    fn margins(&self, block: &[Features; BLOCK]) -> [f64; BLOCK] {
        let mut margins = [self.intercept; BLOCK];
        for column in 0..FEATURE_COUNT {
            let (mean, deviation) = (self.means[column], self.deviations[column]);
            for (margin, features) in margins.iter_mut().zip(block) {
                *margin += self.coefficients[column] * standardise(features[column], mean, deviation);
            }
        }
        margins
    }

    /// Counts trainings; the starting model is 1.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Where its rows came from.
    pub const fn training_data(&self) -> TrainingData {
        self.training_data
    }

    /// How many rows it was trained on.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// How many Newton steps that took.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// The log odds of a loan with average features.
    pub const fn intercept(&self) -> f64 {
        self.intercept
    }

    /// Of the standardised features.
    pub const fn coefficients(&self) -> &Features {
        &self.coefficients
    }

    /// The features' means in the training rows.
    pub const fn means(&self) -> &Features {
        &self.means
    }

    /// Their population deviations; 1 where a feature did not vary.
    pub const fn deviations(&self) -> &Features {
        &self.deviations
    }

    /// The coefficients with their features, the weightiest first.
    pub fn coefficients_by_weight(&self) -> Vec<(Feature, f64)> {
        let mut pairs: Vec<_> = Feature::ALL.into_iter().zip(self.coefficients).collect();
        pairs.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        pairs
    }
}

fn logistic(margin: f64) -> f64 {
    // exp overflows to infinity for a very small margin, which gives the right 0.
    1.0 / (1.0 + (-margin).exp())
}

/// n / (2 · rows of the class), so that both classes weigh the same in total.
fn balanced_weights(examples: &[Example]) -> Result<[f64; 2], FitError> {
    let rows = examples.len();
    let defaults = examples.iter().filter(|example| example.default).count();
    match (rows - defaults, defaults) {
        (0, 0) => Err(FitError::NoRows),
        (0, _) => Err(FitError::OneClass { rows, default: true }),
        (_, 0) => Err(FitError::OneClass { rows, default: false }),
        (repaid, defaults) => Ok([repaid, defaults].map(|count| rows as f64 / (2 * count) as f64)),
    }
}

fn check_finite(examples: &[Example]) -> Result<(), FitError> {
    for (row, example) in examples.iter().enumerate() {
        for (feature, value) in Feature::ALL.into_iter().zip(example.features) {
            if !value.is_finite() {
                return Err(FitError::NotFinite { row, field: feature.name() });
            }
        }
    }
    Ok(())
}

fn standardised(scaler: &Scaler, examples: &[Example]) -> Vec<Row> {
    let mut rows = vec![[0.0; WIDTH]; examples.len()];
    in_parts(examples.chunks(PART).zip(rows.chunks_mut(PART)), |(examples, rows)| {
        for (example, place) in examples.iter().zip(rows) {
            *place = row(scaler, &example.features);
        }
    });
    rows
}

fn row(scaler: &Scaler, features: &Features) -> Row {
    let mut row = [0.0; WIDTH];
    for (column, &value) in features.iter().enumerate() {
        row[column] = scaler.standardise(column, value);
    }
    row[FEATURE_COUNT] = 1.0;
    row
}

/// A model as it was stored, before anyone looked at it.
#[derive(Deserialize)]
struct Unchecked {
    version: u32,
    training_data: TrainingData,
    rows: usize,
    iterations: u32,
    intercept: f64,
    #[serde(with = "by_feature")]
    coefficients: Features,
    #[serde(with = "by_feature")]
    means: Features,
    #[serde(with = "by_feature")]
    deviations: Features,
}

/// A stored model with which no probability can be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum StoredModelError {
    #[error("the deviation of {field} must be above 0")]
    Deviation { field: &'static str },
    #[error("coefficients and intercept must be at most {LARGEST_COEFFICIENT:e}")]
    Coefficient,
}

/// Far above any trained one, and small enough that no sum with it overflows.
const LARGEST_COEFFICIENT: f64 = 1e100;

impl TryFrom<Unchecked> for Model {
    type Error = StoredModelError;

    fn try_from(stored: Unchecked) -> Result<Self, StoredModelError> {
        let Unchecked {
            version,
            training_data,
            rows,
            iterations,
            intercept,
            coefficients,
            means,
            deviations,
        } = stored;
        for (feature, deviation) in Feature::ALL.into_iter().zip(deviations) {
            // Half of it must still be above 0.
            if deviation < 2.0 * f64::MIN_POSITIVE {
                return Err(StoredModelError::Deviation { field: feature.name() });
            }
        }
        if coefficients.into_iter().chain([intercept]).any(|value| value.abs() > LARGEST_COEFFICIENT) {
            return Err(StoredModelError::Coefficient);
        }
        Ok(Self { version, training_data, rows, iterations, intercept, coefficients, means, deviations })
    }
}
