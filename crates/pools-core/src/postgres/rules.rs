//! What all connections of a pool have in common, and the texts that follow from it.

use std::time::Duration;

use super::config::PgConfig;

/// What all connections of a pool have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `DB_RESET=full`.
    pub(super) full_reset: bool,
    /// `DB_TRANSACTION_POOLING`.
    pub(super) transaction_pooling: bool,
    /// `DB_SLOW_STATEMENT_MS`; 0 for never.
    pub(super) slow: Duration,
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

    pub(super) fn of(config: &PgConfig) -> Self {
        Self {
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
