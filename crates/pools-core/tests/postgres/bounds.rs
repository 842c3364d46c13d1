//! How many, who waits, in which order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use pools_core::{
    pool::Pool,
    postgres::{Migration, PgConfig, PgError, PgPool},
};
use tokio::time::{Instant, timeout};

use crate::{at, exactly, ms, open, ready, secs, settled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_01_size_plus_overflow_is_never_passed_by_the_servers_own_count() {
    for linger in [Duration::ZERO, secs(1)] {
        let server = testkit::postgres().await;
        let url = server.create_role_with_limit("bounded", 30).await;
        server.admin_query("GRANT CREATE ON SCHEMA public TO bounded").await;
        let pool = open(PgConfig { overflow_linger: linger, recycle: secs(1), ..at(&url) });
        let end = Instant::now() + secs(4);
        let most_seen = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..256).map(|_| tokio::spawn(meddle(pool.clone(), end))).collect();
        while Instant::now() < end {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'bounded'";
            let rows = server.admin_query(count).await;
            most_seen.fetch_max(rows[0][0].parse().unwrap(), Ordering::Relaxed);
            let snapshot = pool.snapshot();
            let places = snapshot.live() + snapshot.opening();
            assert!(places <= 30, "{places} connections by our own count");
        }
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("the server refused a connection, or a statement went wrong");
        }
        let most_seen = most_seen.load(Ordering::Relaxed);
        assert!(most_seen <= 30, "{most_seen} server processes");
        assert!(most_seen > 10 && done > 50, "too little happened: {done} statements on {most_seen}");
        assert!(!server.log().contains("too many connections"), "the server refused a connection");
        settled(&pool).await;
        pool.drain(Instant::now() + secs(10)).await;
        testkit::until_async(secs(10), async || server.all_connections().await == 0).await;
    }
}

/// Uses the pool in every way, cutting many uses at a random moment. Returns how many statements succeeded.
async fn meddle(pool: PgPool, end: Instant) -> u64 {
    let mut done = 0;
    while Instant::now() < end {
        let patience =
            if fastrand::bool() { secs(60) } else { Duration::from_micros(fastrand::u64(0..20_000)) };
        match timeout(patience, meddle_once(&pool)).await {
            Ok(Ok(())) => done += 1,
            Ok(Err(error)) => panic!("{}", error.reason()),
            Err(_) => {}
        }
    }
    done
}

const MIGRATIONS: [Migration<'static>; 1] =
    [Migration { id: 1, name: "loans", sql: "CREATE TABLE loans (id int)" }];

async fn meddle_once(pool: &PgPool) -> Result<(), PgError> {
    match fastrand::u8(0..24) {
        // Seldom, since they go one after the other.
        20 => drop(pool.migrate(&MIGRATIONS).await?),
        0..4 => drop(pool.lane().query_one("SELECT 1", &[]).await?),
        4..8 => drop(pool.acquire().await?.query("SELECT pg_sleep(0.01)", &[]).await?),
        8..12 => {
            let mut lease = pool.acquire().await?;
            let transaction = lease.begin().await?;
            transaction.query("SELECT 1", &[]).await?;
        }
        12..16 => pool.acquire().await?.batch_execute("BEGIN; SELECT 1").await?,
        _ => drop(pool.acquire().await?.query_one("SELECT 1", &[]).await?),
    }
    Ok(())
}

async fn take(pool: &PgPool, count: usize) -> Vec<pools_core::postgres::Lease> {
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(pool.acquire().await.unwrap());
    }
    leases
}

#[tokio::test]
async fn pg_02_without_linger_the_later_returner_is_closed_and_overflow_goes_0_20_0() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { overflow_linger: Duration::ZERO, ..at(&server.url()) });
    ready(&pool).await;
    let mut leases = take(&pool, 30).await;
    assert_eq!((pool.stats().overflow, pool.stats().total_connections), (20, 30));
    let last: i32 = leases[29].query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    // The last one opened is the first to come back: it is kept, although it was "the overflow one".
    drop(leases.pop());
    settled_at(&pool, 1, 29).await;
    drop(leases);
    settled_at(&pool, 10, 0).await;
    assert_eq!(pool.stats().overflow, 0);
    assert!(pids(&server).await.contains(&last), "the first to return was closed");
    testkit::until_async(secs(10), async || server.connections("pools-core").await == 10).await;
}

#[tokio::test]
async fn pg_02_with_linger_overflow_goes_a_second_after_the_load_and_not_while_it_is_needed() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    ready(&pool).await;
    for _ in 0..20 {
        drop(take(&pool, 30).await);
        tokio::time::sleep(ms(80)).await;
    }
    assert_eq!(pool.snapshot().totals.opened, 30, "a connection was closed while it was needed");
    let ended = Instant::now();
    assert_eq!(pool.stats().overflow, 20);
    settled_at(&pool, 10, 0).await;
    assert!(ended.elapsed() > ms(800), "closed after {:?}", ended.elapsed());
}

async fn settled_at(pool: &PgPool, checked_in: u32, checked_out: u32) {
    testkit::until(secs(20), || {
        let stats = pool.stats();
        (stats.checked_in, stats.checked_out) == (checked_in, checked_out)
    })
    .await;
}

async fn pids(server: &testkit::Postgres) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pools-core'";
    server.admin_query(sql).await.iter().map(|row| row[0].parse().unwrap()).collect()
}

#[tokio::test]
async fn pg_03_the_31st_waits_then_fails_with_queuepools_numbers_and_the_longest_holder() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { timeout: ms(300), ..at(&server.url()) });
    let line = line!() + 1;
    let _first = pool.acquire().await.unwrap();
    let _leases = take(&pool, 29).await;
    let started = Instant::now();
    let error = pool.acquire().await.unwrap_err();
    assert!(started.elapsed() >= ms(300));
    let text = error.to_string();
    let expected = "QueuePool limit of size 10 overflow 20 reached, connection timed out, timeout 0.3";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("; longest held ") && text.ends_with(&format!("bounds.rs:{line}")), "{text}");
    assert!(matches!(error, PgError::Exhausted { size: 10, overflow: 20, .. }));
    assert!(error.is_busy() && error.is_unavailable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_04_waiters_are_served_in_order() {
    let server = testkit::postgres().await;
    for tasks in [64, 256_u32] {
        let pool = open(at(&server.url()));
        // Ends by count, not by time: what a slow machine does in two seconds is mostly opening connections.
        let left = Arc::new(AtomicI64::new(i64::from(tasks) * 40));
        let served: Vec<_> = (0..tasks)
            .map(|_| {
                let (pool, left) = (pool.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    let mut served = 0_u32;
                    while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                        let lease = pool.acquire().await.unwrap();
                        lease.query_one("SELECT 1", &[]).await.unwrap();
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let mut counts = Vec::new();
        for task in served {
            counts.push(task.await.unwrap());
        }
        let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        assert!(least * 2 >= most, "{tasks} tasks: least {least}, most {most}");
        pool.drain(Instant::now() + secs(5)).await;
    }
}

#[tokio::test]
async fn pg_07_a_time_out_of_0_tries_once_and_1_ms_times_out() {
    let server = testkit::postgres().await;
    for limit in [0, 1] {
        let pool = open(PgConfig { timeout: ms(limit), ..exactly(1, &server) });
        ready(&pool).await;
        let lease = pool.acquire().await.expect("there is a free place");
        let error = pool.acquire().await.unwrap_err();
        assert!(matches!(error, PgError::Exhausted { .. }), "{error}");
        drop(lease);
        drop(pool.acquire().await.expect("the place is free again"));
    }
}

#[tokio::test]
async fn pg_07_a_queue_that_is_full_refuses_at_once() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { queue: 1, ..exactly(1, &server) });
    ready(&pool).await;
    let _lease = pool.acquire().await.unwrap();
    let mut waiter = Box::pin(pool.acquire());
    assert!(timeout(ms(10), &mut waiter).await.is_err());
    assert!(matches!(pool.acquire().await.unwrap_err(), PgError::QueueFull { waiting: 1 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_21_stats_add_up_at_any_moment_and_cancelled_waits_leave_nothing_behind() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { overflow_linger: Duration::ZERO, ..at(&server.url()) });
    let end = Instant::now() + secs(3);
    let tasks: Vec<_> = (0..64).map(|_| tokio::spawn(meddle(pool.clone(), end))).collect();
    for sample in 0.. {
        let stats = pool.stats();
        assert_eq!(stats.checked_in + stats.checked_out, stats.total_connections, "{stats:?}");
        assert_eq!(stats.overflow, stats.total_connections.saturating_sub(10), "{stats:?}");
        assert!(stats.total_connections <= 30 && stats.checked_in <= 10, "{stats:?}");
        if sample >= 10_000 && Instant::now() >= end {
            break;
        }
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    settled(&pool).await;
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.waiting(), snapshot.holders.len()), (0, 0));
    let leases = take(&pool, 30).await;
    assert_eq!(pool.stats().checked_out, 30, "a place was lost");
    drop(leases);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pg_01_nor_is_it_while_callers_race_with_resizes_invalidations_and_the_end_of_the_linger() {
    let server = testkit::postgres().await;
    let url = server.create_role_with_limit("bounded", 12).await;
    let pool = open(PgConfig { size: 4, overflow: 8, overflow_linger: ms(1), pre_ping: false, ..at(&url) });
    let end = Instant::now() + secs(4);
    let callers: Vec<_> = (0..24).map(|_| tokio::spawn(come_and_go(pool.clone(), end))).collect();
    let mut swept = 0;
    while Instant::now() < end {
        match fastrand::u8(0..4) {
            0 => pool.resize(6, 6),
            1 => pool.resize(2, 3),
            2 => pool.resize(4, 8),
            _ => pool.invalidate(),
        }
        swept += 1;
        let snapshot = pool.snapshot();
        assert!(snapshot.live() + snapshot.opening() <= 12, "{:?}", pool.stats());
        tokio::time::sleep(ms(fastrand::u64(0..4))).await;
    }
    let mut served = 0;
    for caller in callers {
        served += caller.await.expect("the server refused a connection, or one was opened beyond the bound");
    }
    assert!(swept > 100 && served > 100, "too little happened: {served} served, {swept} sweeps");
    assert!(!server.log().contains("too many connections"), "the server refused a connection");
    pool.resize(4, 8);
    settled(&pool).await;
    drop(take(&pool, 12).await);
}

/// Holds connections for so short a time that most are idle, and about to be.
async fn come_and_go(pool: PgPool, end: Instant) -> u64 {
    let mut served = 0;
    while Instant::now() < end {
        let lease = pool.acquire().await.unwrap_or_else(|error| panic!("{}", error.reason()));
        if fastrand::u8(0..8) == 0 {
            lease.query_one("SELECT 1", &[]).await.unwrap();
        }
        drop(lease);
        served += 1;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3_000))).await;
    }
    served
}
