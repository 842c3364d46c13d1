//! What one caller leaves behind never reaches the next.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgError, PgPool, SqlState},
};
use tokio::time::{Instant, timeout};

use crate::{at, backend_pid, exactly, ms, open, secs, settled};

#[tokio::test]
async fn pg_13_a_query_dropped_midway_is_cancelled_and_the_next_caller_gets_the_same_connection_soon() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let pid = backend_pid(&pool).await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let lease = pool.acquire().await.unwrap();
        assert!(timeout(ms(30), lease.query("SELECT pg_sleep(60)", &[])).await.is_err());
        assert!(matches!(lease.query("SELECT 1", &[]).await.unwrap_err(), PgError::Unfinished));
        drop(lease);
        let started = Instant::now();
        let next = pool.acquire().await.unwrap();
        waits.push(started.elapsed());
        let row = next.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), pid, "closed instead of cleaned");
    }
    waits.sort_unstable();
    // Ten times what it may take on an idle machine.
    assert!(waits[10] < ms(500), "waited {waits:?}");
    assert_eq!(pool.snapshot().totals.opened, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_13_of_10_000_random_cuts_none_hits_the_query_behind_it() {
    const EACH: u32 = 1_250;
    let server = testkit::postgres().await;
    let pool = open(PgConfig { pre_ping: false, ..exactly(8, &server) });
    // As many as there are connections: who comes behind a cut waits for its connection, and for nobody else.
    let workers: Vec<_> = (0..8).map(|_| tokio::spawn(cut_and_look(pool.clone(), EACH))).collect();
    let mut waits = Vec::new();
    for worker in workers {
        waits.extend(worker.await.unwrap());
    }
    assert_eq!(waits.len(), 10_000);
    waits.sort_unstable();
    // Ten times what it may take.
    assert!(waits[5_000] < ms(500), "half waited longer than {:?}", waits[5_000]);
    settled(&pool).await;
    let opened = pool.snapshot().totals.opened;
    assert!(opened <= 16, "{opened} connections were opened: cleaning failed");
}

/// Cuts so many queries, each of which has the chance to be followed by an innocent one. Returns how long that one
/// waited for its connection.
async fn cut_and_look(pool: PgPool, cuts: u32) -> Vec<Duration> {
    let mut waits = Vec::new();
    while waits.len() < cuts as usize {
        let lease = pool.acquire().await.unwrap();
        // About as long as the grace before a cancel is sent, so that both come first now and then.
        let sleep = f64::from(fastrand::u32(0..6)) / 1_000.0;
        let patience = Duration::from_micros(fastrand::u64(0..4_000));
        let cut = timeout(patience, lease.query("SELECT pg_sleep($1)", &[&sleep])).await.is_err();
        drop(lease);
        let started = Instant::now();
        let innocent = pool.acquire().await.unwrap();
        let waited = started.elapsed();
        let number = fastrand::i32(..);
        let row = innocent.query_one("SELECT $1::int4 FROM pg_sleep(0.001)", &[&number]).await;
        assert_eq!(row.expect("an innocent query was hit").get::<_, i32>(0), number);
        waits.extend(cut.then_some(waited));
    }
    waits
}

#[tokio::test]
async fn pg_13_what_cannot_be_cancelled_is_cut_off_and_counted() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    server.freeze();
    assert!(timeout(ms(30), lease.query("SELECT 1", &[])).await.is_err());
    drop(lease);
    settled(&pool).await;
    server.thaw();
    let cut_off = pool.snapshot().samples;
    let cut_off = cut_off.iter().find(|sample| sample.name == "pools_postgres_cut_off_total").unwrap();
    assert!(cut_off.value >= 1.0);
    testkit::until_async(secs(20), async || {
        timeout(secs(5), pool.acquire()).await.is_ok_and(|lease| lease.is_ok())
    })
    .await;
}

/// Whether the next lease begins outside any transaction.
async fn outside_transaction(pool: &PgPool) -> bool {
    let lease = pool.acquire().await.unwrap();
    // The first would be refused in somebody else's failed transaction; in an open one the second is refused.
    lease.batch_execute("SELECT 1").await.is_ok() && lease.batch_execute("VACUUM pg_class").await.is_ok()
}

#[tokio::test]
async fn pg_14_a_lease_returned_inside_a_transaction_is_rolled_back_first() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let pid = backend_pid(&pool).await;
    let lease = pool.acquire().await.unwrap();
    lease.batch_execute("CREATE TABLE loans (id int)").await.unwrap();
    lease.batch_execute("BEGIN; INSERT INTO loans VALUES (1)").await.unwrap();
    drop(lease);
    assert!(outside_transaction(&pool).await);
    let lease = pool.acquire().await.unwrap();
    assert!(lease.query_opt("SELECT id FROM loans", &[]).await.unwrap().is_none());
    lease.batch_execute("BEGIN").await.unwrap();
    lease.query("SELECT 1/0", &[]).await.unwrap_err();
    drop(lease);
    assert!(outside_transaction(&pool).await);
    assert_eq!(backend_pid(&pool).await, pid, "closed instead of rolled back");
}

#[tokio::test]
async fn pg_14_a_rollback_that_hangs_is_cut_and_its_place_is_free_again() {
    let server = testkit::postgres().await;
    let proxy = testkit::proxy(server.port()).await;
    let pool = open(PgConfig { size: 1, overflow: 0, ..at(&proxy.through(&server.url())) });
    let pid = backend_pid(&pool).await;
    let lease = pool.acquire().await.unwrap();
    lease.batch_execute("BEGIN; CREATE TABLE loans (id int)").await.unwrap();
    proxy.set(testkit::Mode::BlackHole);
    drop(lease);
    settled(&pool).await;
    assert_eq!(pool.stats().total_connections, 0, "a hung connection was kept");
    proxy.set(testkit::Mode::Pass);
    testkit::until_async(secs(20), async || pool.acquire().await.is_ok()).await;
    assert_ne!(backend_pid(&pool).await, pid);
    assert!(outside_transaction(&pool).await);
}

#[tokio::test]
async fn pg_14_transactions_commit_roll_back_and_do_not_pretend() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let mut lease = pool.acquire().await.unwrap();
    lease.batch_execute("CREATE TABLE loans (id int PRIMARY KEY)").await.unwrap();
    let transaction = lease.begin().await.unwrap();
    transaction.execute("INSERT INTO loans VALUES (1)", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    let transaction = lease.begin().await.unwrap();
    transaction.execute("INSERT INTO loans VALUES (2)", &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    let transaction = lease.begin().await.unwrap();
    transaction.execute("INSERT INTO loans VALUES (3)", &[]).await.unwrap();
    drop(transaction);
    let count: i64 = lease.query_one("SELECT count(*) FROM loans", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
    let transaction = lease.begin().await.unwrap();
    let twice = transaction.execute("INSERT INTO loans VALUES (1)", &[]).await.unwrap_err();
    assert_eq!(twice.sqlstate(), Some(&SqlState::UNIQUE_VIOLATION));
    assert!(!twice.is_unavailable());
    assert!(matches!(transaction.commit().await.unwrap_err(), PgError::Aborted));
    drop(lease);
    assert!(outside_transaction(&pool).await);
}

#[tokio::test]
async fn pg_15_begin_cancelled_at_any_point_leaks_nothing() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { pre_ping: false, ..exactly(1, &server) });
    for micros in (0..3_000).step_by(50) {
        let mut lease = pool.acquire().await.unwrap();
        drop(timeout(Duration::from_micros(micros), lease.begin()).await);
        drop(lease);
        assert!(outside_transaction(&pool).await, "cut after {micros} µs");
    }
    // Cut after a number of polls, which needs no luck with the clock.
    for polls in 0..4 {
        let mut lease = pool.acquire().await.unwrap();
        let mut begin = Box::pin(lease.begin());
        for _ in 0..polls {
            if futures_util::poll!(&mut begin).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(begin);
        drop(lease);
        assert!(outside_transaction(&pool).await, "cut after {polls} polls");
    }
}

#[tokio::test]
async fn pg_17_a_panic_in_the_holder_gives_the_place_back() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    for _ in 0..3 {
        let holder = async {
            let lease = pool.acquire().await.unwrap();
            lease.batch_execute("BEGIN").await.unwrap();
            panic!("on purpose");
        };
        assert!(AssertUnwindSafe(holder).catch_unwind().await.is_err());
        assert!(outside_transaction(&pool).await);
    }
    assert!(pool.snapshot().holders.is_empty());
}

#[tokio::test]
async fn copy_from_stdin_is_refused_and_harms_nobody() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    lease.batch_execute("CREATE TABLE loans (id int)").await.unwrap();
    assert!(matches!(lease.batch_execute("COPY loans FROM STDIN").await.unwrap_err(), PgError::Copy));
    drop(timeout(ms(200), lease.execute("COPY loans FROM STDIN", &[])).await);
    drop(lease);
    assert!(outside_transaction(&pool).await);
}

#[tokio::test]
async fn a_lease_outlives_its_pool_handle() {
    let server = testkit::postgres().await;
    let lease = open(at(&server.url())).acquire().await.unwrap();
    lease.query_one("SELECT 1", &[]).await.unwrap();
    drop(lease);
    testkit::until_async(secs(20), async || server.all_connections().await == 0).await;
}
