//! Why Redis cannot be used, and why one command was not answered.
//!
//! A server's own words are kept out of every text here: a Redis before version 6 repeats the password in its
//! answer to a login it does not know. What remains is the reply's first word, its code.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};
use redis::{ErrorKind, ParsingError};

use crate::holders::Holder;

/// Why there is no connection. Each variant is one thing an operator looks at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The first attempt has not ended.
    #[error("not reached yet")]
    NotReached,
    /// Nothing listens there: start the server, or correct the address.
    #[error("connection refused")]
    ConnectionRefused,
    /// TCP, TLS and login together took too long.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The server wants a password and `REDIS_URL` has none.
    #[error("the server asks for a password (NOAUTH)")]
    LoginRequired,
    /// User name or password in `REDIS_URL` is wrong.
    #[error("wrong user name or password (WRONGPASS)")]
    WrongPassword,
    /// The user may not do what a pool needs (PING, CLIENT).
    #[error("the user lacks permissions (NOPERM)")]
    Forbidden,
    /// `REDIS_URL` names a database that the server does not have.
    #[error("the server has no database {0}")]
    WrongDatabase(i64),
    /// Raise `maxclients`, or lower the number of replicas.
    #[error("the server has too many clients (maxclients)")]
    TooManyClients,
    /// The server speaks no RESP3: it is older than Redis 6.
    #[error("the server is older than Redis 6")]
    TooOld,
    /// It is reading its data from disk.
    #[error("the server is loading its data (LOADING)")]
    Loading,
    /// It became a replica: the address must lead to the primary.
    #[error("the server is a replica (READONLY)")]
    ReadOnly,
    /// No certificate that we trust, or no TLS at all.
    #[error("TLS failed")]
    Tls,
    /// The server, or something between, ended the connection.
    #[error("connection lost")]
    Lost,
    /// Two commands in a row were not answered, and nothing else was.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The network failed in another way, such as an unknown host name.
    #[error("network: {0}")]
    Network(io::ErrorKind),
    /// The server refused the login for another reason.
    #[error("the server answered {0}")]
    Refused(Box<str>),
    /// What answered does not speak Redis' protocol.
    #[error("the server does not speak Redis' protocol")]
    NotRedis,
}

impl Reason {
    /// Whether only a person can mend it, so that retrying often would merely fill the server's log.
    pub fn is_misconfiguration(&self) -> bool {
        matches!(
            self,
            Self::LoginRequired
                | Self::WrongPassword
                | Self::Forbidden
                | Self::WrongDatabase(_)
                | Self::TooOld
                | Self::Tls
        )
    }

    /// What stopped a login.
    pub(crate) fn of(error: &redis::RedisError, database: i64) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => return Self::WrongPassword,
            ErrorKind::RESP3NotSupported => return Self::TooOld,
            ErrorKind::Parse => return Self::NotRedis,
            ErrorKind::Io => return Self::of_io(error),
            _ => {}
        }
        if error.to_string().contains("refused to switch database") {
            return Self::WrongDatabase(database);
        }
        if error.detail().is_some_and(|detail| detail.starts_with("max number of clients")) {
            return Self::TooManyClients;
        }
        match error.code() {
            Some("NOAUTH") => Self::LoginRequired,
            Some("WRONGPASS") => Self::WrongPassword,
            Some("NOPERM") => Self::Forbidden,
            Some("NOPROTO") => Self::TooOld,
            Some("LOADING") => Self::Loading,
            Some("READONLY") => Self::ReadOnly,
            Some(code) => Self::Refused(code.into()),
            None => Self::NotRedis,
        }
    }

    fn of_io(error: &redis::RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::ConnectionRefused;
        }
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
        cause.map_or(Self::Lost, |cause| Self::from(cause.kind()))
    }
}

impl From<io::ErrorKind> for Reason {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            // A Unix socket that is not there is a server that does not listen.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::ConnectionRefused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                Self::Lost
            }
            kind => Self::Network(kind),
        }
    }
}

/// `REDIS_URL` cannot be used. The URL itself is not shown: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadUrl {
    /// Not an address of a Redis.
    #[error("REDIS_URL is not redis://, rediss:// or unix:// with a host and, if any, a database number")]
    Malformed,
    /// `#insecure` would accept any certificate.
    #[error("REDIS_URL: TLS without checking the certificate (#insecure) is not supported")]
    Insecure,
}

/// Why a command or an `acquire` has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// Only [`open`](super::RedisPool::open) says this.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// Known to be down: nothing was sent. Reconnecting goes on in the background.
    #[error("redis: down since {}", since.to_rfc3339())]
    Down {
        /// When the connection was lost, or the pool opened.
        since: DateTime<Utc>,
        /// Why.
        #[source]
        last_error: Reason,
    },
    /// No answer in time; the command may have been carried out.
    #[error("redis: no answer within {after:?}")]
    Timeout {
        /// The deadline: `REDIS_COMMAND_TIMEOUT_MS`, or the lease's own.
        after: Duration,
    },
    /// The connection ended while the command was out; it may have been carried out.
    #[error("redis: the connection ended before the answer")]
    Lost(#[source] redis::RedisError),
    /// The server answered with an error.
    #[error("redis: the server answered {code}")]
    Refused {
        /// First word of the reply, such as `OOM` or `WRONGTYPE`.
        code: Box<str>,
        /// The whole reply.
        #[source]
        cause: redis::RedisError,
    },
    /// The answer is not of the type that the caller asked for.
    #[error("redis: the answer has another type")]
    Type(#[source] ParsingError),
    /// The command is too large for a connection that others share: nothing was sent.
    #[error("redis: a command of {bytes} bytes, at most {limit} are sent")]
    TooLarge {
        /// Bytes of all arguments.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The command blocks, or changes the connection for whoever uses it next: nothing was sent.
    #[error("redis: this command needs a connection of its own (acquire)")]
    NeedsLease,
    /// Too many commands are out: nothing was sent.
    #[error("redis: {in_flight} commands are unanswered")]
    Busy {
        /// Commands out.
        in_flight: u32,
    },
    /// Every dedicated connection stayed out for the whole wait: shorten the work, or raise the limit.
    #[error("redis: {max} of {max} dedicated connections out for {waited:?}{}", by(longest.as_ref()))]
    Exhausted {
        /// Dedicated connections allowed.
        max: u32,
        /// How long the caller waited.
        waited: Duration,
        /// Who holds one longest.
        longest: Option<Holder>,
    },
    /// So many wait for a dedicated connection already that one more would be in vain.
    #[error("redis: {waiting} callers wait for a dedicated connection already")]
    QueueFull {
        /// Callers in the queue.
        waiting: u32,
    },
    /// There was room, but no dedicated connection could be made.
    #[error("redis: no dedicated connection after {waited:?}")]
    Open {
        /// How long the attempt took, queueing included.
        waited: Duration,
        /// Why.
        #[source]
        cause: Reason,
    },
    /// An earlier command on this lease did not finish, so its connection cannot be used any more.
    #[error("redis: an earlier command on this connection did not finish")]
    Unfinished,
    /// `drain` was called.
    #[error("redis: closed")]
    Closed,
}

fn by(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(", longest by {holder}")).unwrap_or_default()
}

impl RedisError {
    /// What became of a command that reached the driver.
    pub(crate) fn of(error: redis::RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => Self::Lost(error),
            _ => Self::Refused { code: error.code().unwrap_or("ERR").into(), cause: error },
        }
    }
}
