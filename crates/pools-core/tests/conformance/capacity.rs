//! Bounded: the server never sees more connections than configured.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(never_more_connections_than_configured, every_place_can_be_used_at_once);

async fn never_more_connections_than_configured<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let mut callers = JoinSet::new();
    for _ in 0..LIMIT * 10 {
        let harness = Arc::clone(&harness);
        callers.spawn(async move { harness.work(Duration::from_millis(20)).await });
    }
    let mut peak = 0;
    while !callers.is_empty() {
        peak = peak.max(harness.server_count().await);
        while let Some(done) = callers.try_join_next() {
            done.unwrap().unwrap();
        }
        tokio::task::yield_now().await;
    }
    assert!(peak <= LIMIT + H::BESIDE, "the server saw {peak} connections");
    assert!(harness.snapshot().live() <= LIMIT + H::BESIDE);
}

async fn every_place_can_be_used_at_once<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let mut callers = JoinSet::new();
    for _ in 0..LIMIT {
        let harness = Arc::clone(&harness);
        callers.spawn(async move { harness.work(Duration::from_millis(500)).await });
    }
    testkit::until(BOUND, || harness.in_use() == LIMIT).await;
    while let Some(done) = callers.join_next().await {
        done.unwrap().unwrap();
    }
}
