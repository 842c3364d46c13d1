//! Drained: what runs may end, newcomers are refused, nothing is left on the server.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::harness::{BOUND, Harness};

crate::for_each_pool!(work_under_way_ends_and_nothing_is_left, work_that_does_not_end_is_cut_and_named);

async fn work_under_way_ends_and_nothing_is_left<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let worker = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.work(Duration::from_millis(300)).await }
    });
    testkit::until(BOUND, || harness.in_use() == 1).await;

    let drained = harness.pool().drain(Instant::now() + BOUND).await;

    assert!(drained.cut.is_empty(), "{drained:?}");
    worker.await.unwrap().unwrap();
    let refused = harness.work(Duration::ZERO).await.unwrap_err();
    assert!(H::is_closed(&refused), "{refused:?}");
    testkit::until_async(BOUND, async || harness.server_count().await == 0).await;
    assert_eq!(harness.snapshot().live(), 0);
    assert!(harness.pool().drain(Instant::now()).await.cut.is_empty(), "a second drain has nothing to cut");
}

async fn work_that_does_not_end_is_cut_and_named<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let worker = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.work(Duration::from_secs(30)).await }
    });
    testkit::until(BOUND, || harness.in_use() == 1).await;

    let drained = harness.pool().drain(Instant::now() + Duration::from_millis(100)).await;

    assert_eq!(drained.cut.len(), 1, "{drained:?}");
    testkit::until_async(BOUND, async || harness.server_count().await == 0).await;
    worker.abort();
}
