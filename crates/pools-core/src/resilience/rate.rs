//! A rate that holds as the other side sees it: at most so many calls in any one second, in order of arrival.
//!
//! ```text
//!  turn(deadline) ─► queue (in order) ─► Turn ── sent() ──► answered(): it was there by now
//!        │ too late already: Late          │ dropped unsent: as if it had never been
//!        └ full: Late                      └ dropped after sent(): it was there within ARRIVAL
//! ```
//!
//! A token bucket of three a second lets six through in one second: the three it had saved and the three it gains. Here a call
//! is let through when fewer than the limit may still count. A call counts from its turn, since it may arrive at once, until one
//! second after it arrived for certain: that is when its answer came, or [`ARRIVAL`] after it was sent.
//!
//! **Cancel safety**: a caller that leaves the queue, or drops its unsent turn, costs the next nothing. **Not here**: a budget
//! that several processes share; such a one is asked in addition, by whoever holds a turn.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as Queue, Notify},
    time::{Instant, timeout_at},
};

/// What a request takes to the server at the most, once it was handed to the kernel: many times a round trip around the earth.
/// More would slow down calls to servers that answer late, less would trust the network more than it deserves.
const ARRIVAL: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

/// How many calls may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Most calls in any one second; at least 1.
    pub per_second: u32,
    /// How many of them may go at once: 1 spaces them evenly, `per_second` lets a second's calls go together.
    pub burst: u32,
}

impl Rate {
    /// That many a second, as soon as they come.
    pub fn per_second(per_second: u32) -> Self {
        Self { per_second, burst: per_second }
    }
}

/// No turn before the deadline, or no place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Callers in the queue.
    pub waiting: u32,
    /// The earliest possible turn, from now.
    pub turn_in: Duration,
}

/// Hands out turns. Clones share the same rate.
#[derive(Clone, Debug)]
pub struct RateGate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: u32,
    state: Mutex<State>,
    /// Fair: whoever holds it is the first in the queue.
    first: Queue<()>,
    /// Tells the first in the queue that something changed.
    changed: Notify,
}

impl RateGate {
    /// At most `queue` callers wait for their turn.
    pub fn new(rate: Rate, queue: u32) -> Self {
        let (state, first) = (Mutex::new(State::new(rate)), Queue::new(()));
        Self(Arc::new(Shared { queue, state, first, changed: Notify::new() }))
    }

    /// Waits for a turn, no longer than until `deadline`.
    ///
    /// # Errors
    /// [`Late`], at once if the turn cannot come before the deadline or the queue is full.
    ///
    /// # Cancel safety
    /// Dropped while it waits, the caller leaves the queue and the others keep their order.
    pub async fn turn(&self, deadline: Instant) -> Result<Turn, Late> {
        let mut queued = self.queue(deadline)?;
        let late = |waiting| Late { waiting, turn_in: self.0.state.lock().turn_of(0, Instant::now()) };
        let Ok(_first) = timeout_at(deadline, self.0.first.lock()).await else {
            return Err(late(self.waiting()));
        };
        loop {
            let taken = self.0.state.lock().take(Instant::now());
            let next = match taken {
                Ok(number) => {
                    queued.gone = true;
                    return Ok(Turn { shared: Arc::clone(&self.0), number, sent: false });
                }
                Err(next) => next,
            };
            let until = next.map_or(deadline, |next| next.min(deadline));
            let changed = timeout_at(until, self.0.changed.notified()).await;
            if changed.is_err() && Instant::now() >= deadline {
                return Err(late(self.waiting()));
            }
        }
    }

    /// Callers in the queue.
    pub fn waiting(&self) -> u32 {
        self.0.state.lock().waiting
    }

    /// Turns that were not given at once, so far.
    pub fn waits(&self) -> u64 {
        self.0.state.lock().waits
    }

    fn queue(&self, deadline: Instant) -> Result<Queued<'_>, Late> {
        let now = Instant::now();
        let mut state = self.0.state.lock();
        let (waiting, turn_in) = (state.waiting, state.turn_of(state.waiting, now));
        if waiting >= self.0.queue || now + turn_in > deadline {
            return Err(Late { waiting, turn_in });
        }
        state.waiting += 1;
        state.waits += u64::from(waiting > 0 || !turn_in.is_zero());
        drop(state);
        Ok(Queued { shared: &self.0, gone: false })
    }
}

/// A place in the queue.
struct Queued<'a> {
    shared: &'a Shared,
    gone: bool,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if !self.gone {
            self.shared.state.lock().waiting -= 1;
        }
    }
}

/// Leave to make one call.
#[must_use = "a turn that is not used keeps others waiting"]
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    number: u64,
    sent: bool,
}

impl Turn {
    /// The call is on its way.
    pub fn sent(&mut self) {
        self.sent = true;
        self.shared.report(self.number, |_| Some(Instant::now() + ARRIVAL));
    }

    /// The call was answered, so it had arrived.
    pub fn answered(mut self) {
        self.sent = true;
        let now = Instant::now();
        self.shared.report(self.number, |by| Some(by.map_or(now, |by| by.min(now))));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.sent {
            self.shared.report(self.number, |_| None);
        }
    }
}

impl Shared {
    fn report(&self, number: u64, arrived_by: impl FnOnce(Option<Instant>) -> Option<Instant>) {
        self.state.lock().report(number, arrived_by);
        self.changed.notify_one();
    }
}

/// The calls that may still count.
#[derive(Debug)]
struct State {
    rate: Rate,
    calls: Vec<Call>,
    next: u64,
    waiting: u32,
    waits: u64,
}

#[derive(Debug)]
struct Call {
    number: u64,
    /// Unknown until it was sent.
    arrived_by: Option<Instant>,
}

impl State {
    fn new(rate: Rate) -> Self {
        let per_second = rate.per_second.max(1);
        let rate = Rate { per_second, burst: rate.burst.clamp(1, per_second) };
        Self { rate, calls: Vec::new(), next: 0, waiting: 0, waits: 0 }
    }

    /// So many calls in so long.
    fn limits(&self) -> [(usize, Duration); 2] {
        let Rate { per_second, burst } = self.rate;
        [(per_second as usize, SECOND), (burst as usize, SECOND * burst / per_second)]
    }

    /// The first in the queue takes its turn, or learns when to ask again if that is known.
    fn take(&mut self, now: Instant) -> Result<u64, Option<Instant>> {
        self.calls.retain(|call| call.arrived_by.is_none_or(|at| at + SECOND > now));
        let mut next = Some(now);
        for (calls, span) in self.limits() {
            let free = nth_last(&self.calls, calls).map(|call| call.arrived_by.map(|at| at + span));
            next = next.zip(free.unwrap_or(Some(now))).map(|(a, b)| a.max(b));
        }
        match next {
            Some(at) if at <= now => {
                self.next += 1;
                self.calls.push(Call { number: self.next, arrived_by: None });
                self.waiting -= 1;
                Ok(self.next)
            }
            later => Err(later),
        }
    }

    fn report(&mut self, number: u64, arrived_by: impl FnOnce(Option<Instant>) -> Option<Instant>) {
        // One that no longer counts was forgotten.
        let Some(index) = self.calls.iter().position(|call| call.number == number) else { return };
        match arrived_by(self.calls[index].arrived_by) {
            Some(at) => self.calls[index].arrived_by = Some(at),
            None => drop(self.calls.remove(index)),
        }
        // Unknown ones last: they are the latest that can be.
        self.calls.sort_by_key(|call| (call.arrived_by.is_none(), call.arrived_by));
    }

    /// The earliest possible turn behind `ahead` others, if all of them arrive at once.
    fn turn_of(&self, ahead: u32, now: Instant) -> Duration {
        let turn = |(calls, span): (usize, Duration)| {
            let (rounds, rest) = (ahead / u32::try_from(calls).unwrap_or(u32::MAX), ahead as usize % calls);
            let before = nth_last(&self.calls, calls - rest).map(|call| call.arrived_by.unwrap_or(now));
            let first = before.map_or(Duration::ZERO, |at| (at + span).saturating_duration_since(now));
            first + span * rounds
        };
        self.limits().map(turn).into_iter().max().unwrap_or_default()
    }
}

/// The n-th from the end, from 1.
fn nth_last(calls: &[Call], n: usize) -> Option<&Call> {
    calls.len().checked_sub(n).map(|index| &calls[index])
}

#[cfg(test)]
mod tests;
