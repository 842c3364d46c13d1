//! What the cache counts, by namespace.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;

use crate::{
    redis::RedisError,
    stats::{Counters, Label, Sample, SampleKind},
};

/// Requests by how they were answered. Counter. Labels: `cache`, `result`.
pub const REQUESTS: &str = "pools_cache_requests_total";
/// Loads by how they ended. Counter. Labels: `cache`, `result`.
pub const LOADS: &str = "pools_cache_loads_total";
/// What did not work, without hurting a request. Counter. Labels: `cache`, `kind`.
pub const TROUBLES: &str = "pools_cache_troubles_total";
/// Bytes in the first level, estimated. Gauge.
pub const LEVEL1_BYTES: &str = "pools_cache_level1_bytes";
/// Values in the first level. Gauge.
pub const LEVEL1_ENTRIES: &str = "pools_cache_level1_entries";

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Level1,
    Redis,
    Miss,
    Stale,
    Failed,
}

impl Label for Answer {
    const ALL: &'static [Self] = &[Self::Level1, Self::Redis, Self::Miss, Self::Stale, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Level1 => "hit_l1",
            Self::Redis => "hit_redis",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }
}

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Ok,
    Failed,
    Panicked,
    Cancelled,
}

impl Label for Load {
    const ALL: &'static [Self] = &[Self::Ok, Self::Failed, Self::Panicked, Self::Cancelled];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Redis did not answer a read.
    Read,
    /// Redis did not take a write, such as at `maxmemory`.
    Write,
    /// Redis did not answer about a lock.
    Lock,
    /// Another process held the lock for too long.
    LockWait,
    /// A stored value is garbage, of another version or another type.
    Undecodable,
    /// A value over the limit, or that is no JSON, was not stored.
    NotStored,
}

impl Label for Trouble {
    const ALL: &'static [Self] =
        &[Self::Read, Self::Write, Self::Lock, Self::LockWait, Self::Undecodable, Self::NotStored];

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Lock => "lock",
            Self::LockWait => "lock_wait",
            Self::Undecodable => "undecodable",
            Self::NotStored => "not_stored",
        }
    }
}

/// Counters of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: Counters<Answer>,
    pub(crate) loads: Counters<Load>,
    troubles: Counters<Trouble>,
}

impl Counts {
    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.troubles.add(trouble);
    }

    /// A Redis that is known to be down is no trouble of the cache's.
    pub(crate) fn failed(&self, error: &RedisError, trouble: Trouble) {
        if !matches!(error, RedisError::Down { .. } | RedisError::Closed) {
            self.troubles.add(trouble);
        }
    }
}

/// Counters of all namespaces. A namespace is a constant of the program, so there are few.
#[derive(Debug, Default)]
pub(crate) struct Ledger(RwLock<BTreeMap<&'static str, Arc<Counts>>>);

impl Ledger {
    pub(crate) fn of(&self, namespace: &'static str) -> Arc<Counts> {
        if let Some(counts) = self.0.read().get(namespace) {
            return Arc::clone(counts);
        }
        Arc::clone(self.0.write().entry(namespace).or_default())
    }

    pub(crate) fn samples(&self, bytes: u64, entries: u64) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (cache, counts) in self.0.read().iter() {
            let requests = ("result", &counts.requests);
            add(&mut samples, REQUESTS, "Requests by how they were answered.", cache, requests);
            add(&mut samples, LOADS, "Loads by how they ended.", cache, ("result", &counts.loads));
            let troubles = ("kind", &counts.troubles);
            add(&mut samples, TROUBLES, "What did not work, without hurting a request.", cache, troubles);
        }
        samples.push(gauge(LEVEL1_BYTES, "Bytes in the first level, estimated.", bytes));
        samples.push(gauge(LEVEL1_ENTRIES, "Values in the first level.", entries));
        samples
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
fn add<L: Label + PartialEq>(
    samples: &mut Vec<Sample>,
    name: &'static str,
    help: &'static str,
    cache: &'static str,
    (label, counters): (&'static str, &Counters<L>),
) {
    samples.extend(counters.counts().map(|(value, count)| Sample {
        name,
        help,
        kind: SampleKind::Counter,
        labels: vec![("cache", cache), (label, value.as_str())],
        value: count as f64,
    }));
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
fn gauge(name: &'static str, help: &'static str, value: u64) -> Sample {
    Sample { name, help, kind: SampleKind::Gauge, labels: Vec::new(), value: value as f64 }
}
