//! Why a request failed. One variant per phase and per thing an operator does about it.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{multiplex::h2_error, proxy::ProxyError, redirect::RedirectError, upload::UploadError};
use crate::holders::Holder;

/// Where a failed request was going, and with which attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// `host:port`.
    pub host: Arc<str>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Whether the connection had served a request before.
    pub reused: bool,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = if self.reused { "reused" } else { "new" };
        write!(f, "{} (attempt {}, {connection} connection)", self.host, self.attempt)
    }
}

/// Why no connection could be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody listens, or the peer reset the connection at once.
    #[error("connection refused")]
    Refused(#[source] Arc<io::Error>),
    /// The name has no address.
    #[error("the name could not be resolved")]
    Dns(#[source] Arc<io::Error>),
    /// The TLS handshake failed: certificate, name or protocol.
    #[error("TLS handshake failed")]
    Tls(#[source] Arc<io::Error>),
    /// TCP and TLS together took too long.
    #[error("no connection after {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// A proxy was to be used, and did not lead to the host.
    #[error("the proxy cannot be used")]
    Proxy(#[source] ProxyError),
    /// The network said no in another way.
    #[error("unreachable")]
    Unreachable(#[source] Arc<io::Error>),
}

impl OpenError {
    /// What connecting a socket has met. A path without a socket is where nobody listens, too.
    pub(super) fn connecting(cause: io::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound};
        match cause.kind() {
            ConnectionRefused | ConnectionReset | NotFound => Self::Refused(Arc::new(cause)),
            _ => Self::Unreachable(Arc::new(cause)),
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The URL is not one that the pool can use.
    #[error("{url}: {why}")]
    Url {
        /// The URL without its secrets.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A header or the body of the request cannot be sent.
    #[error("the request's {what} cannot be sent")]
    Request {
        /// `header` or `body`.
        what: &'static str,
        /// Why.
        #[source]
        cause: Arc<dyn Error + Send + Sync>,
    },
    /// All connections were busy for the whole wait: raise `HTTP_MAX_SOCKETS` or send less.
    #[error(
        "{host}: no connection became free within {waited:?} ({busy} busy, of these {opening} being opened{})",
        longest.as_ref().map(|holder| format!("; longest {holder}")).unwrap_or_default()
    )]
    Wait {
        /// `host:port`.
        host: Arc<str>,
        /// How long the caller waited.
        waited: Duration,
        /// Connections to the host that were not idle.
        busy: u32,
        /// Those of them that were being opened.
        opening: u32,
        /// Who held a connection of the pool longest.
        longest: Option<Box<Holder>>,
    },
    /// Too many callers wait for this host already: shed load.
    #[error("{host}: {waiting} requests wait already, the queue holds no more")]
    QueueFull {
        /// `host:port`.
        host: Arc<str>,
        /// Requests in the queue.
        waiting: u32,
    },
    /// All places of the upstream were taken for the whole wait: it is slow, or its policy too narrow.
    #[error("{upstream} ({host}): none of its {in_flight} places became free within {waited:?}")]
    Bulkhead {
        /// Which upstream.
        upstream: &'static str,
        /// `host:port`.
        host: Arc<str>,
        /// How long the caller waited.
        waited: Duration,
        /// Requests under way.
        in_flight: u32,
    },
    /// The upstream allows so many calls a second, and the turn would have come after the deadline.
    #[error(
        "{upstream} ({host}): the next turn is in {turn_in:?}, after the deadline; {waiting} wait before"
    )]
    RateLimited {
        /// Which upstream.
        upstream: &'static str,
        /// `host:port`.
        host: Arc<str>,
        /// Requests that waited for their turn already.
        waiting: u32,
        /// The earliest possible turn.
        turn_in: Duration,
    },
    /// The upstream failed too often; nobody is sent for a while.
    #[error("{upstream} ({host}): it keeps failing and is left alone for another {:?}", left(until))]
    BreakerOpen {
        /// Which upstream.
        upstream: &'static str,
        /// `host:port`.
        host: Arc<str>,
        /// When one request tries again.
        until: Instant,
    },
    /// No connection could be made: look at the server and the network.
    #[error("{host}: no connection (attempt {attempt})")]
    Open {
        /// `host:port`.
        host: Arc<str>,
        /// 1 for the first attempt.
        attempt: u32,
        /// Why.
        #[source]
        cause: OpenError,
    },
    /// The server closed a connection that had been idle, just when the request was sent. It may or may not have
    /// been processed; it was not sent again since it is not known to be idempotent, or was retried already.
    #[error("{at}: the server closed the idle connection")]
    Stale {
        /// Where.
        at: At,
        /// What was seen of it.
        #[source]
        cause: Arc<hyper::Error>,
    },
    /// The request's own body could not be sent to its end. The server may have seen a part of it.
    #[error("{at}: the request's body could not be sent")]
    Upload {
        /// Where.
        at: At,
        /// Why.
        #[source]
        cause: UploadError,
    },
    /// A redirect was to be followed, and could not be.
    #[error("{at}: redirect not followed")]
    Redirect {
        /// Who redirected.
        at: At,
        /// Why it was not followed.
        #[source]
        cause: RedirectError,
    },
    /// The server has refused to look at the request (HTTP/2's REFUSED_STREAM, or a GOAWAY that leaves it out), several
    /// times. It may be sent again, whatever it is.
    #[error("{at}: refused before it was looked at")]
    Refused {
        /// Where.
        at: At,
        /// What was seen of it.
        #[source]
        cause: Arc<hyper::Error>,
    },
    /// The server did not answer in time.
    #[error("{at}: no answer after {after:?}")]
    Head {
        /// Where.
        at: At,
        /// How long it had.
        after: Duration,
    },
    /// The body stopped coming.
    #[error("{at}: the body stalled for {after:?}")]
    BodyIdle {
        /// Where.
        at: At,
        /// How long nothing came.
        after: Duration,
    },
    /// The caller's own deadline passed after the request was sent.
    #[error("{at}: deadline passed in the {phase}")]
    Deadline {
        /// Where.
        at: At,
        /// `head` or `body`.
        phase: &'static str,
    },
    /// The answer ended before it was complete.
    #[error("{at}: the answer ended too early")]
    Truncated {
        /// Where.
        at: At,
        /// What was seen of it.
        #[source]
        cause: Arc<hyper::Error>,
    },
    /// The connection was reset during the exchange.
    #[error("{at}: the connection was reset")]
    Reset {
        /// Where.
        at: At,
        /// What was seen of it.
        #[source]
        cause: Arc<hyper::Error>,
    },
    /// The body is longer than the caller allows.
    #[error("{at}: the body is longer than {limit} bytes")]
    TooLarge {
        /// Where.
        at: At,
        /// The caller's limit.
        limit: usize,
    },
    /// The answer is not HTTP, or HTTP that could be read in two ways.
    #[error("{at}: not a valid HTTP answer: {why}")]
    Protocol {
        /// Where.
        at: At,
        /// What is wrong.
        why: &'static str,
        /// What hyper said, if it saw it.
        #[source]
        cause: Option<Arc<hyper::Error>>,
    },
    /// The body cannot be decoded, or its end is missing.
    #[error("{at}: the body is not valid {coding}")]
    Encoding {
        /// Where.
        at: At,
        /// What it was said to be: `gzip`, `deflate`, `br` or `zstd`.
        coding: &'static str,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The body is not the JSON that was asked for.
    #[error("{at}: the body is not the expected JSON")]
    Json {
        /// Where.
        at: At,
        /// Why.
        #[source]
        cause: Arc<serde_json::Error>,
    },
    /// The pool was drained.
    #[error("{host}: the HTTP pool is closed")]
    Closed {
        /// `host:port`.
        host: Arc<str>,
    },
}

impl HttpError {
    /// Whether time ran out, in whatever phase.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::Wait { .. }
                | Self::Bulkhead { .. }
                | Self::Head { .. }
                | Self::BodyIdle { .. }
                | Self::Deadline { .. }
                | Self::Open { cause: OpenError::TimedOut { .. }, .. }
        ) || matches!(
            self,
            Self::Open { cause: OpenError::Dns(cause), .. } if cause.kind() == io::ErrorKind::TimedOut
        )
    }

    /// Whether there was no room, in the pool or among what the upstream is allowed: nothing was sent.
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Wait { .. } | Self::QueueFull { .. } | Self::Bulkhead { .. } | Self::RateLimited { .. }
        )
    }

    /// Whether the upstream is left alone after too many failures: nothing was sent.
    pub fn is_open_breaker(&self) -> bool {
        matches!(self, Self::BreakerOpen { .. })
    }

    /// When it is worth to come again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { turn_in, .. } => Some(*turn_in),
            Self::BreakerOpen { until, .. } => Some(left(until)),
            error => error.is_busy().then_some(Duration::from_secs(1)),
        }
    }

    /// Whether the server is to blame: it was asked in earnest and gave no proper answer.
    pub(super) fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Open { .. }
                | Self::Stale { .. }
                | Self::Head { .. }
                | Self::Truncated { .. }
                | Self::Reset { .. }
                | Self::Protocol { .. }
        )
    }

    /// Whether no connection could be made: nothing was sent.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// The variant of what went wrong with hyper's connection.
    pub(super) fn broken(at: At, cause: Arc<hyper::Error>) -> Self {
        let kind = io_kind(&*cause);
        let was_reset = h2_error(&cause).is_some_and(|h2| h2.is_reset() || h2.is_go_away());
        if was_reset {
            return Self::Reset { at, cause };
        }
        if is_reset(kind) {
            return Self::Reset { at, cause };
        }
        let ended = cause.is_incomplete_message() || cause.is_canceled() || cause.is_closed();
        if ended || kind == Some(io::ErrorKind::UnexpectedEof) {
            return Self::Truncated { at, cause };
        }
        let why = if cause.is_parse() { "the head cannot be read" } else { "the connection broke" };
        Self::Protocol { at, why, cause: Some(cause) }
    }
}

fn left(until: &Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Whether a failed send means that the peer had closed the connection before it saw the request.
pub(super) fn is_stale(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || is_reset(io_kind(error))
}

fn is_reset(kind: Option<io::ErrorKind>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(kind, Some(ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected))
}

/// The kind of the I/O error that caused `error`, however deep it sits.
pub(super) fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        let in_h2 = error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io);
        if let Some(io) = error.downcast_ref::<io::Error>().or(in_h2) {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}
