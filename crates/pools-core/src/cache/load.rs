//! What happens on a miss: one flight per key, Redis, the lock, the load.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep};

use super::{
    Cache, LoadError, Source,
    entry::{Age, Entry, Stamp, now, to_json},
    key::CacheKey,
    level2::{Found, Lock, Turn},
    policy::Policy,
    stats::{Counts, Load, Trouble},
};

/// How often a process looks whether another has finished loading.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A failed refresh is not repeated for so long: an upstream that is down must not be asked at every request.
const REFRESH_PAUSE: i64 = 1_000;

type Outcome<E> = Result<(Arc<Entry>, Source), LoadError<E>>;

/// Whether somebody waits for the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A caller does: a value must come out, whatever Redis says.
    Wanted,
    /// Nobody: if another process loads, that will do.
    Refresh,
}

/// Counts a load that was given up half-way.
struct Loading<'a> {
    counts: &'a Counts,
    end: Load,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.counts.loads.add(self.end);
    }
}

impl Cache {
    pub(super) async fn fly<T, E, F>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        older: Option<Arc<Entry>>,
        load: F,
        counts: &Arc<Counts>,
    ) -> Outcome<E>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let work = self.work::<T, E, F>(key, policy, older, load, counts, Mode::Wanted);
        // Outcomes are told apart by their type, and the entries of two value types are one type.
        let outcome = self.0.flights.join(key.shared(), work.map(|outcome| outcome.map(Typed::<T, E>::new)));
        outcome.await.expect("BUG: wanted work has an outcome").outcome
    }

    /// Replaces a stale value in the background, unless that is being done already.
    pub(super) fn refresh<T, E, F>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        stale: &Arc<Entry>,
        load: F,
        counts: &Arc<Counts>,
    ) where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.0.refreshes).try_acquire_owned() else { return };
        if !stale.claim_refresh(now()) {
            return;
        }
        let claim = Claim { entry: Arc::clone(stale), after: now() + REFRESH_PAUSE };
        let (cache, key, policy, counts) = (self.clone(), key.clone(), *policy, Arc::clone(counts));
        let tasks = self.0.level2.redis.tasks();
        let stopping = tasks.stopping();
        tasks.spawn("cache refresh", async move {
            let (_place, claim) = (place, claim);
            let older = Some(Arc::clone(&claim.entry));
            let work = cache.work::<T, E, F>(&key, &policy, older, load, &counts, Mode::Refresh);
            let work = work.map(|outcome| outcome.map(Typed::<T, E>::new));
            tokio::select! {
                _outcome = cache.0.flights.join(key.shared(), work) => {}
                () = stopping => {}
            }
        });
    }

    async fn work<T, E, F>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        mut older: Option<Arc<Entry>>,
        load: F,
        counts: &Arc<Counts>,
        mode: Mode,
    ) -> Option<Outcome<E>>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        // Somebody may have finished between the caller's look and its turn.
        if let Some((entry, Age::Fresh)) = self.in_level1::<T>(key).await {
            if self.is_believed(&entry) {
                return Some(Ok((entry, Source::Level1)));
            }
            older = Some(entry);
        }
        let usable = match self.0.level2.get::<T>(key, counts).await {
            Found::Entry(entry) => match self.take_over(key, entry).await {
                (entry, Age::Fresh) => return Some(Ok((entry, Source::Redis))),
                (entry, Age::Stale) if mode == Mode::Wanted => {
                    self.refresh(key, policy, &entry, load, counts);
                    return Some(Ok((entry, Source::Stale)));
                }
                (entry, _) => {
                    older = Some(entry);
                    true
                }
            },
            Found::Nothing => {
                if let Some(entry) = self.publish_again::<T>(key, older.as_ref(), counts).await {
                    return Some(Ok((entry, Source::Level1)));
                }
                true
            }
            // Counted once for a request, though the loop below may read it again.
            Found::Undecodable => {
                counts.trouble(Trouble::Undecodable);
                true
            }
            Found::Unknown => {
                if let Some(entry) = older.as_ref().filter(|entry| entry.stamp.age(now()) == Age::Fresh) {
                    return Some(Ok((Arc::clone(entry), Source::Level1)));
                }
                false
            }
        };
        let mut lock = None;
        let give_up = Instant::now() + self.0.config.lock_wait;
        while usable && lock.is_none() {
            match self.0.level2.lock(key, self.0.config.lock_ttl, counts).await {
                Turn::Ours(ours) => lock = Some(ours),
                Turn::Unknown => break,
                Turn::Theirs if mode == Mode::Refresh => return None,
                Turn::Theirs if Instant::now() >= give_up => {
                    counts.trouble(Trouble::LockWait);
                    break;
                }
                Turn::Theirs => sleep(LOOK_AGAIN).await,
            }
            // Also with the lock: between our look and our lock another may have stored its value and unlocked.
            if let Found::Entry(entry) = self.0.level2.get::<T>(key, counts).await
                && let (entry, Age::Fresh) = self.take_over(key, entry).await
            {
                return Some(Ok((entry, Source::Redis)));
            }
        }
        Some(self.load(key, policy, older, load, lock, counts).await)
    }

    async fn load<T, E, F>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        older: Option<Arc<Entry>>,
        load: F,
        lock: Option<Lock<'_>>,
        counts: &Arc<Counts>,
    ) -> Outcome<E>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut loading = Loading { counts, end: Load::Cancelled };
        let loaded = AssertUnwindSafe(load).catch_unwind().await;
        let error = match loaded {
            Ok(Ok(value)) => {
                loading.end = Load::Ok;
                drop(loading);
                return Ok((self.store(key, policy, value, lock, counts).await, Source::Loaded));
            }
            Ok(Err(cause)) => {
                loading.end = Load::Failed;
                LoadError::Failed(Arc::new(cause))
            }
            Err(_) => {
                loading.end = Load::Panicked;
                tracing::error!(cache = key.namespace().name(), "a load panicked");
                LoadError::Panicked
            }
        };
        // Dropped, the lock is given back in the background: the error need not wait for that.
        drop(lock);
        older
            .filter(|entry| entry.stamp.age(now()) != Age::Gone)
            .map(|entry| (entry, Source::Stale))
            .ok_or(error)
    }

    async fn store<T>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        value: T,
        lock: Option<Lock<'_>>,
        counts: &Counts,
    ) -> Arc<Entry>
    where
        T: Serialize + Send + Sync + 'static,
    {
        let json = to_json(&value).filter(|(json, _)| json.len() <= self.0.config.value_limit);
        let Some((json, negative)) = json else {
            counts.trouble(Trouble::NotStored);
            let stamp = Stamp::new(policy, false, now());
            return Arc::new(Entry::new(value, stamp, 0));
        };
        let stamp = Stamp::new(policy, negative, now());
        let entry = Arc::new(Entry::new(value, stamp, json.len()));
        self.0.level1.insert(key.shared(), Arc::clone(&entry)).await;
        if let Some(generation) = self.0.level2.put(key, &stamp, &json, lock, counts).await {
            entry.confirm(generation);
        }
        entry
    }

    /// Puts what Redis had into level 1. What is there already stays, with what it knows: a stale value whose
    /// refresh failed just now must not forget that by being read again.
    async fn take_over(&self, key: &CacheKey, entry: Entry) -> (Arc<Entry>, Age) {
        let age = entry.stamp.age(now());
        if let Some(present) = self.0.level1.get(key.as_str()).await
            && present.is_same(&entry)
        {
            present.confirm(entry.seen_by());
            return (present, age);
        }
        let entry = Arc::new(entry);
        if age != Age::Gone {
            self.0.level1.insert(key.shared(), Arc::clone(&entry)).await;
        }
        (entry, age)
    }

    /// Gives Redis back what it never had, or lost with an earlier connection's server.
    async fn publish_again<T>(
        &self,
        key: &CacheKey,
        older: Option<&Arc<Entry>>,
        counts: &Counts,
    ) -> Option<Arc<Entry>>
    where
        T: Serialize + Clone + Send + Sync + 'static,
    {
        let entry = older.filter(|entry| entry.stamp.age(now()) == Age::Fresh)?;
        if entry.seen_by() == self.0.level2.redis.generation() {
            return None;
        }
        let (json, _) = to_json(&entry.value::<T>()?)?;
        let generation = self.0.level2.put(key, &entry.stamp, &json, None, counts).await?;
        entry.confirm(generation);
        Some(Arc::clone(entry))
    }
}

/// An outcome that knows the type of its value.
struct Typed<T, E> {
    outcome: Outcome<E>,
    value: std::marker::PhantomData<fn() -> T>,
}

impl<T, E> Typed<T, E> {
    fn new(outcome: Outcome<E>) -> Self {
        Self { outcome, value: std::marker::PhantomData }
    }
}

impl<T, E> Clone for Typed<T, E> {
    fn clone(&self) -> Self {
        Self::new(self.outcome.clone())
    }
}

/// The right to refresh an entry; whatever becomes of the refresh, another may follow after a pause.
struct Claim {
    entry: Arc<Entry>,
    after: i64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.entry.release_refresh(self.after);
    }
}
