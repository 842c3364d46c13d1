//! A connection in the hands of one request.

use std::{panic::Location, sync::Arc};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    Inner,
    connection::Conn,
    error::{Failure, HttpError},
    state::{Acquired, Ask, Effects, Granted, Return, Ticket},
    target::Key,
};
use crate::{
    admission::Permit,
    holders::HolderGuard,
    stats::{CloseReason, Outcome},
};

/// Told once: a lease, or why there is none.
#[derive(Debug)]
pub(super) struct Waiter {
    tell: oneshot::Sender<Result<Lease, Failure>>,
    site: &'static Location<'static>,
}

impl Waiter {
    pub(super) fn site(&self) -> &'static Location<'static> {
        self.site
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
    conn: Option<Conn>,
    pool: Arc<Inner>,
    pub(super) reused: bool,
    fate: Fate,
    holder: Option<HolderGuard>,
    /// The place of its request among those of the upstream. Fields are dropped after the connection was given back.
    pub(super) place: Option<Arc<Permit>>,
}

impl Lease {
    fn new(pool: &Arc<Inner>, granted: Granted<Conn>) -> Self {
        let Granted { conn, reused } = granted;
        Self {
            conn: Some(conn),
            pool: Arc::clone(pool),
            reused,
            fate: Fate::Clean,
            holder: None,
            place: None,
        }
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
            self.give_back(|_| Return::Close(reason));
        }
    }

    /// The connection takes no more requests; closed when those under way have ended.
    pub(super) fn retire(mut self, reason: CloseReason) {
        self.give_back(|_| Return::Close(reason));
    }

    /// The peer had closed it, and probably those that were idle for longer too.
    pub(super) fn stale(mut self, key: &Key) {
        let idle_since = self.conn().idle_since;
        self.give_back(|_| Return::Close(CloseReason::Peer));
        self.pool.apply(|state, now| state.invalidate(key, idle_since, now));
    }

    fn give_back(&mut self, fate: impl FnOnce(&Conn) -> Return) {
        let Some(mut conn) = self.conn.take() else { return };
        if let Some(holder) = self.holder.take() {
            self.pool.recorder.usage.record(holder.held());
        }
        let fate = fate(&conn);
        self.pool.apply(|state, now| {
            conn.idle_since = now;
            state.give_back(conn, fate, now)
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let pool = Arc::clone(&self.pool);
        let fate = self.fate;
        self.give_back(|conn| match fate {
            Fate::Busy if !conn.is_shared() => Return::Close(CloseReason::Unfinished),
            // hyper resets the one request whose future or body was dropped.
            _ if conn.is_shared() => Return::Reusable { expires: pool.expiry(conn, Instant::now()) },
            _ => {
                let now = Instant::now();
                match pool.expiry(conn, now) {
                    expires if expires > now => Return::Reusable { expires },
                    _ if conn.retires <= now => Return::Close(CloseReason::Recycled),
                    _ => Return::Close(CloseReason::NotReusable),
                }
            }
        });
    }
}

/// Leaves the queue when the caller goes away.
struct Queued<'a> {
    pool: &'a Arc<Inner>,
    ticket: Ticket,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.pool.apply(|state, now| state.leave(self.ticket, now));
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
    pub(super) async fn acquire(self: &Arc<Self>, order: &Order<'_>) -> Result<Lease, HttpError> {
        let started = Instant::now();
        let mut outcome = Counted { pool: self, started, outcome: Outcome::Cancelled };
        let result = self.wait(order, started).await;
        outcome.outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(HttpError::QueueFull { .. }) => Outcome::QueueFull,
            Err(HttpError::Wait { .. }) => Outcome::Timeout,
            Err(HttpError::Closed { .. }) => Outcome::Refused,
            Err(_) => Outcome::OpenFailed,
        };
        drop(outcome);
        let mut lease = result?;
        lease.holder = Some(self.holders.enter(order.site));
        Ok(lease)
    }

    async fn wait(self: &Arc<Self>, order: &Order<'_>, started: Instant) -> Result<Lease, HttpError> {
        let host = || order.key.shared_name();
        let mut waiting = None;
        let acquired = self.apply_with(|state, now| {
            state.acquire(order.key, order.ask, now, || {
                let (tell, told) = oneshot::channel();
                waiting = Some(told);
                Waiter { tell, site: order.site }
            })
        });
        let ticket = match acquired {
            Acquired::Granted(granted) => return Ok(Lease::new(self, granted)),
            Acquired::QueueFull { waiting } => return Err(HttpError::QueueFull { host: host(), waiting }),
            Acquired::Closed => return Err(HttpError::Closed { host: host() }),
            Acquired::Queued(ticket) => ticket,
        };
        let _queued = Queued { pool: self, ticket };
        let told = waiting.expect("BUG: a queued caller has made its handle");
        match timeout_at(order.deadline, told).await {
            Ok(Ok(Ok(lease))) => Ok(lease),
            Ok(Ok(Err(Failure::Open(cause)))) => {
                Err(HttpError::Open { host: host(), attempt: order.attempt, cause })
            }
            Ok(Ok(Err(Failure::Closed)) | Err(_)) => Err(HttpError::Closed { host: host() }),
            Err(_) => {
                let (busy, opening) = self.state.lock().busy(order.key);
                let longest = self.holders.longest().map(Box::new);
                Err(HttpError::Wait { host: host(), waited: started.elapsed(), busy, opening, longest })
            }
        }
    }

    /// Closes what is idle for too long; says when to come again.
    pub(super) fn expire(self: &Arc<Self>) -> Option<Instant> {
        self.apply_with(|state, now| {
            let (effects, next) = state.expire(now);
            (next, effects)
        })
    }

    /// Makes a transition and carries out its effects.
    pub(super) fn apply(
        self: &Arc<Self>,
        transition: impl FnOnce(&mut super::PoolState, Instant) -> Effects<Conn, Waiter>,
    ) {
        self.apply_with(|state, now| ((), transition(state, now)));
    }

    fn apply_with<T>(
        self: &Arc<Self>,
        transition: impl FnOnce(&mut super::PoolState, Instant) -> (T, Effects<Conn, Waiter>),
    ) -> T {
        let (result, effects) = transition(&mut self.state.lock(), Instant::now());
        self.carry_out(effects);
        result
    }

    fn carry_out(self: &Arc<Self>, effects: Effects<Conn, Waiter>) {
        let Effects { grants, failures, dials, closes, pause, reap, emptied } = effects;
        drop(closes);
        for (waiter, granted) in grants {
            // A caller who has just gone hands the lease back to us, and its drop serves the next.
            drop(waiter.tell.send(Ok(Lease::new(self, granted))));
        }
        for (waiter, failure) in failures {
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

/// Counts an acquire when it ends, also by the caller going away.
struct Counted<'a> {
    pool: &'a Inner,
    started: Instant,
    outcome: Outcome,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.pool.recorder.acquired(self.outcome, self.started.elapsed());
    }
}
