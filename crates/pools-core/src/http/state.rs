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
//! together and adds to the [`Effects`], which the caller carries out after it has let go of the lock.
//!
//! **Order.** Waiters have tickets; the smallest is served first. Whoever was handed a dead connection takes a
//! negative ticket, which is the front. A returned connection goes to the first waiter, never to a newcomer.
//!
//! **Sharing.** An HTTP/2 connection takes several requests at once: as many as its peer allows, of which each has a handle of
//! the connection; the state keeps the handle that holds it open. With at least one request it is leased, else idle. Until a host
//! has answered one dial (its TLS handshake says which protocol, its SETTINGS how many), no other is begun for it.
//!
//! **The cap over all hosts.** When it is reached, a waiting host first takes the places of idle connections,
//! oldest first. If none is idle, a host gives up a returned connection for the neediest waiting host that has at least two
//! fewer, or one fewer and an older waiter: shares become equal, nobody starves, and nothing oscillates.

mod model;
mod queue;
mod steps;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use slab::Slab;
use tokio::time::Instant;

pub(super) use self::model::{
    Acquired, Ask, Effects, Failure, Granted, Limits, Pooled, Return, SlotId, Streams, Ticket,
};
use self::{
    model::{Host, Place, Shared, Sharing, Slot, count},
    queue::Waiter,
};
use super::target::Key;
use crate::{
    holders::Record,
    stats::{CloseReason, Recorder, Tally, Target},
};

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
    /// The host that was asked for last.
    recent: usize,
    slots: Slab<Slot>,
    /// Connections told to close that still hold their place.
    closing: u32,
    /// Hosts that want to dial, the neediest first: fewest connections, then the oldest waiter.
    hungry: BTreeSet<(u32, i64, usize)>,
    serial: u64,
    back: i64,
    front: i64,
    reap_at: Option<Instant>,
    /// Who holds leases; here, so that one lock is enough.
    pub(super) holders: Slab<Record>,
    pub(super) tally: Tally,
}

impl<C: Pooled, W> State<C, W> {
    pub(super) fn new(limits: Limits, recorder: Arc<Recorder>) -> Self {
        Self {
            limits,
            recorder,
            phase: Phase::Open,
            hosts: Slab::new(),
            names: HashMap::new(),
            recent: 0,
            slots: Slab::new(),
            closing: 0,
            hungry: BTreeSet::new(),
            serial: 0,
            back: 0,
            front: 0,
            reap_at: None,
            holders: Slab::new(),
            tally: Tally::default(),
        }
    }

    /// Takes the newest idle connection, or queues until `deadline`. `handle` is made only for the queue.
    pub(super) fn acquire(
        &mut self,
        key: &Key,
        ask: Ask,
        now: Instant,
        deadline: Instant,
        fx: &mut Effects<C, W>,
        handle: impl FnOnce() -> W,
    ) -> Acquired<C> {
        if self.phase == Phase::Closed || (self.phase == Phase::Draining && ask == Ask::Any) {
            return Acquired::Closed;
        }
        let id = self.host(key);
        let reuses = ask != Ask::Fresh || matches!(self.hosts[id].sharing, Sharing::Shared(_));
        if self.hosts[id].waiters.is_empty()
            && reuses
            && let Some(conn) = self.take(id, now, fx)
        {
            return Acquired::Granted(Granted { conn, reused: true });
        }
        // Whoever has a dial of his own does not stand in the queue. A retry was let in before: refusing it now
        // would turn a lost race into an error.
        let waiting = self.hosts[id].in_line(self.limits.per_host);
        if waiting as usize >= self.limits.queue && ask == Ask::Any && !self.has_room(id, now) {
            self.tidy(id, fx);
            return Acquired::QueueFull { waiting };
        }
        let number = self.ticket(ask);
        let waiter = Waiter { number, handle: handle(), fresh: ask == Ask::Fresh, deadline };
        self.hosts[id].waiters.join(waiter);
        self.reap_by(deadline, fx);
        self.plan(id, now, fx);
        Acquired::Queued(Ticket { host: id, number })
    }

    /// A waiter goes away. Its dial goes on and serves the next. Says whether it still waited; else nothing happens.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Instant, fx: &mut Effects<C, W>) -> bool {
        // Numbers are unique: another host that has meanwhile taken this index does not have this one.
        let host = self.hosts.get_mut(ticket.host);
        let waited = host.and_then(|host| host.waiters.leave(ticket.number)).is_some();
        if waited {
            self.rank(ticket.host, now);
            self.tidy(ticket.host, fx);
        }
        waited
    }

    /// The dial for `conn.slot()` has succeeded.
    pub(super) fn opened(&mut self, conn: C, expires: Instant, now: Instant, fx: &mut Effects<C, W>) {
        let Some(id) = self.host_of(conn.slot()) else { return };
        let host = &mut self.hosts[id];
        host.backoff.reset();
        host.retry_at = None;
        let streams = conn.streams();
        host.sharing = streams.map_or(Sharing::Single, Sharing::Shared);
        match host.waiters.pop_first() {
            Some(waiter) => {
                let slot = conn.slot();
                let conn = if streams.is_some() {
                    let handle = conn.share();
                    host.shared.push(Shared { conn, used: 1, retired: None });
                    handle
                } else {
                    conn
                };
                self.move_to(slot, Place::Leased);
                fx.handed = Some((waiter.handle, Granted { conn, reused: false }));
            }
            None => self.park(id, conn, expires, now, fx),
        }
        self.plan(id, now, fx);
    }

    /// The dial for `slot` has failed. Without any connection to the host, everybody who waits for one is told;
    /// otherwise those that exist go on serving, and the next dial waits a little.
    pub(super) fn open_failed(
        &mut self,
        slot: SlotId,
        failure: &Failure,
        now: Instant,
        fx: &mut Effects<C, W>,
    ) {
        let Some(id) = self.remove(slot) else { return };
        let host = &mut self.hosts[id];
        if host.leased == 0 && host.idle.is_empty() {
            let waiters = std::mem::take(&mut host.waiters);
            fx.failures.extend(waiters.into_iter().map(|waiter| (waiter.handle, failure.clone())));
        } else if host.retry_at.is_none_or(|at| at <= now) {
            let at = now + host.backoff.fail();
            host.retry_at = Some(at);
            fx.pause = Some((host.key.clone(), at));
        }
        self.plan(id, now, fx);
    }

    /// The pause of a host is over.
    pub(super) fn wake(&mut self, key: &Key, now: Instant, fx: &mut Effects<C, W>) {
        if let Some(id) = self.names.get(key).copied() {
            self.plan(id, now, fx);
        }
    }

    /// A lease has ended.
    pub(super) fn give_back(&mut self, conn: C, fate: Return, now: Instant, fx: &mut Effects<C, W>) {
        // Its task may have closed the socket and given up the place already.
        let Some(id) = self.host_of(conn.slot()) else {
            fx.closes.push(conn);
            return;
        };
        if let Some(at) = self.shared_at(id, conn.slot()) {
            self.release(id, at, fate, now, fx);
            fx.closes.push(conn);
            self.plan(id, now, fx);
            return;
        }
        match fate {
            Return::Reusable { .. } if !conn.is_live() => {
                self.close(conn, CloseReason::Peer, fx);
            }
            Return::Reusable { .. } if self.yields(id) => {
                self.close(conn, CloseReason::Evicted, fx);
            }
            Return::Reusable { expires } => match self.first_reusing(id) {
                Some(waiter) => fx.handed = Some((waiter, Granted { conn, reused: true })),
                None => self.park(id, conn, expires, now, fx),
            },
            Return::Close(reason) => self.close(conn, reason, fx),
        }
        self.plan(id, now, fx);
    }

    /// The peer had closed a connection that was idle since then: those that were idle for at least as long go too.
    pub(super) fn invalidate(
        &mut self,
        key: &Key,
        idle_since: Instant,
        now: Instant,
        fx: &mut Effects<C, W>,
    ) {
        let Some(id) = self.names.get(key).copied() else { return };
        while self.hosts[id].idle.first().is_some_and(|idle| idle.since <= idle_since) {
            let idle = self.hosts[id].idle.remove(0);
            self.close(idle.conn, CloseReason::Invalidated, fx);
        }
        self.plan(id, now, fx);
    }

    /// The task of a connection has closed the socket: its place is free.
    pub(super) fn ended(&mut self, slot: SlotId, now: Instant, fx: &mut Effects<C, W>) {
        let Some(id) = self.host_of(slot) else { return };
        match self.slots[slot.index].place {
            Place::Closing => {}
            Place::Leased => {
                let shared = self.shared_at(id, slot).map(|at| self.hosts[id].shared.swap_remove(at));
                let retired = shared.as_ref().and_then(|shared| shared.retired);
                self.recorder.closed(retired.unwrap_or(CloseReason::Broken));
                fx.closes.extend(shared.map(|shared| shared.conn));
            }
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
        self.plan(id, now, fx);
    }

    /// The peer has said how far the connection can be shared.
    pub(super) fn settled(&mut self, slot: SlotId, streams: Streams, now: Instant, fx: &mut Effects<C, W>) {
        let Some(id) = self.host_of(slot) else { return };
        self.hosts[id].sharing = Sharing::Shared(streams);
        self.plan(id, now, fx);
    }

    /// The peer takes no new request on this connection; those under way go on.
    pub(super) fn retire(&mut self, slot: SlotId, now: Instant, fx: &mut Effects<C, W>) {
        let Some(id) = self.host_of(slot) else { return };
        let host = &mut self.hosts[id];
        if let Some(shared) = host.shared.iter_mut().find(|shared| shared.conn.slot() == slot) {
            shared.retired.get_or_insert(CloseReason::NotReusable);
        } else if let Some(at) = host.idle.iter().position(|idle| idle.conn.slot() == slot) {
            let idle = host.idle.remove(at);
            self.close(idle.conn, CloseReason::NotReusable, fx);
        }
        self.plan(id, now, fx);
    }

    /// Closes what was idle for too long, and tells who has waited for too long. Says when to come again.
    pub(super) fn expire(&mut self, now: Instant, fx: &mut Effects<C, W>) -> Option<Instant> {
        // Woken to come earlier than before, or by what has meanwhile gone: to look at every host for that, or to
        // forget when to come, would make each returned connection wake the reaper.
        if let Some(at) = self.reap_at.filter(|at| now < *at) {
            return Some(at);
        }
        self.reap_at = None;
        for id in self.host_ids() {
            self.expire_host(id, now, fx);
            let (late, next) = self.hosts[id].waiters.pop_late(now);
            fx.failures.extend(late.into_iter().map(|handle| (handle, Failure::Late)));
            if let Some(next) = next {
                self.reap_by(next, fx);
            }
            self.plan(id, now, fx);
        }
        fx.reap = false;
        self.reap_at
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
    pub(super) fn drain(&mut self, fx: &mut Effects<C, W>) {
        self.phase = self.phase.max(Phase::Draining);
        for id in self.host_ids() {
            for idle in std::mem::take(&mut self.hosts[id].idle) {
                self.close(idle.conn, CloseReason::Drained, fx);
            }
            self.tidy(id, fx);
        }
        fx.emptied |= self.hosts.is_empty();
    }

    /// Tells everybody who still waits that the pool is closed.
    pub(super) fn cut(&mut self, now: Instant, fx: &mut Effects<C, W>) {
        self.drain(fx);
        self.phase = Phase::Closed;
        for id in self.host_ids() {
            let waiters = std::mem::take(&mut self.hosts[id].waiters);
            fx.failures.extend(waiters.into_iter().map(|waiter| (waiter.handle, Failure::Closed)));
            self.rank(id, now);
            self.tidy(id, fx);
        }
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

    /// Requests under way on connections that take several at once.
    pub(super) fn streams(&self) -> u32 {
        self.hosts.iter().flat_map(|(_, host)| &host.shared).map(|shared| shared.used).sum()
    }

    /// Connections of a host that are not idle, and dials among them.
    pub(super) fn busy(&self, key: &Key) -> (u32, u32) {
        let host = self.names.get(key).map(|id| &self.hosts[*id]);
        host.map_or((0, 0), |host| (host.slots() - count(host.idle.len()), host.opening))
    }

    /// Handles of everybody who waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &W> {
        self.hosts.iter().flat_map(|(_, host)| host.waiters.iter().map(|waiter| &waiter.handle))
    }
}
