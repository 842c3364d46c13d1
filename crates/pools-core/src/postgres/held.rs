//! A connection that is out, with the slot and the place that belong to it; and what happens when it comes back.
//!
//! ```text
//!  Held ──drop──► clean, wanted ─ somebody waits ─► handed to him, slot and place and all
//!           │         └──────────── nobody waits ──► idle: seated, or slot back to bb8 and place free
//!           │ something was left behind ─► cleaned in a task of the pool ─► idle, or
//!           └ broken, outdated, not wanted, not to be cleaned ─► closed in a task of the pool
//! ```
//!
//! The place is kept until the connection is idle or its server process is gone, so that the bound holds by the
//! server's own count.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bb8_postgres::bb8::PooledConnection;
use futures_util::FutureExt;
use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};

use super::{
    Shared,
    conn::Conn,
    error::PgError,
    manager::Slots,
    seat::Seated,
    state::{CheckIn, ConnId},
};
use crate::stats::CloseReason;

/// Longest time to clean a connection, and to wait for the server's end of a closed one.
pub(super) const GRACE: Duration = Duration::from_secs(2);

pub(super) type SlotGuard = PooledConnection<'static, Slots>;

/// A place inside the gate, and the only reference to the pool that a lease has.
#[derive(Debug)]
pub(super) struct Inside {
    pool: Arc<Shared>,
    /// What is [seated](super::seat) keeps the place.
    seated: bool,
}

impl Inside {
    /// For whoever has [kept](crate::admission::Place::keep) a place.
    pub(super) fn taken(pool: Arc<Shared>) -> Self {
        Self { pool, seated: false }
    }

    pub(super) fn pool(&self) -> &Arc<Shared> {
        &self.pool
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if !self.seated {
            self.pool.gate.leave();
        }
    }
}

/// Where a connection belongs: a slot of bb8's and a place inside the gate.
#[derive(Debug)]
pub(super) struct Place {
    // The slot goes back first: whoever enters next must find it.
    pub(super) slot: SlotGuard,
    pub(super) inside: Inside,
}

#[derive(Debug)]
pub(super) enum Home {
    Place(Place),
    /// It was detached.
    Nowhere(Arc<Shared>),
}

impl Home {
    pub(super) fn pool(&self) -> &Arc<Shared> {
        match self {
            Self::Place(place) => place.inside.pool(),
            Self::Nowhere(pool) => pool,
        }
    }
}

/// A connection that is out. Gives itself back only in a [`Held`].
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) conn: Box<Conn>,
    pub(super) home: Home,
}

/// A connection that is out. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Held {
    parts: Option<Parts>,
    /// When it was found fit.
    pub(super) since: Instant,
}

impl Held {
    pub(super) fn new(parts: Parts, since: Instant) -> Self {
        Self { parts: Some(parts), since }
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("BUG: only drop and into_parts take the parts")
    }

    pub(super) fn conn(&self) -> &Conn {
        &self.parts().conn
    }

    pub(super) fn pool(&self) -> &Arc<Shared> {
        self.parts().home.pool()
    }

    pub(super) fn into_parts(mut self) -> Parts {
        self.parts.take().expect("BUG: only drop and into_parts take the parts")
    }

    /// Gives the place to the next caller; the connection stays here, and is closed at the end.
    pub(super) fn detach(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        let pool = Arc::clone(parts.home.pool());
        if let Home::Place(place) = mem::replace(&mut parts.home, Home::Nowhere(Arc::clone(&pool))) {
            pool.state.lock().detach(parts.conn.id);
            drop(place);
            pool.changes.tell();
        }
    }

    /// What dropping it does, for whoever knows the time, and how long a caller `used` it.
    pub(super) fn give_back(&mut self, now: Instant, used: Option<Duration>) {
        if let Some(parts) = self.parts.take() {
            parts.give_back(now, used);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.parts.is_some() {
            self.give_back(Instant::now(), None);
        }
    }
}

/// What becomes of a connection that comes back.
enum Fate {
    Keep,
    Clean,
    Close(CloseReason),
}

impl Fate {
    fn of(conn: &Conn) -> Self {
        if conn.is_dead() || conn.link.wire.copied() {
            Self::Close(CloseReason::Broken)
        } else if conn.rules.transaction_pooling && conn.abandoned.load(Ordering::Acquire) {
            // A polite end would wait for the statement.
            conn.stalled.store(true, Ordering::Release);
            Self::Close(CloseReason::Unfinished)
        } else if conn.unwanted.load(Ordering::Acquire) {
            Self::Close(CloseReason::Invalidated)
        } else if conn.needs_cleaning() {
            Self::Clean
        } else {
            Self::Keep
        }
    }
}

impl Parts {
    fn give_back(self, now: Instant, used: Option<Duration>) {
        let fate = match self.home {
            Home::Place(_) => Fate::of(&self.conn),
            Home::Nowhere(_) => Fate::Close(CloseReason::Detached),
        };
        if let Fate::Keep = fate {
            return self.keep(now, used);
        }
        let pool = self.home.pool();
        used.inspect(|used| pool.recorder.usage.record(*used));
        match fate {
            // Nothing is left to be closed: its server process was the one to end it.
            Fate::Close(CloseReason::Broken) if self.conn.link.ended.load(Ordering::Acquire) => {
                pool.forget(self.conn, CloseReason::Broken);
            }
            Fate::Close(reason) => self.close_in_background(reason),
            Fate::Keep | Fate::Clean => {
                drop(pool.state.lock().release(self.conn.id));
                Arc::clone(pool).spawn("clean", self.clean());
            }
        }
    }

    async fn clean(self) {
        let pool = Arc::clone(self.home.pool());
        pool.cleaned.fetch_add(1, Ordering::Relaxed);
        let cleaned = timeout(GRACE, self.conn.clean()).await;
        if !matches!(cleaned, Ok(Ok(()))) {
            // It did not react to being cancelled: waiting for a polite end would take as long again.
            self.conn.stalled.store(true, Ordering::Release);
            return pool.close(self.conn, CloseReason::Unfinished).await;
        }
        match Fate::of(&self.conn) {
            Fate::Keep => self.keep(Instant::now(), None),
            Fate::Clean => pool.close(self.conn, CloseReason::Unfinished).await,
            Fate::Close(reason) => pool.close(self.conn, reason).await,
        }
    }

    fn keep(mut self, now: Instant, mut used: Option<Duration>) {
        self.conn.used = now;
        let waited_for = self.home.pool().gate.is_waited_for();
        let wire = &self.conn.link.wire;
        wire.shared.store(false, Ordering::Relaxed);
        wire.awaited.store(waited_for, Ordering::Relaxed);
        if waited_for {
            self = match self.hand_on(now, &mut used) {
                Ok(()) => return,
                Err(parts) => parts,
            };
        }
        let pool = self.home.pool();
        let close_surplus = pool.config.overflow_linger.is_zero();
        let checked_in = pool.state.lock().check_in(self.conn.id, self.conn.epoch, now, used, close_surplus);
        let reason = match checked_in {
            // It ended while it was out: its task found it in nobody's queue, so the entry is ours to remove.
            CheckIn::Idle { .. } if self.conn.link.ended.load(Ordering::Acquire) => {
                return pool.forget(self.conn, CloseReason::Broken);
            }
            CheckIn::Idle { surplus } => return self.rest(surplus),
            CheckIn::Full => CloseReason::MaxFree,
            CheckIn::Draining => CloseReason::Drained,
            CheckIn::Outdated => CloseReason::Invalidated,
        };
        self.close_in_background(reason);
    }

    /// To whoever waits longest, past bb8's queue and all that belongs to being idle.
    fn hand_on(self, now: Instant, used: &mut Option<Duration>) -> Result<(), Self> {
        let pool = Arc::clone(self.home.pool());
        if !pool.state.lock().pass_on(self.conn.id, self.conn.epoch, *used) {
            return Err(self);
        }
        *used = None;
        pool.gate.hand(Held::new(self, now)).map_err(Held::into_parts)
    }

    /// Keeps it at hand, or puts it back into bb8's queue.
    fn rest(self, surplus: bool) {
        let Home::Place(Place { slot, mut inside }) = self.home else { return };
        match inside.pool().seat(Seated { conn: self.conn, slot }) {
            Ok(()) => inside.seated = true,
            Err(other) => other.queue(),
        }
        let pool = inside.pool();
        pool.changes.tell();
        if surplus {
            pool.surplus.notify_one();
        }
    }

    pub(super) fn close_in_background(self, reason: CloseReason) {
        let Self { conn, home } = self;
        let pool = Arc::clone(home.pool());
        // Before the task runs, so that stats never show it as usable.
        pool.state.lock().condemn(conn.id);
        Arc::clone(&pool).spawn("close", async move {
            pool.close(conn, reason).await;
            drop(home);
        });
    }
}

impl Shared {
    /// Enters the gate if that is possible at once.
    pub(super) fn try_enter(self: &Arc<Self>) -> Result<Option<Inside>, PgError> {
        self.unseat();
        let Some(place) = self.gate.try_enter().map_err(|_| PgError::Closed)? else { return Ok(None) };
        place.keep();
        Ok(Some(Inside::taken(Arc::clone(self))))
    }

    /// Closes a connection and waits until the server's side is gone.
    pub(super) async fn close(self: &Arc<Self>, conn: Box<Conn>, reason: CloseReason) {
        self.close_within(GRACE, conn, reason).await;
    }

    pub(super) async fn close_within(
        self: &Arc<Self>,
        grace: Duration,
        conn: Box<Conn>,
        reason: CloseReason,
    ) {
        self.state.lock().condemn(conn.id);
        let closing = Closing { pool: Arc::clone(self), id: conn.id, reason };
        if !conn.close(grace).await {
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
    pub(super) fn retire(self: &Arc<Self>, mut ids: Vec<ConnId>, reason: CloseReason) {
        let places: Vec<_> = ids.iter().map_while(|_| self.try_enter().ok().flatten()).collect();
        ids.truncate(places.len());
        if ids.is_empty() {
            return;
        }
        // Condemned when they are in our hands and not before: whatever is in bb8's queue can be used.
        let taken = self.take_idle(|conn| ids.contains(&conn.id));
        for ((conn, slot), inside) in taken.into_iter().zip(places) {
            Parts { conn, home: Home::Place(Place { slot, inside }) }.close_in_background(reason);
        }
        // One that is idle and was not found is on its way: its holder checked it in, and is about to give it to bb8.
        let missed = self.state.lock().idle_among(ids);
        if !missed.is_empty() {
            let pool = Arc::clone(self);
            self.spawn("retire", async move {
                yield_now().await;
                pool.retire(missed, reason);
            });
        }
    }

    /// Takes those idle connections out of bb8 that `wanted` picks. The others keep their order. Meanwhile bb8 has
    /// none, and callers who find that wait for its end, since the state's idle ones are not gone.
    pub(super) fn take_idle(&self, wanted: impl Fn(&Conn) -> bool) -> Vec<(Box<Conn>, SlotGuard)> {
        self.unseat();
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
        // The server may have ended it just before it was condemned.
        let ours = self.pool.state.lock().remove(self.id).is_some();
        if ours {
            self.pool.recorder.closed(self.reason);
        }
        self.pool.changes.tell();
    }
}
