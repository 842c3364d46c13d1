//! Who has which connection, who waits, and what happens next. No I/O, no clock, no `async`.
//!
//! ```text
//!            plan                 opened                 acquire
//!  (nothing) ────► opening ───────────────► idle ◄──────────────► leased
//!                    │  │ opened, and a waiter is first  give_back  ▲ │
//!                    │  └───────────────────────────────────────────┘ │ not reusable, cap, drain
//!                    │ failed              idle: expired, evicted     ▼
//!                    └──────────► (nothing) ◄────── ended ────── closing
//! ```
//!
//! A connection takes its place from the moment its dial starts until its task has closed the socket ([`State::ended`]),
//! so the peer never sees more than the cap. Every transition moves the counters, the [`Recorder`] and the state
//! together and returns [`Effects`], which the caller carries out after it has let go of the lock.
//!
//! **Order.** Waiters have tickets; the smallest is served first. Whoever was handed a dead connection takes a
//! negative ticket, which is the front. A returned connection goes to the first waiter, never to a newcomer.
//!
//! **The cap over all hosts.** When it is reached, a waiting host first takes the places of idle connections,
//! oldest first. If none is idle, a host gives up a returned connection for the neediest waiting host that has at least two
//! fewer, or one fewer and an older waiter: shares become equal, nobody starves, and nothing oscillates.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use slab::Slab;
use tokio::time::Instant;

use super::{error::Failure, target::Key};
use crate::{
    resilience::Backoff,
    stats::{CloseReason, Recorder, Target},
};

/// First and longest pause between failed dials while other connections to the host are alive.
const DIAL_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How many of what.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) per_host: u32,
    pub(super) total: u32,
    pub(super) free: u32,
    pub(super) linger: Duration,
    pub(super) queue: usize,
}

/// A place for one connection. The serial tells it from a later one at the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId {
    index: usize,
    serial: u64,
}

/// What the state must know of a connection.
pub(super) trait Pooled {
    /// Its place.
    fn slot(&self) -> SlotId;
    /// Whether its peer has not closed it yet, as far as is known.
    fn is_live(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Opening,
    Idle,
    Leased,
    Closing,
}

#[derive(Debug)]
struct Slot {
    serial: u64,
    host: usize,
    place: Place,
}

#[derive(Debug)]
struct Idle<C> {
    conn: C,
    since: Instant,
    expires: Instant,
}

#[derive(Debug)]
struct Waiter<W> {
    handle: W,
    fresh: bool,
}

#[derive(Debug)]
struct Host<C, W> {
    key: Key,
    opening: u32,
    leased: u32,
    closing: u32,
    /// Oldest first; callers take from the end.
    idle: Vec<Idle<C>>,
    waiters: BTreeMap<i64, Waiter<W>>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// Its entry among the hungry.
    hungry: Option<(u32, i64)>,
}

impl<C, W> Host<C, W> {
    fn new(key: Key) -> Self {
        Self {
            key,
            opening: 0,
            leased: 0,
            closing: 0,
            idle: Vec::new(),
            waiters: BTreeMap::new(),
            backoff: Backoff::new(DIAL_PAUSE.0, DIAL_PAUSE.1),
            retry_at: None,
            hungry: None,
        }
    }

    fn slots(&self) -> u32 {
        self.opening + self.leased + self.closing + count(self.idle.len())
    }

    /// Waiters for whom no dial is under way.
    fn unserved(&self) -> u32 {
        count(self.waiters.len()).saturating_sub(self.opening)
    }

    fn first_ticket(&self) -> i64 {
        self.waiters.first_key_value().map_or(i64::MAX, |(ticket, _)| *ticket)
    }

    fn tally(&mut self, place: Place) -> Option<&mut u32> {
        match place {
            Place::Opening => Some(&mut self.opening),
            Place::Leased => Some(&mut self.leased),
            Place::Closing => Some(&mut self.closing),
            Place::Idle => None,
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// How a request came by its connection.
#[derive(Debug)]
pub(super) struct Granted<C> {
    pub(super) conn: C,
    pub(super) reused: bool,
}

/// Where an acquire stands.
#[derive(Debug)]
pub(super) enum Acquired<C> {
    Granted(Granted<C>),
    /// The handle is told later; with this the caller can leave the queue.
    Queued(Ticket),
    QueueFull {
        waiting: u32,
    },
    Closed,
}

/// A place in the queue of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    host: usize,
    number: i64,
}

/// What kind of connection a caller can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// A first try.
    Any,
    /// It was given a dead connection: any other, before everybody else.
    Again,
    /// A retry after a stale connection: one that nobody used, before everybody else.
    Fresh,
}

/// What becomes of a returned connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Return {
    /// It may be used until then.
    Reusable { expires: Instant },
    /// Close it.
    Close(CloseReason),
}

/// What the caller of a transition has to do, outside the lock.
#[derive(Debug)]
#[must_use]
pub(super) struct Effects<C, W> {
    pub(super) grants: Vec<(W, Granted<C>)>,
    pub(super) failures: Vec<(W, Failure)>,
    pub(super) dials: Vec<(SlotId, Key)>,
    /// Dropping these closes them.
    pub(super) closes: Vec<C>,
    /// Ask the host again at that time.
    pub(super) pause: Option<(Key, Instant)>,
    /// The reaper sleeps too long.
    pub(super) reap: bool,
    /// A closed pool has become empty.
    pub(super) emptied: bool,
}

impl<C, W> Default for Effects<C, W> {
    fn default() -> Self {
        Self {
            grants: Vec::new(),
            failures: Vec::new(),
            dials: Vec::new(),
            closes: Vec::new(),
            pause: None,
            reap: false,
            emptied: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    Draining,
    Closed,
}

/// The whole pool behind one lock.
#[derive(Debug)]
pub(super) struct State<C, W> {
    limits: Limits,
    recorder: Arc<Recorder>,
    phase: Phase,
    hosts: Slab<Host<C, W>>,
    names: HashMap<Key, usize>,
    slots: Slab<Slot>,
    /// Connections told to close that still hold their place.
    closing: u32,
    /// Hosts that want to dial, the neediest first: fewest connections, then the oldest waiter.
    hungry: BTreeSet<(u32, i64, usize)>,
    serial: u64,
    back: i64,
    front: i64,
    reap_at: Option<Instant>,
}

impl<C: Pooled, W> State<C, W> {
    pub(super) fn new(limits: Limits, recorder: Arc<Recorder>) -> Self {
        Self {
            limits,
            recorder,
            phase: Phase::Open,
            hosts: Slab::new(),
            names: HashMap::new(),
            slots: Slab::new(),
            closing: 0,
            hungry: BTreeSet::new(),
            serial: 0,
            back: 0,
            front: 0,
            reap_at: None,
        }
    }

    /// Takes the newest idle connection, or queues. `handle` is made only for the queue.
    pub(super) fn acquire(
        &mut self,
        key: &Key,
        ask: Ask,
        now: Instant,
        handle: impl FnOnce() -> W,
    ) -> (Acquired<C>, Effects<C, W>) {
        let mut fx = Effects::default();
        if self.phase == Phase::Closed || (self.phase == Phase::Draining && ask == Ask::Any) {
            return (Acquired::Closed, fx);
        }
        let id = self.host(key);
        if self.hosts[id].waiters.is_empty()
            && ask != Ask::Fresh
            && let Some(conn) = self.take_idle(id, now, &mut fx)
        {
            return (Acquired::Granted(Granted { conn, reused: true }), fx);
        }
        // Whoever has a dial of his own does not stand in the queue. A retry was let in before: refusing it now
        // would turn a lost race into an error.
        let waiting = self.hosts[id].unserved();
        if waiting as usize >= self.limits.queue && ask == Ask::Any && !self.has_room(id, now) {
            self.tidy(id, &mut fx);
            return (Acquired::QueueFull { waiting }, fx);
        }
        let number = self.ticket(ask);
        self.hosts[id].waiters.insert(number, Waiter { handle: handle(), fresh: ask == Ask::Fresh });
        self.plan(id, now, &mut fx);
        (Acquired::Queued(Ticket { host: id, number }), fx)
    }

    /// A waiter goes away. Its dial goes on and serves the next. Nothing happens if it was served already.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Instant) -> Effects<C, W> {
        let mut fx = Effects::default();
        // Numbers are unique: another host that has meanwhile taken this index does not have this one.
        if let Some(host) = self.hosts.get_mut(ticket.host)
            && host.waiters.remove(&ticket.number).is_some()
        {
            self.rank(ticket.host, now);
            self.tidy(ticket.host, &mut fx);
        }
        fx
    }

    /// The dial for `conn.slot()` has succeeded.
    pub(super) fn opened(&mut self, conn: C, expires: Instant, now: Instant) -> Effects<C, W> {
        let mut fx = Effects::default();
        let Some(id) = self.host_of(conn.slot()) else { return fx };
        let host = &mut self.hosts[id];
        host.backoff.reset();
        host.retry_at = None;
        match host.waiters.pop_first() {
            Some((_, waiter)) => {
                self.move_to(conn.slot(), Place::Leased);
                fx.grants.push((waiter.handle, Granted { conn, reused: false }));
            }
            None => self.park(id, conn, expires, now, &mut fx),
        }
        self.plan(id, now, &mut fx);
        fx
    }

    /// The dial for `slot` has failed. Without any connection to the host, everybody who waits for one is told;
    /// otherwise those that exist go on serving, and the next dial waits a little.
    pub(super) fn open_failed(&mut self, slot: SlotId, failure: &Failure, now: Instant) -> Effects<C, W> {
        let mut fx = Effects::default();
        let Some(id) = self.remove(slot) else { return fx };
        let host = &mut self.hosts[id];
        if host.leased == 0 && host.idle.is_empty() {
            let waiters = std::mem::take(&mut host.waiters);
            fx.failures.extend(waiters.into_values().map(|waiter| (waiter.handle, failure.clone())));
        } else if host.retry_at.is_none_or(|at| at <= now) {
            let at = now + host.backoff.fail();
            host.retry_at = Some(at);
            fx.pause = Some((host.key.clone(), at));
        }
        self.plan(id, now, &mut fx);
        fx
    }

    /// The pause of a host is over.
    pub(super) fn wake(&mut self, key: &Key, now: Instant) -> Effects<C, W> {
        let mut fx = Effects::default();
        if let Some(id) = self.names.get(key).copied() {
            self.plan(id, now, &mut fx);
        }
        fx
    }

    /// A lease has ended.
    pub(super) fn give_back(&mut self, conn: C, fate: Return, now: Instant) -> Effects<C, W> {
        let mut fx = Effects::default();
        // Its task may have closed the socket and given up the place already.
        let Some(id) = self.host_of(conn.slot()) else {
            fx.closes.push(conn);
            return fx;
        };
        match fate {
            Return::Reusable { .. } if !conn.is_live() => {
                self.close(conn, CloseReason::Peer, &mut fx);
            }
            Return::Reusable { .. } if self.yields(id) => {
                self.close(conn, CloseReason::Evicted, &mut fx);
            }
            Return::Reusable { expires } => match self.first_reusing(id) {
                Some(waiter) => fx.grants.push((waiter, Granted { conn, reused: true })),
                None => self.park(id, conn, expires, now, &mut fx),
            },
            Return::Close(reason) => self.close(conn, reason, &mut fx),
        }
        self.plan(id, now, &mut fx);
        fx
    }

    /// The peer had closed a connection that was idle since then: those that were idle for at least as long go too.
    pub(super) fn invalidate(&mut self, key: &Key, idle_since: Instant, now: Instant) -> Effects<C, W> {
        let mut fx = Effects::default();
        let Some(id) = self.names.get(key).copied() else { return fx };
        while self.hosts[id].idle.first().is_some_and(|idle| idle.since <= idle_since) {
            let idle = self.hosts[id].idle.remove(0);
            self.close(idle.conn, CloseReason::Invalidated, &mut fx);
        }
        self.plan(id, now, &mut fx);
        fx
    }

    /// The task of a connection has closed the socket: its place is free.
    pub(super) fn ended(&mut self, slot: SlotId, now: Instant) -> Effects<C, W> {
        let mut fx = Effects::default();
        let Some(id) = self.host_of(slot) else { return fx };
        match self.slots[slot.index].place {
            Place::Closing => {}
            Place::Leased => self.recorder.closed(CloseReason::Broken),
            Place::Opening => {}
            Place::Idle => {
                self.recorder.closed(CloseReason::Peer);
                let idle = &mut self.hosts[id].idle;
                if let Some(at) = idle.iter().position(|idle| idle.conn.slot() == slot) {
                    fx.closes.push(idle.remove(at).conn);
                }
            }
        }
        self.remove(slot);
        self.plan(id, now, &mut fx);
        fx
    }

    /// Closes what was idle for too long. Says when to come again.
    pub(super) fn expire(&mut self, now: Instant) -> (Effects<C, W>, Option<Instant>) {
        let mut fx = Effects::default();
        let ids: Vec<_> =
            self.hosts.iter().filter(|(_, host)| !host.idle.is_empty()).map(|(id, _)| id).collect();
        self.reap_at = None;
        for id in ids {
            self.expire_host(id, now, &mut fx);
            self.plan(id, now, &mut fx);
        }
        fx.reap = false;
        (fx, self.reap_at)
    }

    fn expire_host(&mut self, id: usize, now: Instant, fx: &mut Effects<C, W>) {
        let (free, linger) = (self.limits.free as usize, self.limits.linger);
        while let Some(at) = self.hosts[id].idle.iter().position(|idle| idle.expires <= now) {
            let idle = self.hosts[id].idle.remove(at);
            self.close(idle.conn, CloseReason::Idle, fx);
        }
        while self.hosts[id].idle.len() > free && self.hosts[id].idle[0].since + linger <= now {
            let idle = self.hosts[id].idle.remove(0);
            self.close(idle.conn, CloseReason::MaxFree, fx);
        }
        let idle = &self.hosts[id].idle;
        let excess = (idle.len() > free).then(|| idle[0].since + linger);
        if let Some(next) = idle.iter().map(|idle| idle.expires).chain(excess).min() {
            self.reap_by(next, fx);
        }
    }

    /// Lets in no new caller; closes idle connections and each that comes back and that no waiter takes.
    pub(super) fn drain(&mut self) -> Effects<C, W> {
        let mut fx = Effects::default();
        self.phase = self.phase.max(Phase::Draining);
        for id in self.host_ids() {
            for idle in std::mem::take(&mut self.hosts[id].idle) {
                self.close(idle.conn, CloseReason::Drained, &mut fx);
            }
            self.tidy(id, &mut fx);
        }
        fx.emptied |= self.hosts.is_empty();
        fx
    }

    /// Tells everybody who still waits that the pool is closed.
    pub(super) fn cut(&mut self, now: Instant) -> Effects<C, W> {
        let mut fx = self.drain();
        self.phase = Phase::Closed;
        for id in self.host_ids() {
            let waiters = std::mem::take(&mut self.hosts[id].waiters);
            fx.failures.extend(waiters.into_values().map(|waiter| (waiter.handle, Failure::Closed)));
            self.rank(id, now);
            self.tidy(id, &mut fx);
        }
        fx
    }

    /// Whether [`State::cut`] was called.
    pub(super) fn is_cut(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether nothing is open, being opened or waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Every host with a connection or a waiter.
    pub(super) fn targets(&self) -> Vec<Target> {
        let targets = self.hosts.iter().map(|(_, host)| Target {
            name: host.key.name().to_owned(),
            limit: self.limits.per_host,
            in_use: host.leased + host.closing,
            idle: count(host.idle.len()),
            opening: host.opening,
            waiting: count(host.waiters.len()),
        });
        targets.collect()
    }

    /// Connections of a host that are not idle, and dials among them.
    pub(super) fn busy(&self, key: &Key) -> (u32, u32) {
        let host = self.names.get(key).map(|id| &self.hosts[*id]);
        host.map_or((0, 0), |host| (host.slots() - count(host.idle.len()), host.opening))
    }

    /// Handles of everybody who waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &W> {
        self.hosts.iter().flat_map(|(_, host)| host.waiters.values().map(|waiter| &waiter.handle))
    }

    // --- steps of the transitions ---

    /// Serves waiters from idle connections, dials for the others where the caps allow, makes room where they do
    /// not, and forgets the host when nothing is left of it.
    fn plan(&mut self, id: usize, now: Instant, fx: &mut Effects<C, W>) {
        while !self.hosts[id].idle.is_empty() && self.hosts[id].waiters.values().any(|waiter| !waiter.fresh) {
            let Some(conn) = self.take_idle(id, now, fx) else { break };
            let waiter = self.first_reusing(id).expect("BUG: looked for one line above");
            fx.grants.push((waiter, Granted { conn, reused: true }));
        }
        // Whoever still waits beside an idle connection cannot use it, so it makes room for one that can be used.
        let host = &self.hosts[id];
        if host.slots() >= self.limits.per_host {
            let spare = host.unserved().saturating_sub(host.closing);
            for _ in 0..spare.min(count(host.idle.len())) {
                let idle = self.hosts[id].idle.remove(0);
                self.close(idle.conn, CloseReason::Evicted, fx);
            }
        }
        self.rank(id, now);
        self.feed(now, fx);
        self.tidy(id, fx);
    }

    /// Gives free places to the neediest hosts, and makes room for the rest of their waiters.
    fn feed(&mut self, now: Instant, fx: &mut Effects<C, W>) {
        while let Some((.., id)) = self.hungry.first().copied() {
            if count(self.slots.len()) >= self.limits.total {
                break;
            }
            self.dial(id, fx);
            self.rank(id, now);
        }
        while self.closing < self.wanted(self.closing + 1) {
            let idle = self.slots.iter().filter(|(_, slot)| slot.place == Place::Idle);
            let Some(id) = idle.map(|(_, slot)| slot.host).min_by_key(|id| self.hosts[*id].idle[0].since)
            else {
                break;
            };
            let idle = self.hosts[id].idle.remove(0);
            self.close(idle.conn, CloseReason::Evicted, fx);
        }
    }

    /// Places that hungry hosts could use, counted up to `enough`.
    fn wanted(&self, enough: u32) -> u32 {
        let mut wanted = 0;
        for (slots, _, id) in &self.hungry {
            wanted += self.hosts[*id].unserved().min(self.limits.per_host - slots);
            if wanted >= enough {
                break;
            }
        }
        wanted
    }

    /// Enters the host among the hungry, moves it, or takes it out.
    fn rank(&mut self, id: usize, now: Instant) {
        let wants = self.wants_dial(id, now);
        let Some(host) = self.hosts.get_mut(id) else { return };
        let rank = wants.then(|| (host.slots(), host.first_ticket()));
        let before = std::mem::replace(&mut host.hungry, rank);
        if before == rank {
            return;
        }
        if let Some((slots, ticket)) = before {
            self.hungry.remove(&(slots, ticket, id));
        }
        if let Some((slots, ticket)) = rank {
            self.hungry.insert((slots, ticket, id));
        }
    }

    fn dial(&mut self, id: usize, fx: &mut Effects<C, W>) {
        self.serial += 1;
        let index = self.slots.insert(Slot { serial: self.serial, host: id, place: Place::Opening });
        self.hosts[id].opening += 1;
        fx.dials.push((SlotId { index, serial: self.serial }, self.hosts[id].key.clone()));
    }

    fn wants_dial(&self, id: usize, now: Instant) -> bool {
        self.hosts.get(id).is_some_and(|host| {
            host.unserved() > 0
                && host.slots() < self.limits.per_host
                && host.retry_at.is_none_or(|at| at <= now)
        })
    }

    /// Whether a new waiter would get a dial at once.
    fn has_room(&self, id: usize, now: Instant) -> bool {
        let host = &self.hosts[id];
        host.slots() < self.limits.per_host
            && count(self.slots.len()) < self.limits.total
            && host.retry_at.is_none_or(|at| at <= now)
    }

    /// Whether a connection coming back to this host should make room for another host.
    fn yields(&self, id: usize) -> bool {
        if self.closing > 0 || self.hungry.is_empty() || count(self.slots.len()) < self.limits.total {
            return false;
        }
        let Some((slots, ticket, _)) = self.hungry.iter().find(|(.., other)| *other != id) else {
            return false;
        };
        let own = &self.hosts[id];
        slots + 1 < own.slots() || (*slots < own.slots() && *ticket < own.first_ticket())
    }

    /// The first waiter that can use a connection that was used before.
    fn first_reusing(&mut self, id: usize) -> Option<W> {
        let waiters = &mut self.hosts[id].waiters;
        let ticket = waiters.iter().find(|(_, waiter)| !waiter.fresh).map(|(ticket, _)| *ticket)?;
        waiters.remove(&ticket).map(|waiter| waiter.handle)
    }

    fn take_idle(&mut self, id: usize, now: Instant, fx: &mut Effects<C, W>) -> Option<C> {
        while let Some(idle) = self.hosts[id].idle.pop() {
            if !idle.conn.is_live() {
                self.close(idle.conn, CloseReason::Peer, fx);
            } else if idle.expires <= now {
                self.close(idle.conn, CloseReason::Idle, fx);
            } else {
                self.move_to(idle.conn.slot(), Place::Leased);
                return Some(idle.conn);
            }
        }
        None
    }

    /// Makes a connection idle, unless that would be one too many.
    fn park(&mut self, id: usize, conn: C, expires: Instant, now: Instant, fx: &mut Effects<C, W>) {
        let (free, linger) = (self.limits.free as usize, self.limits.linger);
        let excess = self.hosts[id].idle.len() >= free;
        if self.phase != Phase::Open {
            return self.close(conn, CloseReason::Drained, fx);
        }
        if excess && linger.is_zero() {
            return self.close(conn, CloseReason::MaxFree, fx);
        }
        self.move_to(conn.slot(), Place::Idle);
        self.hosts[id].idle.push(Idle { conn, since: now, expires });
        let oldest = self.hosts[id].idle[0].since;
        self.reap_by(if excess { expires.min(oldest + linger) } else { expires }, fx);
    }

    fn reap_by(&mut self, at: Instant, fx: &mut Effects<C, W>) {
        if self.reap_at.is_none_or(|reap_at| at < reap_at) {
            self.reap_at = Some(at);
            fx.reap = true;
        }
    }

    fn close(&mut self, conn: C, reason: CloseReason, fx: &mut Effects<C, W>) {
        self.recorder.closed(reason);
        self.move_to(conn.slot(), Place::Closing);
        self.closing += 1;
        fx.closes.push(conn);
    }

    fn move_to(&mut self, slot: SlotId, place: Place) {
        let slot = &mut self.slots[slot.index];
        let from = std::mem::replace(&mut slot.place, place);
        let host = &mut self.hosts[slot.host];
        if let Some(tally) = host.tally(from) {
            *tally -= 1;
        }
        if let Some(tally) = host.tally(place) {
            *tally += 1;
        }
    }

    /// Frees a place; its connection is not in the idle list.
    fn remove(&mut self, slot: SlotId) -> Option<usize> {
        let id = self.host_of(slot)?;
        let Slot { place, .. } = self.slots.remove(slot.index);
        if let Some(tally) = self.hosts[id].tally(place) {
            *tally -= 1;
        }
        if place == Place::Closing {
            self.closing -= 1;
        }
        Some(id)
    }

    fn host_of(&self, slot: SlotId) -> Option<usize> {
        self.slots.get(slot.index).filter(|held| held.serial == slot.serial).map(|held| held.host)
    }

    fn host(&mut self, key: &Key) -> usize {
        if let Some(id) = self.names.get(key) {
            return *id;
        }
        let id = self.hosts.insert(Host::new(key.clone()));
        self.names.insert(key.clone(), id);
        id
    }

    fn host_ids(&self) -> Vec<usize> {
        self.hosts.iter().map(|(id, _)| id).collect()
    }

    fn ticket(&mut self, ask: Ask) -> i64 {
        if ask == Ask::Any {
            self.back += 1;
            self.back
        } else {
            self.front -= 1;
            self.front
        }
    }

    fn tidy(&mut self, id: usize, fx: &mut Effects<C, W>) {
        if self.hosts.get(id).is_some_and(|host| host.slots() == 0 && host.waiters.is_empty()) {
            let host = self.hosts.remove(id);
            self.names.remove(&host.key);
            if let Some((slots, ticket)) = host.hungry {
                self.hungry.remove(&(slots, ticket, id));
            }
            fx.emptied |= self.phase != Phase::Open && self.hosts.is_empty();
        }
    }
}
