//! From a place in the pool to a connection that is fit for use.
//!
//! ```text
//!  acquire ─wait─► place ─► slot ─► a live connection? ─no──────────────► open
//!                                     │ yes              ▲ ▲
//!                                     ├ outdated, too old ─┘ │ (closed first, in the same slot)
//!                                     ├ check failed ────────┘
//!                                     └ check passed ─► lease
//! ```
//!
//! **Cancel safety**: a caller that goes away during the check gives the connection back, where it is cleaned; for
//! one that goes away during the opening see `opening.rs`.
//!
//! A checkout that waits for nothing reads the clock once and takes no lock but bb8's and the state's: not even
//! for its holder, who is part of the state.

use std::{panic::Location, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Shared,
    error::PgError,
    held::{Held, Parts, Place},
    lease::Lease,
    state::{Bounds, CheckOut},
};
use crate::{
    admission::{Permit, Refused},
    holders::{Leases, Record},
    resilience::{deadline, outgoing},
    stats::{CloseReason, Outcome},
};

/// Longest wait for the answer to a check.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) async fn acquire(self: Arc<Self>, site: &'static Location<'static>) -> Result<Lease, PgError> {
        let attempt = Attempt::begin(self);
        let (pool, started) = (attempt.pool(), attempt.started);
        match pool.try_acquire(started, site).await {
            Ok((parts, since)) => {
                pool.tell_if_slow(since - started, site, None);
                Ok(Lease::new(Held::new(attempt.end(Outcome::Ok, since), parts, since)))
            }
            Err(error) => {
                let ended = Instant::now();
                pool.tell_if_slow(ended - started, site, Some(&error));
                let outcome = match &error {
                    PgError::Exhausted { .. } => Outcome::Timeout,
                    PgError::QueueFull { .. } => Outcome::QueueFull,
                    PgError::Closed => Outcome::Refused,
                    _ => Outcome::OpenFailed,
                };
                attempt.end(outcome, ended);
                Err(error)
            }
        }
    }

    fn tell_if_slow(&self, waited: Duration, site: &Location<'_>, error: Option<&PgError>) {
        let threshold = self.config.slow_acquire;
        if threshold.is_zero() || waited < threshold {
            return;
        }
        let longest = self.longest().map(|holder| holder.to_string());
        let error = error.map(PgError::reason);
        tracing::warn!(
            pool = "postgres", site = %site, ?waited, waiting = self.gate.waiting(), longest, error, "slow acquire"
        );
    }

    async fn try_acquire(
        self: &Arc<Self>,
        started: Instant,
        site: &'static Location<'static>,
    ) -> Result<(Parts, Instant), PgError> {
        outgoing::begin().await;
        let (permit, now) = match self.gate.try_enter() {
            // It took no time, so there is no need to ask how much.
            Ok(Some(permit)) => (permit, started),
            _ => (self.wait(started).await?, Instant::now()),
        };
        self.checkout(permit, self.config.connect_timeout, now, Some(site)).await
    }

    fn wait(&self, started: Instant) -> BoxFuture<'_, Result<Permit, PgError>> {
        let latest = started + self.config.timeout;
        let entered = self.gate.enter(deadline::current().map_or(latest, |deadline| deadline.min(latest)));
        Box::pin(async move {
            entered.await.map_err(|refused| match refused {
                Refused::QueueFull { waiting } => PgError::QueueFull { waiting },
                Refused::TimedOut { waited } if self.state.lock().is_paused() => PgError::Paused { waited },
                Refused::TimedOut { .. } => self.exhausted(started),
                _ => PgError::Closed,
            })
        })
    }

    pub(super) fn exhausted(&self, since: Instant) -> PgError {
        let Bounds { size, overflow } = self.state.lock().bounds();
        PgError::Exhausted {
            size,
            overflow,
            waited: since.elapsed(),
            longest: self.longest(),
            connect: self.connect_error.lock().clone(),
        }
    }

    /// Finds a fit connection, or opens one in at most `limit`; since when it is out. What is returned gives itself
    /// back only in a [`Held`].
    pub(super) async fn checkout(
        self: &Arc<Self>,
        permit: Permit,
        limit: Duration,
        now: Instant,
        site: Option<&'static Location<'static>>,
    ) -> Result<(Parts, Instant), PgError> {
        let holder = || site.map(|site| Record::new(site, now));
        loop {
            // Never waits but for the one hop in which bb8 makes a slot: there are as many slots as places.
            let mut slot = self.slots.get_owned().await.map_err(|_| self.exhausted(Instant::now()))?;
            let Some(conn) = slot.conn.take() else {
                if self.slots.state().idle_connections > 0 {
                    // Left by a caller that went away during that hop; behind it there is something better.
                    continue;
                }
                return self.open(Place::new(slot, permit), None, limit, site).await;
            };
            let checked_out = self.state.lock().check_out(conn.id, conn.epoch, holder());
            if checked_out == CheckOut::NotIdle {
                if conn.is_dead() {
                    self.forget(conn, CloseReason::Peer);
                    continue;
                }
                // Condemned as superfluous a moment ago, but we came first.
                let old = Some((conn, CloseReason::MaxFree));
                return self.open(Place::new(slot, permit), old, limit, site).await;
            }
            let mut parts = Parts { conn, place: Some(Place::new(slot, permit)) };
            let unfit = if checked_out == CheckOut::Outdated {
                Some(CloseReason::Invalidated)
            } else if now >= parts.conn.expires {
                Some(CloseReason::Recycled)
            } else if !self.config.pre_ping || now - parts.conn.used < self.config.pre_ping_idle {
                return Ok((parts, now));
            } else {
                let passed;
                (parts, passed) = self.check(parts, now).await;
                if passed {
                    return Ok((parts, Instant::now()));
                }
                Some(CloseReason::CheckFailed)
            };
            let Parts { conn, place } = parts;
            let place = place.expect("BUG: nobody had it who could detach it");
            self.state.lock().condemn(conn.id);
            return self.open(place, unfit.map(|reason| (conn, reason)), limit, site).await;
        }
    }

    /// One round trip. Dropped meanwhile, the connection is given back.
    fn check(self: &Arc<Self>, parts: Parts, now: Instant) -> BoxFuture<'_, (Parts, bool)> {
        Box::pin(async move {
            let held = Held::new(Arc::clone(self), parts, now);
            let passed = held.conn().ping(CHECK_TIMEOUT).await;
            if !passed {
                self.suspect();
            }
            (held.into_parts(), passed)
        })
    }

    /// A connection turned out to be dead: everything opened before now is looked at with suspicion.
    pub(super) fn suspect(&self) {
        self.state.lock().next_epoch();
        self.wake.notify_one();
    }
}

/// Counts an acquire once, as cancelled when its future is dropped.
struct Attempt {
    pool: Option<Arc<Shared>>,
    started: Instant,
}

impl Attempt {
    fn begin(pool: Arc<Shared>) -> Self {
        Self { pool: Some(pool), started: Instant::now() }
    }

    fn pool(&self) -> &Arc<Shared> {
        self.pool.as_ref().expect("BUG: only `end` takes the pool")
    }

    fn end(mut self, outcome: Outcome, at: Instant) -> Arc<Shared> {
        let pool = self.pool.take().expect("BUG: only `end` takes the pool");
        pool.recorder.acquired(outcome, at.saturating_duration_since(self.started));
        pool
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.recorder.acquired(Outcome::Cancelled, self.started.elapsed());
        }
    }
}
