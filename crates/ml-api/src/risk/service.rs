//! The model in use: trained at start, asked by every request.
//!
//! ```text
//!  no model ──train──► Trained (model, held-out rows, measures) ──install──► another
//! ```
//!
//! Readers take a shared pointer and hold no lock while they compute. Until the first training ends, which takes
//! well under a second, every question is answered with [`NotReady`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    Example, FeatureRow, FitError, Metrics, Model, Prediction, Split, TrainingData, generator::generate,
    heuristic, split::HELD_OUT, stratified,
};

/// Enough for the measures to be stable in their second digit; a training takes some 10 ms.
const STARTING_ROWS: usize = 10_000;

/// Any number would do; a fixed one makes every fresh service give the same answers.
const SEED: u64 = 42;

/// A model and what it was judged by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// Its measures on rows it has not seen.
    pub metrics: Metrics,
    /// The heuristic's measures on the same rows.
    pub heuristic: Metrics,
}

/// Why no model came out.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The rows cannot be learnt from.
    #[error("the model cannot be trained")]
    Fit(#[from] FitError),
    /// The rows leave none to judge by.
    #[error("too few rows to hold some of them out")]
    NothingHeldOut,
}

impl Trained {
    /// Trains the model that a fresh service starts with, on synthetic loans.
    ///
    /// Blocks for some ten milliseconds: not for an async thread.
    ///
    /// # Errors
    /// Never for the rows of our generator, which a test holds.
    pub fn starting() -> Result<Self, TrainingError> {
        let split = Self::starting_data();
        let model = Model::fit(&split.train, TrainingData::Synthetic, 1)?;
        Self::judged(model, &split.held_out)
    }

    /// The synthetic loans that every training begins with, always split the same way.
    pub fn starting_data() -> Split {
        stratified(&generate(STARTING_ROWS, SEED), HELD_OUT, SEED)
    }

    /// Trains on the starting data merged with recorded loans. Blocks.
    ///
    /// # Errors
    /// The rows cannot be learnt from.
    pub fn recorded(split: &Split, version: u32) -> Result<Self, TrainingError> {
        Self::judged(Model::fit(&split.train, TrainingData::Recorded, version)?, &split.held_out)
    }

    /// Judges a model by rows it has not seen.
    ///
    /// # Errors
    /// There are none.
    pub fn judged(model: Model, held_out: &[Example]) -> Result<Self, TrainingError> {
        let measured =
            |predict: &dyn Fn(&_) -> f64| Metrics::of(predict, held_out).ok_or(TrainingError::NothingHeldOut);
        let metrics = measured(&|features| model.probability(features))?;
        let heuristic = measured(&heuristic)?;
        Ok(Self { model, metrics, heuristic })
    }
}

/// The first training has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model is still being trained")]
pub struct NotReady;

/// Answers questions about risk. Clones share the model.
#[derive(Clone, Debug)]
pub struct RiskService(Arc<watch::Sender<Option<Arc<Trained>>>>);

impl Default for RiskService {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl RiskService {
    /// Without a model yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trains the starting model on a thread of its own.
    ///
    /// # Errors
    /// The training failed; there is still no model.
    pub async fn train(&self) -> Result<(), TrainingError> {
        let training = tokio::task::spawn_blocking(Trained::starting).await;
        // Its panic goes on here, where the owner of this task counts it.
        let trained = training.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        tracing::info!(
            training_data = %trained.model.training_data(), rows = trained.model.rows(),
            held_out = trained.metrics.rows, log_loss = trained.metrics.log_loss, "model trained"
        );
        // A stored model may have been faster.
        self.0.send_if_modified(|model| model.is_none() && model.replace(Arc::new(trained)).is_none());
        Ok(())
    }

    /// Takes another model into use. Whoever is computing keeps the one it began with.
    pub fn install(&self, trained: Arc<Trained>) {
        self.0.send_replace(Some(trained));
    }

    /// Whether there is a model.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// The model in use, with its measures.
    ///
    /// # Errors
    /// There is none yet.
    pub fn trained(&self) -> Result<Arc<Trained>, NotReady> {
        self.0.borrow().clone().ok_or(NotReady)
    }

    /// The answer for one loan.
    ///
    /// # Errors
    /// There is no model yet.
    pub fn predict(&self, row: &FeatureRow) -> Result<Prediction, NotReady> {
        Ok(self.trained()?.model.predict(&row.values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_model_every_question_is_refused_and_after_training_answered() {
        let risk = RiskService::new();
        let row = FeatureRow { values: [1.0; 22], missing_features: vec![] };
        assert_eq!(risk.predict(&row), Err(NotReady));

        risk.train().await.unwrap();

        let prediction = risk.predict(&row).unwrap();
        assert!((0.0..=1.0).contains(&prediction.default_probability));
    }

    #[test]
    fn the_starting_model_is_better_than_the_heuristic_on_rows_neither_has_seen() {
        let trained = Trained::starting().unwrap();
        assert_eq!((trained.model.rows(), trained.metrics.rows), (8_000, 2_000));
        assert_eq!(trained.heuristic.rows, 2_000);
        assert!(trained.metrics.roc_auc > trained.heuristic.roc_auc);
        assert!(trained.metrics.brier < trained.heuristic.brier);
    }
}
