//! The model in use: trained at start, asked by every request.
//!
//! ```text
//!  no model ──train──► Trained (model, measures, reference) ──install──► another
//!                          └─ InUse: it, and what it has been asked lately
//! ```
//!
//! Readers take a shared pointer and hold no lock while they compute. Until the first training ends, which takes
//! well under a second, every question is answered with [`NotReady`].
//!
//! What was asked is counted under a lock that is held for the counting alone, some 20 ns. Whoever finds it taken waits:
//! on a busy machine its holder may have been put aside, and those who went on uncounted would be a twentieth of all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::{sync::watch, time::Instant};

use super::{
    FeatureRow, Features, Prediction, Trained, TrainingError,
    drift::{Counts, Drift, Window},
};

/// Which of the stored models one is. By its time as well: where somebody has put another database in the place of ours,
/// the same number is another model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// Its number.
    pub version: u32,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

/// A model in use, and what it has been asked lately.
#[derive(Debug)]
pub struct InUse {
    /// The model, with its measures.
    pub trained: Arc<Trained>,
    /// Which of the stored ones it is; `None` for the starting model of this process, whatever its number.
    pub stored_as: Option<StoredAs>,
    /// When it came into use here.
    pub since: Instant,
    asked: Mutex<Window>,
}

impl InUse {
    fn new(trained: Arc<Trained>, stored_as: Option<StoredAs>) -> Self {
        Self { trained, stored_as, since: Instant::now(), asked: Mutex::default() }
    }

    /// The answer for one loan, which is counted as asked. Allocates nothing.
    pub fn predict(&self, features: &Features) -> Prediction {
        if let Some(reference) = &self.trained.reference {
            let bins = reference.bins(features);
            self.asked().add(&bins);
        }
        self.trained.model.predict(features)
    }

    /// The answers for many loans, in order, which are counted as asked.
    pub fn predict_batch(&self, rows: &[Features]) -> Vec<Prediction> {
        if let Some(counts) = self.counts(rows) {
            self.asked().add_all(&counts);
        }
        self.trained.model.predict_batch(rows)
    }

    /// Rows that were asked before all that are counted here, such as before a restart.
    pub fn asked_before(&self, rows: &[Features]) {
        if let Some(counts) = self.counts(rows) {
            self.asked().add_older(&counts);
        }
    }

    /// How far what is asked has moved from the training rows; `None` if these are not known.
    pub fn drift(&self) -> Option<Drift> {
        let reference = self.trained.reference.as_ref()?;
        let window = self.asked().clone();
        Some(window.drift(reference))
    }

    fn counts(&self, rows: &[Features]) -> Option<Counts> {
        let reference = self.trained.reference.as_ref()?;
        let mut counts = Counts::default();
        rows.iter().for_each(|row| counts.add(&reference.bins(row)));
        Some(counts)
    }

    fn asked(&self) -> MutexGuard<'_, Window> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first training has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model is still being trained")]
pub struct NotReady;

/// Answers questions about risk. Clones share the model.
#[derive(Clone, Debug)]
pub struct RiskService(Arc<watch::Sender<Option<Arc<InUse>>>>);

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
        let in_use = Arc::new(InUse::new(Arc::new(trained), None));
        self.0.send_if_modified(|model| model.is_none() && model.replace(in_use).is_none());
        Ok(())
    }

    /// Takes a stored model into use, unless it is the one in use, which has been asked already. Whoever is computing
    /// keeps the one it began with. Returns whether it is another.
    pub fn install(&self, trained: Arc<Trained>, stored_as: StoredAs) -> bool {
        self.0.send_if_modified(|in_use| {
            let is_another = in_use.as_ref().is_none_or(|in_use| in_use.stored_as != Some(stored_as));
            if is_another {
                *in_use = Some(Arc::new(InUse::new(trained, Some(stored_as))));
            }
            is_another
        })
    }

    /// Waits until there is a model.
    pub async fn until_ready(&self) {
        self.0.subscribe().wait_for(Option::is_some).await.map(drop).expect("BUG: the sender is held here");
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
        Ok(Arc::clone(&self.in_use()?.trained))
    }

    /// The model in use, and what it has been asked.
    ///
    /// # Errors
    /// There is none yet.
    pub fn in_use(&self) -> Result<Arc<InUse>, NotReady> {
        self.0.borrow().clone().ok_or(NotReady)
    }

    /// The answer for one loan. Allocates nothing.
    ///
    /// # Errors
    /// There is no model yet.
    pub fn predict(&self, row: &FeatureRow) -> Result<Prediction, NotReady> {
        Ok(self.in_use()?.predict(&row.values))
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

    #[tokio::test]
    async fn every_question_is_counted_however_many_ask_at_once() {
        let risk = RiskService::new();
        risk.train().await.unwrap();
        let row = [1.0; 22];

        let ask = || {
            for _ in 0..500 {
                risk.in_use().unwrap().predict(&row);
                risk.in_use().unwrap().predict_batch(&[row; 2]);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(ask))));

        assert_eq!(risk.in_use().unwrap().drift().unwrap().rows, 4 * 500 * 3);
    }

    #[tokio::test]
    async fn a_model_that_is_taken_into_use_twice_keeps_what_it_was_asked() {
        let risk = RiskService::new();
        let trained = Arc::new(Trained::starting().unwrap());
        let stored_as = StoredAs { version: 2, created_at: Utc::now() };
        assert!(risk.install(Arc::clone(&trained), stored_as));
        risk.in_use().unwrap().predict(&[1.0; 22]);

        assert!(!risk.install(Arc::clone(&trained), stored_as));
        assert_eq!(risk.in_use().unwrap().drift().unwrap().rows, 1);

        let another = StoredAs { version: 3, ..stored_as };
        assert!(risk.install(trained, another));
        assert_eq!(risk.in_use().unwrap().drift().unwrap().rows, 0);
    }
}
