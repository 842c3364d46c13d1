//! What every pool of a process can be asked, whatever it pools.
//!
//! The trait is object-safe and exists for the [registry](crate::registry) only: callers use the
//! concrete pools, whose `acquire` differ in type.

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::time::Instant;

use crate::stats::{Label, Snapshot};

/// The four kinds, in the order in which a process closes them: chain sends through HTTP, and both may still
/// write to Redis or Postgres while they finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// JSON-RPC providers.
    Chain,
    /// HTTP connections.
    Http,
    /// Redis connections.
    Redis,
    /// Postgres connections.
    Postgres,
}

impl Label for PoolKind {
    const ALL: &'static [Self] = &[Self::Chain, Self::Http, Self::Redis, Self::Postgres];

    fn as_str(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Http => "http",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

impl std::fmt::Display for PoolKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a drain had to cut. Empty when everything ended by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// One line per lease, call or task that was still running at the deadline: who, from where, since when.
    pub cut: Vec<String>,
}

/// A pool as its process sees it.
pub trait Pool: Send + Sync + 'static {
    /// Which of the four it is.
    fn kind(&self) -> PoolKind;

    /// One consistent picture of the pool. Stats pages, metrics and health are all made from it.
    fn snapshot(&self) -> Snapshot;

    /// Refuses new acquires, waits for what is out until `deadline`, cuts and names the rest, closes every
    /// connection and ends every task. Calling it again is harmless.
    fn drain(&self, deadline: Instant) -> BoxFuture<'_, Drained>;
}
