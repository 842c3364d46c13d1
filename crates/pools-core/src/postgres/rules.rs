//! What all connections of a pool have in common, and the texts that follow from it.

use std::time::Duration;

use super::config::PgConfig;

/// For the answer of a statement that the server ends to be here by its caller's deadline.
pub(super) const MARGIN: Duration = Duration::from_millis(100);

/// What all connections of a pool have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `DB_RESET=full`.
    pub(super) full_reset: bool,
    /// `DB_TRANSACTION_POOLING`.
    pub(super) transaction_pooling: bool,
    /// `DB_SLOW_STATEMENT_MS`; 0 for never.
    pub(super) slow: Duration,
    /// After how long the server ends a statement: `DB_STATEMENT_TIMEOUT`, unless the URL says otherwise.
    pub(super) statement_timeout: Duration,
}

/// How a transaction begins and ends. Behind a proxy that pools by transaction no prepared statement may stay in
/// the session: its name would meet another client's. The driver closes a statement only when the last row of its
/// answer is dropped, and by then that message goes to another session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts {
    pub(super) begin: &'static str,
    pub(super) commit: &'static str,
    pub(super) rollback: &'static str,
}

impl Rules {
    pub(super) fn texts(self) -> Texts {
        if self.transaction_pooling {
            let (begin, commit) = ("BEGIN; DEALLOCATE ALL", "DEALLOCATE ALL; COMMIT");
            Texts { begin, commit, rollback: "ROLLBACK; DEALLOCATE ALL" }
        } else {
            Texts { begin: "BEGIN", commit: "COMMIT", rollback: "ROLLBACK" }
        }
    }

    /// Makes the server end statements after `limit`, but never later than it would by itself.
    pub(super) fn limit(self, limit: Duration) -> String {
        // 0 would mean no limit at all.
        let millis = limit.min(self.statement_timeout).as_millis().max(1);
        format!("SET statement_timeout = {millis}")
    }

    /// How much of the time until a caller's deadline the server is given for a statement; `None` when that is not worth
    /// telling it. Most requests have about as much time as a statement may take: telling the server so each time would
    /// cost each of them a message and a reset.
    pub(super) fn share_of(self, left: Duration) -> Option<Duration> {
        // Without any time left the statement is not sent either.
        let worth = !self.transaction_pooling && !left.is_zero() && left < self.statement_timeout / 2;
        worth.then(|| left - MARGIN.min(left / 10))
    }

    /// For connections whose server ends statements after `statement_timeout`.
    pub(super) fn of(config: &PgConfig, statement_timeout: Duration) -> Self {
        Self {
            statement_timeout,
            // A proxy's sessions are not ours to reset.
            full_reset: config.reset == "full" && !config.transaction_pooling,
            transaction_pooling: config.transaction_pooling,
            slow: config.slow_statement,
        }
    }
}

/// What `DISCARD ALL` does, but for the prepared statements and plans, which the next user wants too. It takes a
/// quarter of the time.
pub(super) const FULL_RESET: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
    SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";
