//! Fair: nobody starves while others are served again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(nobody_starves);

async fn nobody_starves<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    // Ends by count, not by time: what a slow machine does in two seconds is mostly opening connections.
    let left = Arc::new(AtomicI64::new(i64::from(LIMIT) * 4 * 20));
    let mut callers = JoinSet::new();
    for _ in 0..LIMIT * 4 {
        let (harness, left) = (Arc::clone(&harness), Arc::clone(&left));
        callers.spawn(async move {
            let mut served = 0_u32;
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                harness.work(Duration::from_millis(2)).await.unwrap();
                served += 1;
            }
            served
        });
    }
    let served = callers.join_all().await;
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(least * 2 >= *most, "least {least}, most {most}: {served:?}");
}
