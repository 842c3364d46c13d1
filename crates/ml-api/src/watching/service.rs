//! Keeps a picture of the live measures, and shows it.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use chrono::{DateTime, Utc};
use pools_core::stats::{Sample, SampleKind};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::{
    model::{Live, Measured},
    store::WatchStore,
};
use crate::{
    database::DatabaseError,
    risk::{
        Feature,
        service::{InUse, RiskService},
    },
};

/// How often the picture is made anew; that costs the server some milliseconds.
const LOOK: Duration = Duration::from_secs(5);
/// Pause when Postgres could not be asked.
const RETRY: Duration = Duration::from_secs(1);
/// How long `/model/metrics` waits for a new picture.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Watches the model. Clones share the picture.
#[derive(Clone, Debug)]
pub struct WatchService {
    store: Option<WatchStore>,
    risk: RiskService,
    picture: Arc<Mutex<Option<Arc<Picture>>>>,
}

/// What was seen, and when.
#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    /// When Postgres was asked.
    pub as_of: DateTime<Utc>,
    /// What the latest predictions were worth.
    #[serde(flatten)]
    pub live: Live,
}

impl WatchService {
    /// Without a store, there is only the drift.
    pub fn new(store: Option<WatchStore>, risk: RiskService) -> Self {
        Self { store, risk, picture: Arc::default() }
    }

    /// Whether predictions are kept beside their loans.
    pub fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// The model in use, and what it has been asked.
    pub fn risk(&self) -> &RiskService {
        &self.risk
    }

    /// The latest picture, made anew unless that takes too long or fails; its time tells.
    pub async fn picture(&self) -> Option<Arc<Picture>> {
        match timeout(PATIENCE, self.look()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::debug!(cause = &fault as &dyn std::error::Error, "the last picture is shown");
            }
            Err(_) => tracing::debug!("the last picture is shown: Postgres is slow"),
        }
        self.last()
    }

    fn last(&self) -> Option<Arc<Picture>> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look(&self) -> Result<(), DatabaseError> {
        let Some(store) = &self.store else { return Ok(()) };
        let as_of = Utc::now();
        let live = Live::of(&store.judged().await?);
        let mut picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two looks that overlap the later one stays.
        if picture.as_ref().is_none_or(|picture| picture.as_of <= as_of) {
            *picture = Some(Arc::new(Picture { as_of, live }));
        }
        Ok(())
    }

    /// Looks until `stopping` resolves.
    pub async fn follow(self, stopping: impl Future<Output = ()>) {
        tokio::select! {
            () = stopping => {}
            () = self.keep_looking() => {}
        }
    }

    /// A database that is away is told of by its pool.
    async fn keep_looking(&self) {
        let mut filled = Weak::new();
        loop {
            let seen = async {
                self.fill(&mut filled).await?;
                self.look().await
            };
            let pause = match seen.await {
                Ok(()) => LOOK,
                Err(fault) => {
                    tracing::debug!(cause = &fault as &dyn std::error::Error, "the model cannot be watched");
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    /// What was asked before this process began, or before this model did, is asked of Postgres once.
    async fn fill(&self, filled: &mut Weak<InUse>) -> Result<(), DatabaseError> {
        let (Some(store), Ok(in_use)) = (&self.store, self.risk.in_use()) else { return Ok(()) };
        if filled.as_ptr() != Arc::as_ptr(&in_use) {
            let asked = store.asked().await?;
            // What came after the model did is counted already. By ages, because the server's clock may be another;
            // ours is read after the answer, so that no row looks older than the model that is not.
            let age = in_use.since.elapsed().as_secs_f64();
            let before: Vec<_> =
                asked.into_iter().filter(|(_, ago)| *ago > age).map(|(row, _)| row).collect();
            in_use.asked_before(&before);
            *filled = Arc::downgrade(&in_use);
        }
        Ok(())
    }

    /// For `/metrics`: what is known without waiting.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut add = |name, help, labels, value| {
            samples.push(Sample { name, help, kind: SampleKind::Gauge, labels, value });
        };
        if let Ok(in_use) = self.risk.in_use() {
            let version = f64::from(in_use.trained.model.version());
            add(MODEL_VERSION, "Version of the model in use.", vec![], version);
            if let Some(drift) = in_use.drift() {
                add(PSI_ROWS, "Latest rows that the drift is that of.", vec![], f64::from(drift.rows));
                for (feature, index) in
                    drift.indices.into_iter().flat_map(|all| Feature::ALL.into_iter().zip(all))
                {
                    add(PSI, PSI_HELP, vec![("feature", feature.name())], index);
                }
            }
        }
        let Some(picture) = self.last() else { return samples };
        add(LIVE_LOANS, "Latest predictions whose loans have ended.", vec![], picture.live.loans as f64);
        if let Some(Measured { metrics, calibration }) = &picture.live.measured {
            if let Some(auc) = metrics.roc_auc {
                add(LIVE_AUC, "Area under the ROC curve of those predictions.", vec![], auc);
            }
            add(LIVE_LOG_LOSS, "Log loss of those predictions.", vec![], metrics.log_loss);
            add(LIVE_BRIER, "Brier score of those predictions.", vec![], metrics.brier);
            add(LIVE_CALIBRATION, CALIBRATION_HELP, vec![], calibration.error);
            add(
                LIVE_PROBABILITY,
                "Mean probability that was predicted.",
                vec![],
                calibration.mean_probability,
            );
            add(LIVE_RATE, "Share of those loans that defaulted.", vec![], calibration.default_rate);
        }
        samples
    }
}

/// Gauge.
const MODEL_VERSION: &str = "ml_model_version";
/// Gauge. Label: `feature`.
const PSI: &str = "ml_feature_psi";
/// Gauge.
const PSI_ROWS: &str = "ml_feature_psi_rows";
/// Gauge.
const LIVE_LOANS: &str = "ml_live_loans";
/// Gauge.
const LIVE_AUC: &str = "ml_live_auc";
/// Gauge.
const LIVE_LOG_LOSS: &str = "ml_live_log_loss";
/// Gauge.
const LIVE_BRIER: &str = "ml_live_brier";
/// Gauge.
const LIVE_CALIBRATION: &str = "ml_live_calibration_error";
/// Gauge.
const LIVE_PROBABILITY: &str = "ml_live_probability_mean";
/// Gauge.
const LIVE_RATE: &str = "ml_live_default_rate";

const PSI_HELP: &str = "Population stability index of what is asked against the training rows.";
const CALIBRATION_HELP: &str = "Mean distance of predicted probabilities from what came true, in tenths.";
