//! A cache of two levels on the Redis pool: in this process, then in Redis.
//!
//! ```text
//!  get_or_load ──► level 1 (moka, bounded in bytes) ──fresh──────────────────────────► the value
//!                     │                             ──stale──► the value, marked; refreshed behind it
//!                     ▼ absent, or not confirmed for `level1_ttl`
//!                  one flight per key ──► Redis ──fresh──► the value
//!                     │                     │ absent
//!                     │                     ▼
//!                     │                  lock in Redis ──another process loads──► look again until `lock_wait`
//!                     │                     │ ours, or Redis unusable
//!                     ▼                     ▼
//!                  followers share ◄──── load ──ok──► both levels ──► the value
//!                                           └ failed ──► the value kept for that, marked; else the error, for all
//! ```
//!
//! **Errors are never cached.** A failed load is told to those who waited for it and to nobody after them.
//! **Redis down**: level 1 goes on alone, each value for its own time; what was written meanwhile is published at
//! the first request after the return. A value that Redis had under an earlier connection and has no more is
//! published again (its memory was lost); one that it had under the present connection was deleted, and is loaded.
//!
//! **Limits.** Level 1 holds [`CacheConfig::level1_bytes`] (an estimate from the encoded sizes). It hears nothing of
//! other processes, so it is believed for [`CacheConfig::level1_ttl`] only.
//!
//! **Cancel safety.** A caller may go at any point. If it was loading, the next one in the queue loads, with its
//! own `load`. A panic in `load` is an error for those who waited for it.
//!
//! **Not here.** Compression; invalidation messages between processes.

mod entry;
mod flight;
mod key;
mod level2;
mod load;
mod policy;
mod stats;

pub use self::{
    key::{CacheKey, Namespace},
    policy::{CacheConfig, Policy},
    stats::{LEVEL1_BYTES, LEVEL1_ENTRIES, LOADS, REQUESTS, TROUBLES},
};

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;

use self::{
    entry::{Age, Entry, millis, now},
    flight::Flights,
    level2::Level2,
    stats::{Answer, Counts, Ledger},
};
use crate::{
    redis::{RedisError, RedisPool},
    resilience::outgoing,
    stats::Sample,
};

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// This process had it.
    Level1,
    /// Redis had it.
    Redis,
    /// It was loaded just now.
    Loaded,
    /// It is past its time: a newer one is being loaded, or could not be.
    Stale,
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
    /// How long ago it was loaded.
    pub age: Duration,
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The load failed, and no older value may be served. All who waited for it share the cause.
    #[error("the value could not be loaded")]
    Failed(#[source] Arc<E>),
    /// The load panicked; the panic is in the log.
    #[error("loading the value panicked")]
    Panicked,
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(cause) => Self::Failed(Arc::clone(cause)),
            Self::Panicked => Self::Panicked,
        }
    }
}

/// moka's word on when to drop an entry; what it is good for until then is [`entry::Stamp`]'s.
struct Expiry;

impl moka::Expiry<Arc<str>, Arc<Entry>> for Expiry {
    fn expire_after_create(&self, _: &Arc<str>, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(Duration::from_millis(u64::try_from(entry.stamp.kept - now()).unwrap_or(0)))
    }

    fn expire_after_update(
        &self,
        key: &Arc<str>,
        entry: &Arc<Entry>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, at)
    }
}

struct Inner {
    level1: moka::future::Cache<Arc<str>, Arc<Entry>>,
    level2: Level2,
    flights: Flights,
    ledger: Ledger,
    refreshes: Arc<Semaphore>,
    config: CacheConfig,
}

/// A cache. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache on `redis`. Its background work belongs to that pool, whose drain ends it.
    pub fn new(redis: RedisPool, config: CacheConfig) -> Self {
        let level1 = moka::future::Cache::builder()
            .max_capacity(config.level1_bytes)
            .weigher(|key: &Arc<str>, entry: &Arc<Entry>| entry.weight(key))
            .expire_after(Expiry)
            .build();
        Self(Arc::new(Inner {
            level1,
            level2: Level2 { redis },
            flights: Flights::default(),
            ledger: Ledger::default(),
            refreshes: Arc::new(Semaphore::new(config.refreshes)),
            config,
        }))
    }

    /// The value of `key`: from this process, from Redis, or from `load`, which is not polled unless it is needed.
    /// It may be polled in the background when a stale value is returned.
    ///
    /// # Errors
    /// [`LoadError`], when the load failed and `policy` allows no older value. A sick Redis is never an error: it
    /// costs a caller at most a few times `REDIS_COMMAND_TIMEOUT_MS` until the pool knows that it is down.
    ///
    /// # Cancel safety
    /// Safe: a load that others wait for is done by one of them.
    pub async fn get_or_load<T, E, F>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        load: F,
    ) -> Result<Cached<T>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        outgoing::begin().await;
        // A hit waits for nothing: without this, a caller in a loop would keep its thread from everybody else.
        tokio::task::coop::consume_budget().await;
        let counts = self.0.ledger.of(key.namespace().name());
        let result = match self.in_level1::<T>(key).await {
            Some((hit, Age::Fresh)) if self.is_believed(&hit) => Ok((hit, Source::Level1)),
            Some((hit, Age::Stale)) => {
                self.refresh(key, policy, &hit, load, &counts);
                Ok((hit, Source::Stale))
            }
            older => self.fly(key, policy, older.map(|(entry, _)| entry), load, &counts).await,
        };
        finish(result, &counts)
    }

    /// Forgets a value, here and in Redis; other processes forget it within [`CacheConfig::level1_ttl`].
    ///
    /// # Errors
    /// Redis could not be told; here it is forgotten.
    pub async fn remove(&self, key: &CacheKey) -> Result<(), RedisError> {
        self.0.level1.invalidate(key.as_str()).await;
        self.0.level2.delete(key).await
    }

    /// The metrics of the cache.
    pub fn samples(&self) -> Vec<Sample> {
        self.0.ledger.samples(self.level1_bytes(), self.0.level1.entry_count())
    }

    /// Bytes in the first level, estimated; never much over [`CacheConfig::level1_bytes`].
    pub fn level1_bytes(&self) -> u64 {
        self.0.level1.weighted_size()
    }

    async fn in_level1<T: Clone + 'static>(&self, key: &CacheKey) -> Option<(Arc<Entry>, Age)> {
        let entry = self.0.level1.get(key.as_str()).await?;
        let age = entry.stamp.age(now());
        (age != Age::Gone && entry.holds::<T>()).then_some((entry, age))
    }

    /// Whether level 1 may answer without asking Redis.
    fn is_believed(&self, entry: &Entry) -> bool {
        let recent = now() - entry.confirmed() < millis(self.0.config.level1_ttl);
        recent || !self.0.level2.redis.is_up()
    }
}

fn finish<T: Clone + 'static, E>(
    result: Result<(Arc<Entry>, Source), LoadError<E>>,
    counts: &Counts,
) -> Result<Cached<T>, LoadError<E>> {
    counts.requests.add(match &result {
        Ok((_, Source::Level1)) => Answer::Level1,
        Ok((_, Source::Redis)) => Answer::Redis,
        Ok((_, Source::Loaded)) => Answer::Miss,
        Ok((_, Source::Stale)) => Answer::Stale,
        Err(_) => Answer::Failed,
    });
    result.map(|(entry, source)| {
        let age = Duration::from_millis(u64::try_from(now() - entry.stamp.written).unwrap_or(0));
        let value = entry.value::<T>().expect("BUG: only entries of this type get here");
        Cached { value, source, age }
    })
}
