//! The pipelined lane.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use futures_util::future::join_all;
use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgError, SqlState},
};
use tokio::time::timeout;

use crate::{at, exactly, ms, open, secs, settled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_23_many_callers_share_two_connections_and_each_gets_its_own_answers_in_order() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    pool.acquire().await.unwrap().batch_execute("CREATE TABLE seen (caller int, step int)").await.unwrap();
    let callers: Vec<_> = (0..64_i32)
        .map(|caller| {
            let lane = pool.lane();
            tokio::spawn(async move {
                for step in 0..20_i32 {
                    let insert = "INSERT INTO seen VALUES ($1, $2)";
                    assert_eq!(lane.execute(insert, &[&caller, &step]).await.unwrap(), 1);
                    let sql = "SELECT max(step), $1::int4 FROM seen WHERE caller = $1";
                    let row = lane.query_one(sql, &[&caller]).await.unwrap();
                    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (step, caller));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(pool.snapshot().totals.opened <= 3, "{} connections opened", pool.snapshot().totals.opened);
    settled(&pool).await;
    assert_eq!(pool.stats().checked_out, 0, "the lane keeps its leases without work");
}

#[tokio::test]
async fn pg_23_an_error_in_one_statement_hurts_no_other() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    let lane = pool.lane();
    let statements = join_all((0..40_i32).map(|number| {
        let lane = lane.clone();
        async move {
            let sql = if number % 4 == 0 { "SELECT 1 / ($1::int4 - $1)" } else { "SELECT $1::int4 + 0" };
            (number, lane.query_one(sql, &[&number]).await)
        }
    }));
    for (number, result) in statements.await {
        match result {
            Ok(row) => assert_eq!(row.get::<_, i32>(0), number),
            Err(error) => {
                assert_eq!(error.sqlstate(), Some(&SqlState::DIVISION_BY_ZERO));
                assert_eq!(number % 4, 0);
            }
        }
    }
}

#[tokio::test]
async fn pg_23_a_broken_connection_is_replaced_reads_are_tried_again_and_writes_are_not() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    let lane = pool.lane();
    lane.query_one("SELECT 1", &[]).await.unwrap();
    // Only the first time around it kills its own connection.
    let reads = Arc::new(AtomicU32::new(0));
    let read = {
        let (lane, reads) = (lane.clone(), Arc::clone(&reads));
        tokio::spawn(async move {
            let row = lane.query_one("SELECT 7 FROM pg_sleep(0.3)", &[]).await;
            reads.fetch_add(1, Ordering::Relaxed);
            row.map(|row| row.get::<_, i32>(0))
        })
    };
    let write = {
        let lane = lane.clone();
        tokio::spawn(async move { lane.execute("INSERT INTO nowhere SELECT pg_sleep(60)", &[]).await })
    };
    tokio::time::sleep(ms(100)).await;
    server.kill_backends().await;
    assert_eq!(read.await.unwrap().expect("a read is tried once more"), 7);
    assert!(write.await.unwrap().is_err());
    lane.query_one("SELECT 1", &[]).await.expect("the connection was replaced");
}

#[tokio::test]
async fn pg_23_a_dropped_statement_does_not_stay_and_does_not_stop_its_neighbours() {
    let server = testkit::postgres().await;
    let pool = open(exactly(3, &server));
    let lane = pool.lane();
    lane.query_one("SELECT 1", &[]).await.unwrap();
    assert!(timeout(ms(50), lane.query("SELECT pg_sleep(60)", &[])).await.is_err());
    let next = timeout(secs(5), lane.query_one("SELECT 1", &[])).await;
    next.expect("stuck behind a dropped statement").unwrap();
    settled(&pool).await;
}

#[tokio::test]
async fn pg_23_behind_a_dropped_statement_nobody_new_is_sent() {
    let server = testkit::postgres().await;
    let pool = open(exactly(3, &server));
    let lane = pool.lane();
    // Keeps the shared connection in use, so that the dropped one cannot be cancelled yet.
    let neighbour = tokio::spawn({
        let lane = lane.clone();
        async move { lane.query("SELECT pg_sleep(4)", &[]).await }
    });
    testkit::until(secs(20), || pool.stats().checked_out == 1).await;
    let neighbours =
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(4)%' AND state = 'active'";
    testkit::until_async(secs(20), async || !server.admin_query(neighbours).await.is_empty()).await;
    assert!(timeout(ms(50), lane.query("SELECT pg_sleep(60)", &[])).await.is_err());
    lane.query_one("SELECT 1", &[]).await.unwrap();
    assert!(!neighbour.is_finished(), "waited behind the others");
    neighbour.await.unwrap().expect("a neighbour was cancelled");
    settled(&pool).await;
}

#[tokio::test]
async fn pg_23_the_lane_is_inside_the_bound_and_refuses_what_needs_a_connection_of_its_own() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { timeout: ms(200), ..exactly(1, &server) });
    let lease = pool.acquire().await.unwrap();
    assert!(matches!(pool.lane().query("SELECT 1", &[]).await.unwrap_err(), PgError::Exhausted { .. }));
    drop(lease);
    for sql in ["BEGIN", "  set role app", "COPY t TO STDOUT", "LISTEN loans"] {
        assert!(matches!(pool.lane().execute(sql, &[]).await.unwrap_err(), PgError::NotAlone), "{sql}");
    }
    let pool = open(PgConfig { pipeline_connections: 0, ..exactly(1, &server) });
    pool.lane().query_one("SELECT 1", &[]).await.unwrap();
}
