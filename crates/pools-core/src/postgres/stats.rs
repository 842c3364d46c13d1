//! The pool's numbers: the guide's page, and the snapshot that metrics and health are made from.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::Shared;
use crate::{
    holders::Leases,
    metrics,
    pool::PoolKind,
    stats::{Sample, SampleKind, Snapshot, Target},
};

/// The guide's `/pool/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// `active`, or `unavailable` while the server does not answer.
    pub status: &'static str,
    /// Always true: there is a pool.
    pub pool_configured: bool,
    /// `DB_POOL_SIZE`, or what it was resized to.
    pub size: u32,
    /// Idle connections.
    pub checked_in: u32,
    /// Connections that are held, cleaned or being closed.
    pub checked_out: u32,
    /// Connections above `size`, never negative.
    pub overflow: u32,
    /// Live connections: `checked_in + checked_out`.
    pub total_connections: u32,
}

impl Shared {
    pub(super) fn stats(&self) -> PoolStats {
        let (counts, size) = {
            let state = self.state.lock();
            (state.counts(), state.bounds().size)
        };
        let total = counts.live();
        PoolStats {
            status: if self.health.is_up() { "active" } else { "unavailable" },
            pool_configured: true,
            size,
            checked_in: counts.idle,
            checked_out: counts.out + counts.closing,
            overflow: total.saturating_sub(size),
            total_connections: total,
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let (counts, bounds, totals) = {
            let state = self.state.lock();
            (state.counts(), state.bounds(), self.recorder.totals_with(state.tally()))
        };
        let target = Target {
            name: "postgres".to_owned(),
            limit: bounds.all(),
            in_use: counts.out + counts.closing,
            idle: counts.idle,
            opening: counts.opening,
            waiting: self.gate.waiting(),
        };
        let raw_overflow = f64::from(counts.live()) - f64::from(bounds.size);
        Snapshot {
            pool: PoolKind::Postgres,
            health: self.health.get(),
            limit: bounds.all(),
            targets: vec![target],
            holders: self.list(),
            totals,
            samples: vec![
                sample(
                    metrics::POSTGRES_OVERFLOW,
                    "QueuePool's overflow counter.",
                    SampleKind::Gauge,
                    raw_overflow,
                ),
                sample(
                    metrics::POSTGRES_CLEANED,
                    "Connections cleaned after an unfinished use.",
                    SampleKind::Counter,
                    count(&self.cleaned),
                ),
                sample(
                    metrics::POSTGRES_CUT_OFF,
                    "Connections cut off, whose server process may live on.",
                    SampleKind::Counter,
                    count(&self.cut_off),
                ),
                sample(
                    metrics::POSTGRES_DETACHED,
                    "Connections taken out of the pool by their holders.",
                    SampleKind::Gauge,
                    f64::from(counts.detached),
                ),
            ],
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
fn count(counter: &std::sync::atomic::AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn sample(name: &'static str, help: &'static str, kind: SampleKind, value: f64) -> Sample {
    Sample { name, help, kind, labels: Vec::new(), value }
}
