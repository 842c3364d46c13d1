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
//! **Cancel safety**: opening runs in a task of the pool that holds slot and place. If its caller goes away, the
//! connection goes to the next one. A caller that goes away during the check gives the connection back, where it
//! is cleaned.

use std::{
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    Shared,
    cache::Statements,
    conn::Conn,
    error::{OpenError, PgError, chain},
    held::{Held, Parts, Place},
    lease::Lease,
    manager::Opened,
    rules::Rules,
    state::{Bounds, CheckOut, ConnId, Phase},
};
use crate::{
    admission::{Permit, Refused},
    holders::{Leases, Record},
    resilience::{Backoff, deadline, outgoing},
    stats::{CloseReason, Outcome},
};

/// Longest wait for the answer to a check.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// What the network may add to the server's statement time-out before an answer counts as lost.
const NETWORK_SLACK: Duration = Duration::from_secs(5);

/// A connection that has to go before its slot can be used again.
type Old = Option<(Box<Conn>, CloseReason)>;

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

    fn open(
        self: &Arc<Self>,
        place: Place,
        old: Old,
        limit: Duration,
        site: Option<&'static Location<'static>>,
    ) -> BoxFuture<'_, Result<(Parts, Instant), PgError>> {
        let (sender, opened) = oneshot::channel();
        let started = Instant::now();
        let pool = Arc::clone(self);
        self.spawn("open", async move {
            let result = pool.open_in(place, old, limit).await;
            // Not taken, also when the caller goes between the send and its receipt: dropped with the channel,
            // and thereby given back.
            drop(sender.send(result));
        });
        // In a box, as everything that takes long is: a checkout that needs none of it is small to move.
        Box::pin(async move {
            let held = opened.await.map_err(|_| PgError::Closed)?;
            let held = held.map_err(|cause| PgError::Open { waited: started.elapsed(), cause })?;
            let since = held.since;
            if let Some(site) = site {
                self.state.lock().hold(held.conn().id, Record::new(site, since));
            }
            Ok((held.into_parts(), since))
        })
    }

    async fn open_in(self: &Arc<Self>, place: Place, old: Old, limit: Duration) -> Result<Held, OpenError> {
        if let Some((conn, reason)) = old {
            self.close(conn, reason).await;
        }
        let give_up = Instant::now() + self.config.connect_retry_for;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            let error = match self.open_once(limit).await {
                Ok(conn) => {
                    let parts = Parts { conn, place: Some(place) };
                    return Ok(Held::new(Arc::clone(self), parts, Instant::now()));
                }
                Err(error) => error,
            };
            let pause = backoff.fail();
            let again = error.is_transient() && Instant::now() + pause < give_up;
            if !again || self.state.lock().is_draining() {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    async fn open_once(self: &Arc<Self>, limit: Duration) -> Result<Box<Conn>, OpenError> {
        let started = Instant::now();
        let deadline = started + limit;
        let turn = self.opener.enter(deadline).await.ok_or(OpenError::TimedOut { after: limit })??;
        let (id, epoch) = self.state.lock().begin_open();
        let opening = Opening { pool: self, id, opened: false };
        let result = self.manager.open(deadline, limit).await;
        self.recorder.open_ended(result.is_ok(), started.elapsed());
        match result {
            Ok(opened) => {
                let conn = opening.finish(opened, epoch);
                turn.ended(Ok(()));
                *self.connect_error.lock() = None;
                self.health.up();
                Ok(conn)
            }
            Err(error) => {
                drop(opening);
                *self.connect_error.lock() = Some(error.clone());
                match &error {
                    OpenError::TimedOut { .. } if limit < self.config.connect_timeout => turn.ended_early(),
                    _ => turn.ended(Err(error.clone())),
                }
                if self.health.down(&chain(&error)) {
                    // The supervisor would otherwise sleep as long as it does while all is well.
                    self.wake.notify_one();
                }
                Err(error)
            }
        }
    }

    /// Called by the connection's own task when it is over.
    fn connection_ended(&self, id: ConnId) {
        let phase = self.state.lock().gone(id);
        if phase == Some(Phase::Idle) {
            self.recorder.closed(CloseReason::Peer);
            for (conn, _slot) in self.take_idle(Conn::is_dead) {
                self.forget(conn, CloseReason::Peer);
            }
            self.changes.tell();
        }
        if phase.is_some_and(|phase| phase != Phase::Closing) {
            self.wake.notify_one();
        }
    }

    /// Drops a connection that has ended. The entry of an idle one may be gone already.
    pub(super) fn forget(&self, conn: Box<Conn>, reason: CloseReason) {
        if self.state.lock().remove(conn.id).is_some() {
            self.recorder.closed(reason);
            self.changes.tell();
        }
    }
}

/// Up to a tenth less than `recycle`, so that connections opened together are not replaced together.
fn age(recycle: Duration) -> Duration {
    recycle.mul_f64(1.0 - 0.1 * fastrand::f64())
}

/// The entry of a connection being opened; removed when it does not come to that.
struct Opening<'a> {
    pool: &'a Arc<Shared>,
    id: ConnId,
    opened: bool,
}

impl Opening<'_> {
    fn finish(mut self, opened: Opened, epoch: u64) -> Box<Conn> {
        self.opened = true;
        let (pool, id) = (self.pool, self.id);
        let Opened { client, link, driver } = opened;
        pool.state.lock().opened(id, Arc::clone(&link));
        let end = Ended { pool: Arc::downgrade(pool), link: Arc::clone(&link), id };
        let driver = pool.links.spawn("connection", async move {
            driver.await;
            drop(end);
        });
        let now = Instant::now();
        let age = age(pool.config.recycle);
        Box::new(Conn {
            client,
            statements: Mutex::new(Statements::new(pool.config.statement_cache)),
            id,
            epoch,
            expires: now + age,
            used: now,
            link,
            driver,
            patience: pool.config.statement_timeout + NETWORK_SLACK,
            rules: Rules::of(&pool.config),
            alone: tokio::sync::Mutex::default(),
            touched: AtomicBool::new(false),
            unwanted: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            rollback_due: AtomicBool::new(false),
            limited: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
        })
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.opened {
            self.pool.state.lock().remove(self.id);
            self.pool.changes.tell();
        }
    }
}

/// Tells the pool that a connection's task is over, also when it was cut or panicked.
struct Ended {
    pool: std::sync::Weak<Shared>,
    link: Arc<super::conn::Link>,
    id: ConnId,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.link.ended.store(true, Ordering::Release);
        if let Some(pool) = self.pool.upgrade() {
            pool.connection_ended(self.id);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_12_ages_are_spread_over_the_last_tenth_and_never_beyond() {
        let recycle = Duration::from_secs(1_000);
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let early = recycle - age(recycle);
            assert!(early <= Duration::from_secs(100), "{early:?} early");
            tenths[(early.as_secs() / 10).min(9) as usize] += 1;
        }
        // 1,000 expected in each, with a deviation of 30.
        assert!(tenths.iter().all(|count| (700..1_300).contains(count)), "{tenths:?}");
    }
}
