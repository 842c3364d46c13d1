//! Why not: one variant per thing an operator or a caller does about it.

use std::{error::Error, io, sync::Arc, time::Duration};

use bb8_postgres::tokio_postgres::{self as driver, error::SqlState};

use crate::holders::Holder;

/// Why the pool could not do it. No text here holds a password or a URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgError {
    /// `DATABASE_URL` is absent or not understood: correct it.
    #[error("DATABASE_URL {fault}")]
    Url {
        /// What is wrong with it.
        fault: UrlFault,
    },
    /// More connections are to be kept without traffic than are kept at all: lower one, or raise the other.
    #[error("DB_MIN_IDLE {min_idle} is more than DB_POOL_SIZE {size}")]
    MinIdle {
        /// `DB_MIN_IDLE`.
        min_idle: u32,
        /// `DB_POOL_SIZE`.
        size: u32,
    },
    /// Every place was taken for the whole wait: raise the limit, or shorten the work of the longest holder.
    #[error(
        "QueuePool limit of size {size} overflow {overflow} reached, connection timed out, timeout {:.2}{}{}",
        waited.as_secs_f64(), longest_text(longest.as_ref()), connect_text(connect.as_ref())
    )]
    Exhausted {
        /// `DB_POOL_SIZE`.
        size: u32,
        /// `DB_MAX_OVERFLOW`.
        overflow: u32,
        /// How long the caller waited.
        waited: Duration,
        /// Who has held a connection longest.
        longest: Option<Holder>,
        /// Why the last connect failed, if none succeeded since.
        connect: Option<OpenError>,
    },
    /// The pool is paused: resume it.
    #[error("the Postgres pool is paused, waited {:.2} s", waited.as_secs_f64())]
    Paused {
        /// How long the caller waited.
        waited: Duration,
    },
    /// More callers wait than `DB_POOL_QUEUE` allows: shed load.
    #[error("{waiting} callers wait for a connection already, the queue holds no more")]
    QueueFull {
        /// Callers in the queue.
        waiting: u32,
    },
    /// There was a place, but no connection could be opened: look at the server.
    #[error("no connection after {waited:.1?}")]
    Open {
        /// How long it took to find out.
        waited: Duration,
        /// The real reason.
        #[source]
        cause: OpenError,
    },
    /// The server refused the statement.
    #[error("the statement failed{}", sqlstate_text(sqlstate.as_ref()))]
    Statement {
        /// The server's code; `None` when the driver refused it, such as a parameter of the wrong type.
        sqlstate: Option<SqlState>,
        /// What the server said.
        #[source]
        cause: driver::Error,
    },
    /// The answer has another number of rows than the caller can take.
    #[error("{found} rows instead of {expected}")]
    Rows {
        /// What the method can return.
        expected: &'static str,
        /// What came.
        found: usize,
    },
    /// The connection broke during the statement; whether it took effect is unknown.
    #[error("the connection broke during the statement")]
    Lost {
        /// How.
        #[source]
        cause: driver::Error,
    },
    /// The server said nothing for longer than its own statement time-out allows: it is frozen or unreachable.
    #[error("no answer within {after:.1?}")]
    Stalled {
        /// How long the statement was waited for.
        after: Duration,
    },
    /// The caller's own time was over before the answer came; the statement is cancelled, whether it took effect is
    /// unknown: give the request more time, or its statements less to do.
    #[error("the request's time was over, {after:.1?} after the statement began")]
    Late {
        /// How long the statement was waited for.
        after: Duration,
    },
    /// The lease cannot be used any more: an earlier statement's future was dropped before it ended.
    #[error("an earlier statement on this lease was dropped unfinished")]
    Unfinished,
    /// The transaction had a failed statement, so that `commit` rolled it back.
    #[error("the transaction failed before its commit and was rolled back")]
    Aborted,
    /// `COPY … FROM STDIN` cannot be sent as text.
    #[error("COPY FROM STDIN is not supported")]
    Copy,
    /// The statement begins or ends a transaction, or changes the session: it needs a lease.
    #[error("this statement cannot share a connection: acquire a lease for it")]
    NotAlone,
    /// A migration could not be applied.
    #[error("migration {id} failed")]
    Migration {
        /// Which.
        id: u32,
        /// Why.
        #[source]
        cause: Box<PgError>,
    },
    /// The schema has a migration of this number under another name.
    #[error("migration {id} is {applied:?} in the database and {given:?} here")]
    MigrationChanged {
        /// Which.
        id: u32,
        /// Its name in the database.
        applied: String,
        /// Its name here.
        given: String,
    },
    /// Behind a proxy that pools by transaction the next statement may run in another session.
    #[error("session settings cannot be changed with DB_TRANSACTION_POOLING")]
    NoSession,
    /// The pool was drained.
    #[error("the Postgres pool is closed")]
    Closed,
}

impl PgError {
    /// Whether the same call may work later without any change: the server is away, or the pool is busy.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Exhausted { .. } | Self::QueueFull { .. } | Self::Paused { .. } => true,
            Self::Open { .. } | Self::Closed => true,
            Self::Lost { .. } | Self::Stalled { .. } | Self::Late { .. } | Self::Unfinished => true,
            Self::Migration { cause, .. } => cause.is_unavailable(),
            // Class 53: insufficient resources; 57P01 to 57P03: the server shuts down or starts.
            Self::Statement { sqlstate: Some(state), .. } => {
                state.code().starts_with("53") || state.code().starts_with("57P0")
            }
            _ => false,
        }
    }

    /// Whether the pool or the server was too busy, rather than away.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Exhausted { .. } | Self::QueueFull { .. } | Self::Paused { .. } => true,
            Self::Open { cause, .. } => cause.sqlstate() == Some(&SqlState::TOO_MANY_CONNECTIONS),
            _ => false,
        }
    }

    /// The server's code, whatever the phase.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Statement { sqlstate, .. } => sqlstate.as_ref(),
            Self::Open { cause, .. } => cause.sqlstate(),
            Self::Lost { cause } => cause.code(),
            Self::Migration { cause, .. } => cause.sqlstate(),
            _ => None,
        }
    }

    /// The whole chain of causes in one line, for logs and answers.
    pub fn reason(&self) -> String {
        chain(self)
    }

    /// The same for another caller who waited for the same acquire.
    pub(super) fn of_acquire(&self) -> Self {
        match self {
            Self::Exhausted { size, overflow, waited, longest, connect } => Self::Exhausted {
                size: *size,
                overflow: *overflow,
                waited: *waited,
                longest: longest.clone(),
                connect: connect.clone(),
            },
            Self::Paused { waited } => Self::Paused { waited: *waited },
            Self::QueueFull { waiting } => Self::QueueFull { waiting: *waiting },
            Self::Open { waited, cause } => Self::Open { waited: *waited, cause: cause.clone() },
            // The only one left that an acquire can end with.
            _ => Self::Closed,
        }
    }

    pub(super) fn of_statement(cause: driver::Error) -> Self {
        if is_disconnect(&cause) {
            Self::Lost { cause }
        } else {
            Self::Statement { sqlstate: cause.code().cloned(), cause }
        }
    }
}

fn longest_text(longest: Option<&Holder>) -> String {
    let text = |holder: &Holder| format!("; longest held {:.0?} by {}", holder.held, holder.site);
    longest.map(text).unwrap_or_default()
}

fn connect_text(connect: Option<&OpenError>) -> String {
    connect.map(|cause| format!("; last connect failed: {}", chain(cause))).unwrap_or_default()
}

fn sqlstate_text(state: Option<&SqlState>) -> String {
    state.map(|state| format!(" ({})", state.code())).unwrap_or_default()
}

/// Whether the connection is gone, not just the statement.
pub(super) fn is_disconnect(error: &driver::Error) -> bool {
    let going = |state: &SqlState| state.code().starts_with("57P0") || state.code().starts_with("08");
    error.is_closed()
        || error.code().is_some_and(going)
        || error.source().is_some_and(|cause| cause.downcast_ref::<io::Error>().is_some())
}

/// Texts of an error and its causes, without those that say nothing ("db error").
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if text != "db error" {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ").replace('\n', "; ")
}

/// Why no connection could be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The network or the server refused.
    #[error("could not connect")]
    Refused {
        /// What they said.
        #[source]
        cause: Arc<driver::Error>,
    },
    /// There is no server behind the Unix socket.
    #[error("could not connect to the Unix socket")]
    Socket {
        /// What the system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// TCP, TLS and log-in together took too long.
    #[error("the server did not let us in within {after:.1?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
}

impl OpenError {
    /// The server's code, when it was the server that refused.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Refused { cause } => cause.code(),
            Self::Socket { .. } | Self::TimedOut { .. } => None,
        }
    }

    /// Whether trying again may help: not so for a wrong password or database name.
    pub fn is_transient(&self) -> bool {
        self.sqlstate().is_none_or(|state| !["28", "3D", "42"].contains(&&state.code()[..2]))
    }
}

/// What is wrong with the URL. The URL itself is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlFault {
    /// There is none.
    #[error("is not set")]
    Absent,
    /// It does not begin with `postgres://` or `postgresql://`.
    #[error("does not begin with postgresql://")]
    Scheme,
    /// It has an unknown or malformed part.
    #[error("has a part that is not understood")]
    Malformed,
    /// It names no host.
    #[error("names no host")]
    Host,
    /// It mixes Unix sockets with TCP hosts.
    #[error("mixes Unix sockets with TCP hosts")]
    MixedHosts,
    /// `sslmode` is not one of disable, prefer, require, verify-ca, verify-full.
    #[error("has an unknown sslmode")]
    TlsMode,
    /// `sslrootcert` cannot be read or holds no certificate.
    #[error("names an sslrootcert that holds no certificate")]
    RootCertificates,
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    #[test]
    fn a_full_pool_says_what_queuepool_says_and_who_holds_on() {
        let holder = Holder {
            site: "loans.rs:88".to_owned(),
            request_id: None,
            held: Duration::from_secs(41),
            since: Utc::now(),
        };
        let waited = Duration::from_secs(30);
        let connect = Some(OpenError::TimedOut { after: Duration::from_secs(10) });
        let error = PgError::Exhausted { size: 10, overflow: 20, waited, longest: Some(holder), connect };
        assert_eq!(
            error.to_string(),
            "QueuePool limit of size 10 overflow 20 reached, connection timed out, timeout 30.00; \
             longest held 41s by loans.rs:88; last connect failed: the server did not let us in within 10.0s"
        );
        assert!(error.is_busy() && error.is_unavailable());
    }
}
