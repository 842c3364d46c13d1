//! Fair: nobody starves while others are served again and again.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::harness::{BOUND, Harness, LIMIT};

crate::for_each_pool!(nobody_starves);

async fn nobody_starves<H: Harness>() {
    let harness = Arc::new(H::start(BOUND).await);
    let end = Instant::now() + Duration::from_secs(2);
    let mut callers = JoinSet::new();
    for _ in 0..LIMIT * 4 {
        let harness = Arc::clone(&harness);
        callers.spawn(async move {
            let mut served = 0_u32;
            while Instant::now() < end {
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
