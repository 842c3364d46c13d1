//! Bounded waits on a condition, instead of sleeps that hope.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// The bound is a hang guard, not a timing claim: choose about ten times what you expect. The time is
/// tokio's, so a paused clock runs through the wait at once.
///
/// # Panics
/// Naming the caller's line, when the condition does not hold within `bound`.
#[track_caller]
pub fn until(bound: Duration, mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    // Spelled out, not built on `until_async`: this future may be sent to another task.
    async move {
        let end = Instant::now() + bound;
        while !condition() {
            assert!(Instant::now() < end, "{caller}: the condition did not hold within {bound:?}");
            sleep(POLL).await;
        }
    }
}

/// Like [`until`], for a condition that has to be asked for: a query, a request.
///
/// The bound also cuts short a question that gets no answer.
///
/// # Panics
/// Naming the caller's line, when the condition does not hold within `bound`.
#[track_caller]
pub fn until_async(bound: Duration, mut condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + bound;
        while timeout_at(end, condition()).await != Ok(true) {
            assert!(Instant::now() < end, "{caller}: the condition did not hold within {bound:?}");
            sleep(POLL).await;
        }
    }
}
