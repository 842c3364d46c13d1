//! Observable: the numbers add up at every moment, and return to zero.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(the_numbers_add_up_at_every_moment);

async fn the_numbers_add_up_at_every_moment<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let mut callers = JoinSet::new();
    for number in 0..LIMIT * 10 {
        let harness = Arc::clone(&harness);
        callers.spawn(async move {
            let work = harness.work(Duration::from_millis(3));
            if number % 3 == 0 {
                // A third of the callers goes away early.
                tokio::time::timeout(Duration::from_millis(4), work).await.ok();
            } else {
                work.await.unwrap();
            }
        });
    }
    while !callers.is_empty() {
        let snapshot = harness.snapshot();
        assert!(snapshot.live() + snapshot.opening() <= LIMIT + H::BESIDE, "{snapshot:?}");
        let closed: u64 = snapshot.totals.closed.iter().map(|(_, count)| count).sum();
        assert!(snapshot.totals.opened >= closed, "more closed than opened: {snapshot:?}");
        while let Some(done) = callers.try_join_next() {
            done.unwrap();
        }
        tokio::task::yield_now().await;
    }
    testkit::until(BOUND, || {
        let snapshot = harness.snapshot();
        let closed: u64 = snapshot.totals.closed.iter().map(|(_, count)| count).sum();
        let balanced = !H::CONNECTS || snapshot.totals.opened - closed == u64::from(snapshot.live());
        balanced && (snapshot.in_use(), snapshot.waiting(), snapshot.opening()) == (0, 0, 0)
    })
    .await;
    assert!(harness.snapshot().holders.is_empty());
}
