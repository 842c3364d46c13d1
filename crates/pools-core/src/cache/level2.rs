//! The second level: Redis. Every failure is counted and means "go on without".

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::{
    entry::{Entry, Stamp, decode, encode, millis, now},
    key::CacheKey,
    stats::{Counts, Trouble},
};
use crate::redis::{RedisError, RedisPool, Value, cmd};

/// Deletes a lock that is still ours: after a long load it may be another process's.
const UNLOCK: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";

/// What Redis has under a key.
pub(crate) enum Found {
    Entry(Entry),
    Nothing,
    /// Garbage, another version or another type: a miss.
    Undecodable,
    /// It could not be asked: go on without it for this load.
    Unknown,
}

/// Who may load.
pub(crate) enum Turn<'a> {
    /// This process, until the lock is dropped.
    Ours(Lock<'a>),
    /// Another process does.
    Theirs,
    /// Nobody can say: load.
    Unknown,
}

/// The cache's view of the pool.
#[derive(Clone, Debug)]
pub(crate) struct Level2 {
    pub(crate) redis: RedisPool,
}

impl Level2 {
    pub(crate) async fn get<T>(&self, key: &CacheKey, counts: &Counts) -> Found
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let generation = self.redis.generation();
        let stored = self.redis.run::<Option<Vec<u8>>>(cmd("GET").arg(key.as_str())).await;
        match stored {
            Ok(None) => Found::Nothing,
            Ok(Some(bytes)) => match decode::<T>(key.namespace(), &bytes) {
                Some(entry) => {
                    entry.confirm(generation);
                    Found::Entry(entry)
                }
                None => Found::Undecodable,
            },
            Err(error) => {
                counts.failed(&error, Trouble::Read);
                // A reply of another type (somebody's list under our key) is a poisoned value, not a sick Redis.
                if matches!(error, RedisError::Refused { .. }) { Found::Nothing } else { Found::Unknown }
            }
        }
    }

    /// Takes the right to load `key`, if nobody has it.
    pub(crate) async fn lock(&self, key: &CacheKey, ttl: Duration, counts: &Counts) -> Turn<'_> {
        let name = format!("{}:lock", key.as_str());
        let token = format!("{:032x}", fastrand::u128(..));
        let mut set = cmd("SET");
        set.arg(&name).arg(&token).arg("NX").arg("PX").arg(millis(ttl));
        match self.redis.run::<Option<Value>>(&set).await {
            Ok(Some(_)) => Turn::Ours(Lock { level: self, name, token, held: true }),
            Ok(None) => Turn::Theirs,
            Err(error) => {
                counts.failed(&error, Trouble::Lock);
                Turn::Unknown
            }
        }
    }

    /// Stores a value for as long as it may be of use, then gives the lock back: whoever waits for it finds the
    /// value. Returns the generation of the connection it went through.
    pub(crate) async fn put(
        &self,
        key: &CacheKey,
        stamp: &Stamp,
        json: &[u8],
        lock: Option<Lock<'_>>,
        counts: &Counts,
    ) -> Option<u64> {
        let left = stamp.kept.saturating_sub(now());
        if left <= 0 {
            return None;
        }
        let generation = self.redis.generation();
        let mut set = cmd("SET");
        set.arg(key.as_str()).arg(encode(key.namespace(), stamp, json)).arg("PX").arg(left);
        let stored = self.redis.run::<()>(&set).await;
        if let Some(lock) = lock {
            lock.release().await;
        }
        match stored {
            Ok(()) => Some(generation),
            Err(error) => {
                counts.failed(&error, Trouble::Write);
                None
            }
        }
    }

    pub(crate) async fn delete(&self, key: &CacheKey) -> Result<(), RedisError> {
        self.redis.run::<Value>(cmd("DEL").arg(key.as_str())).await.map(drop)
    }
}

/// The right to load a key, among all processes. Dropped with its load, it is given back in the background.
pub(crate) struct Lock<'a> {
    level: &'a Level2,
    name: String,
    token: String,
    held: bool,
}

impl Lock<'_> {
    /// Gives the right back. If that fails, the lock ends by its own time.
    pub(crate) async fn release(mut self) {
        self.held = false;
        let unlock = unlock(&self.name, &self.token);
        let _released = self.level.redis.run::<Value>(&unlock).await;
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if !self.held || Handle::try_current().is_err() {
            return;
        }
        let (redis, unlock) = (self.level.redis.clone(), unlock(&self.name, &self.token));
        self.level
            .redis
            .tasks()
            .spawn("cache unlock", async move { redis.run::<Value>(&unlock).await.is_ok() });
    }
}

fn unlock(name: &str, token: &str) -> crate::redis::Cmd {
    let mut command = cmd("EVAL");
    command.arg(UNLOCK).arg(1).arg(name).arg(token);
    command
}
