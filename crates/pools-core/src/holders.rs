//! Who holds what, from which line, for which request, since when.
//!
//! Every lease registers here and leaves when it is dropped, in whatever way: return, cancel or panic. The
//! time-out errors, `?detail=leases` and the leak report read the same list.
//!
//! `Leases` is the list, wherever it is kept: [`Holders`] has one of its own (a short lock per acquire and
//! return, no allocation for the place itself); the Postgres pool keeps its records with its connections.

use std::{fmt, panic::Location, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::Serialize;
use slab::Slab;
use tokio::time::Instant;

use crate::{
    pool::PoolKind,
    tasks::Tasks,
    telemetry::{self, RequestId},
};

/// A lease as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// `file:line` of the `acquire`; says so if the lease is shared by many callers, of whom that is the first.
    pub site: String,
    /// The request it was made for.
    pub request_id: Option<String>,
    /// How long it has been held, in milliseconds.
    #[serde(rename = "held_ms", serialize_with = "as_millis")]
    pub held: Duration,
    /// When it was acquired.
    pub since: DateTime<Utc>,
}

fn as_millis<S: serde::Serializer>(held: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(held.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1?}", self.site, self.held)?;
        self.request_id.as_ref().map_or(Ok(()), |id| write!(f, " (request {id})"))
    }
}

/// A lease on the list.
#[derive(Debug)]
pub(crate) struct Record {
    site: &'static Location<'static>,
    request_id: Option<RequestId>,
    since: Instant,
    reported: bool,
    /// By many, one after the other: that it is out for long says nothing about any of them.
    shared: bool,
}

impl Record {
    /// Acquired at `site`, for the request of the current task if there is one.
    pub(crate) fn new(site: &'static Location<'static>, since: Instant) -> Self {
        Self::for_request(site, telemetry::request_id(), since)
    }

    /// Acquired at `site` for a request, of which this is not the task.
    pub(crate) fn for_request(
        site: &'static Location<'static>,
        request_id: Option<RequestId>,
        since: Instant,
    ) -> Self {
        Self { site, request_id, since, reported: false, shared: false }
    }

    /// Acquired for many, of whom the first stood at `site`.
    #[cfg(feature = "postgres")]
    pub(crate) fn shared(site: &'static Location<'static>, since: Instant) -> Self {
        Self { site, request_id: None, since, reported: false, shared: true }
    }

    /// To be called when the lease is back.
    pub(crate) fn returned(&self, pool: PoolKind) {
        if self.reported {
            let holder = self.describe(Instant::now());
            tracing::warn!(%pool, site = holder.site, held = ?holder.held, "late lease returned");
        }
    }

    fn describe(&self, now: Instant) -> Holder {
        let held = now.saturating_duration_since(self.since);
        let label = if self.shared { " (shared by many)" } else { "" };
        Holder {
            site: format!("{}:{}{label}", self.site.file(), self.site.line()),
            request_id: self.request_id.as_ref().map(ToString::to_string),
            held,
            since: Utc::now() - held,
        }
    }
}

/// The list of a pool's leases.
#[derive(Debug)]
pub struct Holders {
    pool: PoolKind,
    records: Mutex<Slab<Record>>,
}

impl Holders {
    /// An empty list.
    pub fn new(pool: PoolKind) -> Arc<Self> {
        Arc::new(Self { pool, records: Mutex::default() })
    }

    /// Enters a lease acquired at `site`, for the request of the current task if there is one.
    pub fn enter(self: &Arc<Self>, site: &'static Location<'static>) -> HolderGuard {
        let since = Instant::now();
        let key = self.records.lock().insert(Record::new(site, since));
        HolderGuard { holders: Arc::clone(self), key, since }
    }

    /// All leases, longest first.
    pub fn list(&self) -> Vec<Holder> {
        Leases::list(self)
    }

    /// The lease held longest.
    pub fn longest(&self) -> Option<Holder> {
        Leases::longest(self)
    }

    /// Reports each lease that is out longer than `threshold`, once; its late return is reported too.
    pub fn watch(self: &Arc<Self>, tasks: &Tasks, threshold: Duration) {
        watch(self, tasks, threshold);
    }
}

impl Leases for Holders {
    fn pool(&self) -> PoolKind {
        self.pool
    }

    fn visit(&self, see: &mut dyn FnMut(&mut Record)) {
        self.records.lock().iter_mut().for_each(|(_, record)| see(record));
    }
}

/// The leases of a pool that are out.
pub(crate) trait Leases: Send + Sync + 'static {
    /// Whose they are.
    fn pool(&self) -> PoolKind;

    /// Shows each of them.
    fn visit(&self, see: &mut dyn FnMut(&mut Record));

    /// All leases, longest first.
    fn list(&self) -> Vec<Holder> {
        let (now, mut list) = (Instant::now(), Vec::new());
        self.visit(&mut |record| list.push(record.describe(now)));
        list.sort_by_key(|holder| std::cmp::Reverse(holder.held));
        list
    }

    /// The lease held longest.
    fn longest(&self) -> Option<Holder> {
        self.list().into_iter().next()
    }

    /// Those out for longer than `threshold` that were not in the answer before.
    fn overdue(&self, threshold: Duration) -> Vec<Holder> {
        let (now, mut overdue) = (Instant::now(), Vec::new());
        self.visit(&mut |record| {
            if !record.reported && !record.shared && now.saturating_duration_since(record.since) >= threshold
            {
                record.reported = true;
                overdue.push(record.describe(now));
            }
        });
        overdue
    }
}

/// Reports each lease that is out longer than `threshold`, once; its late return is reported too.
pub(crate) fn watch(leases: &Arc<impl Leases>, tasks: &Tasks, threshold: Duration) {
    let leases = Arc::downgrade(leases);
    let stopping = tasks.stopping();
    tasks.spawn("leak watch", async move {
        let mut ticks = tokio::time::interval(threshold / 4);
        let mut stopping = std::pin::pin!(stopping);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = &mut stopping => return,
            }
            let Some(leases) = leases.upgrade() else { return };
            for holder in leases.overdue(threshold) {
                tracing::warn!(
                    pool = %leases.pool(), site = holder.site, held = ?holder.held,
                    request_id = holder.request_id, "lease held too long: a leak, or work to be shortened"
                );
            }
        }
    });
}

/// Keeps a lease on the list until it is dropped.
#[derive(Debug)]
pub struct HolderGuard {
    holders: Arc<Holders>,
    key: usize,
    since: Instant,
}

impl HolderGuard {
    /// How long the lease has been out.
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for HolderGuard {
    fn drop(&mut self) {
        let record = self.holders.records.lock().remove(self.key);
        record.returned(self.holders.pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_holder_is_named_by_the_line_that_acquired() {
        let holders = Holders::new(PoolKind::Postgres);
        let first = holders.enter(Location::caller());
        tokio::time::advance(Duration::from_secs(3)).await;
        let _second = holders.enter(Location::caller());

        let longest = holders.longest().expect("two leases are out");
        assert_eq!(longest.held, Duration::from_secs(3));
        assert!(longest.site.contains("holders.rs:"), "{longest}");

        drop(first);
        assert_eq!(holders.list().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leak_is_reported_once() {
        let holders = Holders::new(PoolKind::Postgres);
        let _lease = holders.enter(Location::caller());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(holders.overdue(Duration::from_secs(5)).len(), 1);
        assert_eq!(holders.overdue(Duration::from_secs(5)).len(), 0);
    }

    #[tokio::test]
    async fn a_panicking_holder_leaves_the_list() {
        let holders = Holders::new(PoolKind::Http);
        let guard = holders.enter(Location::caller());
        let panicked = tokio::spawn(async move {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(panicked.await.is_err());
        assert!(holders.list().is_empty());
    }
}
