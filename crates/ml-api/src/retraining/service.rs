//! Retraining, rolling back, and following what other replicas did.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::sleep;

use super::{
    error::RetrainingError,
    store::{Change, ModelStore, Version},
};
use crate::risk::{
    Metrics, Split,
    service::{RiskService, Trained, TrainingError},
};

/// A new model may be this much worse: rounding.
const NOT_WORSE: f64 = 1e-6;
/// How often a replica looks which model is in use.
const LOOK: Duration = Duration::from_secs(1);

/// Changes the model. Clones share store and model.
#[derive(Clone, Debug)]
pub struct RetrainingService {
    store: Option<ModelStore>,
    risk: RiskService,
}

/// What a retraining came to.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Always true; front ends look at it.
    pub success: bool,
    /// Whether the new model is in use.
    pub replaced: bool,
    /// The version in use now.
    pub version: u32,
    /// Rows the new model was trained on.
    pub training_rows: usize,
    /// The present model, on the held-out rows.
    pub present: Metrics,
    /// The new one, on the same rows.
    pub candidate: Metrics,
}

impl RetrainingService {
    /// Without a store every question is answered with [`RetrainingError::NotConfigured`].
    pub fn new(store: Option<ModelStore>, risk: RiskService) -> Self {
        Self { store, risk }
    }

    fn store(&self) -> Result<&ModelStore, RetrainingError> {
        self.store.as_ref().ok_or(RetrainingError::NotConfigured)
    }

    /// Trains on all recorded outcomes, and takes the new model into use if it is not worse.
    ///
    /// # Errors
    /// See [`RetrainingError`]; the model is what it was.
    ///
    /// # Cancel safety
    /// Dropped, nothing has changed, unless the commit was on its way.
    pub async fn retrain(&self) -> Result<Verdict, RetrainingError> {
        let store = self.store()?;
        let local = self.risk.trained()?;
        let mut lease = store.acquire().await?;
        let change = store.begin(&mut lease).await?;
        let verdict = match compete_in(&change, &local).await {
            Ok(verdict) => verdict,
            Err(refusal) => return Err(change.give_up(refusal).await),
        };
        change.commit().await?;
        let (new, old) = (verdict.candidate.log_loss, verdict.present.log_loss);
        let replaced = verdict.replaced;
        tracing::info!(replaced, version = verdict.version, log_loss = new, present = old, "model retrained");
        self.look().await?;
        Ok(verdict)
    }

    /// Takes a previous version into use again.
    ///
    /// # Errors
    /// There is no such version, or see [`RetrainingError`].
    pub async fn roll_back(&self, version: u32) -> Result<(), RetrainingError> {
        let store = self.store()?;
        let mut lease = store.acquire().await?;
        let change = store.begin(&mut lease).await?;
        match change.take(version).await {
            Ok(true) => {}
            Ok(false) => return Err(change.give_up(RetrainingError::UnknownVersion).await),
            Err(fault) => return Err(change.give_up(fault).await),
        }
        change.commit().await?;
        tracing::info!(version, "model rolled back");
        self.look().await
    }

    /// All versions that ever were in use.
    ///
    /// # Errors
    /// See [`RetrainingError`].
    pub async fn versions(&self) -> Result<Vec<Version>, RetrainingError> {
        self.store()?.versions().await
    }

    /// Follows the model in use until `stopping` resolves.
    pub async fn follow(self, stopping: impl Future<Output = ()>) {
        tokio::select! {
            () = stopping => {}
            () = self.keep_looking() => {}
        }
    }

    async fn keep_looking(&self) {
        let mut told = false;
        loop {
            sleep(LOOK).await;
            let fault = match self.look().await {
                // The pool tells of a database that is away.
                Ok(()) | Err(RetrainingError::Database(_) | RetrainingError::NotConfigured) => None,
                Err(fault) => Some(fault),
            };
            if let Some(fault) = fault.as_ref().filter(|_| !told) {
                tracing::error!(cause = fault as &dyn std::error::Error, "the model in use cannot be read");
            }
            told = fault.is_some();
        }
    }

    /// Two looks that overlap may leave the older model here; the next one, a second later, sees that.
    async fn look(&self) -> Result<(), RetrainingError> {
        let version = self.risk.trained().map_or(0, |trained| trained.model.version());
        if let Some(trained) = self.store()?.newer_than(version).await? {
            tracing::info!(version = trained.model.version(), "model taken into use");
            self.risk.install(Arc::new(trained));
        }
        Ok(())
    }
}

/// Trains a candidate within `change`, and stores and takes it if it is not worse than the model in use.
async fn compete_in(change: &Change<'_>, local: &Trained) -> Result<Verdict, RetrainingError> {
    // The database's, since ours may be a second old; its first retraining also stores what it began with.
    let present = match change.in_use().await? {
        Some(present) => present,
        None => {
            change.store(local).await?;
            change.take(local.model.version()).await?;
            local.clone()
        }
    };
    let recorded = change.recorded().await?;
    if recorded.train.is_empty() {
        return Err(RetrainingError::NothingRecorded);
    }
    let version = change.next_version().await?;
    let training = tokio::task::spawn_blocking(move || compete(&present, recorded, version)).await;
    // Its panic goes on here, where the owner of this request counts it.
    let (candidate, present) =
        training.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let replaced = candidate.metrics.log_loss <= present.metrics.log_loss + NOT_WORSE;
    if replaced {
        change.store(&candidate).await?;
        change.take(version).await?;
    }
    Ok(Verdict {
        success: true,
        replaced,
        version: if replaced { version } else { present.model.version() },
        training_rows: candidate.model.rows(),
        present: present.metrics,
        candidate: candidate.metrics,
    })
}

/// Trains the candidate and judges both models by the same rows. Blocks.
fn compete(present: &Trained, recorded: Split, version: u32) -> Result<(Trained, Trained), TrainingError> {
    let mut split = Trained::starting_data();
    split.train.extend(recorded.train);
    split.held_out.extend(recorded.held_out);
    let candidate = Trained::recorded(&split, version)?;
    let present = Trained::judged(present.model.clone(), present.reference.clone(), &split.held_out)?;
    Ok((candidate, present))
}
