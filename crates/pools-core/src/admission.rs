//! Fair, bounded entry with a deadline: at most `limit` inside, at most `queue` waiting, in order of arrival.
//!
//! ```text
//!              queue full ──► Refused::QueueFull
//!             ▲
//!  enter ─────┼─ a place is free and nobody waits ──► Place, Permit ──drop──► the next waiter
//!             │                                          ▲
//!             └─► waiting (in order) ──a place is freed──┘
//!                    │ deadline ──► Refused::TimedOut
//!                    │ close()  ──► Refused::Closed
//!                    └ dropped: leaves the queue, the others keep their order
//! ```
//!
//! **Fairness**: a freed place is given to the head of the queue before anybody else can see it, so a newcomer
//! cannot overtake. **Cancel safety**: [`Admission::enter`] may be dropped at any point; its place in the queue, or
//! the place it was just given, goes to the next waiter. **Resizing**: places taken away while they are in use are
//! a debt that is paid as they come back; waiters keep their order. **Cost**: while nobody waits, one atomic
//! operation to enter and one to leave; the lock is for everything else. Where a [`timekeeper`](Admission::timekeeper)
//! runs, one timer is enough for all who wait. **Handing on**: what a place stands for may go with it to the next waiter
//! ([`Admission::hand`]); of one that has gone meanwhile it is dropped, and its drop is to give the place up. **Not
//! here**: what that is.
//!
//! Not tokio's semaphore: to give a permit back it always takes its lock, and it can neither owe permits nor count
//! its waiters.

mod line;
mod timekeeper;

use std::{
    convert::Infallible,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::line::{Line, Waiting};

/// Why [`Admission::enter`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The queue is full: shed load, or allow a longer queue.
    #[error("{waiting} callers wait already, the queue holds no more")]
    QueueFull {
        /// Callers in the queue.
        waiting: u32,
    },
    /// Nobody left in time.
    #[error("no place became free within {waited:?}")]
    TimedOut {
        /// How long the caller waited.
        waited: Duration,
    },
    /// [`Admission::close`] was called.
    #[error("closed")]
    Closed,
}

/// Somebody waits, places are owed, or the gate is closed: who leaves must take the lock. Then nothing is free,
/// unless the gate is closed.
const SLOW: u32 = 1 << 31;
const CLOSED: u32 = 1 << 30;
/// The rest of the word: places that are free.
const FREE: u32 = CLOSED - 1;

/// The gate. `T` is what a place may be handed on with.
#[derive(Debug)]
pub struct Admission<T = Infallible> {
    word: AtomicU32,
    queue: u32,
    line: Mutex<Line<T>>,
    /// A timekeeper runs.
    kept: AtomicBool,
    /// It has to look sooner than it means to, or never again.
    sooner: Arc<Notify>,
}

/// How a wait ended well.
#[derive(Debug)]
pub enum Entered<'a, T> {
    /// With a place.
    Place(Place<'a, T>),
    /// With a place that goes with this.
    Handed(T),
}

/// A place inside; dropping it gives the place to the next waiter.
#[derive(Debug)]
#[must_use = "dropping it gives the place away at once"]
pub struct Place<'a, T = Infallible>(&'a Admission<T>);

impl<T> Place<'_, T> {
    /// Stays inside. Whoever calls this owes an [`Admission::leave`].
    pub fn keep(self) {
        mem::forget(self);
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A [`Place`] that goes where its holder goes.
#[derive(Debug)]
#[must_use = "dropping the permit gives the place away at once"]
pub struct Permit(Arc<Admission>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Admission {
    /// A gate with `limit` places and room for `queue` waiters.
    pub fn new(limit: u32, queue: u32) -> Self {
        Self::handing_on(limit, queue)
    }

    /// Enters, or waits until `deadline`, which the caller does since `started`. A deadline that has passed tries once.
    ///
    /// # Errors
    /// [`Refused`], at once for `QueueFull` and `Closed`.
    ///
    /// # Cancel safety
    /// Dropped while waiting, the caller leaves the queue and nothing is lost.
    pub async fn enter(&self, started: Instant, deadline: Instant) -> Result<Place<'_>, Refused> {
        match self.enter_or_take(started, deadline).await? {
            Entered::Place(place) => Ok(place),
            Entered::Handed(nothing) => match nothing {},
        }
    }

    /// [`enter`](Self::enter) for a place that outlives the borrow.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    ///
    /// # Cancel safety
    /// As [`enter`](Self::enter).
    pub async fn enter_owned(
        self: &Arc<Self>,
        started: Instant,
        deadline: Instant,
    ) -> Result<Permit, Refused> {
        self.enter(started, deadline).await?.keep();
        Ok(Permit(Arc::clone(self)))
    }

    /// [`try_enter`](Self::try_enter) for a place that outlives the borrow.
    ///
    /// # Errors
    /// [`Refused::Closed`].
    pub fn try_enter_owned(self: &Arc<Self>) -> Result<Option<Permit>, Refused> {
        let Some(place) = self.try_enter()? else { return Ok(None) };
        place.keep();
        Ok(Some(Permit(Arc::clone(self))))
    }
}

impl<T> Admission<T> {
    /// A gate whose places may be [handed on](Self::hand).
    pub fn handing_on(limit: u32, queue: u32) -> Self {
        let limit = limit.min(FREE);
        Self {
            word: AtomicU32::new(limit),
            queue,
            line: Mutex::new(Line::new(limit)),
            kept: AtomicBool::new(false),
            sooner: Arc::default(),
        }
    }

    /// [`enter`](Admission::enter) at a gate whose places may be handed on.
    ///
    /// # Errors
    /// As [`enter`](Admission::enter).
    ///
    /// # Cancel safety
    /// As [`enter`](Admission::enter); what was handed to a caller who is gone is dropped, outside of all locks.
    pub async fn enter_or_take(
        &self,
        started: Instant,
        deadline: Instant,
    ) -> Result<Entered<'_, T>, Refused> {
        if let Some(place) = self.try_enter()? {
            return Ok(Entered::Place(place));
        }
        let late = || Refused::TimedOut { waited: started.elapsed() };
        if deadline <= started {
            return Err(late());
        }
        let mut waiting = Waiting { gate: self, deadline, number: None };
        let mut timer = pin!(None);
        let entered = poll_fn(|cx| {
            let entered = Pin::new(&mut waiting).poll(cx);
            if entered.is_ready() || self.kept.load(Ordering::Relaxed) {
                return entered;
            }
            // Nobody else keeps the time, or no longer: then the timekeeper's end has woken us.
            if timer.is_none() {
                timer.set(Some(sleep_until(deadline)));
            }
            timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx)).map(|()| Err(None))
        });
        entered.await.map_err(|refused| refused.unwrap_or_else(late))
    }

    /// Whether it is worth trying to [hand](Self::hand) a place on.
    pub fn is_waited_for(&self) -> bool {
        self.word.load(Ordering::Relaxed) & SLOW != 0
    }

    /// Gives whoever waits longest this and the caller's place, which goes with it.
    ///
    /// # Errors
    /// It comes back when nobody waits, or when the place is owed.
    pub fn hand(&self, item: T) -> Result<(), T> {
        let mut line = self.line.lock();
        let next = if line.debt > 0 { None } else { line.waiters.pop_front() };
        let Some(waiter) = next else { return Err(item) };
        line.served.push((waiter.number, Some(item)));
        self.settle(&line);
        drop(line);
        waiter.waker.wake();
        Ok(())
    }

    /// Enters if a place is free and nobody waits for it.
    ///
    /// # Errors
    /// [`Refused::Closed`].
    pub fn try_enter(&self) -> Result<Option<Place<'_, T>>, Refused> {
        let fewer = |word| (word & CLOSED == 0 && word & FREE > 0).then(|| word - 1);
        match self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, fewer) {
            Ok(_) => Ok(Some(Place(self))),
            Err(word) if word & CLOSED != 0 => Err(Refused::Closed),
            Err(_) => Ok(None),
        }
    }

    /// The end of a place that was [kept](Place::keep).
    pub fn leave(&self) {
        let more = |word| (word & SLOW == 0).then(|| word + 1);
        if self.word.fetch_update(Ordering::Release, Ordering::Relaxed, more).is_err() {
            let woken = self.free_one(&mut self.line.lock());
            // Without the lock, since whoever wakes up takes it.
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Changes how many places exist. New ones go to the waiters in order; of those in use that exist no more,
    /// each ends when it is left.
    pub fn resize(&self, limit: u32) {
        let (mut woken, limit) = (Vec::new(), limit.min(FREE));
        let mut line = self.line.lock();
        let before = mem::replace(&mut line.limit, limit);
        // First of all, so that no place is given back unseen while it is being owed.
        self.word.fetch_or(SLOW, Ordering::Relaxed);
        for _ in limit..before {
            line.debt += u32::from(!self.take_free());
        }
        for _ in before..limit {
            woken.extend(self.free_one(&mut line));
        }
        self.settle(&line);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Refuses everybody from now on, those waiting included. Places that are taken stay valid.
    pub fn close(&self) {
        let mut line = self.line.lock();
        self.word.fetch_or(CLOSED | SLOW, Ordering::Relaxed);
        let refused = mem::take(&mut line.waiters);
        drop(line);
        refused.into_iter().for_each(|waiter| waiter.waker.wake());
    }

    /// Places that exist.
    pub fn limit(&self) -> u32 {
        self.line.lock().limit
    }

    /// Places taken, among them those that exist no more.
    pub fn inside(&self) -> u32 {
        let line = self.line.lock();
        (line.limit + line.debt).saturating_sub(self.word.load(Ordering::Relaxed) & FREE)
    }

    /// Callers in the queue.
    pub fn waiting(&self) -> u32 {
        self.line.lock().waiting()
    }

    /// A place was left or made: whoever waits longest gets it, unless it is owed.
    fn free_one(&self, line: &mut Line<T>) -> Option<Waker> {
        let mut next = None;
        if line.debt > 0 {
            line.debt -= 1;
        } else if let Some(waiter) = line.waiters.pop_front() {
            line.served.push((waiter.number, None));
            next = Some(waiter.waker);
        } else {
            self.word.fetch_add(1, Ordering::Release);
        }
        self.settle(line);
        next
    }

    fn take_free(&self) -> bool {
        let fewer = |word| (word & FREE > 0).then(|| word - 1);
        self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, fewer).is_ok()
    }

    /// Sends those who leave to the lock, or no longer.
    fn settle(&self, line: &Line<T>) {
        let word = self.word.load(Ordering::Relaxed);
        let slow = line.debt > 0 || !line.waiters.is_empty() || word & CLOSED != 0;
        if slow != (word & SLOW != 0) {
            self.word.fetch_xor(SLOW, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
