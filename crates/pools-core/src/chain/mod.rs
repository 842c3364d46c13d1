//! The chain pool: JSON-RPC providers, one per URL, shared by everybody.
//!
//! ```text
//!  ChainPool ── provider() ──► Provider ── request · call · read_many ──► State (queue, batches, endpoints)
//!      │                          ▲                                          │ Step: POSTs, probes, answers
//!      │                          │ answers                                  ▼
//!      │                          └────────────────────────── driver task ──► Transport ──► HTTP pool ──► node
//!      └── sender(key) ──► Sender (owner of the nonces) ── sign, send, receipt ──► Provider
//! ```
//!
//! **Batching.** A call goes at once when nothing is out to its endpoint; else it gathers with others until everything is
//! back, a batch is full, or `RPC_BATCH_STALL_MS` is over. At most four POSTs are out per endpoint. An endpoint that
//! refuses a batch gets halves, and what it accepts is remembered.
//!
//! **Safety.** Replies are matched by id; an answer nobody can be sure of is asked for again, never guessed. Reads are
//! sent again after a failure, to the next endpoint if there is one; writes only when they surely did not arrive. No
//! answer is believed before the endpoint has named the right chain.
//!
//! **Limits.** 65,536 queued calls; 1 MiB per POST, 32 MiB per answer; 10 s per attempt and 30 s per call, or less.
//!
//! **Health.** Each endpoint is asked for its chain id when nothing else was heard from it for `RPC_POLLING_INTERVAL_MS`,
//! twice a second while it is down. Nobody has to call for the pool to notice either.
//!
//! **Cancel.** Callers may go away at any point. **Shutdown**: [`ChainPool::drain`] refuses new calls, lets the rest
//! finish until the deadline, and names what it had to cut. Dropping the last clone of the pool stops everything at once.
//!
//! **Not here**: subscriptions, head lag, reorgs, caching of answers.

mod codec;
mod driver;
mod endpoint;
mod entry;
mod error;
mod manager;
mod provider;
mod receipt;
mod reply;
mod sender;
mod signer;
mod state;
mod stats;
mod transport;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    health::{Health, HealthCell},
    holders::Holders,
    http::HttpPool,
    pool::{Drained, Pool, PoolKind},
    redact::SecretString,
    stats::{CloseReason, Recorder, Snapshot},
    tasks::Tasks,
};

pub use crate::config::chain::ChainConfig;
pub use codec::{
    Address, BadSignature, Call, Function, Hash, Token, U256, checksummed, contract_address, encode_values,
    from_hex, keccak, parse_address, to_hex,
};
pub use error::ChainError;
pub use provider::{Block, Header, Provider};
pub use receipt::{PendingTx, Receipt};
pub use sender::{Sender, Transaction};
pub use stats::ChainStats;

use driver::Shared;
use manager::Providers;
use sender::Senders;

/// See the [module](self). Clones are the same pool.
#[derive(Clone)]
pub struct ChainPool(Arc<Inner>);

struct Inner {
    providers: Arc<Providers>,
    senders: Senders,
    health: Arc<HealthCell>,
    shared: Arc<Shared>,
    tasks: Tasks,
    stop: CancellationToken,
    /// Stops every task when the last clone of the pool is dropped.
    _stops: DropGuard,
}

impl std::fmt::Debug for ChainPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainPool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl ChainPool {
    /// A pool that sends through `http`. Nothing is sent yet; the provider of `RPC_URL` is made and watched from
    /// its first use, or from the next turn of the runtime on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: ChainConfig, http: HttpPool) -> Self {
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let health = Arc::new(HealthCell::new(PoolKind::Chain));
        let shared =
            Arc::new(Shared { recorder: Recorder::default(), holders: Holders::new(PoolKind::Chain) });
        let providers = Providers::new(
            config,
            http,
            tasks.clone(),
            Arc::clone(&shared),
            Arc::clone(&health),
            stop.clone(),
        );
        let providers = Arc::new(providers);
        tasks.spawn("chain supervisor", supervise(Arc::clone(&providers), stop.clone()));
        let senders = Senders::new(tasks.clone(), stop.clone());
        let _stops = stop.clone().drop_guard();
        Self(Arc::new(Inner { providers, senders, health, shared, tasks, stop, _stops }))
    }

    /// The provider of `RPC_URL`.
    pub fn provider(&self) -> Provider {
        self.0.providers.default()
    }

    /// The provider of another URL, or comma-separated list of URLs of one chain. One per normalised URL.
    ///
    /// # Errors
    /// [`ChainError::BadUrl`].
    pub fn provider_for(&self, url: &str) -> Result<Provider, ChainError> {
        self.0.providers.of_url(url)
    }

    /// The one owner of the nonces of `key` on the chain of `provider`.
    ///
    /// # Errors
    /// [`ChainError::BadKey`].
    pub fn sender(&self, key: &SecretString, provider: Provider) -> Result<Sender, ChainError> {
        self.0.senders.get(key, provider)
    }

    /// What the stats page shows.
    pub fn stats(&self) -> ChainStats {
        self.0.providers.stats()
    }

    /// Health of the provider of `RPC_URL`.
    pub fn health(&self) -> Health {
        self.0.health.get()
    }

    /// Whether the chain of `RPC_URL` answered last time.
    pub fn is_up(&self) -> bool {
        self.0.health.is_up()
    }

    /// See [`Pool::snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        let (targets, counts) = self.0.providers.targets();
        Snapshot {
            pool: PoolKind::Chain,
            health: self.health(),
            limit: targets.iter().map(|target| target.limit).sum(),
            holders: self.0.shared.holders.list(),
            totals: self.0.shared.recorder.totals(),
            samples: counts.samples(self.0.providers.all().len()),
            targets,
        }
    }

    async fn drain_until(&self, deadline: Instant) -> Drained {
        let providers = self.0.providers.all();
        providers.iter().for_each(|provider| provider.state.lock().close());
        // Calls last milliseconds; their end is looked for often enough to go unnoticed, without a channel for it.
        while Instant::now() < deadline && !providers.iter().all(|provider| provider.is_idle()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut cut: Vec<_> = providers.iter().flat_map(|provider| provider.cut()).collect();
        if !self.0.stop.is_cancelled() {
            providers.iter().for_each(|_| self.0.shared.recorder.closed(CloseReason::Drained));
        }
        self.0.stop.cancel();
        cut.extend(
            self.0.tasks.shutdown(deadline + Duration::from_millis(100)).await.into_iter().map(str::to_owned),
        );
        Drained { cut }
    }
}

impl Pool for ChainPool {
    fn kind(&self) -> PoolKind {
        PoolKind::Chain
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot()
    }

    fn drain(&self, deadline: Instant) -> BoxFuture<'_, Drained> {
        self.drain_until(deadline).boxed()
    }
}

/// Makes the provider of `RPC_URL`, whose driver watches its health, and drops idle ones.
async fn supervise(providers: Arc<Providers>, stop: CancellationToken) {
    providers.default();
    let period = (providers.ttl() / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
    let mut ticks = tokio::time::interval(period);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        providers.clean_up(Instant::now());
    }
}
