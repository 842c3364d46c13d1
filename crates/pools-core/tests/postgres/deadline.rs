//! What is left of a request's time, and the server's own time-outs.

use pools_core::{
    postgres::{Lease, OpenError, PgConfig, PgError, PgPool, SqlState},
    resilience::deadline,
};
use tokio::time::Instant;

use crate::{at, backend_pid, exactly, ms, open, ready, secs, settled};

async fn server_side_limit(lease: &Lease) -> u64 {
    let sql = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'";
    lease.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

/// How many statements the server stopped because we asked for it, and because of its own time-out.
fn stopped(server: &testkit::Postgres) -> (usize, usize) {
    let log = server.log();
    let count = |reason: &str| log.matches(&format!("canceling statement due to {reason}")).count();
    (count("user request"), count("statement timeout"))
}

#[tokio::test]
async fn pg_31_the_deadline_of_the_request_shortens_the_statement_time_out_of_its_lease_only() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let pid = backend_pid(&pool).await;
    let now = Instant::now();
    let lease = pool.acquire().await.unwrap();
    let limit = deadline::scope(now + secs(10), server_side_limit(&lease)).await;
    assert!((5_000..10_000).contains(&limit), "{limit} ms");
    drop(lease);
    let lease = pool.acquire().await.unwrap();
    assert_eq!(server_side_limit(&lease).await, 30_000, "it stayed for the next lease");
    let limit = deadline::scope(Instant::now() + secs(25), server_side_limit(&lease)).await;
    assert_eq!(limit, 30_000, "told the server for little");
    // Outside of the scope nothing but the server ends it.
    let limit = deadline::scope(Instant::now() + secs(2), server_side_limit(&lease)).await;
    assert!(limit < 2_000, "{limit} ms");
    let late = lease.query("SELECT pg_sleep(60)", &[]).await;
    assert_eq!(late.unwrap_err().sqlstate(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(stopped(&server), (0, 1));
    drop(lease);
    assert_eq!(backend_pid(&pool).await, pid);
}

#[tokio::test]
async fn pg_31_a_statement_that_the_server_ends_for_the_deadline_is_late_and_not_refused() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    let by = Instant::now() + secs(2);
    let late = deadline::scope(by, lease.query("SELECT pg_sleep(60)", &[])).await.unwrap_err();
    assert!(matches!(late, PgError::Late { .. }), "{late}");
    assert_eq!(stopped(&server), (0, 1), "it ended here before the server had ended it");
    // Far from its deadline one that somebody cancels was cancelled.
    let by = Instant::now() + secs(14);
    let sleep = deadline::scope(by, lease.query("SELECT pg_sleep(50)", &[]));
    let cancelled = "SELECT pg_cancel_backend(pid)::text FROM pg_stat_activity \
                     WHERE state = 'active' AND query = 'SELECT pg_sleep(50)'";
    let (cancelled, ()) = tokio::join!(sleep, async {
        testkit::until_async(secs(10), async || !server.admin_query(cancelled).await.is_empty()).await;
    });
    assert_eq!(cancelled.unwrap_err().sqlstate(), Some(&SqlState::QUERY_CANCELED));
}

#[tokio::test]
async fn pg_31_telling_the_server_costs_no_round_trip() {
    let server = testkit::postgres().await;
    let proxy = testkit::proxy(server.port()).await;
    let pool = open(PgConfig { url: Some(proxy.through(&server.url()).into()), ..exactly(1, &server) });
    let lease = pool.acquire().await.unwrap();
    server_side_limit(&lease).await;
    proxy.set(testkit::Mode::Delay { up: ms(500), down: ms(500) });
    let started = Instant::now();
    let limit = deadline::scope(started + secs(10), server_side_limit(&lease)).await;
    let took = started.elapsed();
    proxy.set(testkit::Mode::Pass);
    assert!(limit < 10_000, "{limit} ms");
    assert!(took >= secs(1) && took < secs(2), "{took:?} with a round trip of one second");
}

#[tokio::test]
async fn pg_31_no_statement_outlives_the_deadline_also_where_the_server_was_not_told() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { statement_timeout: secs(2), ..exactly(2, &server) });
    ready(&pool).await;
    let pid = backend_pid(&pool).await;
    let lease = pool.acquire().await.unwrap();
    let by = Instant::now() + ms(1_500);
    let late = deadline::scope(by, lease.query("SELECT pg_sleep(1.9)", &[])).await.unwrap_err();
    assert!(matches!(late, PgError::Late { .. }) && late.is_unavailable(), "{late}");
    assert!(Instant::now() >= by);
    drop(lease);
    settled(&pool).await;
    let by = Instant::now() + ms(1_500);
    let lane = pool.lane();
    let late = deadline::scope(by, lane.query("SELECT pg_sleep(1.9)", &[])).await.unwrap_err();
    assert!(matches!(late, PgError::Late { .. }), "{late}");
    settled(&pool).await;
    assert_eq!(stopped(&server), (2, 0), "on the server they ran on");
    assert_eq!(backend_pid(&pool).await, pid, "closed instead of cleaned");
}

#[tokio::test]
async fn pg_31_after_the_deadline_nothing_is_sent_any_more() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    let late = deadline::scope(Instant::now(), lease.execute("CREATE TABLE loans ()", &[])).await;
    assert!(matches!(late, Err(PgError::Late { .. })), "{late:?}");
    assert_eq!(server_side_limit(&lease).await, 30_000, "a limit was set for a statement that was not sent");
    let there = lease.query_one("SELECT to_regclass('loans') IS NOT NULL", &[]).await.unwrap();
    assert!(!there.get::<_, bool>(0), "the lease goes on, and the table is there");
}

#[tokio::test]
async fn pg_31_neither_does_an_acquire_outlive_it_while_its_connection_is_being_opened() {
    let black_hole = testkit::black_hole().await;
    let pool = open(at(&format!("postgres://app:x@{}/app", black_hole.addr())));
    let soon = || Instant::now() + ms(300);
    let started = Instant::now();
    let late = deadline::scope(soon(), pool.acquire()).await.unwrap_err();
    assert!(matches!(late, PgError::Open { cause: OpenError::TimedOut { .. }, .. }), "{}", late.reason());
    deadline::scope(soon(), pool.lane().query("SELECT 1", &[])).await.unwrap_err();
    // A tenth of the time to connect is 1 s.
    assert!(started.elapsed() < secs(6), "{:?}", started.elapsed());
}

/// One acquire is made for all who wait for the lane, and not all have equally much time.
#[tokio::test]
async fn pg_31_the_deadline_of_who_came_first_to_the_lane_is_nobody_elses() {
    let server = testkit::postgres().await;
    let proxy = testkit::proxy(server.port()).await;
    let pool: PgPool = open(at(&proxy.through(&server.url())));
    proxy.set(testkit::Mode::BlackHole);
    let lane = pool.lane();
    let hurried = deadline::scope(Instant::now() + ms(200), lane.query("SELECT 1", &[]));
    let (late, patient, ()) = tokio::join!(hurried, lane.query("SELECT 1", &[]), async {
        tokio::time::sleep(ms(600)).await;
        proxy.set(testkit::Mode::Pass);
    });
    assert!(late.is_err());
    patient.expect("it had all the time of a connect");
}

#[tokio::test]
async fn pg_31_a_statement_for_which_the_url_gives_more_time_is_waited_for() {
    let server = testkit::postgres().await;
    let url = format!("{}?options=-c%20statement_timeout%3D20s", server.url());
    // The server would end it after 1 s, and 5 s more are for the network.
    let pool = open(PgConfig { statement_timeout: secs(1), ..at(&url) });
    let lease = pool.acquire().await.unwrap();
    lease.query("SELECT pg_sleep(7)", &[]).await.expect("it was healthy");
}
