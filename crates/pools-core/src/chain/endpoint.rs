//! What is known of one RPC URL: whether it may be used, and how much it accepts at once.
//!
//! ```text
//!  unknown ──right chain id──► up ──`STRIKES` failures, or a failed probe after one──► down
//!     │ probe failed             ▲                                                      │
//!     └──────► down              └───────────────── probe answers, right chain id ──────┘
//!  up ──429──► paused until its Retry-After ──► up          any ──other chain id──► refused until it is right
//! ```
//!
//! Only probes (`eth_chainId`) bring an endpoint back; calls are never sent to find out. No clock, no I/O.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::error::ChainError;
use crate::resilience::{Backoff, Breaker, BreakerState};

/// Failures in a row after which an endpoint is down: the failure and its retry.
const STRIKES: u32 = 2;
/// Time between probes of an endpoint that is down. A node is picked up well within a second of its appearing.
const DOWN_PROBE: Duration = Duration::from_millis(500);
/// A lowered limit is tried at twice its value after this long without a refusal: providers change their caps
/// with plans, not by the minute.
const GROW_AFTER: Duration = Duration::from_secs(300);
/// Most bytes of one POST.
pub(super) const MAX_BODY: usize = 1 << 20;
/// Refusals of a size once accepted that overrule the acceptance.
const OVERRULED: u32 = 3;

/// How many calls and bytes one POST may have, as learnt from refusals.
#[derive(Debug)]
pub(super) struct Limit {
    configured: usize,
    calls: usize,
    bytes: usize,
    /// Most calls accepted since the last refusal that counted. A batch refused at this size or less was
    /// refused for what was in it, not for its size.
    proved: usize,
    doubts: u32,
    grow_at: Option<Instant>,
}

impl Limit {
    fn new(configured: usize) -> Self {
        Self { configured, calls: configured, bytes: MAX_BODY, proved: 0, doubts: 0, grow_at: None }
    }

    /// Calls and bytes of the next POST.
    pub(super) fn next(&mut self, now: Instant) -> (usize, usize) {
        if self.grow_at.is_some_and(|at| at <= now) {
            self.calls = (self.calls * 2).min(self.configured);
            self.bytes = (self.bytes * 2).min(MAX_BODY);
            let grown = self.calls == self.configured && self.bytes == MAX_BODY;
            self.grow_at = (!grown).then(|| now + GROW_AFTER);
        }
        (self.calls, self.bytes)
    }

    pub(super) fn accepted(&mut self, calls: usize) {
        if calls > 1 {
            self.proved = self.proved.max(calls);
            self.calls = self.calls.max(calls);
            self.doubts = 0;
        }
    }

    /// A POST of more than one call was refused as a whole.
    pub(super) fn refused(&mut self, calls: usize, now: Instant) {
        if calls <= self.proved && self.doubts + 1 < OVERRULED {
            self.doubts += 1;
            return;
        }
        self.calls = self.calls.min((calls / 2).max(1));
        self.proved = self.proved.min(self.calls);
        self.doubts = 0;
        self.grow_at = Some(now + GROW_AFTER);
    }

    /// A POST was refused for its bytes.
    pub(super) fn too_large(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.bytes.min((bytes / 2).max(1));
        self.grow_at = Some(now + GROW_AFTER);
    }
}

/// Whether an endpoint may be used now.
#[derive(Debug)]
pub(super) enum Use {
    Now,
    /// Not before that; without a time, not before the probe that is out has its answer.
    Later(Option<Instant>),
    No(ChainError),
}

#[derive(Debug)]
enum Trust {
    /// The first probe is out.
    Unknown,
    /// The first probe is back, but a preferred endpoint decides first which chain is right.
    Answered(u64),
    Right,
    Refused(ChainError),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) name: Arc<str>,
    pub(super) limit: Limit,
    /// POSTs out, probes not counted.
    pub(super) in_flight: usize,
    trust: Trust,
    breaker: Breaker,
    last_failure: Option<(Instant, ChainError)>,
    /// The probe that followed the last failure failed as well, or no probe ever succeeded.
    down: bool,
    paused_until: Option<Instant>,
    pauses: Backoff,
    probing: bool,
    next_probe: Instant,
}

impl Endpoint {
    pub(super) fn new(name: Arc<str>, max_calls: usize, now: Instant) -> Self {
        Self {
            name,
            limit: Limit::new(max_calls),
            in_flight: 0,
            trust: Trust::Unknown,
            breaker: Breaker::new(STRIKES, DOWN_PROBE),
            last_failure: None,
            down: false,
            paused_until: None,
            // Without a Retry-After: from a quarter of a second, at most what a free plan's window lasts.
            pauses: Backoff::new(Duration::from_millis(250), Duration::from_secs(10)),
            probing: false,
            next_probe: now,
        }
    }

    pub(super) fn usable(&self, now: Instant) -> Use {
        if self.down || self.breaker.state() != BreakerState::Closed {
            let cause = self.last_failure.as_ref().expect("BUG: down without a cause");
            return Use::No(cause.1.clone());
        }
        match &self.trust {
            Trust::Unknown | Trust::Answered(_) => Use::Later(self.paused(now)),
            Trust::Refused(error) => Use::No(error.clone()),
            Trust::Right => self.paused(now).map_or(Use::Now, |until| Use::Later(Some(until))),
        }
    }

    /// Until when a 429 keeps everybody away.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// `None` while the first probe is out.
    pub(super) fn health(&self) -> Option<Result<(), ChainError>> {
        match self.usable(self.next_probe) {
            Use::No(error) => Some(Err(error)),
            Use::Now | Use::Later(Some(_)) => Some(Ok(())),
            Use::Later(None) => None,
        }
    }

    /// Whether a probe is to be sent now; if not, when to ask again.
    pub(super) fn probe(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if self.probing {
            return Err(None);
        }
        let due = self.next_probe.max(self.paused_until.unwrap_or(self.next_probe));
        if due > now {
            return Err(Some(due));
        }
        if let Err(wait) = self.breaker.pass(now) {
            self.next_probe = now + wait;
            return Err(Some(self.next_probe));
        }
        self.probing = true;
        Ok(())
    }

    /// A POST came back with an answer, whatever it said.
    pub(super) fn answered(&mut self, now: Instant, idle_probe: Duration) {
        self.breaker.succeed();
        self.pauses.reset();
        if !self.down {
            self.next_probe = now + idle_probe;
        }
    }

    /// A POST or probe that was sent at `sent` failed. Those sent together fail together and count once.
    pub(super) fn failed(&mut self, sent: Instant, now: Instant, error: &ChainError) {
        if self.last_failure.as_ref().is_some_and(|(at, _)| sent < *at) {
            return;
        }
        self.last_failure = Some((now, error.clone()));
        self.breaker.fail(now);
        self.next_probe = now;
    }

    /// Answers 429: nobody is sent before that.
    pub(super) fn limited(&mut self, now: Instant, retry_after: Option<Duration>) -> Instant {
        let until = now + retry_after.unwrap_or_else(|| self.pauses.fail());
        let until = self.paused_until.map_or(until, |before| before.max(until));
        self.paused_until = Some(until);
        until
    }

    /// The probe sent at `sent` is back.
    pub(super) fn probed(
        &mut self,
        sent: Instant,
        now: Instant,
        found: Result<u64, ChainError>,
        idle: Duration,
    ) {
        self.probing = false;
        match found {
            Ok(found) => {
                self.down = false;
                self.answered(now, idle);
                self.trust = Trust::Answered(found);
            }
            Err(error) => {
                self.failed(sent, now, &error);
                self.last_failure.get_or_insert((now, error));
                self.down = true;
                self.next_probe = now + DOWN_PROBE;
            }
        }
    }

    /// A probe met a 429: the node lives, and nothing else was learnt.
    pub(super) fn probe_limited(&mut self) {
        self.probing = false;
    }

    /// Judges the chain id that the last probe found against the one that is right, or makes it the right one.
    /// Returns false while the first probe is out: less preferred endpoints must wait for it.
    pub(super) fn settle(&mut self, right: &mut Option<u64>, may_change: bool, now: Instant) -> bool {
        if let Trust::Answered(found) = self.trust {
            if may_change {
                *right = Some(found);
            }
            let expected = *right.get_or_insert(found);
            self.trust = if expected == found {
                Trust::Right
            } else {
                Trust::Refused(ChainError::WrongChain { url: Arc::clone(&self.name), expected, found })
            };
        }
        !matches!(self.trust, Trust::Unknown) || self.down || self.paused(now).is_some()
    }
}
