//! Behind PgBouncer in transaction mode, with two server processes for all.

use std::sync::Arc;

use pools_core::{
    pool::Pool,
    postgres::{Migration, PgConfig, PgError, PgPool, SqlState},
};
use testkit::{PgBouncer, Postgres};
use tokio::time::{Instant, timeout};

use crate::{at, exactly, ms, open, secs, settled};

/// Opening waits for one of its two server processes, among all who use them.
fn behind(proxy: &PgBouncer, server: &Postgres) -> PgConfig {
    let (transaction_pooling, statement_cache, connect_timeout) = (true, 0, secs(60));
    let url = proxy.through(&server.url());
    PgConfig { transaction_pooling, statement_cache, connect_timeout, timeout: secs(120), ..at(&url) }
}

async fn count(lease: &pools_core::postgres::Lease, sql: &str) -> i64 {
    lease.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_24_statements_transactions_and_the_lane_work_while_server_processes_change_hands() {
    let server = testkit::postgres().await;
    server
        .admin_query("CREATE TABLE loans (id int PRIMARY KEY, note text); ALTER TABLE loans OWNER TO app")
        .await;
    let proxy = testkit::pgbouncer(&server).await;
    let pool = open(behind(&proxy, &server));
    let users: Vec<_> = (0..16_i32).map(|user| tokio::spawn(use_it(pool.clone(), user))).collect();
    for user in users {
        user.await.unwrap();
    }
    let lease = pool.acquire().await.unwrap();
    assert_eq!(count(&lease, "SELECT count(*) FROM loans").await, 16 * 20);
    // As text, so that it is sent as it stands; often enough to see both server processes.
    let look = "DO $$ BEGIN IF (SELECT count(*) FROM pg_prepared_statements) > 0 \
                THEN RAISE EXCEPTION 'statements were left'; END IF; END $$";
    for looked in futures_util::future::join_all((0..8).map(|_| look_at(&pool, look))).await {
        looked.unwrap_or_else(|error| panic!("{}", error.reason()));
    }
    assert!(server.all_connections().await <= 2, "not behind the proxy");
}

async fn look_at(pool: &PgPool, sql: &str) -> Result<(), PgError> {
    pool.acquire().await?.batch_execute(sql).await
}

async fn use_it(pool: PgPool, user: i32) {
    for round in 0..10_i32 {
        let id = user * 100 + round * 2;
        let insert = "INSERT INTO loans VALUES ($1, $2)";
        assert_eq!(pool.lane().execute(insert, &[&id, &"by the lane"]).await.unwrap(), 1);
        let mut lease = pool.acquire().await.unwrap();
        let twice = lease.execute(insert, &[&id, &"again"]).await.unwrap_err();
        assert_eq!(twice.sqlstate(), Some(&SqlState::UNIQUE_VIOLATION));
        assert!(lease.query("SELEC 1", &[]).await.is_err());
        let transaction = lease.begin().await.unwrap();
        transaction.execute(insert, &[&(id + 1), &"in a transaction"]).await.unwrap();
        let row = transaction.query_one("SELECT note FROM loans WHERE id = $1", &[&(id + 1)]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "in a transaction");
        transaction.commit().await.unwrap();
        let row = lease.query_one("SELECT $1::int4, note FROM loans WHERE id = $1", &[&id]).await.unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (id, "by the lane"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_24_statements_of_one_lease_at_the_same_time_stay_apart() {
    let server = testkit::postgres().await;
    let proxy = testkit::pgbouncer(&server).await;
    let pool = open(behind(&proxy, &server));
    let lease = Arc::new(pool.acquire().await.unwrap());
    let statements = futures_util::future::join_all((0..20_i32).map(|number| {
        let lease = Arc::clone(&lease);
        async move {
            let sql = if number % 4 == 0 { "SELECT 1 / ($1::int4 - $1)" } else { "SELECT $1::int4 + 0" };
            (number, lease.query_one(sql, &[&number]).await.map(|row| row.get::<_, i32>(0)))
        }
    }));
    for (number, result) in statements.await {
        assert_eq!(result.ok(), (number % 4 != 0).then_some(number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_24_an_abandoned_statement_is_discarded_and_nobody_is_cancelled() {
    let server = testkit::postgres().await;
    let proxy = testkit::pgbouncer(&server).await;
    let pool = open(PgConfig { size: 4, overflow: 0, ..behind(&proxy, &server) });
    let users: Vec<_> = (0..8_i32)
        .map(|user| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let lease = pool.acquire().await.unwrap();
                    drop(timeout(ms(5), lease.query("SELECT pg_sleep(0.03)", &[])).await);
                    drop(lease);
                    let lease = pool.acquire().await.unwrap();
                    let number = user * 100 + round;
                    let row = lease.query_one("SELECT $1::int4 FROM pg_sleep(0.002)", &[&number]).await;
                    let row = row.unwrap_or_else(|error| panic!("hit: {}", error.reason()));
                    assert_eq!(row.get::<_, i32>(0), user * 100 + round);
                }
            })
        })
        .collect();
    for user in users {
        user.await.unwrap();
    }
    settled(&pool).await;
    let snapshot = pool.snapshot();
    let unfinished = snapshot.totals.closed.iter().find(|(name, _)| *name == "unfinished").unwrap().1;
    assert!(unfinished > 20, "only {unfinished} were discarded");
    assert!(!server.log().contains("canceling statement due to user request"), "a cancel was sent");
}

#[tokio::test]
async fn pg_24_what_needs_a_session_is_refused_or_undone() {
    let server = testkit::postgres().await;
    let proxy = testkit::pgbouncer(&server).await;
    let pool = open(PgConfig { reset: "full", ..behind(&proxy, &server) });
    let lease = pool.acquire().await.unwrap();
    assert!(matches!(lease.limit(secs(1)).await.unwrap_err(), PgError::NoSession));
    lease.batch_execute("BEGIN; CREATE TABLE gone (id int)").await.unwrap();
    drop(lease);
    let lease = pool.acquire().await.unwrap();
    assert_eq!(count(&lease, "SELECT count(*) FROM pg_class WHERE relname = 'gone'").await, 0);
    drop(lease);
    pool.drain(Instant::now() + secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_24_migrations_run_once_behind_it_too() {
    let server = testkit::postgres().await;
    let proxy = testkit::pgbouncer(&server).await;
    let step = Migration { id: 1, name: "loans", sql: "CREATE TABLE loans (id int)" };
    let replicas = futures_util::future::join_all((0..2).map(|_| {
        let pool = open(behind(&proxy, &server));
        async move { pool.migrate(&[step]).await.unwrap() }
    }));
    assert_eq!(replicas.await.iter().sum::<u32>(), 1);
}

#[tokio::test]
async fn pg_24_without_a_cache_every_statement_is_prepared_anew_and_none_is_kept() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { statement_cache: 0, ..exactly(1, &server) });
    let lease = pool.acquire().await.unwrap();
    for _ in 0..5 {
        assert_eq!(
            count(&lease, "SELECT count(*) FROM pg_prepared_statements").await,
            1,
            "only the one that asks"
        );
    }
}
