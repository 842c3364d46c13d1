//! When scans run, and what is known of the last one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use pools_core::{
    chain::{PendingTx, U256},
    health::HealthState,
    stats::{Sample, SampleKind},
    tasks::Tasks,
};
use tokio::time::MissedTickBehavior;

use super::{
    client::LiquidatorClient,
    scan::{Scan, ScanReport},
};
use crate::contracts::{client::ContractClient, error::ContractError};

/// How the last scan ended.
#[derive(Clone, Debug)]
pub enum LastScan {
    /// It ran to its end.
    Done(ScanReport),
    /// The chain could not be read.
    Failed {
        /// Why.
        reason: String,
    },
}

#[derive(Debug)]
struct Inner {
    contract: ContractClient,
    liquidator: LiquidatorClient,
    active: AtomicBool,
    stopping: AtomicBool,
    last: Mutex<Option<LastScan>>,
    /// Held for a whole scan, so that scans never overlap.
    unsettled: tokio::sync::Mutex<HashMap<U256, PendingTx>>,
    scans: AtomicU64,
    liquidated: AtomicU64,
}

/// The bot. Clones share it.
#[derive(Clone, Debug)]
pub struct LiquidationService(Arc<Inner>);

impl LiquidationService {
    /// Starts the job: a scan at once, then one every `interval`.
    pub fn start(
        contract: ContractClient,
        liquidator: LiquidatorClient,
        interval: Duration,
        jobs: &Tasks,
    ) -> Self {
        let service = Self(Arc::new(Inner {
            contract,
            liquidator,
            active: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            last: Mutex::default(),
            unsettled: tokio::sync::Mutex::default(),
            scans: AtomicU64::new(0),
            liquidated: AtomicU64::new(0),
        }));
        let (job, stopping) = (service.clone(), jobs.stopping());
        jobs.spawn("liquidation stop", {
            let stopping = jobs.stopping();
            let service = service.clone();
            async move {
                stopping.await;
                service.0.stopping.store(true, Ordering::Relaxed);
            }
        });
        jobs.spawn("liquidation", async move {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = &mut stopping => return,
                }
                if job.is_active() {
                    // The outcome is kept for the status; a failed scan is logged there.
                    let _outcome = job.scan().await;
                }
            }
        });
        service
    }

    /// Scans now, after a scan that is under way.
    ///
    /// # Errors
    /// The chain could not be read.
    pub async fn scan(&self) -> Result<ScanReport, ContractError> {
        let inner = &self.0;
        let mut unsettled = inner.unsettled.lock().await;
        let scan =
            Scan { contract: &inner.contract, liquidator: &inner.liquidator, unsettled: &mut unsettled };
        let result = scan.run(|| inner.stopping.load(Ordering::Relaxed)).await;
        inner.scans.fetch_add(1, Ordering::Relaxed);
        let last = match &result {
            Ok(report) => {
                inner.liquidated.fetch_add(report.liquidated.len() as u64, Ordering::Relaxed);
                LastScan::Done(report.clone())
            }
            Err(error) => {
                let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
                let reason = format!("{error}{}", cause.unwrap_or_default());
                tracing::warn!(reason, "liquidation scan failed");
                LastScan::Failed { reason }
            }
        };
        *inner.last.lock() = Some(last);
        result
    }

    /// Lets the job scan, or keeps it from it. A scan under way ends by itself.
    pub fn set_active(&self, active: bool) {
        self.0.active.store(active, Ordering::Relaxed);
        tracing::info!(active, "liquidation bot switched");
    }

    /// Whether the job scans.
    pub fn is_active(&self) -> bool {
        self.0.active.load(Ordering::Relaxed)
    }

    /// How the last scan ended; `None` before the first.
    pub fn last(&self) -> Option<LastScan> {
        self.0.last.lock().clone()
    }

    /// The contract and the account.
    pub fn addresses(&self) -> (pools_core::chain::Address, pools_core::chain::Address) {
        (self.0.contract.address(), self.0.liquidator.address())
    }

    /// Up when the last scan could read the chain.
    pub fn health(&self) -> HealthState {
        match &*self.0.last.lock() {
            Some(LastScan::Done(_)) => HealthState::Up,
            _ => HealthState::Down,
        }
    }

    /// Counts for `/metrics`.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
    pub fn samples(&self) -> Vec<Sample> {
        let counter = |name, help, value: &AtomicU64| Sample {
            name,
            help,
            kind: SampleKind::Counter,
            labels: Vec::new(),
            value: value.load(Ordering::Relaxed) as f64,
        };
        vec![
            counter("liquidation_scans_total", "Scans over all loans.", &self.0.scans),
            counter("liquidation_liquidated_total", "Loans liquidated.", &self.0.liquidated),
        ]
    }
}
