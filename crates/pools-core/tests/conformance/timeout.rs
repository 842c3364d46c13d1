//! Prompt: a wait ends by its deadline or by that of the incoming request, and the error says that it was a wait.

use std::{sync::Arc, time::Duration};

use pools_core::resilience::{deadline, outgoing};
use tokio::{task::JoinSet, time::Instant};

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(
    a_wait_ends_by_its_deadline,
    a_wait_ends_by_that_of_the_incoming_request,
    a_request_that_may_do_nothing_takes_no_place
);

/// Takes every place for longer than any test waits.
async fn fill<H: Harness>(harness: &Arc<H>) -> JoinSet<Result<(), H::Error>> {
    let mut holders = JoinSet::new();
    for _ in 0..LIMIT {
        let harness = Arc::clone(harness);
        holders.spawn(async move { harness.work(Duration::from_secs(5)).await });
    }
    testkit::until(BOUND, || {
        assert!(holders.try_join_next().is_none_or(|held| held.unwrap().is_ok()), "a holder found no place");
        harness.in_use() == LIMIT
    })
    .await;
    holders
}

async fn a_wait_ends_by_its_deadline<H: Harness>() {
    let harness = Arc::new(H::start(Duration::from_millis(500)).await);
    let mut holders = fill(&harness).await;

    let started = Instant::now();
    let late = harness.work(Duration::ZERO).await;
    let error = late.expect_err("every place was taken");
    assert!(H::is_wait_timeout(&error), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "it waited for a holder instead of its deadline");
    testkit::until(BOUND, || harness.snapshot().waiting() == 0).await;
    holders.abort_all();
}

async fn a_wait_ends_by_that_of_the_incoming_request<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let mut holders = fill(&harness).await;

    let started = Instant::now();
    let late = deadline::scope(started + Duration::from_millis(500), harness.work(Duration::ZERO)).await;
    let error = late.expect_err("every place was taken");
    assert!(H::is_wait_timeout(&error), "{error:?}");
    let took = started.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&took), "{took:?}");
    testkit::until(BOUND, || harness.snapshot().waiting() == 0).await;
    holders.abort_all();
}

async fn a_request_that_may_do_nothing_takes_no_place<H: Harness>() {
    let harness = H::start(BOUND).await;
    assert!(outgoing::up_to_first_call(harness.work(Duration::ZERO)).await.is_none(), "it went on");
    let snapshot = harness.snapshot();
    assert_eq!((snapshot.in_use(), snapshot.waiting(), snapshot.holders.len()), (0, 0, 0));
    harness.work(Duration::ZERO).await.expect("the pool was left as it was");
}
