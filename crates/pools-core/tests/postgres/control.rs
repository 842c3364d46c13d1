//! What is changed while the pool works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgError, PgPool},
};
use tokio::time::{Instant, timeout};

use crate::{at, backend_pid, exactly, ms, open, ready, secs, settled, settled_with};

fn closed(pool: &PgPool, reason: &str) -> u64 {
    let closed = pool.snapshot().totals.closed;
    closed.iter().find(|(name, _)| *name == reason).expect("an unknown reason").1
}

#[tokio::test]
async fn pg_19_an_invalidated_pool_replaces_idle_connections_now_and_others_when_they_come_back() {
    let server = testkit::postgres().await;
    let pool = open(exactly(4, &server));
    ready(&pool).await;
    let mut leases = futures_util::future::try_join_all((0..4).map(|_| pool.acquire())).await.unwrap();
    let kept = leases.pop().unwrap();
    drop(leases);
    settled_with(&pool, 1).await;
    pool.invalidate();
    testkit::until(secs(20), || pool.stats().total_connections == 1).await;
    kept.query_one("SELECT 1", &[]).await.expect("a lease that is out goes on");
    drop(kept);
    testkit::until_async(secs(20), async || server.connections("pools-core").await == 0).await;
    // The server sees the end before our own task does.
    testkit::until(secs(20), || closed(&pool, "invalidated") == 4).await;
    backend_pid(&pool).await;
}

#[tokio::test]
async fn pg_19_an_invalidated_lease_is_closed_and_its_place_goes_to_the_waiter() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let pid = backend_pid(&pool).await;
    let lease = pool.acquire().await.unwrap();
    let waiter = tokio::spawn(pool.acquire());
    testkit::until(secs(20), || pool.snapshot().waiting() == 1).await;
    lease.invalidate();
    let next = timeout(secs(20), waiter).await.expect("the waiter was lost").unwrap().unwrap();
    let other: i32 = next.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_ne!(other, pid);
}

#[tokio::test]
async fn pg_19_a_detached_connection_frees_its_place_at_once_and_is_closed_at_the_end() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    ready(&pool).await;
    let mut lease = pool.acquire().await.unwrap();
    let waiter = tokio::spawn(pool.acquire());
    testkit::until(secs(20), || pool.snapshot().waiting() == 1).await;
    lease.detach();
    let next = timeout(secs(20), waiter).await.expect("the waiter was lost").unwrap().unwrap();
    lease.query_one("SELECT 1", &[]).await.expect("a detached connection works");
    let stats = pool.stats();
    assert_eq!((stats.checked_out, stats.total_connections), (1, 1), "it is outside the bound");
    drop(lease);
    testkit::until_async(secs(20), async || server.connections("pools-core").await == 1).await;
    testkit::until(secs(20), || closed(&pool, "detached") == 1).await;
    let mut forgotten = next;
    forgotten.detach();
    let drained = pool.drain(Instant::now() + ms(200)).await;
    assert!(drained.cut.iter().any(|line| line.contains("control.rs:")), "{drained:?}");
    testkit::until_async(secs(20), async || server.all_connections().await == 0).await;
    drop(forgotten);
}

#[tokio::test]
async fn pg_19_a_bigger_pool_serves_its_waiters_in_order() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    ready(&pool).await;
    let _held = pool.acquire().await.unwrap();
    let mut first = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut second = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut second).is_pending());
    pool.resize(1, 1);
    let lease = timeout(secs(20), &mut first).await.expect("the first waiter was lost").unwrap();
    assert!(futures_util::poll!(&mut second).is_pending(), "there is no third place");
    pool.resize(3, 0);
    drop(timeout(secs(20), second).await.expect("the second waiter was lost").unwrap());
    drop(lease);
    assert_eq!(pool.snapshot().limit, 3);
    assert_eq!(pool.stats().size, 3);
}

#[tokio::test]
async fn pg_19_a_smaller_pool_closes_idle_ones_now_and_others_when_they_come_back() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    ready(&pool).await;
    let mut leases = futures_util::future::try_join_all((0..30).map(|_| pool.acquire())).await.unwrap();
    leases.truncate(10);
    settled_with(&pool, 10).await;
    pool.resize(4, 1);
    testkit::until(secs(20), || pool.stats().total_connections == 10).await;
    let late = pool.acquire();
    let mut late = Box::pin(late);
    assert!(futures_util::poll!(&mut late).is_pending(), "ten are out of five");
    drop(leases);
    drop(timeout(secs(20), late).await.expect("the waiter was lost").unwrap());
    testkit::until_async(secs(20), async || server.connections("pools-core").await <= 5).await;
    settled(&pool).await;
    assert!(pool.stats().total_connections <= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_19_resized_under_load_no_waiter_is_lost_and_the_largest_bound_is_never_passed() {
    let server = testkit::postgres().await;
    let url = server.create_role_with_limit("bounded", 12).await;
    let pool = open(PgConfig { size: 4, overflow: 0, overflow_linger: Duration::ZERO, ..at(&url) });
    let stop = Arc::new(AtomicBool::new(false));
    let users: Vec<_> = (0..32)
        .map(|_| {
            let (pool, stop) = (pool.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let lease = pool.acquire().await.unwrap_or_else(|error| panic!("{}", error.reason()));
                    lease.query_one("SELECT 1", &[]).await.unwrap();
                }
            })
        })
        .collect();
    for round in 0..40_u32 {
        pool.resize(1 + round % 6, round % 5);
        if round % 10 == 9 {
            assert!(pool.pause(Instant::now() + secs(20)).await, "something stayed out");
            assert_eq!(pool.stats().checked_out, 0);
            pool.resume();
        }
        tokio::time::sleep(ms(20)).await;
    }
    pool.resize(2, 1);
    testkit::until(secs(20), || pool.stats().total_connections <= 3).await;
    stop.store(true, Ordering::Relaxed);
    for user in users {
        user.await.unwrap();
    }
    settled(&pool).await;
    let leases = futures_util::future::try_join_all((0..3).map(|_| pool.acquire())).await.unwrap();
    assert_eq!(pool.stats().checked_out, 3, "a place was lost");
    drop(leases);
    assert!(!server.log().contains("too many connections"), "the server refused a connection");
}

#[tokio::test]
async fn pg_19_a_paused_pool_keeps_its_callers_waiting_and_resumes_in_order() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { timeout: ms(200), ..exactly(2, &server) });
    ready(&pool).await;
    let held = pool.acquire().await.unwrap();
    assert!(!pool.pause(Instant::now() + ms(50)).await, "a lease is out");
    let error = pool.acquire().await.unwrap_err();
    assert!(matches!(error, PgError::Paused { .. }) && error.is_unavailable(), "{error}");
    let lane = pool.lane().query_one("SELECT 1", &[]).await.unwrap_err();
    assert!(matches!(lane, PgError::Paused { .. }), "{lane}");
    drop(held);
    assert!(pool.pause(Instant::now() + secs(20)).await);
    pool.resize(1, 0);
    let mut first = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut first).is_pending());
    pool.resume();
    drop(timeout(secs(20), first).await.expect("the waiter was lost").unwrap());
    settled(&pool).await;
    testkit::until(secs(20), || pool.stats().total_connections <= 1).await;
}

#[tokio::test]
async fn pg_32_warming_up_waits_for_the_minimum_or_says_why_not() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { min_idle: 6, ..at(&server.url()) });
    pool.warm(Instant::now() + secs(20)).await.unwrap();
    assert!(pool.stats().total_connections >= 6, "{:?}", pool.stats());
    let none = open(at(&server.url()));
    none.warm(Instant::now()).await.expect("a minimum of 0 is there already");
    let nobody = format!("postgres://app:x@127.0.0.1:{}/app", testkit::free_port());
    let pool = open(PgConfig { min_idle: 1, ..at(&nobody) });
    let error = pool.warm(Instant::now() + ms(300)).await.unwrap_err();
    assert!(error.reason().contains("Connection refused"), "{}", error.reason());
}

#[tokio::test]
async fn pg_32_warming_up_waits_for_a_server_that_comes_late() {
    let server = testkit::postgres().await;
    server.stop(testkit::Stop::Fast).await;
    let pool = open(PgConfig { min_idle: 2, ..at(&server.url()) });
    let warm = tokio::spawn({
        let pool = pool.clone();
        async move { pool.warm(Instant::now() + secs(30)).await }
    });
    tokio::time::sleep(ms(300)).await;
    server.start().await;
    warm.await.unwrap().unwrap();
    assert!(pool.stats().total_connections >= 2);
}

#[tokio::test]
async fn pg_19_what_a_smaller_size_makes_superfluous_goes_without_traffic_also_where_all_still_fits() {
    for linger in [Duration::ZERO, secs(1)] {
        let server = testkit::postgres().await;
        let pool = open(PgConfig { overflow_linger: linger, ..exactly(8, &server) });
        ready(&pool).await;
        drop(futures_util::future::try_join_all((0..8).map(|_| pool.acquire())).await.unwrap());
        settled(&pool).await;
        assert_eq!(pool.stats().checked_in, 8);
        pool.resize(3, 5);
        testkit::until(secs(10), || pool.stats().total_connections == 3).await;
        assert_eq!(closed(&pool, "max_free"), 5);
    }
}
