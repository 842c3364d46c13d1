//! What is known about names. Decides; does not ask, wait or read a clock.
//!
//! ```text
//!  nothing ──look──► asking ──found──► fresh ──TTL over──► old ──look──► asking, with an old address at hand
//!     ▲                │ unknown         ▲                  │                │ failed, or its callers give up
//!     │                ▼                 └──────found───────┼────────────────┤
//!     └──time over── refused ◄──failed, nothing old at hand─┘                ▼
//!                                                                  old, not asked for a while
//! ```

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Addresses, Fault, Outcome};

/// A TTL of nothing would ask for each connection of a burst.
const MIN_TTL: Duration = Duration::from_secs(1);
/// Longest time that a name counts as unknown: one that was just made must be found soon.
const MAX_UNKNOWN: Duration = Duration::from_secs(10);
/// After a failure without an address at hand (RFC 9520 wants a second at least).
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// After a failure with an old address at hand: each attempt holds up its caller.
const STALE_PAUSE: Duration = Duration::from_secs(5);

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most names.
    pub(super) names: usize,
    /// Longest time that an address counts as fresh.
    pub(super) max_ttl: Duration,
    /// How long after that it may be used while no server answers.
    pub(super) stale: Duration,
}

/// What a caller is to do. `A` is a lookup that can be waited for.
#[derive(Debug)]
pub(super) enum Look<A> {
    /// Take these.
    Fresh(Addresses),
    /// Take these: they are old, and the servers have just failed.
    Stale(Addresses),
    /// There is nothing to be had for now.
    Refused(Fault),
    /// Wait, or take what is old when that takes too long.
    Wait { asking: A, stale: Option<Addresses> },
}

#[derive(Debug)]
struct Entry<A> {
    good: Option<Good>,
    bad: Option<Bad>,
    asking: Option<A>,
}

#[derive(Debug)]
struct Good {
    addresses: Addresses,
    fresh_until: Instant,
    usable_until: Instant,
}

#[derive(Debug)]
struct Bad {
    fault: Fault,
    until: Instant,
}

impl<A> Entry<A> {
    fn stale(&self, now: Instant) -> Option<Addresses> {
        self.good.as_ref().filter(|good| now < good.usable_until).map(|good| Arc::clone(&good.addresses))
    }

    /// When it says nothing any more. Never while it is asked for.
    fn ends(&self) -> Option<Instant> {
        let known =
            [self.good.as_ref().map(|good| good.usable_until), self.bad.as_ref().map(|bad| bad.until)];
        if self.asking.is_some() { None } else { known.into_iter().flatten().max() }
    }
}

#[derive(Debug)]
pub(super) struct Cache<A> {
    bounds: Bounds,
    names: HashMap<Arc<str>, Entry<A>>,
}

impl<A: Clone> Cache<A> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, names: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// What is known of `name`. `ask` is called if it has to be asked for and nobody does.
    pub(super) fn look(&mut self, name: &Arc<str>, now: Instant, ask: impl FnOnce() -> A) -> Look<A> {
        if !self.names.contains_key(name) {
            self.make_room(now);
        }
        let nothing = || Entry { good: None, bad: None, asking: None };
        let entry = self.names.entry(Arc::clone(name)).or_insert_with(nothing);
        if let Some(good) = entry.good.as_ref().filter(|good| now < good.fresh_until) {
            return Look::Fresh(Arc::clone(&good.addresses));
        }
        let stale = entry.stale(now);
        if let Some(bad) = entry.bad.as_ref().filter(|bad| now < bad.until) {
            return stale.map_or_else(|| Look::Refused(bad.fault.clone()), Look::Stale);
        }
        Look::Wait { asking: entry.asking.get_or_insert_with(ask).clone(), stale }
    }

    /// The lookup of `name` has ended.
    pub(super) fn settle(&mut self, name: &str, outcome: Outcome, now: Instant) {
        let bounds = self.bounds;
        let Some(entry) = self.names.get_mut(name) else { return };
        entry.asking = None;
        match outcome {
            Outcome::Found(addresses, ttl) => {
                let fresh_until = now + ttl.max(MIN_TTL).min(bounds.max_ttl);
                entry.good = Some(Good { addresses, fresh_until, usable_until: fresh_until + bounds.stale });
                entry.bad = None;
            }
            Outcome::Unknown(pause) => {
                let until = now + pause.clamp(MIN_TTL, MAX_UNKNOWN);
                entry.good = None;
                entry.bad = Some(Bad { fault: Fault::Unknown, until });
            }
            Outcome::Failed(fault) => {
                let pause = if entry.stale(now).is_some() { STALE_PAUSE } else { FAILED_PAUSE };
                entry.bad = Some(Bad { fault, until: now + pause });
            }
        }
    }

    /// A caller has taken an old address rather than to wait longer: nobody else need wait for a while. The lookup goes on.
    pub(super) fn gives_up(&mut self, name: &str, fault: Fault, now: Instant) {
        if let Some(entry) = self.names.get_mut(name).filter(|entry| entry.asking.is_some()) {
            entry.bad = Some(Bad { fault, until: now + STALE_PAUSE });
        }
    }

    /// Forgets what says nothing any more; if that is not enough, what would do so next.
    fn make_room(&mut self, now: Instant) {
        if self.names.len() < self.bounds.names {
            return;
        }
        self.names.retain(|_, entry| entry.ends().is_none_or(|end| now < end));
        if self.names.len() >= self.bounds.names {
            let ends = self.names.iter().filter_map(|(name, entry)| Some((entry.ends()?, Arc::clone(name))));
            if let Some((_, first)) = ends.min() {
                self.names.remove(&first);
            }
        }
    }
}
