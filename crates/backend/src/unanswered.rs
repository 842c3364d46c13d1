//! What our caller is told of an upstream that gave no answer: one rule for all of them.
//!
//! | what | status |
//! |---|---|
//! | no room, in the pool or among what the upstream is allowed | 503, `Retry-After` |
//! | left alone after too many failures | 503, `Retry-After` |
//! | not connected: refused, unknown, or no connection in time | 503 |
//! | connected, and too slow | 504 |
//! | connected, and broken off or no HTTP | 502 |

use std::time::Duration;

use pools_core::{http::HttpError, web::Problem};

/// The problem for `cause`, told as `detail`.
pub fn unanswered(cause: &HttpError, detail: String) -> Problem {
    let problem = if cause.is_busy() {
        Problem::busy(detail)
    // Before the time-outs: who cannot be connected to in time is away, not slow.
    } else if cause.is_open_breaker() || cause.is_connect() {
        Problem::unavailable(detail)
    } else if cause.is_timeout() {
        Problem::gateway_timeout(detail)
    } else {
        Problem::bad_gateway(detail)
    };
    match cause.retry_after() {
        Some(pause) => problem.retry_after(pause.max(Duration::from_secs(1))),
        None => problem,
    }
}
