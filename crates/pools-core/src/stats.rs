//! One snapshot type for all pools, and the counters that feed it.
//!
//! A pool owns one [`Recorder`]. Its transition functions move the state and the recorder together; a
//! [`Snapshot`] is taken under the pool's own lock, so the numbers in it add up. The stats pages, `/metrics`
//! and `/health` are all made from snapshots and therefore cannot disagree.

mod histogram;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

use self::histogram::Durations;
pub use self::histogram::{BUCKETS, Histogram, HistogramSnapshot};
use crate::{health::Health, holders::Holder, pool::PoolKind};

/// A closed set of label values. The compiler counts the cardinality.
pub trait Label: Copy + Send + Sync + 'static {
    /// Every value, in the order of the enum.
    const ALL: &'static [Self];
    /// The value as it appears in metrics.
    fn as_str(self) -> &'static str;
}

/// How an `acquire` (or a call, for multiplexed lanes) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A lease was handed out.
    Ok,
    /// The queue of waiters was full.
    QueueFull,
    /// The deadline passed while waiting for a place.
    Timeout,
    /// There was a place, but no connection could be made or checked.
    OpenFailed,
    /// The caller went away while it waited.
    Cancelled,
    /// The pool was closed or its server known to be down.
    Refused,
}

impl Label for Outcome {
    const ALL: &'static [Self] =
        &[Self::Ok, Self::QueueFull, Self::Timeout, Self::OpenFailed, Self::Cancelled, Self::Refused];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::QueueFull => "queue_full",
            Self::Timeout => "timeout",
            Self::OpenFailed => "open_failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it while it was idle.
    Peer,
    /// It broke in use.
    Broken,
    /// It was idle for too long.
    Idle,
    /// It reached its maximal age.
    Recycled,
    /// The free list was full (Node's `maxFreeSockets`, QueuePool's `max_overflow`).
    MaxFree,
    /// Its last use did not finish.
    Unfinished,
    /// A check before use failed.
    CheckFailed,
    /// It was older than a failure that condemned its generation.
    Invalidated,
    /// Another target needed its place.
    Evicted,
    /// The peer asked for it (`Connection: close`, GOAWAY).
    NotReusable,
    /// The pool was drained.
    Drained,
    /// Its holder took it out of the pool.
    Detached,
}

impl Label for CloseReason {
    const ALL: &'static [Self] = &[
        Self::Peer,
        Self::Broken,
        Self::Idle,
        Self::Recycled,
        Self::MaxFree,
        Self::Unfinished,
        Self::CheckFailed,
        Self::Invalidated,
        Self::Evicted,
        Self::NotReusable,
        Self::Drained,
        Self::Detached,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Recycled => "recycled",
            Self::MaxFree => "max_free",
            Self::Unfinished => "unfinished",
            Self::CheckFailed => "check_failed",
            Self::Invalidated => "invalidated",
            Self::Evicted => "evicted",
            Self::NotReusable => "not_reusable",
            Self::Drained => "drained",
            Self::Detached => "detached",
        }
    }
}

/// One atomic counter per value of a label.
#[derive(Debug)]
pub struct Counters<L: Label> {
    counts: Box<[AtomicU64]>,
    label: std::marker::PhantomData<fn(L)>,
}

impl<L: Label + PartialEq> Default for Counters<L> {
    fn default() -> Self {
        Self { counts: L::ALL.iter().map(|_| AtomicU64::new(0)).collect(), label: std::marker::PhantomData }
    }
}

impl<L: Label + PartialEq> Counters<L> {
    /// Counts one.
    pub fn add(&self, label: L) {
        let index = L::ALL.iter().position(|each| *each == label).expect("BUG: a label outside its ALL");
        self.counts[index].fetch_add(1, Ordering::Relaxed);
    }

    /// The count of one label.
    pub fn get(&self, label: L) -> u64 {
        self.counts().find(|(each, _)| *each == label).map_or(0, |(_, count)| count)
    }

    /// Every label with its count.
    pub fn counts(&self) -> impl Iterator<Item = (L, u64)> + '_ {
        L::ALL.iter().zip(&self.counts).map(|(label, count)| (*label, count.load(Ordering::Relaxed)))
    }
}

/// What a pool counts under a lock that it holds anyway, where an atomic operation per number would be wasted.
/// [`Recorder::totals_with`] adds it to the rest.
#[derive(Debug, Default)]
pub struct Tally {
    wait: Durations,
    usage: Durations,
}

impl Tally {
    /// An acquire ended well, after it had `waited` so long.
    pub fn acquired(&mut self, waited: Duration) {
        self.wait.add(waited);
    }

    /// A lease was out for so long.
    pub fn used(&mut self, duration: Duration) {
        self.usage.add(duration);
    }
}

/// The counters that every pool keeps.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Connections opened.
    pub opened: AtomicU64,
    /// Connections closed, by reason.
    pub closed: Counters<CloseReason>,
    /// Acquires by outcome.
    pub acquires: Counters<Outcome>,
    /// Time a caller waited for its lease.
    pub wait: Histogram,
    /// Time an open took, failed ones included.
    pub open: Histogram,
    /// Time a lease was out.
    pub usage: Histogram,
    /// Opens that failed.
    pub open_failures: AtomicU64,
}

impl Recorder {
    /// An acquire ended after `waited`.
    pub fn acquired(&self, outcome: Outcome, waited: Duration) {
        self.acquires.add(outcome);
        self.wait.record(waited);
    }

    /// An open ended after `took`.
    pub fn open_ended(&self, ok: bool, took: Duration) {
        let counter = if ok { &self.opened } else { &self.open_failures };
        counter.fetch_add(1, Ordering::Relaxed);
        self.open.record(took);
    }

    /// A live connection was closed.
    pub fn closed(&self, reason: CloseReason) {
        self.closed.add(reason);
    }

    /// Everything counted so far.
    pub fn totals(&self) -> Totals {
        self.totals_with(&Tally::default())
    }

    /// Everything counted so far, here and there.
    pub fn totals_with(&self, tally: &Tally) -> Totals {
        let ok = tally.wait.count();
        let acquires = self.acquires.counts();
        let acquires = acquires.map(|(outcome, count)| {
            (outcome.as_str(), if outcome == Outcome::Ok { count + ok } else { count })
        });
        Totals {
            opened: self.opened.load(Ordering::Relaxed),
            open_failures: self.open_failures.load(Ordering::Relaxed),
            closed: self.closed.counts().map(|(reason, count)| (reason.as_str(), count)).collect(),
            acquires: acquires.collect(),
            wait: self.wait.snapshot_with(&tally.wait),
            open: self.open.snapshot(),
            usage: self.usage.snapshot_with(&tally.usage),
        }
    }
}

/// Values of a [`Recorder`] at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// Connections opened since the start.
    pub opened: u64,
    /// Opens that failed since the start.
    pub open_failures: u64,
    /// Connections closed, by reason.
    pub closed: Vec<(&'static str, u64)>,
    /// Acquires by outcome.
    pub acquires: Vec<(&'static str, u64)>,
    /// Seconds waited for a lease.
    pub wait: HistogramSnapshot,
    /// Seconds an open took.
    pub open: HistogramSnapshot,
    /// Seconds a lease was out.
    pub usage: HistogramSnapshot,
}

/// Connections to one target (a host and port, an RPC URL, a lane), at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Printable name without secrets.
    pub name: String,
    /// Most connections allowed to it.
    pub limit: u32,
    /// Leased connections.
    pub in_use: u32,
    /// Open connections that nobody uses.
    pub idle: u32,
    /// Connections being opened.
    pub opening: u32,
    /// Callers waiting for one.
    pub waiting: u32,
}

impl Target {
    /// Connections that are open.
    pub fn live(&self) -> u32 {
        self.in_use + self.idle
    }
}

/// Whether a [`Sample`] goes up only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// Goes up only; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric of one pool, cache or service beyond those that all pools share.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Metric name, with prefix and unit.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: SampleKind,
    /// Labels, values from closed sets.
    pub labels: Vec<(&'static str, &'static str)>,
    /// Value.
    pub value: f64,
}

/// One consistent picture of a pool.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which pool.
    pub pool: PoolKind,
    /// Whether its server answers.
    pub health: Health,
    /// Most connections allowed in all.
    pub limit: u32,
    /// Connections by target; a target without any has no entry.
    pub targets: Vec<Target>,
    /// Who holds what, longest first.
    pub holders: Vec<Holder>,
    /// Counters since the start.
    pub totals: Totals,
    /// What only this pool counts.
    pub samples: Vec<Sample>,
}

impl Snapshot {
    /// Leased connections of all targets.
    pub fn in_use(&self) -> u32 {
        self.targets.iter().map(|target| target.in_use).sum()
    }

    /// Idle connections of all targets.
    pub fn idle(&self) -> u32 {
        self.targets.iter().map(|target| target.idle).sum()
    }

    /// Connections of all targets being opened.
    pub fn opening(&self) -> u32 {
        self.targets.iter().map(|target| target.opening).sum()
    }

    /// Waiting callers of all targets.
    pub fn waiting(&self) -> u32 {
        self.targets.iter().map(|target| target.waiting).sum()
    }

    /// Open connections of all targets.
    pub fn live(&self) -> u32 {
        self.in_use() + self.idle()
    }
}
