//! Connections that nobody needs any more are closed.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(an_idle_pool_shrinks);

async fn an_idle_pool_shrinks<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let mut callers = JoinSet::new();
    for _ in 0..LIMIT {
        let harness = Arc::clone(&harness);
        callers.spawn(async move { harness.work(Duration::from_millis(50)).await });
    }
    callers.join_all().await;
    testkit::until_async(BOUND, async || harness.server_count().await <= H::IDLE_FLOOR).await;
    testkit::until(BOUND, || harness.snapshot().live() <= H::IDLE_FLOOR).await;
}
