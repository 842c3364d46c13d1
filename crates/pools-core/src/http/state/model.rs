//! What the state machine is made of, and what it tells its caller.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{error::OpenError, target::Key},
    queue::{Queue, Waiter},
};
use crate::{
    resilience::Backoff,
    stats::{CloseReason, Outcome},
};

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
    /// Whether a TLS handshake may bring a connection that can be shared.
    pub(in crate::http) negotiates: bool,
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
    /// It takes no new request from then on.
    fn retires(&self) -> Instant;
    /// How many requests it takes at once; `None` for one that takes one after the other and cannot be shared.
    fn streams(&self) -> Option<Streams>;
    /// Another handle of one that can be shared. Only the first handle keeps the connection open.
    fn share(&self) -> Self;
}

/// What is known of how far a connection can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct Streams {
    /// At least 1.
    pub(in crate::http) limit: u32,
    /// Whether the peer has said so (SETTINGS).
    pub(in crate::http) settled: bool,
}

/// What is known of the connections to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nothing before the first TLS handshake: one dial, since one connection may be enough for all.
    Unknown,
    /// One request at a time.
    Single,
    /// So many requests at once.
    Shared(Streams),
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

/// A connection with requests under way that takes more than one.
#[derive(Debug)]
pub(super) struct Shared<C> {
    pub(super) conn: C,
    /// Requests under way, never 0.
    pub(super) used: u32,
    /// Why it takes no more.
    pub(super) retired: Option<CloseReason>,
}

impl<C: Pooled> Shared<C> {
    pub(super) fn has_room(&self, now: Instant) -> bool {
        let room = self.conn.streams().is_some_and(|streams| self.used < streams.limit);
        room && self.retired.is_none() && self.conn.is_live() && now < self.conn.retires()
    }
}

#[derive(Debug)]
pub(super) struct Host<C, W> {
    pub(super) key: Key,
    pub(super) opening: u32,
    pub(super) leased: u32,
    pub(super) closing: u32,
    /// Oldest first; callers take from the end.
    pub(super) idle: Vec<Idle<C>>,
    /// Counted as leased.
    pub(super) shared: Vec<Shared<C>>,
    pub(super) sharing: Sharing,
    pub(super) waiters: Queue<W>,
    pub(super) backoff: Backoff,
    pub(super) retry_at: Option<Instant>,
    /// Its entry among the hungry.
    pub(super) hungry: Option<(u32, i64)>,
}

impl<C, W> Host<C, W> {
    pub(super) fn new(key: Key, negotiates: bool) -> Self {
        let sharing = if negotiates && key.tls() { Sharing::Unknown } else { Sharing::Single };
        Self {
            key,
            shared: Vec::new(),
            sharing,
            opening: 0,
            leased: 0,
            closing: 0,
            idle: Vec::new(),
            waiters: Queue::default(),
            backoff: Backoff::new(DIAL_PAUSE.0, DIAL_PAUSE.1),
            retry_at: None,
            hungry: None,
        }
    }

    pub(super) fn slots(&self) -> u32 {
        self.opening + self.leased + self.closing + count(self.idle.len())
    }

    /// Dials that the waiters could use beside those under way.
    pub(super) fn unserved(&self) -> u32 {
        let waiters = count(self.waiters.len());
        let useful = match self.sharing {
            Sharing::Single => waiters,
            // How many dials are of use is known when this one is answered.
            Sharing::Unknown => waiters.min(1),
            Sharing::Shared(Streams { settled: false, .. }) => {
                let answers = self.shared.iter().any(|shared| shared.retired.is_none());
                if answers { 0 } else { waiters.min(1) }
            }
            Sharing::Shared(Streams { limit, .. }) => waiters.div_ceil(limit),
        };
        useful.saturating_sub(self.opening)
    }

    /// Waiters for whom no connection is being opened, and none can be.
    pub(super) fn in_line(&self, per_host: u32) -> u32 {
        let waiters = count(self.waiters.len());
        let served = match self.sharing {
            Sharing::Single => self.opening,
            Sharing::Shared(Streams { limit, settled: true }) => self.opening.saturating_mul(limit),
            _ => per_host.saturating_sub(self.slots() - self.opening),
        };
        waiters.saturating_sub(served)
    }

    /// Whether a waiter can use a connection that was used before.
    pub(super) fn reuses(&self) -> impl Fn(&Waiter<W>) -> bool + use<C, W> {
        // One that is shared is not stale while others use it, and gone when it broke.
        let are_shared = matches!(self.sharing, Sharing::Shared(_));
        move |waiter| are_shared || !waiter.fresh
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

/// What a waiter is told instead of a connection.
#[derive(Clone, Debug)]
pub(in crate::http) enum Failure {
    Open(OpenError),
    Closed,
    /// Its deadline has passed.
    Late,
}

impl Failure {
    /// What its wait is counted as.
    pub(in crate::http) fn outcome(&self) -> Outcome {
        match self {
            Self::Open(_) => Outcome::OpenFailed,
            Self::Closed => Outcome::Refused,
            Self::Late => Outcome::Timeout,
        }
    }
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
    /// Whom the connection at hand goes to: a place for itself, since it is what happens most.
    pub(in crate::http) handed: Option<(W, Granted<C>)>,
    /// Who else is served.
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
            handed: None,
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

impl<C, W> Effects<C, W> {
    /// Whether nothing is left to be done, which is the case after most transitions.
    pub(in crate::http) fn is_nothing(&self) -> bool {
        let Self { handed, grants, failures, dials, closes, pause, reap, emptied } = self;
        handed.is_none()
            && grants.is_empty()
            && failures.is_empty()
            && dials.is_empty()
            && closes.is_empty()
            && pause.is_none()
            && !(*reap || *emptied)
    }
}
