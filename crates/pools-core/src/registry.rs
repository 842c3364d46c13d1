//! Every pool of a process: asked together, drained in order.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use crate::{
    pool::{Pool, PoolKind},
    stats::{Sample, Snapshot},
};

type Source = Arc<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// The pools of a process, and the other sources of metrics beside them.
#[derive(Default)]
pub struct Registry {
    pools: Vec<Arc<dyn Pool>>,
    sources: Vec<Source>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pools.iter().map(|pool| pool.kind())).finish()
    }
}

impl Registry {
    /// Without pools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pool.
    pub fn add(&mut self, pool: Arc<dyn Pool>) {
        self.pools.push(pool);
        self.pools.sort_by_key(|pool| pool.kind());
    }

    /// Adds metrics of something that is not a pool, such as a cache or a scan.
    pub fn add_samples(&mut self, source: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        self.sources.push(Arc::new(source));
    }

    /// One picture of every pool.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.pools.iter().map(|pool| pool.snapshot()).collect()
    }

    /// The picture of one pool.
    pub fn snapshot(&self, kind: PoolKind) -> Option<Snapshot> {
        self.pools.iter().find(|pool| pool.kind() == kind).map(|pool| pool.snapshot())
    }

    /// Metrics of the other sources.
    pub fn samples(&self) -> Vec<Sample> {
        self.sources.iter().flat_map(|source| source()).collect()
    }

    /// Drains chain, HTTP, Redis and Postgres in this order, each until `deadline`, and names what was cut.
    pub async fn drain(&self, deadline: Instant) -> Vec<String> {
        let mut cut = Vec::new();
        for pool in &self.pools {
            let drained = pool.drain(deadline).await;
            tracing::info!(pool = %pool.kind(), cut = drained.cut.len(), "pool drained");
            cut.extend(drained.cut.into_iter().map(|line| format!("{}: {line}", pool.kind())));
        }
        cut
    }
}
