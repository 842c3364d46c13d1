//! One cached value: when it was written, until when it is what, and how it is stored in Redis.
//!
//! Stored as one line `pools1 <version> <written> <fresh> <stale> <kept>` (milliseconds since 1970) and then
//! the value as JSON. Anything else under our key is a miss.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use serde::{Serialize, de::DeserializeOwned};

use super::{key::Namespace, policy::Policy};

const MAGIC: &str = "pools1";
/// What an entry costs in memory beside its value, about: moka's bookkeeping, the key, this struct.
const OVERHEAD: usize = 400;

/// Milliseconds since 1970: entries cross processes.
pub(crate) fn now() -> i64 {
    Utc::now().timestamp_millis()
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// What an entry is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    /// To be served while it is refreshed.
    Stale,
    /// To be served if a load fails.
    Kept,
    Gone,
}

/// The moments of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) written: i64,
    pub(crate) fresh: i64,
    pub(crate) stale: i64,
    pub(crate) kept: i64,
}

impl Stamp {
    pub(crate) fn new(policy: &Policy, negative: bool, now: i64) -> Self {
        let ttl = if negative { policy.negative_ttl } else { policy.ttl };
        let jitter = policy.jitter.clamp(0.0, 1.0) * fastrand::f64();
        let fresh = now.saturating_add(millis(ttl.mul_f64(1.0 - jitter)));
        let stale = fresh.saturating_add(millis(policy.stale_for));
        Self { written: now, fresh, stale, kept: stale.saturating_add(millis(policy.stale_on_error)) }
    }

    pub(crate) fn age(&self, now: i64) -> Age {
        match now {
            now if now < self.fresh => Age::Fresh,
            now if now < self.stale => Age::Stale,
            now if now < self.kept => Age::Kept,
            _ => Age::Gone,
        }
    }
}

/// A value in the first level.
#[derive(Debug)]
pub(crate) struct Entry {
    value: Arc<dyn Any + Send + Sync>,
    pub(crate) stamp: Stamp,
    encoded: usize,
    /// When Redis last had it.
    confirmed: AtomicI64,
    /// The connection through which that was seen; 0 for never.
    seen_by: AtomicU64,
    refreshing: AtomicBool,
    /// A failed refresh is not repeated before this.
    refresh_after: AtomicI64,
}

impl Entry {
    pub(crate) fn new<T: Send + Sync + 'static>(value: T, stamp: Stamp, encoded: usize) -> Self {
        Self {
            value: Arc::new(value),
            stamp,
            encoded,
            confirmed: AtomicI64::new(now()),
            seen_by: AtomicU64::new(0),
            refreshing: AtomicBool::new(false),
            refresh_after: AtomicI64::new(0),
        }
    }

    /// The value, if it is a `T`: one key used with two types is two caches that never meet.
    pub(crate) fn value<T: Clone + 'static>(&self) -> Option<T> {
        self.value.downcast_ref::<T>().cloned()
    }

    pub(crate) fn holds<T: 'static>(&self) -> bool {
        self.value.is::<T>()
    }

    /// Whether the other is the same value, read once more.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.stamp == other.stamp && (*self.value).type_id() == (*other.value).type_id()
    }

    pub(crate) fn weight(&self, key: &str) -> u32 {
        u32::try_from(self.encoded + key.len() + OVERHEAD).unwrap_or(u32::MAX)
    }

    /// Redis has it, as seen through the connection of this generation.
    pub(crate) fn confirm(&self, generation: u64) {
        self.confirmed.store(now(), Ordering::Relaxed);
        self.seen_by.store(generation, Ordering::Relaxed);
    }

    pub(crate) fn confirmed(&self) -> i64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn seen_by(&self) -> u64 {
        self.seen_by.load(Ordering::Relaxed)
    }

    /// Whether the caller is the one to refresh it.
    pub(crate) fn claim_refresh(&self, now: i64) -> bool {
        now >= self.refresh_after.load(Ordering::Relaxed) && !self.refreshing.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn release_refresh(&self, after: i64) {
        self.refresh_after.store(after, Ordering::Relaxed);
        self.refreshing.store(false, Ordering::Relaxed);
    }
}

/// How a value is stored in Redis.
pub(crate) fn encode(namespace: Namespace, stamp: &Stamp, json: &[u8]) -> Vec<u8> {
    let Stamp { written, fresh, stale, kept } = stamp;
    let mut bytes =
        format!("{MAGIC} {} {written} {fresh} {stale} {kept}\n", namespace.version()).into_bytes();
    bytes.extend_from_slice(json);
    bytes
}

/// The value of a type, or `None` for garbage, another version or another type.
pub(crate) fn decode<T>(namespace: Namespace, bytes: &[u8]) -> Option<Entry>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
    let version = namespace.version().to_string();
    if words.next() != Some(MAGIC) || words.next() != Some(&version) {
        return None;
    }
    let mut moment = || words.next()?.parse().ok();
    let stamp = Stamp { written: moment()?, fresh: moment()?, stale: moment()?, kept: moment()? };
    let json = &bytes[end + 1..];
    let value: T = serde_json::from_slice(json).ok()?;
    Some(Entry::new(value, stamp, json.len()))
}

/// A value as JSON, and whether it says "nothing there".
pub(crate) fn to_json<T: Serialize>(value: &T) -> Option<(Vec<u8>, bool)> {
    let json = serde_json::to_vec(value).ok()?;
    let negative = json == b"null";
    Some((json, negative))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Namespace = Namespace::new("kind", 7);

    #[test]
    fn what_is_stored_is_what_is_read_and_anything_else_is_a_miss() {
        let stamp = Stamp { written: 1, fresh: 2, stale: 3, kept: 4 };
        let stored = encode(KIND, &stamp, b"[1,2]");
        let entry = decode::<Vec<u8>>(KIND, &stored).expect("just stored");
        assert_eq!((entry.value::<Vec<u8>>(), entry.stamp), (Some(vec![1, 2]), stamp));

        assert!(decode::<String>(KIND, &stored).is_none(), "another type");
        assert!(decode::<Vec<u8>>(Namespace::new("kind", 8), &stored).is_none(), "another version");
        for garbage in
            [&b""[..], b"\n", b"[1,2]", b"pools1 7 1 2 3\n[1]", b"pools1 7 1 2 3 4\n[1", b"\xff\n[]"]
        {
            assert!(decode::<Vec<u8>>(KIND, garbage).is_none(), "{garbage:?}");
        }
    }

    #[test]
    fn fresh_stale_kept_and_gone_follow_each_other() {
        let second = Duration::from_secs(1);
        let policy = Policy { jitter: 0.0, stale_for: second, stale_on_error: second, ..Policy::new(second) };
        let stamp = Stamp::new(&policy, false, 0);
        let ages = [0, 999, 1_000, 1_999, 2_000, 2_999, 3_000].map(|now| stamp.age(now));
        use Age::{Fresh, Gone, Kept, Stale};
        assert_eq!(ages, [Fresh, Fresh, Stale, Stale, Kept, Kept, Gone]);
    }
}
