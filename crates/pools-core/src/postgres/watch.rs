//! Notices that a server does not answer: one task looks at all connections that are out, so that a statement costs
//! nothing for it.
//!
//! ```text
//!  nothing is due ──look: an answer is due──► seen ──look: none came for `patience`──► overdue ──next look: none yet──► silent
//!        ▲                                     │ ▲                                       │                             │
//!        └────────── look: nothing is due ─────┘ └────── look: one came meanwhile ───────┘        its task is cut, whoever
//!                                                                                                 waits for it is told
//! ```
//!
//! The server does one statement after the other, so each answer gives the next one its time from then on. An answer
//! that is here but was not read yet, since this process was not given the processor, has until the next look.
//!
//! A connection that is silent is lost: its server process, or the way to it, stands still, and is counted as cut off.

use std::{
    sync::{
        Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{Shared, wire::Wire};

/// How often all connections are looked at. A time-out is noticed up to twice as much later.
const PAUSE: Duration = Duration::from_millis(50);

/// How long one connection may owe an answer, and for how long it has.
#[derive(Debug)]
pub(super) struct Watch {
    usual: Duration,
    /// In milliseconds, since it is read by another task.
    patience: AtomicU64,
    seen: Mutex<Option<Seen>>,
    silent: AtomicBool,
}

/// An answer was due at the last look.
#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Instant,
    /// How many had come by then.
    answers: u32,
    overdue: bool,
}

/// While it lives, an answer may take another time than usual.
#[must_use = "it ends when it is dropped"]
#[derive(Debug)]
pub(super) struct Allowance<'a>(&'a Watch);

impl Drop for Allowance<'_> {
    fn drop(&mut self) {
        self.0.patience.store(millis(self.0.usual), Ordering::Relaxed);
    }
}

impl Watch {
    pub(super) fn new(usual: Duration) -> Self {
        Self { usual, patience: millis(usual).into(), seen: Mutex::default(), silent: AtomicBool::new(false) }
    }

    /// Longest wait for an answer now.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    /// For whoever has the connection to himself: answers may take so long until this is dropped.
    pub(super) fn allow(&self, patience: Duration) -> Allowance<'_> {
        self.patience.store(millis(patience), Ordering::Relaxed);
        Allowance(self)
    }

    /// Whether its server was found not to answer.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// Returns whether the connection has turned out to be silent.
    fn look(&self, wire: &Wire, now: Instant) -> bool {
        let mut seen = self.seen.lock();
        let answers = wire.answers();
        *seen = match *seen {
            _ if !wire.waits_for_server() => None,
            Some(before) if before.answers == answers => {
                let late = now.saturating_duration_since(before.since) >= self.patience();
                if late && before.overdue {
                    return !self.silent.swap(true, Ordering::AcqRel);
                }
                Some(Seen { overdue: late, ..before })
            }
            _ => Some(Seen { since: now, answers, overdue: false }),
        };
        false
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Looks until the pool is gone.
pub(super) async fn watch(pool: Weak<Shared>) {
    loop {
        sleep(PAUSE).await;
        let Some(pool) = pool.upgrade() else { return };
        let (now, links) = (Instant::now(), pool.state.lock().links_out());
        for link in links.iter().filter(|link| link.watch.look(&link.wire, now)) {
            tracing::warn!(pool = "postgres", after = ?link.watch.patience(), "the server does not answer");
            pool.cut_off.fetch_add(1, Ordering::Relaxed);
            link.cut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A connection whose server is asked and answers by hand.
    struct Connection {
        watch: Watch,
        wire: Wire,
        start: Instant,
    }

    impl Connection {
        fn new() -> Self {
            Self { watch: Watch::new(PATIENCE), wire: Wire::default(), start: Instant::now() }
        }

        /// Looks this many seconds after the start.
        fn look(&self, seconds: u64) -> bool {
            self.watch.look(&self.wire, self.start + Duration::from_secs(seconds))
        }
    }

    #[test]
    fn an_answer_that_does_not_come_is_told_once_and_at_the_look_after_it_was_due() {
        let it = Connection::new();
        it.wire.sent(b'S');
        assert!(!it.look(0) && !it.look(9), "too early");
        assert!(!it.look(10), "it may be here and not read yet");
        assert!(it.look(11) && it.watch.is_silent());
        assert!(!it.look(12), "told twice");
    }

    #[test]
    fn each_answer_gives_those_behind_it_their_time() {
        let it = Connection::new();
        it.wire.sent(b'S');
        it.wire.sent(b'S');
        assert!(!it.look(0) && !it.look(10));
        it.wire.received(b'Z', b'I');
        assert!(!it.look(11) && !it.look(20), "the second had its time from the first answer on");
        assert!(!it.look(21) && it.look(22));
    }

    #[test]
    fn an_answer_and_the_next_statement_between_two_looks_are_not_one_statement() {
        let it = Connection::new();
        for second in 0..100 {
            it.wire.sent(b'S');
            assert!(!it.look(second));
            it.wire.received(b'Z', b'I');
        }
        assert!(!it.look(200));
        it.wire.sent(b'S');
        assert!(!it.look(300), "nothing was due for long");
    }

    #[test]
    fn one_that_was_waited_for_patiently_leaves_the_next_no_more_than_the_usual_time() {
        let it = Connection::new();
        let allowance = it.watch.allow(Duration::from_secs(3_600));
        it.wire.sent(b'S');
        assert!(!it.look(0) && !it.look(3_000) && !it.look(3_001));
        it.wire.received(b'Z', b'I');
        drop(allowance);
        it.wire.sent(b'S');
        assert!(!it.look(3_002) && !it.look(3_012) && it.look(3_013));
    }

    #[test]
    fn a_statement_that_cannot_be_written_is_waited_for_no_longer_than_an_answer() {
        let it = Connection::new();
        it.wire.block(true);
        assert!(!it.look(0) && !it.look(10) && it.look(11));
    }
}
