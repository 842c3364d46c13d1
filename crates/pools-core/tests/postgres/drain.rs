//! The end.

use pools_core::{
    pool::{Drained, Pool},
    postgres::PgError,
};
use tokio::time::{Instant, timeout};

use crate::{at, exactly, ms, open, secs};

#[tokio::test]
async fn pg_20_a_quiet_pool_drains_at_once_and_leaves_no_backend() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    drop(futures_util::future::join_all((0..12).map(|_| pool.acquire())).await);
    let drained = pool.drain(Instant::now() + secs(20)).await;
    assert_eq!(drained, Drained::default());
    assert_eq!(server.all_connections().await, 0);
    assert!(matches!(pool.acquire().await.unwrap_err(), PgError::Closed));
    assert_eq!(pool.drain(Instant::now()).await, Drained::default());
}

#[tokio::test]
async fn pg_20_drain_waits_for_leases_and_refuses_newcomers_at_once() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    let mut waiter = Box::pin(pool.acquire());
    assert!(timeout(ms(10), &mut waiter).await.is_err());
    let work = async {
        tokio::time::sleep(ms(300)).await;
        lease.query_one("SELECT 1", &[]).await.expect("a lease that is out works until the deadline");
        drop(lease);
    };
    let (drained, ()) = tokio::join!(pool.drain(Instant::now() + secs(20)), work);
    assert_eq!(drained, Drained::default());
    assert!(matches!(waiter.await.unwrap_err(), PgError::Closed));
    assert_eq!(server.all_connections().await, 0);
}

#[tokio::test]
async fn pg_20_at_the_deadline_leases_are_cut_and_named_and_their_statements_end() {
    let server = testkit::postgres().await;
    let pool = open(exactly(2, &server));
    let busy = pool.acquire().await.unwrap();
    let query = tokio::spawn(async move {
        let result = busy.query("SELECT pg_sleep(60)", &[]).await;
        (result.is_err(), busy)
    });
    let idle = pool.acquire().await.unwrap();
    let drained = pool.drain(Instant::now() + ms(300)).await;
    assert_eq!(drained.cut.len(), 2, "{drained:?}");
    assert!(drained.cut.iter().all(|line| line.contains("drain.rs:")), "{drained:?}");
    let (failed, _busy) = query.await.unwrap();
    assert!(failed);
    assert!(matches!(idle.query("SELECT 1", &[]).await.unwrap_err(), PgError::Closed));
    testkit::until_async(secs(10), async || server.all_connections().await == 0).await;
}
