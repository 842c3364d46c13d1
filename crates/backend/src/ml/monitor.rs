//! Whether ml-api runs, known without traffic.
//!
//! One job asks `/health/live`: every second while it is down, so that its return is noticed within two, and every
//! five seconds while it is up. Nothing waits for the job; it ends with the service's jobs. A pool without room for the
//! question is no news: with so many answers under way ml-api is as it was, until they fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pools_core::{health::HealthState, tasks::Tasks};

use super::client::MlClient;

const WHILE_DOWN: Duration = Duration::from_secs(1);
const WHILE_UP: Duration = Duration::from_secs(5);

/// The last verdict on ml-api.
#[derive(Clone, Debug, Default)]
pub struct MlMonitor(Arc<AtomicBool>);

impl MlMonitor {
    /// Starts the job.
    pub fn start(client: MlClient, jobs: &Tasks) -> Self {
        let monitor = Self::default();
        let (verdict, stopping) = (monitor.clone(), jobs.stopping());
        jobs.spawn("ml monitor", async move {
            let watch = async {
                loop {
                    let pause = verdict.ask(&client).await;
                    tokio::time::sleep(pause).await;
                }
            };
            tokio::select! {
                () = watch => {}
                () = stopping => {}
            }
        });
        monitor
    }

    /// Up or down.
    pub fn state(&self) -> HealthState {
        if self.0.load(Ordering::Relaxed) { HealthState::Up } else { HealthState::Down }
    }

    async fn ask(&self, client: &MlClient) -> Duration {
        let answer = client.probe(WHILE_DOWN).await;
        if matches!(&answer, Err(cause) if cause.is_busy()) {
            return WHILE_DOWN;
        }
        let up = matches!(&answer, Ok(status) if status.is_success());
        if self.0.swap(up, Ordering::Relaxed) != up {
            match answer {
                Err(cause) => tracing::warn!(?cause, "ml-api is down"),
                Ok(status) => tracing::info!(%status, up, "ml-api answers"),
            }
        }
        if up { WHILE_UP } else { WHILE_DOWN }
    }
}
