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

use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::{holders::Record, stats::Tally};

/// A connection. Every acquire and return looks one up, so it says where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnId {
    serial: u64,
    index: usize,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Being opened.
    Opening,
    /// In bb8's queue, or [seated](super::seat).
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
    serial: u64,
    phase: Phase,
    link: Option<L>,
    idle_since: Option<Instant>,
    /// Who has it, while somebody does.
    holder: Option<Record>,
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

/// What somebody finds who wants an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckOut {
    /// It is out now.
    Taken,
    /// It is out now, and must be closed: a later epoch has begun.
    Outdated,
    /// It is not idle any more: the server closed it, or it was condemned.
    NotIdle,
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
    /// A later epoch has begun: it must be closed.
    Outdated,
}

/// All connections of a pool. `L` is what the pool keeps to reach a connection that somebody else holds.
#[derive(Debug)]
pub(super) struct State<L> {
    entries: Slab<Entry<L>>,
    counts: Counts,
    last_serial: u64,
    epoch: u64,
    bounds: Bounds,
    /// The largest bound so far: what was let in by it may still be on its way after a resize.
    most: u32,
    paused: bool,
    draining: bool,
    tally: Tally,
}

impl<L: Clone> State<L> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (entries, counts) = (Slab::new(), Counts::default());
        Self {
            entries,
            counts,
            last_serial: 0,
            epoch: 0,
            bounds,
            most: bounds.all(),
            paused: false,
            draining: false,
            tally: Tally::default(),
        }
    }

    /// A connection is about to be opened: its id, and the epoch that it belongs to.
    pub(super) fn begin_open(&mut self) -> (ConnId, u64) {
        debug_assert!(self.counts.all() < self.most, "BUG: {:?} and one more, of {}", self.counts, self.most);
        self.last_serial += 1;
        let serial = self.last_serial;
        let entry = Entry { serial, phase: Phase::Opening, link: None, idle_since: None, holder: None };
        let index = self.entries.insert(entry);
        self.counts.opening += 1;
        (ConnId { serial, index }, self.epoch)
    }

    /// It is open, and held by whoever asked for it.
    pub(super) fn opened(&mut self, id: ConnId, link: L) {
        self.move_to(id, Phase::Out).link = Some(link);
    }

    /// It is given back. With `close_surplus` the one that finds `size` idle ones is closed, QueuePool's rule. One
    /// that is above the bound since that was made smaller is closed in any case.
    /// Counts how long a caller `used` one that is kept.
    pub(super) fn check_in(
        &mut self,
        id: ConnId,
        epoch: u64,
        now: Instant,
        used: Option<Duration>,
        close_surplus: bool,
    ) -> CheckIn {
        if let Some(used) = used {
            self.tally.used(used);
        }
        if self.draining {
            return CheckIn::Draining;
        }
        if epoch < self.epoch {
            return CheckIn::Outdated;
        }
        if self.counts.all() > self.bounds.all() || (close_surplus && self.counts.idle >= self.bounds.size) {
            return CheckIn::Full;
        }
        let entry = self.move_to(id, Phase::Idle);
        (entry.idle_since, entry.holder) = (Some(now), None);
        CheckIn::Idle { surplus: self.counts.idle > self.bounds.size }
    }

    /// Whether one that its holder gives back may go on to the next without being idle. Counts how long a caller `used`
    /// it if so.
    pub(super) fn pass_on(&mut self, id: ConnId, epoch: u64, used: Option<Duration>) -> bool {
        if self.draining || epoch < self.epoch || self.counts.all() > self.bounds.all() {
            return false;
        }
        self.release(id);
        if let Some(used) = used {
            self.tally.used(used);
        }
        true
    }

    /// Takes a connection that was opened in `epoch`, and is idle, or out when it is passed on. Counts an acquire that has
    /// it after it has `waited`.
    pub(super) fn check_out(
        &mut self,
        id: ConnId,
        from: Phase,
        epoch: u64,
        holder: Option<Record>,
        waited: Option<Duration>,
    ) -> CheckOut {
        if self.phase(id) != Some(from) {
            return CheckOut::NotIdle;
        }
        self.move_to(id, Phase::Out).holder = holder;
        if epoch < self.epoch {
            return CheckOut::Outdated;
        }
        if let Some(waited) = waited {
            self.tally.acquired(waited);
        }
        CheckOut::Taken
    }

    /// What was counted here.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// It was opened for this holder.
    pub(super) fn hold(&mut self, id: ConnId, holder: Record) {
        if let Some(entry) = find(&mut self.entries, id) {
            entry.holder = Some(holder);
        }
    }

    /// Takes back who held it, such as when that is over.
    pub(super) fn release(&mut self, id: ConnId) -> Option<Record> {
        find(&mut self.entries, id)?.holder.take()
    }

    /// Everything that is held.
    pub(super) fn holders(&mut self) -> impl Iterator<Item = &mut Record> {
        self.entries.iter_mut().filter_map(|(_, entry)| entry.holder.as_mut())
    }

    /// Those of them that are idle.
    pub(super) fn idle_among(&self, mut ids: Vec<ConnId>) -> Vec<ConnId> {
        ids.retain(|id| self.phase(*id) == Some(Phase::Idle));
        ids
    }

    /// Its server process is about to go; the place is kept until [`remove`](Self::remove).
    pub(super) fn condemn(&mut self, id: ConnId) {
        // One that was detached has no place to keep.
        if self.phase(id).is_some_and(|phase| phase != Phase::Detached) {
            self.move_to(id, Phase::Closing).holder = None;
        }
    }

    /// Its holder takes it out of the pool; its place is free at once.
    pub(super) fn detach(&mut self, id: ConnId) {
        self.move_to(id, Phase::Detached);
    }

    /// The server ended it. An idle one is removed; for another, whoever holds it does that. Returns its phase.
    pub(super) fn gone(&mut self, id: ConnId) -> Option<Phase> {
        let phase = self.phase(id)?;
        if phase == Phase::Idle {
            self.remove(id);
        }
        Some(phase)
    }

    /// It exists no more. Returns the phase it was in.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<Phase> {
        let phase = self.phase(id)?;
        self.entries.remove(id.index);
        *self.counts.of(phase) -= 1;
        Some(phase)
    }

    /// Idle connections beyond `size` that nobody needed for `linger`, longest idle first; and when the next one
    /// will be due.
    pub(super) fn surplus(&self, now: Instant, linger: Duration) -> (Vec<ConnId>, Option<Instant>) {
        let mut idle = self.longest_idle();
        idle.truncate(self.counts.idle.saturating_sub(self.bounds.size) as usize);
        let due = idle.partition_point(|(since, _)| *since + linger <= now);
        (idle[..due].iter().map(|(_, id)| *id).collect(), idle.get(due).map(|(since, _)| *since + linger))
    }

    /// Changes the bounds. Returns those idle connections that must go now, with `close_surplus` also those beyond
    /// `size`; what is out and beyond the bounds goes when it is given back.
    pub(super) fn resize(&mut self, bounds: Bounds, close_surplus: bool) -> Vec<ConnId> {
        self.bounds = bounds;
        self.most = self.most.max(bounds.all());
        let mut idle = self.longest_idle();
        let beyond = self.counts.all().saturating_sub(bounds.all());
        let surplus = if close_surplus { self.counts.idle.saturating_sub(bounds.size) } else { 0 };
        idle.truncate(beyond.max(surplus) as usize);
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether more than `size` are idle.
    pub(super) fn has_surplus(&self) -> bool {
        self.counts.idle > self.bounds.size
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What is idle, longest first.
    pub(super) fn longest_idle(&self) -> Vec<(Instant, ConnId)> {
        let idle = self.entries.iter().filter(|(_, entry)| entry.phase == Phase::Idle);
        let id = |index, entry: &Entry<L>| ConnId { serial: entry.serial, index };
        let mut idle: Vec<_> =
            idle.filter_map(|(i, entry)| Some((entry.idle_since?, id(i, entry)))).collect();
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

    /// The same, because one opened in `epoch` turned out to be dead. One from before the last time says nothing about
    /// those opened since.
    pub(super) fn suspect(&mut self, epoch: u64) {
        if epoch == self.epoch {
            self.next_epoch();
        }
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

    /// How to reach those that are held.
    pub(super) fn links_out(&self) -> Vec<L> {
        let entries = self.entries.iter().map(|(_, entry)| entry);
        let out = entries.filter(|entry| matches!(entry.phase, Phase::Out | Phase::Detached));
        out.filter_map(|entry| entry.link.clone()).collect()
    }

    /// How to reach every open connection.
    pub(super) fn links(&self) -> Vec<L> {
        self.entries.iter().filter_map(|(_, entry)| entry.link.clone()).collect()
    }

    fn phase(&self, id: ConnId) -> Option<Phase> {
        self.entries.get(id.index).filter(|entry| entry.serial == id.serial).map(|entry| entry.phase)
    }

    fn move_to(&mut self, id: ConnId, phase: Phase) -> &mut Entry<L> {
        let entry = find(&mut self.entries, id).expect("BUG: a transition of an unknown connection");
        *self.counts.of(entry.phase) -= 1;
        *self.counts.of(phase) += 1;
        entry.phase = phase;
        entry
    }
}

fn find<L>(entries: &mut Slab<Entry<L>>, id: ConnId) -> Option<&mut Entry<L>> {
    entries.get_mut(id.index).filter(|entry| entry.serial == id.serial)
}
