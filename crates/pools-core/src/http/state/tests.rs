//! Random walks: whatever the order of events, the caps hold, the counters agree with what is out there, nobody who could
//! be served waits, and everything ends in nothing.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use super::*;
use crate::http::target::Target as Url;

#[derive(Debug)]
struct Fake {
    slot: SlotId,
    live: Rc<Cell<bool>>,
    streams: Option<Rc<Cell<Streams>>>,
    retires: Instant,
}

impl Pooled for Fake {
    fn slot(&self) -> SlotId {
        self.slot
    }

    fn is_live(&self) -> bool {
        self.live.get()
    }

    fn retires(&self) -> Instant {
        self.retires
    }

    fn streams(&self) -> Option<Streams> {
        self.streams.as_ref().map(|streams| streams.get())
    }

    fn share(&self) -> Self {
        let (live, streams) = (Rc::clone(&self.live), self.streams.clone());
        Self { slot: self.slot, live, streams, retires: self.retires }
    }
}

/// Drives a state as the pool would, and keeps its own books.
struct World {
    state: State<Fake, u64>,
    now: Instant,
    keys: Vec<Key>,
    opening: Vec<SlotId>,
    leased: Vec<Fake>,
    closing: Vec<SlotId>,
    tickets: HashMap<u64, Ticket>,
    next: u64,
    pauses: Vec<(Key, Instant)>,
    opened: u64,
}

impl World {
    fn new(hosts: usize, limits: Limits) -> Self {
        // The first in clear text, the second negotiates HTTP/2, the third HTTP/1.1, and so on.
        let scheme = |n| if n % 3 == 0 { "http" } else { "https" };
        let key = |n| Url::parse(&format!("{}://host{n}", scheme(n))).unwrap().key;
        let keys = (0..hosts).map(key).collect();
        Self {
            state: State::new(limits, Arc::default()),
            now: Instant::now(),
            keys,
            opening: Vec::new(),
            leased: Vec::new(),
            closing: Vec::new(),
            tickets: HashMap::new(),
            next: 0,
            pauses: Vec::new(),
            opened: 0,
        }
    }

    fn apply<T>(
        &mut self,
        transition: impl FnOnce(&mut State<Fake, u64>, Instant, &mut Effects<Fake, u64>) -> T,
    ) -> T {
        let mut fx = Effects::default();
        let result = transition(&mut self.state, self.now, &mut fx);
        self.carry_out(fx);
        result
    }

    fn carry_out(&mut self, fx: Effects<Fake, u64>) {
        self.opening.extend(fx.dials.into_iter().map(|(slot, _)| slot));
        for conn in fx.closes {
            // What was returned of a shared connection is only a handle.
            let slot = self.state.slots.get(conn.slot.index).filter(|slot| slot.serial == conn.slot.serial);
            let closes = slot.is_some_and(|slot| slot.place == Place::Closing);
            if closes && !self.closing.contains(&conn.slot) {
                self.closing.push(conn.slot);
            }
        }
        self.pauses.extend(fx.pause);
        for (waiter, granted) in fx.handed.into_iter().chain(fx.grants) {
            self.tickets.remove(&waiter).expect("served twice, or after it had left");
            self.leased.push(granted.conn);
        }
        for (waiter, _) in fx.failures {
            self.tickets.remove(&waiter).expect("told twice, or after it had left");
        }
    }

    fn acquire(&mut self, key: usize, ask: Ask, random: &mut fastrand::Rng) {
        self.next += 1;
        let (key, id) = (self.keys[key].clone(), self.next);
        let deadline = self.now + Duration::from_millis(random.u64(0..600));
        let mut fx = Effects::default();
        match self.state.acquire(&key, ask, self.now, deadline, &mut fx, || id) {
            Acquired::Granted(granted) => self.leased.push(granted.conn),
            Acquired::Queued(ticket) => drop(self.tickets.insert(id, ticket)),
            Acquired::QueueFull { .. } | Acquired::Closed => {}
        }
        self.carry_out(fx);
    }

    fn leave(&mut self, random: &mut fastrand::Rng) {
        if let Some(id) = random.choice(self.tickets.keys().copied().collect::<Vec<_>>()) {
            let ticket = self.tickets.remove(&id).unwrap();
            assert!(self.apply(|state, now, fx| state.leave(ticket, now, fx)));
        }
    }

    fn dial_ends(&mut self, ok: bool, random: &mut fastrand::Rng) {
        let Some(slot) = take(&mut self.opening, random) else { return };
        let expires = self.now + Duration::from_millis(random.u64(1..100));
        self.opened += u64::from(ok);
        if ok {
            let conn = self.fake(slot, random);
            self.apply(|state, now, fx| state.opened(conn, expires, now, fx));
        } else {
            self.apply(|state, now, fx| state.open_failed(slot, &Failure::Closed, now, fx));
            self.apply(|state, now, fx| state.ended(slot, now, fx));
        }
    }

    fn fake(&self, slot: SlotId, random: &mut fastrand::Rng) -> Fake {
        let host = self.state.host_of(slot).map(|id| self.state.hosts[id].key.clone());
        let shares = self.keys.iter().position(|key| Some(key) == host.as_ref()).is_some_and(|n| n % 3 == 1);
        let streams = shares.then(|| Rc::new(Cell::new(Streams { limit: 1, settled: false })));
        let retires = self.now + Duration::from_millis(random.u64(1..400));
        Fake { slot, live: Rc::new(Cell::new(true)), streams, retires }
    }

    /// SETTINGS arrive on a connection in use.
    fn settles(&mut self, random: &mut fastrand::Rng) {
        let unsettled = |conn: &&Fake| conn.streams().is_some_and(|streams| !streams.settled);
        let conns: Vec<_> = self.leased.iter().filter(unsettled).collect();
        let Some(conn) = random.choice(conns) else { return };
        let streams = Streams { limit: random.u32(1..6), settled: true };
        conn.streams.as_ref().unwrap().set(streams);
        let slot = conn.slot;
        self.apply(|state, now, fx| state.settled(slot, streams, now, fx));
    }

    /// GOAWAY arrives on a connection in use.
    fn retires(&mut self, random: &mut fastrand::Rng) {
        let conns: Vec<_> = self.leased.iter().filter(|conn| conn.streams.is_some()).collect();
        let Some(conn) = random.choice(conns) else { return };
        conn.live.set(false);
        let slot = conn.slot;
        self.apply(|state, now, fx| state.retire(slot, now, fx));
    }

    fn give_back(&mut self, random: &mut fastrand::Rng) {
        let Some(conn) = take(&mut self.leased, random) else { return };
        conn.live.set(conn.is_live() && random.u8(..10) > 0);
        let expires = self.now + Duration::from_millis(random.u64(1..100));
        let fate = match random.u8(..10) {
            0 => Return::Close(CloseReason::Unfinished),
            _ => Return::Reusable { expires },
        };
        self.apply(|state, now, fx| state.give_back(conn, fate, now, fx));
    }

    fn socket_closed(&mut self, random: &mut fastrand::Rng) {
        if let Some(slot) = take(&mut self.closing, random) {
            self.apply(|state, now, fx| state.ended(slot, now, fx));
        }
    }

    /// A peer closes a connection that is in use.
    fn peer_closes(&mut self, random: &mut fastrand::Rng) {
        if let Some(conn) = random.choice(self.leased.iter()) {
            conn.live.set(false);
            let slot = conn.slot;
            self.apply(|state, now, fx| state.ended(slot, now, fx));
        }
    }

    fn time_passes(&mut self, random: &mut fastrand::Rng) {
        self.now += Duration::from_millis(random.u64(0..60));
        let next = self.apply(|state, now, fx| state.expire(now, fx));
        for (_, host) in &self.state.hosts {
            let idle = host.idle.iter().map(|idle| idle.expires);
            let ends = idle.chain(host.waiters.iter().map(|waiter| waiter.deadline));
            // The reaper comes before the first of them ends.
            assert!(
                ends.min().is_none_or(|first| self.now < first && next.is_some_and(|next| next <= first))
            );
        }
        for (key, at) in std::mem::take(&mut self.pauses) {
            if at <= self.now {
                self.apply(|state, now, fx| state.wake(&key, now, fx));
            } else {
                self.pauses.push((key, at));
            }
        }
    }

    fn check(&self) {
        let limits = &self.state.limits;
        let targets = self.state.targets();
        let (mut slots, mut waiting) = (0, 0);
        for (target, (id, host)) in targets.iter().zip(&self.state.hosts) {
            let own = target.in_use + target.idle + target.opening;
            assert!(own <= limits.per_host, "{target:?}");
            assert!(own > 0 || target.waiting > 0, "nothing is left of {target:?}");
            slots += own;
            waiting += target.waiting;
            // Nobody waits whom an idle or a shared connection, or a free place, could serve.
            let all_wait = !host.waiters.iter().any(host.reuses());
            assert!(target.idle == 0 || all_wait, "{target:?}");
            assert!(all_wait || !host.shared.iter().any(|shared| shared.has_room(self.now)), "{target:?}");
            for shared in &host.shared {
                let handles = self.leased.iter().filter(|conn| conn.slot == shared.conn.slot).count();
                assert_eq!(shared.used as usize, handles);
                assert!((1..=shared.conn.streams().unwrap().limit).contains(&shared.used), "{target:?}");
            }
            let room = own < limits.per_host && count(self.state.slots.len()) < limits.total;
            let paused = host.retry_at.is_some_and(|at| at > self.now);
            assert!(!room || paused || host.unserved() == 0, "{target:?} waits beside a free place");
            assert_eq!(host.hungry.is_some(), self.state.wants_dial(id, self.now), "{target:?}");
        }
        assert_eq!(slots, count(self.state.slots.len()));
        assert!(slots <= limits.total);
        assert_eq!(waiting as usize, self.tickets.len());
        let idle: u32 = targets.iter().map(|target| target.idle).sum();
        let alive = self.leased.iter().filter(|conn| self.state.host_of(conn.slot).is_some());
        let leased = alive.map(|conn| conn.slot.serial).collect::<HashSet<_>>().len();
        let closing = self.closing.iter().filter(|slot| self.state.host_of(**slot).is_some()).count();
        assert_eq!(slots as usize, idle as usize + self.opening.len() + leased + closing);
        assert_eq!(self.state.closing as usize, closing);
        let stuck = !self.state.hungry.is_empty() && idle > 0 && closing == 0;
        assert!(!stuck, "a host is hungry beside idle connections, and none is being closed for it");
    }
}

fn take<T>(from: &mut Vec<T>, random: &mut fastrand::Rng) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(random.usize(..from.len())))
}

fn walk(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let per_host = random.u32(1..5);
    let limits = Limits {
        per_host,
        total: random.u32(1..8),
        free: random.u32(0..3),
        linger: Duration::from_millis(random.u64(0..2) * 20),
        queue: random.usize(0..8),
        negotiates: random.u8(..4) > 0,
    };
    let mut world = World::new(random.usize(1..5), limits);
    for _ in 0..400 {
        let host = random.usize(..world.keys.len());
        match random.u8(..23) {
            0..=5 => world.acquire(host, Ask::Any, &mut random),
            6 => {
                let ask = if random.bool() { Ask::Again } else { Ask::Fresh };
                world.acquire(host, ask, &mut random);
            }
            7 => world.leave(&mut random),
            8..=10 => world.dial_ends(random.u8(..4) > 0, &mut random),
            11..=14 => world.give_back(&mut random),
            15..=16 => world.socket_closed(&mut random),
            17 => world.peer_closes(&mut random),
            18 | 19 => world.settles(&mut random),
            20 => world.retires(&mut random),
            _ => world.time_passes(&mut random),
        }
        world.check();
    }
    world.apply(|state, _, fx| state.drain(fx));
    for _ in 0..4_000 {
        if world.state.is_empty() {
            break;
        }
        match random.u8(..5) {
            0 => world.dial_ends(true, &mut random),
            1 | 2 => world.give_back(&mut random),
            3 => world.socket_closed(&mut random),
            _ => world.time_passes(&mut random),
        }
        world.check();
    }
    assert!(world.state.is_empty() && world.tickets.is_empty(), "{:?}", world.state.targets());
    assert!(world.state.names.is_empty() && world.state.hungry.is_empty() && world.state.closing == 0);
    let totals = world.state.recorder.totals();
    assert_eq!(
        totals.closed.iter().map(|(_, count)| count).sum::<u64>(),
        world.opened,
        "closed is not opened"
    );
}

#[tokio::test(start_paused = true)]
async fn two_thousand_random_walks_keep_the_caps_and_end_in_nothing() {
    for seed in 0..2_000 {
        walk(seed);
    }
}
