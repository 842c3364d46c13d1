//! Clean under cancel: callers that go away leave no place taken.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(cancelled_callers_leave_no_place_taken);

async fn cancelled_callers_leave_no_place_taken<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let mut callers = JoinSet::new();
    for number in 0..200_u64 {
        let harness = Arc::clone(&harness);
        let patience = Duration::from_micros(fastrand::u64(0..15_000) * (number % 2) + 200);
        callers.spawn(async move {
            let work = harness.work(Duration::from_millis(5));
            // Cut or done: both are what this caller wanted.
            tokio::time::timeout(patience, work).await.ok();
        });
    }
    callers.join_all().await;

    let mut callers = JoinSet::new();
    for _ in 0..LIMIT {
        let harness = Arc::clone(&harness);
        callers.spawn(async move { harness.work(Duration::from_millis(300)).await });
    }
    testkit::until(BOUND, || harness.in_use() == LIMIT).await;
    while let Some(done) = callers.join_next().await {
        done.unwrap().unwrap();
    }
    testkit::until(BOUND, || {
        let snapshot = harness.snapshot();
        (snapshot.in_use(), snapshot.waiting()) == (0, 0)
    })
    .await;
}
