//! What every session is set to, and statements on it.

use std::fs;

use pools_core::postgres::{PgConfig, PgPool, SqlState};

use crate::{at, exactly, ms, open, secs};

async fn show(pool: &PgPool, setting: &str) -> String {
    let lease = pool.acquire().await.unwrap();
    lease.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn pg_22_the_statement_cache_is_bounded() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { statement_cache: 4, ..exactly(1, &server) });
    let lease = pool.acquire().await.unwrap();
    for number in 0..20 {
        lease.query_one(&format!("SELECT {number}"), &[]).await.unwrap();
    }
    let kept: i64 = lease.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).await.unwrap().get(0);
    // The one being counted with may not have pushed its predecessor out on the server yet.
    assert!((4..=5).contains(&kept), "{kept} statements on the server");
}

#[tokio::test]
async fn pg_22_a_prepared_statement_survives_a_change_of_the_schema() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    lease.batch_execute("CREATE TABLE loans (id int); INSERT INTO loans VALUES (7)").await.unwrap();
    assert_eq!(lease.query_one("SELECT * FROM loans", &[]).await.unwrap().get::<_, i32>(0), 7);
    lease.batch_execute("ALTER TABLE loans ALTER COLUMN id TYPE bigint").await.unwrap();
    assert_eq!(lease.query_one("SELECT * FROM loans", &[]).await.unwrap().get::<_, i64>(0), 7);
    lease.batch_execute("DEALLOCATE ALL").await.unwrap();
    assert_eq!(lease.query_one("SELECT * FROM loans", &[]).await.unwrap().get::<_, i64>(0), 7);
}

#[tokio::test]
async fn pg_26_keepalive_and_application_name_are_seen_on_the_socket_and_on_the_server() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { application_name: "risk".to_owned(), ..exactly(1, &server) });
    let lease = pool.acquire().await.unwrap();
    assert_eq!(server.connections("risk").await, 1);
    let name = lease.query_one("SHOW application_name", &[]).await.unwrap();
    assert_eq!(name.get::<_, String>(0), "risk");
    let timer = keepalive_timer(server.port());
    assert!((0..=3_000).contains(&timer), "the next probe is due in {timer} hundredths of a second");
}

/// Hundredths of a second until the kernel probes the connection to this port. In `/proc/net/tcp` the fields are:
/// slot, local, remote, state, queues, timer; timer 2 is keepalive.
fn keepalive_timer(port: u16) -> i64 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!("0100007F:{port:04X}");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = row.filter(|fields| fields.len() > 5 && fields[2] == remote && fields[3] == "01");
    let row = ours.find(|fields| fields[5].starts_with("02:")).expect("no keepalive timer on the socket");
    i64::from_str_radix(&row[5][3..], 16).unwrap()
}

#[tokio::test]
async fn pg_31_time_outs_are_set_on_each_connection_from_settings() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig {
        statement_timeout: secs(7),
        lock_timeout: secs(3),
        idle_in_transaction_timeout: secs(90),
        ..at(&server.url())
    });
    assert_eq!(show(&pool, "statement_timeout").await, "7s");
    assert_eq!(show(&pool, "lock_timeout").await, "3s");
    assert_eq!(show(&pool, "idle_in_transaction_session_timeout").await, "90s");
    let url = format!("{}?options=-c%20statement_timeout%3D4000", server.url());
    assert_eq!(show(&open(at(&url)), "statement_timeout").await, "4s");
}

#[tokio::test]
async fn pg_31_a_callers_deadline_shortens_the_statement_time_out_for_its_lease_only() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    let lease = pool.acquire().await.unwrap();
    lease.limit(ms(50)).await.unwrap();
    let late = lease.query("SELECT pg_sleep(60)", &[]).await.unwrap_err();
    assert_eq!(late.sqlstate(), Some(&SqlState::QUERY_CANCELED));
    lease.limit(secs(3_600)).await.unwrap();
    let most: String = lease.query_one("SHOW statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!(most, "30s", "a caller lengthened it");
    lease.limit(ms(50)).await.unwrap();
    drop(lease);
    assert_eq!(show(&pool, "statement_timeout").await, "30s");
}
