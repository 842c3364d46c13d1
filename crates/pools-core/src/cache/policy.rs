//! How long a value lives, and what the cache may use.

use std::time::Duration;

/// How long one kind of value lives.
///
/// ```text
///  written ──ttl (jittered)──► soft expiry ──stale_for──► hard expiry ──stale_on_error──► gone
///     │ served as it is           │ served as stale,         │ loaded; if that fails,
///     │                           │ refreshed behind it      │ served as stale
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Fresh for so long.
    pub ttl: Duration,
    /// Served stale for so long after that, while it is refreshed in the background.
    pub stale_for: Duration,
    /// Served stale for so long after that if a load fails.
    pub stale_on_error: Duration,
    /// `ttl` of a value that says "nothing there" (JSON `null`, such as `None`).
    pub negative_ttl: Duration,
    /// Share of `ttl` that is taken off at random, so that what was written together does not expire together.
    pub jitter: f64,
}

impl Policy {
    /// Fresh for `ttl`, less up to a tenth; stale for a tenth of it, and for as long again after a failed load.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, stale_for: ttl / 10, stale_on_error: ttl, negative_ttl: ttl.min(NEGATIVE), jitter: 0.1 }
    }
}

/// "Nothing there" changes with the first write elsewhere, so it is believed for a minute at most.
const NEGATIVE: Duration = Duration::from_secs(60);

/// Bounds of one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Bytes of the first level, estimated from the encoded size of its values.
    pub level1_bytes: u64,
    /// How long the first level is believed before Redis is asked again. What another process wrote is seen
    /// after this at the latest. While Redis is down the first level is believed for the value's own `ttl`.
    pub level1_ttl: Duration,
    /// Values that are larger when encoded are returned and not stored.
    pub value_limit: usize,
    /// How long a lock in Redis keeps other processes from loading the same key. A load that takes longer may
    /// run twice.
    pub lock_ttl: Duration,
    /// How long a process waits for another's load before it loads for itself.
    pub lock_wait: Duration,
    /// Background refreshes at once; a stale value beyond that stays stale until the next request.
    pub refreshes: usize,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            level1_bytes: 64 << 20,
            level1_ttl: Duration::from_secs(5),
            value_limit: 1 << 20,
            lock_ttl: Duration::from_secs(5),
            lock_wait: Duration::from_secs(5),
            refreshes: 64,
        }
    }
}
