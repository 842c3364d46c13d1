//! The pipelined lane.

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
async fn pg_23_a_broken_connection_is_replaced_reads_are_tried_again_and_nothing_else_is() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    let steps = "CREATE SEQUENCE reads; CREATE SEQUENCE queries; CREATE TABLE writes (id int)";
    pool.acquire().await.unwrap().batch_execute(steps).await.unwrap();
    let lane = pool.lane();
    // A sequence does not go back when its transaction ends: it tells how often a statement began.
    let (read, query) =
        ("SELECT nextval('reads'), pg_sleep(0.3)", "SELECT nextval('queries'), pg_sleep(0.3)");
    for (sql, again) in [(read, true), (query, false)] {
        let asking = async { if again { lane.read(sql, &[]).await } else { lane.query(sql, &[]).await } };
        let (answer, ()) = tokio::join!(asking, kill_while_active(&server, sql));
        assert_eq!(answer.is_ok(), again, "{answer:?}");
        assert!(again || matches!(answer, Err(PgError::Lost { .. })), "{answer:?}");
    }
    let write = "INSERT INTO writes SELECT 1 FROM pg_sleep(0.3)";
    let (written, ()) = tokio::join!(lane.execute(write, &[]), kill_while_active(&server, write));
    assert!(matches!(written, Err(PgError::Lost { .. })), "{written:?}");
    let row = lane.query_one(
        "SELECT (SELECT last_value FROM reads), (SELECT last_value FROM queries), count(*) FROM writes",
        &[],
    );
    let row = row.await.expect("the connection was replaced");
    let counts: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(counts, [2, 1, 0], "reads, queries, written");
}

/// Ends whatever the server is doing as soon as it does this.
async fn kill_while_active(server: &testkit::Postgres, sql: &str) {
    let quoted = sql.replace('\'', "''");
    let active = format!("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = '{quoted}'");
    testkit::until_async(secs(20), async || !server.admin_query(&active).await.is_empty()).await;
    server.kill_backends().await;
}

#[tokio::test]
async fn pg_23_when_one_of_two_shared_connections_breaks_the_statements_of_the_other_go_on() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    let ask = async |lane: pools_core::postgres::Lane| {
        let row = lane.query_one("SELECT pg_backend_pid() FROM pg_sleep(0.1)", &[]).await;
        row.map(|row| row.get::<_, i32>(0))
    };
    let many = |count: usize| (0..count).map(|_| tokio::spawn(ask(pool.lane()))).collect::<Vec<_>>();
    // As many as open a second one, and those that then go there.
    let mut asked = many(17);
    testkit::until(secs(20), || pool.stats().checked_out == 1).await;
    let active = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(0.1)'";
    testkit::until_async(secs(20), async || server.admin_query(active).await.len() == 1).await;
    let first: i32 = server.admin_query(active).await[0][0].parse().unwrap();
    asked.extend(many(8));
    testkit::until_async(secs(20), async || server.admin_query(active).await.len() == 2).await;
    server.admin_query(&format!("SELECT pg_terminate_backend({first})")).await;
    let answers: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    let others = answers.iter().filter(|answer| answer.as_ref().is_ok_and(|pid| *pid != first)).count();
    let lost = answers.iter().filter(|answer| matches!(answer, Err(PgError::Lost { .. }))).count();
    let before = answers.iter().filter(|answer| answer.as_ref().is_ok_and(|pid| *pid == first)).count();
    assert_eq!(others + lost + before, 25, "{answers:?}");
    assert!(lost > 0 && others >= 8, "{lost} lost, {others} on the other: {answers:?}");
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
