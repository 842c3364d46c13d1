//! The steps that transitions share. Each leaves the counters right; [`State::plan`] comes last.

use tokio::time::Instant;

use super::{
    Phase, State,
    model::{Ask, Effects, Granted, Host, Idle, Place, Pooled, Return, Shared, Sharing, Slot, SlotId, count},
};
use crate::{http::target::Key, stats::CloseReason};

impl<C: Pooled, W> State<C, W> {
    /// Serves waiters from idle connections, dials for the others where the caps allow, makes room where they do
    /// not, and forgets the host when nothing is left of it.
    pub(super) fn plan(&mut self, id: usize, now: Instant, fx: &mut Effects<C, W>) {
        while self.has_reusing(id) {
            let Some(conn) = self.take(id, now, fx) else { break };
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
    pub(super) fn feed(&mut self, now: Instant, fx: &mut Effects<C, W>) {
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
    pub(super) fn wanted(&self, enough: u32) -> u32 {
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
    pub(super) fn rank(&mut self, id: usize, now: Instant) {
        let wants = self.wants_dial(id, now);
        let Some(host) = self.hosts.get_mut(id) else { return };
        let rank = wants.then(|| (host.slots(), host.waiters.first_number()));
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

    pub(super) fn dial(&mut self, id: usize, fx: &mut Effects<C, W>) {
        self.serial += 1;
        let index = self.slots.insert(Slot { serial: self.serial, host: id, place: Place::Opening });
        self.hosts[id].opening += 1;
        fx.dials.push((SlotId { index, serial: self.serial }, self.hosts[id].key.clone()));
    }

    pub(super) fn wants_dial(&self, id: usize, now: Instant) -> bool {
        self.hosts.get(id).is_some_and(|host| {
            host.unserved() > 0
                && host.slots() < self.limits.per_host
                && host.retry_at.is_none_or(|at| at <= now)
        })
    }

    /// Whether a new waiter would get a dial at once.
    pub(super) fn has_room(&self, id: usize, now: Instant) -> bool {
        let host = &self.hosts[id];
        host.sharing == Sharing::Single
            && host.slots() < self.limits.per_host
            && count(self.slots.len()) < self.limits.total
            && host.retry_at.is_none_or(|at| at <= now)
    }

    /// Whether a connection coming back to this host should make room for another host.
    pub(super) fn yields(&self, id: usize) -> bool {
        if self.closing > 0 || self.hungry.is_empty() || count(self.slots.len()) < self.limits.total {
            return false;
        }
        let Some((slots, ticket, _)) = self.hungry.iter().find(|(.., other)| *other != id) else {
            return false;
        };
        let own = &self.hosts[id];
        slots + 1 < own.slots() || (*slots < own.slots() && *ticket < own.waiters.first_number())
    }

    /// The first waiter that can use a connection that was used before.
    pub(super) fn first_reusing(&mut self, id: usize) -> Option<W> {
        let host = &mut self.hosts[id];
        let reuses = host.reuses();
        host.waiters.pop_first_that(reuses).map(|waiter| waiter.handle)
    }

    fn has_reusing(&self, id: usize) -> bool {
        let host = &self.hosts[id];
        host.waiters.iter().any(host.reuses())
    }

    /// A connection for one request: room on a shared one, the fullest first so that others become idle, else an idle one.
    pub(super) fn take(&mut self, id: usize, now: Instant, fx: &mut Effects<C, W>) -> Option<C> {
        let shared = self.hosts[id].shared.iter_mut().filter(|shared| shared.has_room(now));
        if let Some(shared) = shared.max_by_key(|shared| shared.used) {
            shared.used += 1;
            return Some(shared.conn.share());
        }
        let conn = self.take_idle(id, now, fx)?;
        if conn.streams().is_none() {
            return Some(conn);
        }
        let handle = conn.share();
        self.hosts[id].shared.push(Shared { conn, used: 1, retired: None });
        Some(handle)
    }

    /// One request less on a shared connection.
    pub(super) fn release(
        &mut self,
        id: usize,
        at: usize,
        fate: Return,
        now: Instant,
        fx: &mut Effects<C, W>,
    ) {
        // One at a time makes room for another host: the next that comes back decides anew.
        let yields = self.yields(id) && self.hosts[id].shared.iter().all(|shared| shared.retired.is_none());
        let shared = &mut self.hosts[id].shared[at];
        shared.used -= 1;
        match fate {
            Return::Close(reason) => drop(shared.retired.get_or_insert(reason)),
            Return::Reusable { .. } if yields => shared.retired = Some(CloseReason::Evicted),
            Return::Reusable { .. } => {}
        }
        if shared.used > 0 {
            return;
        }
        let Shared { conn, retired, .. } = self.hosts[id].shared.swap_remove(at);
        match (retired, fate) {
            (Some(reason), _) | (None, Return::Close(reason)) => self.close(conn, reason, fx),
            (None, Return::Reusable { .. }) if !conn.is_live() => self.close(conn, CloseReason::Peer, fx),
            (None, Return::Reusable { expires }) if expires <= now => {
                self.close(conn, CloseReason::Recycled, fx);
            }
            (None, Return::Reusable { expires }) => self.park(id, conn, expires, now, fx),
        }
    }

    pub(super) fn shared_at(&self, id: usize, slot: SlotId) -> Option<usize> {
        self.hosts[id].shared.iter().position(|shared| shared.conn.slot() == slot)
    }

    pub(super) fn take_idle(&mut self, id: usize, now: Instant, fx: &mut Effects<C, W>) -> Option<C> {
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
    pub(super) fn park(
        &mut self,
        id: usize,
        conn: C,
        expires: Instant,
        now: Instant,
        fx: &mut Effects<C, W>,
    ) {
        let (free, linger) = (self.limits.free as usize, self.limits.linger);
        let excess = self.hosts[id].idle.len() >= free;
        if self.phase != Phase::Open {
            return self.close(conn, CloseReason::Drained, fx);
        }
        if excess && linger.is_zero() {
            return self.close(conn, CloseReason::MaxFree, fx);
        }
        self.move_to(conn.slot(), Place::Idle);
        // Whoever gives back reads the clock before it has the lock.
        let since = self.hosts[id].idle.last().map_or(now, |newest| newest.since.max(now));
        self.hosts[id].idle.push(Idle { conn, since, expires });
        let oldest = self.hosts[id].idle[0].since;
        self.reap_by(if excess { expires.min(oldest + linger) } else { expires }, fx);
    }

    pub(super) fn reap_by(&mut self, at: Instant, fx: &mut Effects<C, W>) {
        if self.reap_at.is_none_or(|reap_at| at < reap_at) {
            self.reap_at = Some(at);
            fx.reap = true;
        }
    }

    pub(super) fn close(&mut self, conn: C, reason: CloseReason, fx: &mut Effects<C, W>) {
        self.recorder.closed(reason);
        self.move_to(conn.slot(), Place::Closing);
        self.closing += 1;
        fx.closes.push(conn);
    }

    pub(super) fn move_to(&mut self, slot: SlotId, place: Place) {
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
    pub(super) fn remove(&mut self, slot: SlotId) -> Option<usize> {
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

    pub(super) fn host_of(&self, slot: SlotId) -> Option<usize> {
        self.slots.get(slot.index).filter(|held| held.serial == slot.serial).map(|held| held.host)
    }

    pub(super) fn host(&mut self, key: &Key) -> usize {
        // Most processes ask one host most of the time, and to compare a name costs less than its hash.
        if self.hosts.get(self.recent).is_some_and(|host| host.key == *key) {
            return self.recent;
        }
        if let Some(id) = self.names.get(key) {
            self.recent = *id;
            return *id;
        }
        let id = self.hosts.insert(Host::new(key.clone(), self.limits.negotiates));
        self.names.insert(key.clone(), id);
        id
    }

    pub(super) fn host_ids(&self) -> Vec<usize> {
        self.hosts.iter().map(|(id, _)| id).collect()
    }

    pub(super) fn ticket(&mut self, ask: Ask) -> i64 {
        if ask == Ask::Any {
            self.back += 1;
            self.back
        } else {
            self.front -= 1;
            self.front
        }
    }

    pub(super) fn tidy(&mut self, id: usize, fx: &mut Effects<C, W>) {
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
