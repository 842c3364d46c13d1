//! Retraining, rolling back, and following what other replicas did.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{sync::watch, time::sleep};

use super::{
    error::RetrainingError,
    store::{Change, ModelStore, Versions},
};
use crate::risk::{
    Metrics, RowSources, Split, Trained, TrainingError, service::RiskService, trained::ComparedWith,
};

/// A new model may be this much worse: rounding.
const NOT_WORSE: f64 = 1e-6;
/// How often a replica looks which model is in use.
const LOOK: Duration = Duration::from_secs(1);
/// The same until it has seen that once, which readiness waits for; while there is no schema, a look is one atomic read.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// Changes the model. Clones share store and model.
#[derive(Clone, Debug)]
pub struct RetrainingService {
    store: Option<ModelStore>,
    risk: RiskService,
    looked: Arc<watch::Sender<bool>>,
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
    /// Where its rows came from.
    pub row_sources: RowSources,
    /// The present model, on the held-out rows.
    pub present: Metrics,
    /// The new one, on the same rows.
    pub candidate: Metrics,
}

impl RetrainingService {
    /// Without a store every question is answered with [`RetrainingError::NotConfigured`].
    pub fn new(store: Option<ModelStore>, risk: RiskService) -> Self {
        Self { store, risk, looked: Arc::default() }
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
        self.catch_up().await;
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
        self.catch_up().await;
        Ok(())
    }

    /// The latest versions that were in use.
    ///
    /// # Errors
    /// See [`RetrainingError`].
    pub async fn versions(&self) -> Result<Versions, RetrainingError> {
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
            let seen = self.look().await;
            let away = matches!(seen, Err(RetrainingError::Database(_)));
            // The pool tells of a database that is away.
            let fault = seen.err().filter(|_| !away);
            if let Some(fault) = fault.as_ref().filter(|_| !told) {
                tracing::error!(cause = fault as &dyn std::error::Error, "the model in use cannot be read");
            }
            told = fault.is_some();
            if !away {
                self.looked.send_replace(true);
            }
            let looked = *self.looked.borrow();
            sleep(if looked { LOOK } else { FIRST_LOOK }).await;
        }
    }

    /// Waits until it has been seen which model is in use; without a database there is nothing to see.
    pub async fn until_looked(&self) {
        if self.store.is_some() {
            let mut looked = self.looked.subscribe();
            looked.wait_for(|looked| *looked).await.map(drop).expect("BUG: the sender is held here");
        }
    }

    /// The change is committed, whatever comes of this: what cannot be read now is read a second later.
    async fn catch_up(&self) {
        if let Err(fault) = self.look().await {
            let cause = &fault as &dyn std::error::Error;
            tracing::warn!(cause, "the model that is in use now is taken over later");
        }
    }

    /// Two looks that overlap may leave the older model here; the next one, a second later, sees that. Of two that
    /// bring the same model the first counts.
    async fn look(&self) -> Result<(), RetrainingError> {
        // A starting model has a number but is not stored: the stored one of this number may be another's.
        let ours = self.risk.in_use().ok().and_then(|in_use| in_use.stored_as);
        if let Some((trained, stored_as)) = self.store()?.other_than(ours).await?
            && self.risk.install(Arc::new(trained), stored_as)
        {
            tracing::info!(version = stored_as.version, "model taken into use");
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
    let (mut candidate, present) =
        training.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let replaced = candidate.metrics.log_loss <= present.metrics.log_loss + NOT_WORSE;
    if replaced {
        candidate.compared_with = Some(present.clone());
        change.store(&candidate).await?;
        change.take(version).await?;
    }
    Ok(Verdict {
        success: true,
        replaced,
        version: if replaced { version } else { present.version },
        training_rows: candidate.model.rows(),
        row_sources: candidate.row_sources,
        present: present.metrics,
        candidate: candidate.metrics,
    })
}

/// Trains the candidate and judges both models by the same rows. Blocks.
fn compete(
    present: &Trained,
    recorded: Split,
    version: u32,
) -> Result<(Trained, ComparedWith), TrainingError> {
    let (candidate, held_out) = Trained::recorded(recorded, version)?;
    let metrics = present.measured_on(&held_out)?;
    Ok((candidate, ComparedWith { version: present.model.version(), metrics }))
}
