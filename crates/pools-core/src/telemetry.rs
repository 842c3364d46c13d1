//! Logs: readable on a terminal, one JSON object a line elsewhere, a request id on every line of a request.

use std::{
    fmt,
    future::Future,
    io::IsTerminal,
    sync::{Arc, OnceLock},
};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

tokio::task_local! {
    static REQUEST_ID: RequestId;
}

static TERMINAL: OnceLock<bool> = OnceLock::new();

/// Identifies one incoming request in logs, leases and error answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// An id from outside: up to 64 letters, digits, `-`, `_`, `.` or `:`. Anything else could forge log lines.
    pub fn parse(text: &str) -> Option<Self> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        ((1..=64).contains(&text.len()) && text.chars().all(good)).then(|| Self(text.into()))
    }

    /// A new id of 96 random bits.
    pub fn random() -> Self {
        Self(format!("{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..)).into())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs `work` as part of the request `id`.
pub async fn with_request_id<F: Future>(id: RequestId, work: F) -> F::Output {
    REQUEST_ID.scope(id, work).await
}

/// The request that the current task works for.
pub fn request_id() -> Option<RequestId> {
    REQUEST_ID.try_with(Clone::clone).ok()
}

/// `LOG_LEVEL` is not a filter that `tracing-subscriber` understands.
#[derive(Debug, thiserror::Error)]
#[error(
    "LOG_LEVEL: {directives:?} is not a level (error, warn, info, debug, trace) or a filter such as info,pools_core=debug"
)]
pub struct BadLevel {
    directives: String,
    #[source]
    cause: tracing_subscriber::filter::ParseError,
}

/// Sends all log lines of the process to standard output. `quiet` is a filter for libraries that say too much; one
/// in `level` that names them wins. A second call changes nothing.
///
/// # Errors
/// [`BadLevel`] when `level` is not a level or filter.
pub fn init(level: &str, quiet: &str) -> Result<(), BadLevel> {
    let filter = EnvFilter::try_new(format!("{quiet},{level}"))
        .map_err(|cause| BadLevel { directives: level.to_owned(), cause })?;
    let terminal = *TERMINAL.get_or_init(|| std::io::stdout().is_terminal());
    let lines = tracing_subscriber::fmt::layer();
    let registry = tracing_subscriber::registry().with(filter);
    let result = if terminal {
        registry.with(lines.with_target(false).compact()).try_init()
    } else {
        registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init()
    };
    if result.is_err() {
        tracing::debug!("log lines go to the subscriber that was there before");
    }
    Ok(())
}

/// Logs one of the start-up messages that operators look for, with its emoji on a terminal only.
pub fn announce(emoji: &str, message: fmt::Arguments<'_>) {
    if *TERMINAL.get().unwrap_or(&false) {
        tracing::info!("{emoji} {message}");
    } else {
        tracing::info!("{message}");
    }
}

/// [`announce`] for a message that tells of a loss.
pub fn announce_warning(emoji: &str, message: fmt::Arguments<'_>) {
    if *TERMINAL.get().unwrap_or(&false) {
        tracing::warn!("{emoji} {message}");
    } else {
        tracing::warn!("{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_refused() {
        assert!(RequestId::parse("9f-AB_1.2:3").is_some());
        for bad in ["", "a b", "a\nlevel=error", "\u{e9}", &"x".repeat(65)] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_id_is_known_inside_the_request_only() {
        let id = RequestId::random();
        assert_eq!(with_request_id(id.clone(), async { request_id() }).await, Some(id));
        assert_eq!(request_id(), None);
    }
}
