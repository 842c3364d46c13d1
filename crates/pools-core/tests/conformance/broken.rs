//! Self-healing: connections that the server ended leave by themselves.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(connections_ended_by_the_server_are_not_handed_out);

async fn connections_ended_by_the_server_are_not_handed_out<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    for _ in 0..3 {
        let mut callers = JoinSet::new();
        for _ in 0..LIMIT {
            let harness = Arc::clone(&harness);
            callers.spawn(async move { harness.work(Duration::from_millis(20)).await });
        }
        while let Some(done) = callers.join_next().await {
            done.unwrap().unwrap();
        }
        harness.kill_connections().await;
    }
    harness.work(Duration::ZERO).await.unwrap();
    assert!(harness.snapshot().live() <= LIMIT + H::BESIDE);
}
