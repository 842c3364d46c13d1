//! A connection that is out, with the slot and the place that belong to it; and what happens when it comes back.
//!
//! ```text
//!  Held ──drop──► clean, wanted ─────────────► idle (slot back to bb8, place to the next waiter)
//!           │ something was left behind ─► cleaned in a task of the pool ─► idle, or
//!           └ broken, outdated, not wanted, not to be cleaned ─► closed in a task of the pool
//! ```
//!
//! The place is kept until the connection is idle or its server process is gone, so that the bound holds by the
//! server's own count.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bb8_postgres::bb8::PooledConnection;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::{
    Shared,
    conn::Conn,
    manager::Slots,
    state::{CheckIn, ConnId},
};
use crate::{admission::Permit, stats::CloseReason};

/// Longest time to clean a connection, and to wait for the server's end of a closed one.
pub(super) const GRACE: Duration = Duration::from_secs(2);

pub(super) type SlotGuard = PooledConnection<'static, Slots>;

/// Where a connection belongs: a slot of bb8's and a place in the gate.
#[derive(Debug)]
pub(super) struct Place {
    // The slot goes back before the permit: whoever gets the permit must find it.
    pub(super) slot: SlotGuard,
    _permit: Permit,
}

impl Place {
    pub(super) fn new(slot: SlotGuard, permit: Permit) -> Self {
        Self { slot, _permit: permit }
    }
}

#[derive(Debug)]
pub(super) struct Parts {
    pub(super) conn: Box<Conn>,
    /// `None` once detached.
    pub(super) place: Option<Place>,
}

/// A connection that is out. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Held {
    parts: Option<Parts>,
    pool: Arc<Shared>,
    /// When it was found fit.
    pub(super) since: Instant,
}

impl Held {
    pub(super) fn new(pool: Arc<Shared>, parts: Parts, since: Instant) -> Self {
        Self { parts: Some(parts), pool, since }
    }

    pub(super) fn conn(&self) -> &Conn {
        &self.parts.as_ref().expect("BUG: only drop and into_parts take the parts").conn
    }

    pub(super) fn pool(&self) -> &Arc<Shared> {
        &self.pool
    }

    pub(super) fn into_parts(mut self) -> Parts {
        self.parts.take().expect("BUG: only drop and into_parts take the parts")
    }

    /// Gives the place to the next caller; the connection stays here, and is closed at the end.
    pub(super) fn detach(&mut self) {
        let place = self.parts.as_mut().and_then(|parts| parts.place.take());
        if place.is_some() {
            self.pool.state.lock().detach(self.conn().id);
            self.pool.changes.tell();
        }
    }

    /// What dropping it does, for whoever knows the time.
    pub(super) fn give_back(&mut self, now: Instant) {
        if let Some(parts) = self.parts.take() {
            self.pool.give_back(parts, now);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.parts.is_some() {
            self.give_back(Instant::now());
        }
    }
}

/// What becomes of a connection that comes back.
enum Fate {
    Keep,
    Clean,
    Close(CloseReason),
}

impl Shared {
    fn fate(&self, conn: &Conn) -> Fate {
        if conn.is_dead() || conn.link.wire.copied() {
            Fate::Close(CloseReason::Broken)
        } else if conn.rules.transaction_pooling && conn.abandoned.load(Ordering::Acquire) {
            // A polite end would wait for the statement.
            conn.stalled.store(true, Ordering::Release);
            Fate::Close(CloseReason::Unfinished)
        } else if conn.unwanted.load(Ordering::Acquire) {
            Fate::Close(CloseReason::Invalidated)
        } else if conn.needs_cleaning() {
            Fate::Clean
        } else {
            Fate::Keep
        }
    }

    fn give_back(self: &Arc<Self>, parts: Parts, now: Instant) {
        if parts.place.is_none() {
            return self.close_in_background(parts, CloseReason::Detached);
        }
        match self.fate(&parts.conn) {
            Fate::Keep => self.keep(parts, now),
            Fate::Close(_) if parts.conn.link.ended.load(Ordering::Acquire) => {
                // Nothing is left to be closed: its server process was the one to end it.
                self.forget(parts.conn, CloseReason::Broken);
            }
            Fate::Close(reason) => self.close_in_background(parts, reason),
            Fate::Clean => {
                drop(self.state.lock().release(parts.conn.id));
                let pool = Arc::clone(self);
                self.spawn("clean", async move { pool.clean(parts).await });
            }
        }
    }

    async fn clean(self: Arc<Self>, parts: Parts) {
        self.cleaned.fetch_add(1, Ordering::Relaxed);
        let cleaned = timeout(GRACE, parts.conn.clean()).await;
        if !matches!(cleaned, Ok(Ok(()))) {
            // It did not react to being cancelled: waiting for a polite end would take as long again.
            parts.conn.stalled.store(true, Ordering::Release);
            return self.close(parts.conn, CloseReason::Unfinished).await;
        }
        match self.fate(&parts.conn) {
            Fate::Keep => self.keep(parts, Instant::now()),
            Fate::Clean => self.close(parts.conn, CloseReason::Unfinished).await,
            Fate::Close(reason) => self.close(parts.conn, reason).await,
        }
    }

    fn keep(self: &Arc<Self>, mut parts: Parts, now: Instant) {
        parts.conn.used = now;
        parts.conn.link.gather.store(false, Ordering::Relaxed);
        let close_surplus = self.config.overflow_linger.is_zero();
        let (id, epoch) = (parts.conn.id, parts.conn.epoch);
        let checked_in = self.state.lock().check_in(id, epoch, now, close_surplus);
        match checked_in {
            // It ended while it was out: its task found it in nobody's queue, so the entry is ours to remove.
            CheckIn::Idle { .. } if parts.conn.link.ended.load(Ordering::Acquire) => {
                self.forget(parts.conn, CloseReason::Broken);
            }
            CheckIn::Idle { surplus } => {
                if let Some(mut place) = parts.place {
                    place.slot.conn = Some(parts.conn);
                }
                self.changes.tell();
                if surplus {
                    self.surplus.notify_one();
                }
            }
            CheckIn::Full => self.close_in_background(parts, CloseReason::MaxFree),
            CheckIn::Draining => self.close_in_background(parts, CloseReason::Drained),
            CheckIn::Outdated => self.close_in_background(parts, CloseReason::Invalidated),
        }
    }

    fn close_in_background(self: &Arc<Self>, parts: Parts, reason: CloseReason) {
        // Before the task runs, so that stats never show it as usable.
        self.state.lock().condemn(parts.conn.id);
        let pool = Arc::clone(self);
        self.spawn("close", async move {
            let Parts { conn, place } = parts;
            pool.close(conn, reason).await;
            drop(place);
        });
    }

    /// Closes a connection and waits until the server's side is gone.
    pub(super) async fn close(self: &Arc<Self>, conn: Box<Conn>, reason: CloseReason) {
        self.state.lock().condemn(conn.id);
        let closing = Closing { pool: Arc::clone(self), id: conn.id, reason };
        if !conn.close(GRACE).await {
            self.cut_off.fetch_add(1, Ordering::Relaxed);
        }
        drop(closing);
    }

    /// Closes idle connections that more than `size` others make superfluous, each once it was not needed for
    /// [`overflow_linger`](crate::config::postgres::PgConfig::overflow_linger). Returns when to look again.
    pub(super) fn shed(self: &Arc<Self>) -> Option<Instant> {
        let (now, linger) = (Instant::now(), self.config.overflow_linger);
        let (due, next) = self.state.lock().surplus(now, linger);
        self.retire(due, CloseReason::MaxFree);
        next
    }

    /// Closes these connections, as far as they are idle still and there are places for it: a closing connection
    /// has a server process and therefore needs one.
    pub(super) fn retire(self: &Arc<Self>, ids: Vec<ConnId>, reason: CloseReason) {
        let permits: Vec<_> = ids.iter().map_while(|_| self.gate.try_enter().ok().flatten()).collect();
        let mut doomed = Vec::new();
        {
            let mut state = self.state.lock();
            for id in ids.into_iter().take(permits.len()) {
                // Somebody may have taken it since.
                if state.condemn_idle(id) {
                    doomed.push(id);
                }
            }
        }
        let taken = self.take_idle(|conn| doomed.contains(&conn.id));
        // One that is missing was popped by a caller just now, who finds it condemned and closes it.
        for ((conn, slot), permit) in taken.into_iter().zip(permits) {
            self.close_in_background(Parts { conn, place: Some(Place::new(slot, permit)) }, reason);
        }
    }

    /// Takes those idle connections out of bb8 that `wanted` picks. The others keep their order.
    pub(super) fn take_idle(&self, wanted: impl Fn(&Conn) -> bool) -> Vec<(Box<Conn>, SlotGuard)> {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        while let Some(mut slot) = self.pop_idle() {
            match slot.conn.take_if(|conn| wanted(conn)) {
                Some(conn) => taken.push((conn, slot)),
                None => kept.push(slot),
            }
        }
        // bb8 puts each at the front.
        while let Some(slot) = kept.pop() {
            drop(slot);
        }
        taken
    }
}

impl Shared {
    fn pop_idle(&self) -> Option<SlotGuard> {
        if self.slots.state().idle_connections == 0 {
            return None;
        }
        let _runtime = self.runtime.enter();
        // Ready at once while bb8 has something. If a caller just took the last one, bb8 may make a spare slot;
        // the next checkout throws it away or uses it.
        self.slots.get_owned().now_or_never()?.ok()
    }
}

/// Ends the entry of a connection that is being closed, also when the closing task is cut.
struct Closing {
    pool: Arc<Shared>,
    id: ConnId,
    reason: CloseReason,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.pool.state.lock().remove(self.id);
        self.pool.recorder.closed(self.reason);
        self.pool.changes.tell();
    }
}
