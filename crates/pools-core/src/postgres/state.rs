//! The state machine of the pool's connections: no clock, no I/O, one transition function per arrow.
//!
//! ```text
//!  begin_open ─► opening ─opened─► out ◄──check_out── idle ─gone (the server closed it)─► removed
//!                   │               │ ─────check_in───► │
//!                   │ remove        │ condemn           │ condemn
//!                   ▼               ▼                   ▼
//!                removed         closing ─────remove─────► removed
//! ```
//!
//! `detach` leads from out to detached, outside the bound; from there only `remove` leads on.
//!
//! Ids are never used twice: whoever holds a stale one finds nothing instead of somebody else's connection.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Being opened.
    Opening,
    /// In bb8's queue.
    Idle,
    /// Held by a caller, or being checked or cleaned for the next one.
    Out,
    /// Being closed; it still has a server process and therefore its place.
    Closing,
    /// Taken out of the pool by its holder.
    Detached,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Those that are kept.
    pub(super) size: u32,
    /// Those above it.
    pub(super) overflow: u32,
}

impl Bounds {
    pub(super) fn all(self) -> u32 {
        self.size + self.overflow
    }
}

#[derive(Debug)]
struct Entry<L> {
    phase: Phase,
    link: Option<L>,
    idle_since: Option<Instant>,
}

/// How many connections are in which phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) opening: u32,
    pub(super) idle: u32,
    pub(super) out: u32,
    pub(super) closing: u32,
    pub(super) detached: u32,
}

impl Counts {
    fn of(&mut self, phase: Phase) -> &mut u32 {
        match phase {
            Phase::Opening => &mut self.opening,
            Phase::Idle => &mut self.idle,
            Phase::Out => &mut self.out,
            Phase::Closing => &mut self.closing,
            Phase::Detached => &mut self.detached,
        }
    }

    /// Connections inside the bound that have a server process.
    pub(super) fn live(&self) -> u32 {
        self.idle + self.out + self.closing
    }

    /// Everything that takes a place.
    pub(super) fn all(&self) -> u32 {
        self.live() + self.opening
    }
}

/// What becomes of a connection that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckIn {
    /// It is idle now; `surplus` tells that more than `size` are.
    Idle { surplus: bool },
    /// The queue is full: it must be closed.
    Full,
    /// The pool drains: it must be closed.
    Draining,
}

/// All connections of a pool. `L` is what the pool keeps to reach a connection that somebody else holds.
#[derive(Debug)]
pub(super) struct State<L> {
    entries: HashMap<u64, Entry<L>>,
    counts: Counts,
    next_id: u64,
    epoch: u64,
    bounds: Bounds,
    paused: bool,
    draining: bool,
}

impl<L: Clone> State<L> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (entries, counts) = (HashMap::new(), Counts::default());
        Self { entries, counts, next_id: 0, epoch: 0, bounds, paused: false, draining: false }
    }

    /// A connection is about to be opened: its id, and the epoch that it belongs to.
    pub(super) fn begin_open(&mut self) -> (u64, u64) {
        self.next_id += 1;
        let entry = Entry { phase: Phase::Opening, link: None, idle_since: None };
        self.entries.insert(self.next_id, entry);
        self.counts.opening += 1;
        (self.next_id, self.epoch)
    }

    /// It is open, and held by whoever asked for it.
    pub(super) fn opened(&mut self, id: u64, link: L) {
        let entry = self.entries.get_mut(&id).expect("BUG: opened without begin_open");
        entry.link = Some(link);
        self.move_to(id, Phase::Out);
    }

    /// It is given back. With `close_surplus` the one that finds `size` idle ones is closed, QueuePool's rule. One
    /// that is above the bound since that was made smaller is closed in any case.
    pub(super) fn check_in(&mut self, id: u64, now: Instant, close_surplus: bool) -> CheckIn {
        if self.draining {
            return CheckIn::Draining;
        }
        if self.counts.all() > self.bounds.all() || (close_surplus && self.counts.idle >= self.bounds.size) {
            return CheckIn::Full;
        }
        self.move_to(id, Phase::Idle);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.idle_since = Some(now);
        }
        CheckIn::Idle { surplus: self.counts.idle > self.bounds.size }
    }

    /// Takes an idle connection; false when it is not idle any more (the server closed it, or it was condemned).
    pub(super) fn check_out(&mut self, id: u64) -> bool {
        let idle = self.entries.get(&id).is_some_and(|entry| entry.phase == Phase::Idle);
        if idle {
            self.move_to(id, Phase::Out);
        }
        idle
    }

    /// Its server process is about to go; the place is kept until [`remove`](Self::remove).
    pub(super) fn condemn(&mut self, id: u64) {
        // One that was detached has no place to keep.
        if self.entries.get(&id).is_some_and(|entry| entry.phase != Phase::Detached) {
            self.move_to(id, Phase::Closing);
        }
    }

    /// Its holder takes it out of the pool; its place is free at once.
    pub(super) fn detach(&mut self, id: u64) {
        self.move_to(id, Phase::Detached);
    }

    /// The server ended it. An idle one is removed; for another, whoever holds it does that. Returns its phase.
    pub(super) fn gone(&mut self, id: u64) -> Option<Phase> {
        let phase = self.entries.get(&id)?.phase;
        if phase == Phase::Idle {
            self.remove(id);
        }
        Some(phase)
    }

    /// It exists no more. Returns the phase it was in.
    pub(super) fn remove(&mut self, id: u64) -> Option<Phase> {
        let entry = self.entries.remove(&id)?;
        *self.counts.of(entry.phase) -= 1;
        Some(entry.phase)
    }

    /// Idle connections beyond `size` that nobody needed for `linger`, longest idle first; and when the next one
    /// will be due.
    pub(super) fn surplus(&self, now: Instant, linger: Duration) -> (Vec<u64>, Option<Instant>) {
        let mut idle = self.longest_idle();
        idle.truncate(self.counts.idle.saturating_sub(self.bounds.size) as usize);
        let due = idle.partition_point(|(since, _)| *since + linger <= now);
        (idle[..due].iter().map(|(_, id)| *id).collect(), idle.get(due).map(|(since, _)| *since + linger))
    }

    /// Changes the bounds. Returns those idle connections that must go now; what is out and beyond the bounds goes
    /// when it is given back.
    pub(super) fn resize(&mut self, bounds: Bounds) -> Vec<u64> {
        self.bounds = bounds;
        let mut idle = self.longest_idle();
        idle.truncate(self.counts.all().saturating_sub(bounds.all()) as usize);
        idle.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What is idle, longest first.
    pub(super) fn longest_idle(&self) -> Vec<(Instant, u64)> {
        let idle = self.entries.iter().filter(|(_, entry)| entry.phase == Phase::Idle);
        let mut idle: Vec<_> = idle.filter_map(|(id, entry)| Some((entry.idle_since?, *id))).collect();
        idle.sort_unstable();
        idle
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Condemns everything opened so far: each is found out at its next checkout.
    pub(super) fn next_epoch(&mut self) {
        self.epoch += 1;
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// How to reach every open connection.
    pub(super) fn links(&self) -> Vec<L> {
        self.entries.values().filter_map(|entry| entry.link.clone()).collect()
    }

    fn move_to(&mut self, id: u64, phase: Phase) {
        let entry = self.entries.get_mut(&id).expect("BUG: a transition of an unknown connection");
        *self.counts.of(entry.phase) -= 1;
        entry.phase = phase;
        *self.counts.of(phase) += 1;
    }
}
