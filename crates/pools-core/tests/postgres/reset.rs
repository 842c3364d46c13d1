//! What a session keeps from one user to the next.

use pools_core::{
    pool::Pool,
    postgres::{Lease, PgConfig, PgPool},
};
use tokio::time::timeout;

use crate::{at, backend_pid, exactly, ms, open, settled};

/// Changes the session in every way that outlives a transaction.
async fn change_session(lease: &Lease) {
    for sql in [
        "SET work_mem = '13MB'",
        "SET ROLE pg_monitor",
        "CREATE TEMP TABLE secrets (id int)",
        "SELECT pg_advisory_lock(7)",
        "LISTEN loans",
        "DECLARE open CURSOR WITH HOLD FOR SELECT 1",
        "CREATE TEMP SEQUENCE steps",
    ] {
        lease.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.reason()));
    }
}

/// What is left of that.
async fn left_behind(pool: &PgPool) -> Vec<&'static str> {
    let lease = pool.acquire().await.unwrap();
    let checks = [
        ("setting", "SELECT current_setting('work_mem') = '13MB'"),
        ("role", "SELECT current_user <> session_user"),
        ("table", "SELECT count(*) > 0 FROM pg_class WHERE relname IN ('secrets', 'steps')"),
        ("lock", "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 7"),
        ("listen", "SELECT count(*) > 0 FROM pg_listening_channels()"),
        ("cursor", "SELECT count(*) > 0 FROM pg_cursors WHERE name = 'open'"),
    ];
    let mut left = Vec::new();
    for (name, sql) in checks {
        if lease.query_one(sql, &[]).await.unwrap().get(0) {
            left.push(name);
        }
    }
    left
}

/// The owner of the database may take the role in these tests.
async fn server() -> testkit::Postgres {
    let server = testkit::postgres().await;
    server.admin_query("GRANT pg_monitor TO app").await;
    server
}

#[tokio::test]
async fn pg_16_a_full_reset_lets_no_session_state_through() {
    let server = server().await;
    let pool = open(PgConfig { reset: "full", ..exactly(1, &server) });
    let pid = backend_pid(&pool).await;
    for _ in 0..3 {
        let lease = pool.acquire().await.unwrap();
        change_session(&lease).await;
        drop(lease);
        assert_eq!(left_behind(&pool).await, [""; 0]);
    }
    // The same with a transaction open, and with a statement running.
    let lease = pool.acquire().await.unwrap();
    change_session(&lease).await;
    lease.batch_execute("BEGIN; SET work_mem = '13MB'").await.unwrap();
    drop(timeout(ms(20), lease.query("SELECT pg_sleep(60)", &[])).await);
    drop(lease);
    assert_eq!(left_behind(&pool).await, [""; 0]);
    assert_eq!(backend_pid(&pool).await, pid, "closed instead of reset");
}

#[tokio::test]
async fn pg_16_a_full_reset_keeps_our_time_outs_and_prepared_statements() {
    let server = server().await;
    let pool = open(PgConfig { reset: "full", ..exactly(1, &server) });
    let ask = async || {
        let lease = pool.acquire().await.unwrap();
        let row = lease
            .query_one(
                "SELECT current_setting('statement_timeout'), count(*) FROM pg_prepared_statements",
                &[],
            )
            .await;
        let row = row.unwrap();
        (row.get::<_, String>(0), row.get::<_, i64>(1))
    };
    let first = ask().await;
    pool.acquire().await.unwrap().batch_execute("SET statement_timeout = 1").await.unwrap();
    let second = ask().await;
    assert_eq!((&*second.0, second.1), ("30s", first.1));
}

#[tokio::test]
async fn pg_16_the_default_reset_ends_transactions_and_leaves_the_session() {
    let server = server().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    change_session(&lease).await;
    lease.batch_execute("BEGIN; SET LOCAL work_mem = '14MB'").await.unwrap();
    drop(lease);
    assert_eq!(left_behind(&pool).await, ["setting", "role", "table", "lock", "listen", "cursor"]);
}

#[tokio::test]
async fn pg_16_a_lease_that_ran_nothing_costs_no_reset() {
    let server = server().await;
    let pool = open(PgConfig { reset: "full", ..at(&server.url()) });
    backend_pid(&pool).await;
    settled(&pool).await;
    let cleaned = || {
        let samples = pool.snapshot().samples;
        samples.iter().find(|sample| sample.name == "pools_postgres_cleaned_total").unwrap().value
    };
    let before = cleaned();
    drop(pool.acquire().await.unwrap());
    settled(&pool).await;
    assert!((cleaned() - before).abs() < 0.5, "reset for nothing");
}
