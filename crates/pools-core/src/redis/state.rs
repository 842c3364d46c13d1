//! The supervisor's state machine. No clock, no I/O: time comes in as an argument, what is to be done goes out.
//!
//! ```text
//!              connected                 one command without an answer, and nothing else answered since
//!   down ───────────────────────► up ──────────────────────────────────────────────► degraded
//!    ▲ ▲  open failed: pause      ▲ └──── lost, READONLY ────┐                          │ │
//!    │ └──────────────────────────┼──────────────────────────┘      an answer           │ │
//!    │                            └─────────────────────────────────────────────────────┘ │
//!    └───────────────────────── a second command without an answer ───────────────────────┘
//! ```
//!
//! `degraded` uses the connection still, but the supervisor asks it for a PING at once. A command that times out
//! although others, sent later, were answered says something about itself and nothing about the server.
//!
//! Every connection has a generation: what a call reports about an earlier one is counted and changes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;

use super::error::{Reason, RedisError};
use crate::resilience::Backoff;
use crate::stats::{Counters, Label};

/// First pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts, and the pause of the probing that never ends. A Redis that appears is
/// connected within this and the time of one attempt.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Pause after an error that only a person can mend.
const MISCONFIGURED_PAUSE: Duration = Duration::from_secs(30);
/// A connection that ended sooner is a failed attempt: a server that takes logins only to drop them is not
/// to be asked in a tight loop.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// READONLY condemns a connection once. If the next one, made because of it, is refused within this time as well,
/// the address still leads to a replica: reads may go on, and reconnecting at every write would stop them.
const READ_ONLY_AGAIN: Duration = Duration::from_secs(5);

/// The three words of stats and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It answers.
    Up,
    /// One command was not answered; the next decides.
    Degraded,
    /// No connection.
    Down,
}

/// How a command on the shared lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An answer.
    Answered,
    /// An answer that is an error.
    Refused,
    /// READONLY: a write reached a replica.
    ReadOnly,
    /// No answer in time.
    TimedOut,
    /// The connection ended first.
    Lost,
    /// The caller went away.
    Cancelled,
    /// Not sent: down, too many out, too large or closed.
    NotSent,
}

impl Label for End {
    const ALL: &'static [Self] = &[
        Self::Answered,
        Self::Refused,
        Self::ReadOnly,
        Self::TimedOut,
        Self::Lost,
        Self::Cancelled,
        Self::NotSent,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "ok",
            Self::Refused => "refused",
            Self::ReadOnly => "read_only",
            Self::TimedOut => "timeout",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::NotSent => "not_sent",
        }
    }
}

/// What to do after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Pause before the next.
    pub(crate) pause: Duration,
    /// Whether the reason is another one than last time.
    pub(crate) news: bool,
    /// Whether this was the last of the retries with growing pauses.
    pub(crate) exhausted: bool,
}

/// The machine; `C` is the handle of the connection.
#[derive(Debug)]
pub(crate) struct State<C> {
    conn: Option<C>,
    generation: u64,
    standing: Standing,
    since: DateTime<Utc>,
    last_error: Reason,
    backoff: Backoff,
    max_retries: u32,
    exhausted: bool,
    connected_at: Option<Instant>,
    last_answer: Option<Instant>,
    unanswered: u32,
    /// One moment on both clocks, so that the other moments need only one.
    epoch: (Instant, DateTime<Utc>),
    command_timeout: Duration,
    in_flight: u32,
    max_in_flight: u32,
    closed: bool,
    pub(crate) commands: Counters<End>,
}

impl<C: Clone> State<C> {
    pub(crate) fn new(
        max_retries: u32,
        command_timeout: Duration,
        max_in_flight: u32,
        epoch: (Instant, DateTime<Utc>),
    ) -> Self {
        Self {
            conn: None,
            generation: 0,
            standing: Standing::Down,
            since: epoch.1,
            last_error: Reason::NotReached,
            backoff: Backoff::new(FIRST_PAUSE, PROBE_PAUSE),
            max_retries,
            exhausted: false,
            connected_at: None,
            last_answer: None,
            unanswered: 0,
            epoch,
            command_timeout,
            in_flight: 0,
            max_in_flight,
            closed: false,
            commands: Counters::default(),
        }
    }

    /// A caller wants to send a command: the connection and its generation, or why not.
    pub(crate) fn enter(&mut self) -> Result<(C, u64), RedisError> {
        let refusal = if self.closed {
            RedisError::Closed
        } else if self.in_flight >= self.max_in_flight {
            RedisError::Busy { in_flight: self.in_flight }
        } else if let Some(conn) = &self.conn {
            self.in_flight += 1;
            return Ok((conn.clone(), self.generation));
        } else {
            self.down_error()
        };
        self.commands.add(End::NotSent);
        Err(refusal)
    }

    /// Why nothing can be sent just now.
    pub(crate) fn down_error(&self) -> RedisError {
        RedisError::Down { since: self.since, last_error: self.last_error.clone() }
    }

    /// A command that had entered at `sent` has ended. Returns whether the supervisor has to look.
    pub(crate) fn leave(&mut self, generation: u64, end: End, sent: Instant, now: Instant) -> bool {
        self.in_flight -= 1;
        self.commands.add(end);
        if generation != self.generation || self.conn.is_none() {
            return false;
        }
        match end {
            End::Answered | End::Refused => self.answered(now),
            End::ReadOnly => self.read_only(now),
            End::TimedOut => self.unanswered(sent, now),
            // A lost connection ends its driver, which the supervisor watches.
            End::Lost | End::Cancelled | End::NotSent => false,
        }
    }

    fn answered(&mut self, now: Instant) -> bool {
        self.last_answer = Some(now);
        self.unanswered = 0;
        if self.standing == Standing::Degraded {
            self.stand(Standing::Up, now);
        }
        false
    }

    fn read_only(&mut self, now: Instant) -> bool {
        let young = self.connected_at.is_some_and(|at| now.saturating_duration_since(at) < READ_ONLY_AGAIN);
        if young && self.last_error == Reason::ReadOnly {
            return self.answered(now);
        }
        self.condemn(Reason::ReadOnly, now);
        true
    }

    fn unanswered(&mut self, sent: Instant, now: Instant) -> bool {
        if self.last_answer.is_some_and(|answer| answer > sent) {
            return false;
        }
        self.unanswered += 1;
        if self.unanswered >= 2 {
            self.condemn(Reason::Silent(self.command_timeout), now);
        } else {
            self.stand(Standing::Degraded, now);
        }
        true
    }

    /// From now on callers are refused, before the supervisor has closed anything.
    fn condemn(&mut self, reason: Reason, now: Instant) {
        self.conn = None;
        self.last_error = reason;
        self.stand(Standing::Down, now);
    }

    fn stand(&mut self, standing: Standing, now: Instant) {
        self.standing = standing;
        self.since = self.epoch.1 + now.saturating_duration_since(self.epoch.0);
    }

    /// Whether the supervisor is to close its connection.
    pub(crate) fn is_condemned(&self) -> bool {
        self.conn.is_none()
    }

    /// A connection was made.
    pub(crate) fn connected(&mut self, conn: C, now: Instant) {
        self.generation += 1;
        self.conn = Some(conn);
        self.stand(Standing::Up, now);
        self.exhausted = false;
        self.connected_at = Some(now);
        self.last_answer = Some(now);
        self.unanswered = 0;
    }

    /// The connection has ended: by itself (`Some`), or because it was condemned.
    pub(crate) fn lost(&mut self, reason: Option<Reason>, now: Instant) -> Duration {
        let lived =
            self.connected_at.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // A condemned connection has its reason already; that the driver ended as well is no news.
        if self.conn.take().is_some()
            && let Some(reason) = reason
        {
            self.last_error = reason;
            self.stand(Standing::Down, now);
        }
        if lived < STABLE_AFTER {
            return self.backoff.fail();
        }
        self.backoff.reset();
        Duration::ZERO
    }

    /// An attempt failed.
    pub(crate) fn open_failed(&mut self, reason: Reason) -> Retry {
        let news = self.last_error != reason;
        let misconfigured = reason.is_misconfiguration();
        let full = reason == Reason::TooManyClients;
        self.last_error = reason;
        let spent = self.backoff.failures() >= self.max_retries;
        let exhausted = spent && !std::mem::replace(&mut self.exhausted, spent);
        let pause = match (misconfigured, spent || full) {
            (true, _) => MISCONFIGURED_PAUSE,
            (false, true) => PROBE_PAUSE,
            (false, false) => self.backoff.fail(),
        };
        Retry { pause, news, exhausted }
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether a command would be sent.
    pub(crate) fn is_up(&self) -> bool {
        self.conn.is_some() && !self.closed
    }

    pub(crate) fn since(&self) -> DateTime<Utc> {
        self.since
    }

    /// Why it is down, or was last time.
    pub(crate) fn last_error(&self) -> &Reason {
        &self.last_error
    }

    /// Counts the connections made.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests;
