//! Prompt: a wait ends by its deadline, and the error says that it was a wait.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(a_wait_ends_by_its_deadline);

async fn a_wait_ends_by_its_deadline<H: Harness>() {
    let harness = Arc::new(H::start(Duration::from_millis(500)).await);
    let mut holders = JoinSet::new();
    for _ in 0..LIMIT {
        let harness = Arc::clone(&harness);
        holders.spawn(async move { harness.work(Duration::from_secs(5)).await });
    }
    testkit::until(BOUND, || {
        assert!(holders.try_join_next().is_none_or(|held| held.unwrap().is_ok()), "a holder found no place");
        harness.in_use() == LIMIT
    })
    .await;

    let started = Instant::now();
    let late = harness.work(Duration::ZERO).await;
    let error = late.expect_err("every place was taken");
    assert!(H::is_wait_timeout(&error), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "it waited for a holder instead of its deadline");
    testkit::until(BOUND, || harness.snapshot().waiting() == 0).await;
    holders.abort_all();
}
