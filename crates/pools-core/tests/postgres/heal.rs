//! Dead connections and dead servers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use pools_core::{
    health::HealthState,
    pool::Pool,
    postgres::{OpenError, PgConfig, PgError},
};
use testkit::Stop;
use tokio::time::Instant;

use crate::{at, backend_pid, exactly, ms, open, ready, secs, settled};

#[tokio::test]
async fn pg_08_a_killed_backend_is_found_by_the_check_and_the_caller_sees_no_error() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    for _ in 0..5 {
        let pid = backend_pid(&pool).await;
        server.admin_query(&format!("SELECT pg_terminate_backend({pid}, 5000)")).await;
        assert_ne!(backend_pid(&pool).await, pid);
    }
}

#[tokio::test]
async fn pg_09_after_a_restart_with_10_idle_20_requests_see_0_errors() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    ready(&pool).await;
    let leases = futures_util::future::join_all((0..10).map(|_| pool.acquire())).await;
    assert!(leases.iter().all(Result::is_ok));
    drop(leases);
    settled(&pool).await;
    assert_eq!(pool.stats().checked_in, 10);
    server.stop(Stop::Fast).await;
    server.start().await;
    let requests = futures_util::future::join_all((0..20).map(|_| backend_pid(&pool))).await;
    assert_eq!(requests.len(), 20);
}

/// The check is what finds it here: the connections hang without a sign from the network.
#[tokio::test]
async fn pg_09_one_failed_check_condemns_all_connections_opened_before() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { connect_timeout: secs(4), ..exactly(5, &server) });
    ready(&pool).await;
    drop(futures_util::future::join_all((0..5).map(|_| pool.acquire())).await);
    settled(&pool).await;
    server.freeze();
    let error = pool.acquire().await.unwrap_err();
    server.thaw();
    assert!(matches!(error, PgError::Open { .. }), "{}", error.reason());
    testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
    let leases = futures_util::future::join_all((0..5).map(|_| pool.acquire())).await;
    assert!(leases.iter().all(Result::is_ok));
    let snapshot = pool.snapshot();
    let closed = |reason| snapshot.totals.closed.iter().find(|(name, _)| *name == reason).unwrap().1;
    assert_eq!(closed("check_failed"), 1, "{:?}", snapshot.totals.closed);
    assert!(closed("invalidated") >= 3, "{:?}", snapshot.totals.closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_10_a_restart_under_load_fails_only_what_was_in_flight_and_is_over_when_the_server_is_back() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.create_role_with_limit("bounded", 30).await));
    let idle = pool.acquire().await.unwrap();
    let (stop, back) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let served = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..24)
        .map(|_| {
            let (pool, stop, back) = (pool.clone(), Arc::clone(&stop), Arc::clone(&back));
            let served = Arc::clone(&served);
            tokio::spawn(async move {
                let mut late = 0;
                while !stop.load(Ordering::Relaxed) {
                    let was_back = back.load(Ordering::Relaxed);
                    let started = Instant::now();
                    match pool.acquire().await {
                        Ok(lease) => {
                            let done = lease.query("SELECT pg_sleep(0.002)", &[]).await;
                            served.fetch_add(u32::from(done.is_ok()), Ordering::Relaxed);
                            let away = done.err().map(|error| (error.is_unavailable(), error.reason()));
                            // Also those that the server refuses because it is going down.
                            assert!(away.as_ref().is_none_or(|(away, _)| *away), "{away:?}");
                        }
                        Err(PgError::Open { .. }) => {
                            assert!(started.elapsed() < secs(5), "hidden for {:?}", started.elapsed());
                            late += u32::from(was_back);
                            tokio::time::sleep(ms(5)).await;
                        }
                        Err(other) => panic!("{}", other.reason()),
                    }
                }
                late
            })
        })
        .collect();
    let more = async |count: u32| {
        let before = served.load(Ordering::Relaxed);
        testkit::until(secs(30), || served.load(Ordering::Relaxed) >= before + count).await;
    };
    more(100).await;
    server.stop(Stop::Immediate).await;
    testkit::until(secs(10), || pool.health().state == HealthState::Down).await;
    server.start().await;
    // Attempts that began during the outage may still fail for those who queued behind them.
    more(200).await;
    back.store(true, Ordering::Relaxed);
    more(500).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        assert_eq!(task.await.unwrap(), 0, "an acquire failed long after the server was back");
    }
    assert_eq!(pool.health().state, HealthState::Up);
    // A lease that asked for nothing meanwhile has lost its session, and says so once; its place is not lost.
    assert!(matches!(idle.query("SELECT 1", &[]).await, Err(PgError::Lost { .. })));
    drop(idle);
    settled(&pool).await;
    let all = futures_util::future::try_join_all((0..30).map(|_| pool.acquire())).await;
    drop(all.unwrap_or_else(|error| panic!("a place was lost: {}", error.reason())));
    assert!(!server.log().contains("too many connections"), "the bound was passed");
}

#[tokio::test]
async fn pg_10_acquires_ride_out_an_outage_when_told_to() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { connect_retry_for: secs(30), ..at(&server.url()) });
    backend_pid(&pool).await;
    server.stop(Stop::Fast).await;
    let waiting = tokio::spawn(pool.acquire());
    tokio::time::sleep(ms(300)).await;
    server.start().await;
    drop(waiting.await.unwrap().expect("the server came back in time"));
}

#[tokio::test]
async fn pg_11_a_frozen_server_costs_a_check_not_the_pool_and_recovers_when_it_goes_on() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { connect_timeout: secs(1), ..exactly(3, &server) });
    ready(&pool).await;
    drop(futures_util::future::join_all((0..3).map(|_| pool.acquire())).await);
    settled(&pool).await;
    server.freeze();
    let started = Instant::now();
    let errors = futures_util::future::join_all((0..6).map(|_| pool.acquire())).await;
    assert!(errors.iter().all(|result| matches!(result, Err(PgError::Open { .. }))));
    assert!(started.elapsed() < secs(15), "{:?}", started.elapsed());
    settled(&pool).await;
    assert_eq!(pool.stats().total_connections, 0, "hung connections were kept");
    server.thaw();
    let thawed = Instant::now();
    testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
    // Ten times the second that it takes.
    assert!(thawed.elapsed() < secs(10), "{:?}", thawed.elapsed());
    drop(futures_util::future::try_join_all((0..3).map(|_| pool.acquire())).await.expect("it recovered"));
}

#[tokio::test]
async fn pg_11_once_a_server_is_known_to_be_frozen_a_few_try_it_and_the_others_hear_so_in_a_second() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { connect_timeout: secs(6), ..exactly(12, &server) });
    ready(&pool).await;
    server.freeze();
    let timed = async || {
        let started = Instant::now();
        let error = pool.acquire().await.expect_err("it is frozen");
        assert!(
            matches!(error, PgError::Open { cause: OpenError::TimedOut { .. }, .. }),
            "{}",
            error.reason()
        );
        started.elapsed()
    };
    timed().await;
    let mut waits = futures_util::future::join_all((0..12).map(|_| timed())).await;
    waits.sort_unstable();
    // Four at a time have the whole time-out, the supervisor's probe among them or not.
    assert!(waits[7] < secs(4), "{waits:?}");
    server.thaw();
    testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
    drop(futures_util::future::try_join_all((0..12).map(|_| pool.acquire())).await.expect("it recovered"));
}

#[tokio::test]
async fn pg_11_who_waited_for_a_place_meanwhile_hears_so_at_once() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { connect_timeout: secs(3), ..exactly(1, &server) });
    ready(&pool).await;
    server.freeze();
    let started = Instant::now();
    let failed = async || {
        let error = pool.acquire().await.expect_err("it is frozen");
        assert!(
            matches!(error, PgError::Open { cause: OpenError::TimedOut { .. }, .. }),
            "{}",
            error.reason()
        );
        started.elapsed()
    };
    // The first checks and connects; the others have the only place one after the other, each in no time.
    let waits = futures_util::future::join_all((0..20).map(|_| failed())).await;
    assert!(waits[19] < waits[0] + secs(3), "{waits:?}");
    server.thaw();
    testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
    drop(pool.acquire().await.expect("it recovered"));
}

/// Refused after his check, a caller leaves nothing of the connection that he checked.
#[tokio::test]
async fn pg_11_the_connection_of_who_is_refused_for_the_servers_silence_is_closed_and_counted_no_longer() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { connect_timeout: secs(2), ..exactly(2, &server) });
    ready(&pool).await;
    let lease = pool.acquire().await.unwrap();
    server.freeze();
    let give_back = async {
        tokio::time::sleep(ms(1_500)).await;
        drop(lease);
    };
    // The first finds out by connecting, the second by the check of what was given back meanwhile.
    let (first, second, ()) = tokio::join!(pool.acquire(), pool.acquire(), give_back);
    assert!(first.is_err() && second.is_err(), "{first:?} {second:?}");
    testkit::until(secs(20), || pool.stats().total_connections == 0).await;
    server.thaw();
}

#[tokio::test]
async fn pg_12_a_connection_is_never_handed_out_past_its_age() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { recycle: secs(1), ..exactly(1, &server) });
    let pid = backend_pid(&pool).await;
    assert_eq!(backend_pid(&pool).await, pid, "recycled before its time");
    tokio::time::sleep(ms(1_050)).await;
    assert_ne!(backend_pid(&pool).await, pid);
    let closed = pool.snapshot().totals.closed;
    assert!(closed.contains(&("recycled", 1)), "{closed:?}");
}

#[tokio::test]
async fn health_follows_the_server_without_traffic() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
    for how in [Stop::Fast, Stop::Immediate] {
        server.stop(how).await;
        testkit::until(secs(20), || pool.health().state == HealthState::Down).await;
        assert_eq!(pool.stats().total_connections, 0, "dead connections are counted");
        server.start().await;
        let appeared = Instant::now();
        testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
        assert!(appeared.elapsed() < secs(2), "noticed after {:?}", appeared.elapsed());
    }
}

#[tokio::test]
async fn pg_11_a_statement_that_a_frozen_server_never_answers_ends_all_the_same_on_a_lease_and_on_the_lane() {
    let server = testkit::postgres().await;
    // And five seconds more for the network.
    let pool = open(PgConfig { statement_timeout: secs(3), pipeline_connections: 1, ..exactly(3, &server) });
    ready(&pool).await;
    let (lease, lane) = (pool.acquire().await.unwrap(), pool.lane());
    let alone = lease.query("SELECT pg_sleep(2)", &[]);
    let shared = futures_util::future::join_all((0..5).map(|_| lane.query("SELECT pg_sleep(2)", &[])));
    let freeze = async {
        let sleeping =
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(2)'";
        let observer = pool.acquire().await.unwrap();
        while observer.query_one(sleeping, &[]).await.unwrap().get::<_, i64>(0) < 2 {
            tokio::task::yield_now().await;
        }
        server.freeze();
    };
    let all = async { tokio::join!(alone, shared, freeze) };
    let (alone, shared, ()) =
        tokio::time::timeout(secs(80), all).await.expect("it is waited for as long as it takes");
    for result in shared.into_iter().chain([alone]) {
        assert!(matches!(result, Err(PgError::Stalled { .. })), "{result:?}");
    }
    server.thaw();
    drop(lease);
    testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
    let again = futures_util::future::try_join_all((0..3).map(|_| pool.acquire())).await;
    drop(again.expect("it recovered"));
}

#[tokio::test]
async fn pg_09_what_was_opened_since_a_failure_outlives_the_late_failures_of_older_ones() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { pre_ping: false, ..exactly(3, &server) });
    ready(&pool).await;
    let (first, second) = tokio::try_join!(pool.acquire(), pool.acquire()).unwrap();
    server.kill_backends().await;
    assert!(matches!(first.query("SELECT 1", &[]).await, Err(PgError::Lost { .. })));
    let since = backend_pid(&pool).await;
    assert!(matches!(second.query("SELECT 1", &[]).await, Err(PgError::Lost { .. })));
    assert_eq!(backend_pid(&pool).await, since, "condemned by one from before the failure");
}

#[tokio::test]
async fn pg_12_nor_when_it_reached_that_age_while_it_was_checked() {
    let server = testkit::postgres().await;
    let proxy = testkit::proxy(server.port()).await;
    let config = PgConfig { recycle: secs(1), size: 1, overflow: 0, ..at(&proxy.through(&server.url())) };
    let pool = open(config);
    let pid = backend_pid(&pool).await;
    // Young enough when the check begins, too old when its answer comes.
    tokio::time::sleep(ms(500)).await;
    proxy.set(testkit::Mode::Delay { up: ms(350), down: ms(350) });
    let lease = pool.acquire().await.unwrap();
    proxy.set(testkit::Mode::Pass);
    let other: i32 = lease.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_ne!(other, pid);
    let closed = pool.snapshot().totals.closed;
    assert!(closed.contains(&("check_failed", 0)), "{closed:?}");
}

fn cut_off(pool: &pools_core::postgres::PgPool) -> f64 {
    let samples = pool.snapshot().samples;
    samples.iter().find(|sample| sample.name == "pools_postgres_cut_off_total").unwrap().value
}

#[tokio::test]
async fn pg_11_attempts_that_a_frozen_server_may_still_let_in_are_counted_and_those_it_never_saw_are_not() {
    let server = testkit::postgres().await;
    server.freeze();
    let black_hole = testkit::black_hole().await;
    let nowhere = format!("postgres://app:x@{}/app", black_hole.addr());
    for (url, counted) in [(server.url(), true), (nowhere, false)] {
        let pool = open(PgConfig { connect_timeout: secs(1), ..at(&url) });
        let error = pool.acquire().await.unwrap_err();
        let late = matches!(error, PgError::Open { cause: OpenError::TimedOut { .. }, .. });
        assert!(late, "{}", error.reason());
        assert_eq!(cut_off(&pool) > 0.5, counted, "{url}");
    }
    server.thaw();
}
