//! A connection in the hands of one request.
//!
//! A request that finds a connection reads the clock once and takes one lock, and so does its end: what is counted and who holds
//! what is kept in the state, and whoever waits too long is told so by the pool's reaper, without a timer of his own.

use std::{panic::Location, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Inner, PoolEffects, PoolState,
    connection::Conn,
    error::HttpError,
    state::{Acquired, Ask, Effects, Failure, Granted, Return, Ticket},
    target::Key,
};
use crate::{
    admission::Permit,
    holders::{Leases, Record},
    pool::PoolKind,
    stats::{CloseReason, Outcome},
    telemetry::{self, RequestId},
};

/// Told once: a lease, or why there is none. Whoever takes it out of the queue counts how its wait ended.
#[derive(Debug)]
pub(super) struct Waiter {
    tell: oneshot::Sender<Result<Lease, Failure>>,
    started: Instant,
    site: &'static Location<'static>,
    request_id: Option<RequestId>,
    held: Option<Held>,
}

impl Waiter {
    pub(super) fn site(&self) -> &'static Location<'static> {
        self.site
    }

    /// It has a connection from now on, under the lock that gave it.
    fn enter(&mut self, state: &mut PoolState, now: Instant) {
        state.tally.acquired(now.saturating_duration_since(self.started));
        let record = Record::for_request(self.site, self.request_id.take(), now);
        self.held = Some(Held::enter(state, record, now));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing was sent on it, or everything was answered.
    Clean,
    /// In the middle of an exchange.
    Busy,
}

/// A borrowed connection. Goes back to its pool when dropped.
///
/// # Cancel safety
/// Dropped in the middle of an exchange, the connection is closed: the rest of the answer would be taken for the
/// next one. Dropped on its way to a caller who has gone, it goes to the next.
#[must_use = "a lease that is not used still takes a place in the pool"]
#[derive(Debug)]
pub(super) struct Lease {
    conn: Option<Box<Conn>>,
    pool: Arc<Inner>,
    pub(super) reused: bool,
    fate: Fate,
    held: Option<Held>,
    /// The place of its request among those of the upstream. Fields are dropped after the connection was given back.
    pub(super) place: Option<Arc<Permit>>,
}

/// Its entry among the holders, and since when.
#[derive(Clone, Copy, Debug)]
struct Held {
    entry: usize,
    since: Instant,
}

impl Held {
    fn enter(state: &mut PoolState, record: Record, since: Instant) -> Self {
        Self { entry: state.holders.insert(record), since }
    }

    fn leave(self, state: &mut PoolState, now: Instant) -> Record {
        state.tally.used(now.saturating_duration_since(self.since));
        state.holders.remove(self.entry)
    }
}

impl Lease {
    fn new(pool: &Arc<Inner>, granted: Granted<Box<Conn>>, held: Option<Held>) -> Self {
        let Granted { conn, reused } = granted;
        Self { conn: Some(conn), pool: Arc::clone(pool), reused, fate: Fate::Clean, held, place: None }
    }

    pub(super) fn conn(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("BUG: only taken by what consumes the lease")
    }

    pub(super) fn conn_ref(&self) -> &Conn {
        self.conn.as_ref().expect("BUG: only taken by what consumes the lease")
    }

    pub(super) fn pool(&self) -> &Arc<Inner> {
        &self.pool
    }

    /// When the request had it.
    pub(super) fn began(&self) -> Instant {
        self.held.as_ref().map_or_else(Instant::now, |held| held.since)
    }

    /// From now on a drop closes the connection.
    pub(super) fn begin(&mut self) {
        self.fate = Fate::Busy;
    }

    /// The exchange is complete: the next caller may use the connection.
    pub(super) fn finish(mut self) {
        self.fate = Fate::Clean;
    }

    /// The exchange has failed. A connection without others cannot be used again; a shared one is told to end it.
    pub(super) fn close(mut self, reason: CloseReason) {
        if !self.conn().is_shared() {
            self.give_back(|_, _, _| Return::Close(reason));
        }
    }

    /// The connection takes no more requests; closed when those under way have ended.
    pub(super) fn retire(mut self, reason: CloseReason) {
        self.give_back(|_, _, _| Return::Close(reason));
    }

    /// The peer had closed it, and probably those that were idle for longer too.
    pub(super) fn stale(mut self, key: &Key) {
        let idle_since = self.conn().idle_since;
        self.give_back(|_, _, _| Return::Close(CloseReason::Peer));
        self.pool.apply(|state, now, fx| state.invalidate(key, idle_since, now, fx));
    }

    fn give_back(&mut self, fate: impl FnOnce(&Inner, &Conn, Instant) -> Return) {
        let Some(mut conn) = self.conn.take() else { return };
        let now = Instant::now();
        let fate = fate(&self.pool, &conn, now);
        conn.idle_since = now;
        let held = self.held.take();
        let record = self.pool.apply_at(now, |state, fx| {
            state.give_back(conn, fate, now, fx);
            held.map(|held| held.leave(state, now))
        });
        if let Some(record) = record {
            record.returned(PoolKind::Http);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let fate = self.fate;
        self.give_back(|pool, conn, now| match (fate, pool.expiry(conn, now)) {
            (Fate::Busy, _) if !conn.is_shared() => Return::Close(CloseReason::Unfinished),
            // hyper resets the one request whose future or body was dropped.
            (_, expires) if conn.is_shared() || expires > now => Return::Reusable { expires },
            _ if conn.retires <= now => Return::Close(CloseReason::Recycled),
            _ => Return::Close(CloseReason::NotReusable),
        });
    }
}

/// A caller in the queue: leaves it when he goes away. With a connection on its way to him he has been served: the lease is
/// given back unused.
struct Queued<'a> {
    pool: &'a Arc<Inner>,
    started: Instant,
    /// `None` when he was told something.
    ticket: Option<Ticket>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let now = Instant::now();
        if self.pool.apply_at(now, |state, fx| state.leave(ticket, now, fx)) {
            let waited = now.saturating_duration_since(self.started);
            self.pool.recorder.acquired(Outcome::Cancelled, waited);
        }
    }
}

/// What a request asks of the pool.
pub(super) struct Order<'a> {
    pub(super) key: &'a Key,
    pub(super) ask: Ask,
    pub(super) attempt: u32,
    pub(super) deadline: Instant,
    pub(super) site: &'static Location<'static>,
}

impl Inner {
    /// A live connection to the host, no later than the deadline.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        order: &Order<'_>,
        now: Instant,
    ) -> Result<Lease, HttpError> {
        let Order { key, ask, deadline, site, .. } = *order;
        let host = || key.shared_name();
        let refused = |outcome, error| {
            self.recorder.acquired(outcome, Duration::ZERO);
            Err(error)
        };
        let mut waiting = None;
        let (acquired, held) = self.apply_at(now, |state, fx| {
            let acquired = state.acquire(key, ask, now, deadline, fx, || {
                let (tell, told) = oneshot::channel();
                waiting = Some(told);
                Waiter { tell, started: now, site, request_id: telemetry::request_id(), held: None }
            });
            let held = matches!(acquired, Acquired::Granted(_)).then(|| {
                state.tally.acquired(Duration::ZERO);
                Held::enter(state, Record::new(site, now), now)
            });
            (acquired, held)
        });
        let ticket = match acquired {
            Acquired::Granted(granted) => return Ok(Lease::new(self, granted, held)),
            Acquired::QueueFull { waiting } => {
                return refused(Outcome::QueueFull, HttpError::QueueFull { host: host(), waiting });
            }
            Acquired::Closed => return refused(Outcome::Refused, HttpError::Closed { host: host() }),
            Acquired::Queued(ticket) => ticket,
        };
        let mut queued = Queued { pool: self, started: now, ticket: Some(ticket) };
        let told = waiting.expect("BUG: a queued caller has made its handle").await;
        queued.ticket = None;
        Err(match told.unwrap_or(Err(Failure::Closed)) {
            Ok(lease) => return Ok(lease),
            Err(Failure::Open(cause)) => HttpError::Open { host: host(), attempt: order.attempt, cause },
            Err(Failure::Closed) => HttpError::Closed { host: host() },
            Err(Failure::Late) => {
                let (busy, opening) = self.state.lock().busy(key);
                let longest = self.longest().map(Box::new);
                HttpError::Wait { host: host(), waited: now.elapsed(), busy, opening, longest }
            }
        })
    }

    /// Closes what is idle for too long; says when to come again.
    pub(super) fn expire(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        self.apply_at(now, |state, fx| state.expire(now, fx))
    }

    /// Makes a transition and carries out its effects.
    pub(super) fn apply(
        self: &Arc<Self>,
        transition: impl FnOnce(&mut PoolState, Instant, &mut PoolEffects),
    ) {
        let now = Instant::now();
        self.apply_at(now, |state, fx| transition(state, now, fx));
    }

    /// The same at a time that is known, with a result.
    fn apply_at<T>(
        self: &Arc<Self>,
        now: Instant,
        transition: impl FnOnce(&mut PoolState, &mut PoolEffects) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        let result = transition(&mut state, &mut effects);
        for (waiter, _) in effects.handed.iter_mut().chain(&mut effects.grants) {
            waiter.enter(&mut state, now);
        }
        drop(state);
        if !effects.is_nothing() {
            self.carry_out(effects, now);
        }
        result
    }

    fn carry_out(self: &Arc<Self>, effects: PoolEffects, now: Instant) {
        let Effects { handed, grants, failures, dials, closes, pause, reap, emptied } = effects;
        drop(closes);
        for (Waiter { tell, held, .. }, granted) in handed.into_iter().chain(grants) {
            // A caller who has just gone hands the lease back to us, and its drop serves the next.
            drop(tell.send(Ok(Lease::new(self, granted, held))));
        }
        for (waiter, failure) in failures {
            let waited = now.saturating_duration_since(waiter.started);
            self.recorder.acquired(failure.outcome(), waited);
            drop(waiter.tell.send(Err(failure)));
        }
        for (slot, key) in dials {
            self.dial(slot, key);
        }
        if let Some((key, at)) = pause {
            self.wake_at(key, at);
        }
        if reap {
            self.reap.notify_one();
        }
        if emptied {
            self.emptied.notify_waiters();
        }
    }
}
