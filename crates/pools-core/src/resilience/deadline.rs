//! How long the incoming request that a task works for may still take, handed down without a parameter.
//!
//! ```text
//!  web: scope(deadline, refused?) ─► handler ─► service ─► client ─► pool: earliest(own) ─► the call's deadline
//! ```
//!
//! A scope inside another can only shorten it. What is spawned leaves it: background work has limits of its own. The pools
//! take what is left as the default of every call; a caller that names an earlier time keeps it.
//!
//! **Cancel safety**: a scope holds nothing.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// What is kept back for putting together what calls have found, at most.
pub const ROUND_OFF: Duration = Duration::from_millis(100);

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs `work`, whose outgoing calls end by `deadline`, or by that of the scope around it when that is earlier.
pub async fn scope<F: Future>(deadline: Instant, work: F) -> F::Output {
    DEADLINE.scope(earliest(Some(deadline)).unwrap_or(deadline), work).await
}

/// Runs `work`, whose outgoing calls end by `deadline`, even where the scope around it ends earlier: for a call whose body becomes that
/// of our own answer. A request's deadline is for the head of its answer; what is streamed behind it may take longer.
pub async fn beyond<F: Future>(deadline: Instant, work: F) -> F::Output {
    DEADLINE.scope(deadline, work).await
}

/// What comes of `work` by the [current] deadline, or `None`: for work that waits on more than the pools, which know it. Its calls
/// end [`ROUND_OFF`] earlier, as those of [`within`].
///
/// # Cancel safety
/// As `work`, which is dropped then.
pub async fn in_time<F: Future>(work: F) -> Option<F::Output> {
    match current() {
        Some(end) => within(end, ROUND_OFF, work).await,
        None => Some(work.await),
    }
}

/// What comes of `work` by `end`, or `None`. Its outgoing calls end `round_off` before that, or a tenth of the time that is left when that is
/// less: so a call that is too late fails by itself, is counted and blamed on who was slow, where one that ends together with everything
/// around it would be dropped unheard as often as not; and what the other parts found can still be put together.
///
/// # Cancel safety
/// As `work`, which is dropped at `end`.
pub async fn within<F: Future>(end: Instant, round_off: Duration, work: F) -> Option<F::Output> {
    let left = end.saturating_duration_since(Instant::now());
    timeout_at(end, scope(end - round_off.min(left / 10), work)).await.ok()
}

/// By when the request of the current task must be answered; `None` outside of a request.
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// The earlier of a call's own deadline and the request's.
pub fn earliest(own: Option<Instant>) -> Option<Instant> {
    [own, current()].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    #[tokio::test]
    async fn a_scope_inside_another_can_only_shorten_it_and_a_spawned_task_leaves_it() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        assert_eq!((current(), earliest(None), earliest(Some(later))), (None, None, Some(later)));
        scope(soon, async {
            assert_eq!((current(), earliest(None)), (Some(soon), Some(soon)));
            assert_eq!((earliest(Some(later)), earliest(Some(now))), (Some(soon), Some(now)));
            scope(later, async { assert_eq!(current(), Some(soon)) }).await;
            scope(now, async { assert_eq!(current(), Some(now)) }).await;
            beyond(later, async { assert_eq!(current(), Some(later)) }).await;
            assert_eq!(tokio::spawn(async { current() }).await.unwrap(), None);
        })
        .await;
        assert_eq!(current(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_in_time_where_there_is_a_deadline() {
        let soon = Instant::now() + Duration::from_secs(1);
        let later = || sleep_until(soon + Duration::from_secs(1));
        let calls_end = scope(soon, in_time(async { current() })).await;
        assert_eq!(calls_end, Some(Some(soon - ROUND_OFF)));
        assert_eq!(scope(soon, in_time(later())).await, None);
        assert_eq!(Instant::now(), soon);
        assert_eq!(in_time(later()).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_end_before_what_waits_for_them() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let ends = async { current() };
        assert_eq!(within(now + ms(2_000), ms(100), ends).await, Some(Some(now + ms(1_900))));
        assert_eq!(within(now + ms(500), ms(100), async { current() }).await, Some(Some(now + ms(450))));
        assert_eq!(
            within(now, ms(100), async { current() }).await,
            Some(Some(now)),
            "nothing is left to keep back"
        );
        let late = async { sleep_until(current().expect("a deadline")).await };
        assert_eq!(
            within(now + ms(500), ms(100), late).await,
            Some(()),
            "a call that fails in time is heard"
        );
        let deaf = sleep_until(now + ms(2_000));
        assert_eq!(within(now + ms(1_000), ms(100), deaf).await, None);
        assert_eq!(now.elapsed(), ms(1_000));
    }
}
