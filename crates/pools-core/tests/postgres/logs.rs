//! What the pool writes to the log.

use std::{
    io,
    sync::{Arc, Mutex},
};

use pools_core::{pool::Pool, postgres::PgConfig, telemetry};
use tracing_subscriber::fmt::MakeWriter;

use crate::{at, exactly, ms, open, ready, secs};

/// Everything logged on this thread while it lives: tests with it run on one thread.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let logs = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(logs.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        (logs, guard)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    pub(crate) fn line_with(&self, parts: &[&str]) -> bool {
        self.text().lines().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn pg_18_a_lease_held_too_long_is_reported_with_its_line_and_request_and_so_is_its_late_return() {
    let (logs, _guard) = Logs::capture();
    let server = testkit::postgres().await;
    let pool = open(PgConfig { leak_after: secs(1), ..exactly(2, &server) });
    let id = telemetry::RequestId::parse("request-18").unwrap();
    let lease = telemetry::with_request_id(id, async { pool.acquire().await }).await.unwrap();
    testkit::until(secs(20), || {
        logs.line_with(&["lease held too long", "logs.rs:", "request-18", "postgres"])
    })
    .await;
    drop(lease);
    assert!(logs.line_with(&["late lease returned", "logs.rs:"]), "{}", logs.text());
}

#[tokio::test]
async fn slow_acquires_and_slow_statements_are_logged_above_their_thresholds() {
    let (logs, _guard) = Logs::capture();
    let server = testkit::postgres().await;
    let (slow_acquire, slow_statement) = (ms(100), ms(100));
    let pool = open(PgConfig { slow_acquire, slow_statement, ..exactly(1, &server) });
    ready(&pool).await;
    let lease = pool.acquire().await.unwrap();
    let waiting = async {
        tokio::time::sleep(ms(200)).await;
        drop(lease);
    };
    let (late, ()) = tokio::join!(pool.acquire(), waiting);
    let late = late.unwrap();
    assert!(
        logs.line_with(&["WARN", "slow acquire", "site=", "logs.rs:", "pool=\"postgres\""]),
        "{}",
        logs.text()
    );
    late.query("SELECT  $1::int4,\n pg_sleep(0.15)", &[&4711]).await.unwrap();
    assert!(
        logs.line_with(&["WARN", "slow statement", "SELECT $1::int4, pg_sleep(0.15)"]),
        "{}",
        logs.text()
    );
    late.batch_execute("SELECT 'hunter2', pg_sleep(0.15)").await.unwrap();
    for secret in ["hunter2", "4711"] {
        assert!(!logs.text().contains(secret), "a value reached the log: {}", logs.text());
    }
    let told = logs.text().matches("slow statement").count();
    late.query("SELECT 1", &[]).await.unwrap();
    assert_eq!(logs.text().matches("slow statement").count(), told);
}

#[tokio::test]
async fn thresholds_of_0_log_nothing() {
    let (logs, _guard) = Logs::capture();
    let server = testkit::postgres().await;
    let (slow_acquire, slow_statement) = (ms(0), ms(0));
    let pool = open(PgConfig { slow_acquire, slow_statement, ..exactly(1, &server) });
    pool.acquire().await.unwrap().query("SELECT pg_sleep(0.01)", &[]).await.unwrap();
    assert!(!logs.text().contains("slow "), "{}", logs.text());
}

#[tokio::test]
async fn a_time_out_behind_a_server_that_went_away_says_so_too() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { timeout: ms(300), ..exactly(1, &server) });
    ready(&pool).await;
    let _held = pool.acquire().await.unwrap();
    pool.resize(2, 0);
    server.stop(testkit::Stop::Fast).await;
    assert!(pool.acquire().await.unwrap_err().reason().contains("Connection refused"));
    pool.resize(1, 0);
    let text = pool.acquire().await.unwrap_err().to_string();
    assert!(text.contains("; longest held ") && text.contains("; last connect failed: "), "{text}");
}

#[tokio::test]
async fn pg_27_server_notices_and_the_end_of_a_connection_reach_the_log_with_the_pools_name() {
    let (logs, _guard) = Logs::capture();
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    lease.batch_execute("DO $$ BEGIN RAISE WARNING 'the vault is open'; END $$").await.unwrap();
    testkit::until(secs(10), || logs.line_with(&["WARN", "the vault is open", "pool=\"postgres\""])).await;
    server.kill_backends().await;
    testkit::until(secs(10), || {
        logs.line_with(&["connection ended", "terminating connection", "pool=\"postgres\""])
    })
    .await;
}

#[tokio::test]
async fn pg_28_a_password_never_appears_in_stats_logs_errors_or_debug() {
    let (logs, _guard) = Logs::capture();
    let server = testkit::postgres().await;
    let secret = "hunter2";
    let url = format!("postgres://app:{secret}@127.0.0.1:{}/app", server.port());
    let config = at(&url);
    let shown = format!("{config:?}");
    let pool = open(config);
    let error = pool.acquire().await.unwrap_err();
    assert!(error.reason().contains("password authentication failed"), "{}", error.reason());
    let texts = [
        shown,
        format!("{pool:?} {error:?} {error} {}", error.reason()),
        format!("{:?} {:?}", pool.health(), pool.snapshot()),
        serde_json::to_string(&pool.stats()).unwrap(),
        logs.text(),
    ];
    for text in texts {
        assert!(!text.contains(secret), "{text}");
    }
    let fault = pools_core::postgres::PgPool::open(at("postgres://app:hunter2@h/app?sslmode=hunter2"));
    assert!(!format!("{fault:?}").contains(secret));
}

#[tokio::test]
async fn pg_29_a_server_with_less_room_than_the_pool_may_take_is_warned_about_with_the_arithmetic() {
    let (logs, _guard) = Logs::capture();
    let options = testkit::PostgresOptions { max_connections: 20, ..Default::default() };
    let server = testkit::postgres_with(options).await;
    let _pool = open(at(&server.url()));
    let arithmetic = "10 + DB_MAX_OVERFLOW 20 = 30 connections, but the server has room for 17: \
                      max_connections 20 - superuser_reserved_connections 3";
    testkit::until(secs(20), || logs.line_with(&["WARN", arithmetic])).await;
}

#[tokio::test]
async fn pg_29_so_is_one_with_less_room_than_all_replicas_may_take() {
    let (logs, _guard) = Logs::capture();
    let server = testkit::postgres().await;
    let fits = open(PgConfig { replicas: 3, ..at(&server.url()) });
    let _pool = open(PgConfig { replicas: 4, ..at(&server.url()) });
    let arithmetic = "(DB_POOL_SIZE 10 + DB_MAX_OVERFLOW 20) * DB_REPLICAS 4 = 120 connections, but the server \
                      has room for 97: max_connections 100 - superuser_reserved_connections 3";
    testkit::until(secs(20), || logs.line_with(&["WARN", arithmetic])).await;
    ready(&fits).await;
    assert!(!logs.text().contains("DB_REPLICAS 3"), "{}", logs.text());
}

#[tokio::test]
async fn pg_18_a_connection_that_the_lane_keeps_busy_is_no_leak_and_is_shown_as_shared() {
    let (logs, _guard) = Logs::capture();
    let server = testkit::postgres().await;
    let pool = open(PgConfig { leak_after: secs(1), pipeline_connections: 1, ..at(&server.url()) });
    let busy = async || {
        loop {
            pool.lane().query("SELECT pg_sleep(0.02)", &[]).await.unwrap();
        }
    };
    let long_enough = testkit::until(secs(40), || {
        let holders = pool.snapshot().holders;
        holders.iter().any(|holder| holder.held > secs(3) && holder.site.ends_with(" (shared by many)"))
    });
    tokio::select! {
        () = async { tokio::join!(busy(), busy(), busy()); } => {}
        () = long_enough => {}
    }
    assert!(!logs.line_with(&["lease held too long"]), "{}", logs.text());
}

#[tokio::test]
async fn a_wait_that_a_pause_outlasted_is_counted_as_a_time_out() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { timeout: ms(50), ..exactly(1, &server) });
    ready(&pool).await;
    assert!(pool.pause(tokio::time::Instant::now() + secs(20)).await);
    pool.acquire().await.unwrap_err();
    let acquires = pool.snapshot().totals.acquires;
    assert!(acquires.contains(&("timeout", 1)) && acquires.contains(&("open_failed", 0)), "{acquires:?}");
}
