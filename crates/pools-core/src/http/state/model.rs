//! What the state machine is made of, and what it tells its caller.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::super::{error::Failure, target::Key};
use crate::{resilience::Backoff, stats::CloseReason};

/// First and longest pause between failed dials while other connections to the host are alive.
pub(super) const DIAL_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How many of what.
#[derive(Clone, Debug)]
pub(in crate::http) struct Limits {
    pub(in crate::http) per_host: u32,
    pub(in crate::http) total: u32,
    pub(in crate::http) free: u32,
    pub(in crate::http) linger: Duration,
    pub(in crate::http) queue: usize,
}

/// A place for one connection. The serial tells it from a later one at the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct SlotId {
    pub(super) index: usize,
    pub(super) serial: u64,
}

/// What the state must know of a connection.
pub(in crate::http) trait Pooled {
    /// Its place.
    fn slot(&self) -> SlotId;
    /// Whether its peer has not closed it yet, as far as is known.
    fn is_live(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Opening,
    Idle,
    Leased,
    Closing,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) serial: u64,
    pub(super) host: usize,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct Idle<C> {
    pub(super) conn: C,
    pub(super) since: Instant,
    pub(super) expires: Instant,
}

#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) handle: W,
    pub(super) fresh: bool,
}

#[derive(Debug)]
pub(super) struct Host<C, W> {
    pub(super) key: Key,
    pub(super) opening: u32,
    pub(super) leased: u32,
    pub(super) closing: u32,
    /// Oldest first; callers take from the end.
    pub(super) idle: Vec<Idle<C>>,
    pub(super) waiters: BTreeMap<i64, Waiter<W>>,
    pub(super) backoff: Backoff,
    pub(super) retry_at: Option<Instant>,
    /// Its entry among the hungry.
    pub(super) hungry: Option<(u32, i64)>,
}

impl<C, W> Host<C, W> {
    pub(super) fn new(key: Key) -> Self {
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

    pub(super) fn slots(&self) -> u32 {
        self.opening + self.leased + self.closing + count(self.idle.len())
    }

    /// Waiters for whom no dial is under way.
    pub(super) fn unserved(&self) -> u32 {
        count(self.waiters.len()).saturating_sub(self.opening)
    }

    pub(super) fn first_ticket(&self) -> i64 {
        self.waiters.first_key_value().map_or(i64::MAX, |(ticket, _)| *ticket)
    }

    pub(super) fn tally(&mut self, place: Place) -> Option<&mut u32> {
        match place {
            Place::Opening => Some(&mut self.opening),
            Place::Leased => Some(&mut self.leased),
            Place::Closing => Some(&mut self.closing),
            Place::Idle => None,
        }
    }
}

pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// How a request came by its connection.
#[derive(Debug)]
pub(in crate::http) struct Granted<C> {
    pub(in crate::http) conn: C,
    pub(in crate::http) reused: bool,
}

/// Where an acquire stands.
#[derive(Debug)]
pub(in crate::http) enum Acquired<C> {
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
pub(in crate::http) struct Ticket {
    pub(super) host: usize,
    pub(super) number: i64,
}

/// What kind of connection a caller can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::http) enum Ask {
    /// A first try.
    Any,
    /// It was given a dead connection: any other, before everybody else.
    Again,
    /// A retry after a stale connection: one that nobody used, before everybody else.
    Fresh,
}

/// What becomes of a returned connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) enum Return {
    /// It may be used until then.
    Reusable { expires: Instant },
    /// Close it.
    Close(CloseReason),
}

/// What the caller of a transition has to do, outside the lock.
#[derive(Debug)]
#[must_use]
pub(in crate::http) struct Effects<C, W> {
    pub(in crate::http) grants: Vec<(W, Granted<C>)>,
    pub(in crate::http) failures: Vec<(W, Failure)>,
    pub(in crate::http) dials: Vec<(SlotId, Key)>,
    /// Dropping these closes them.
    pub(in crate::http) closes: Vec<C>,
    /// Ask the host again at that time.
    pub(in crate::http) pause: Option<(Key, Instant)>,
    /// The reaper sleeps too long.
    pub(in crate::http) reap: bool,
    /// A closed pool has become empty.
    pub(in crate::http) emptied: bool,
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
