//! The Postgres of the kit, and that nothing of it stays.

use std::path::Path;
use std::time::Duration;

use testkit::{PostgresOptions, Stop, until_async};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::NoTls;

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_fresh_server_lets_its_owner_in_and_counts_connections() {
    let postgres = testkit::postgres().await;
    let url = format!("{}?application_name=counted", postgres.url());

    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    client.batch_execute("CREATE TABLE mine (id int)").await.unwrap();

    assert_eq!(postgres.connections("counted").await, 1);
    assert_eq!(postgres.kill_backends().await, 1);
    let end = tasks.join_next().await.unwrap().unwrap();
    assert!(end.is_err(), "the terminated connection ended without an error");
    until_async(BOUND, async || postgres.connections("counted").await == 0).await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_over_tcp() {
    let postgres = testkit::postgres().await;
    let url = postgres.url().replace("app-password", "wrong");

    assert!(tokio_postgres::connect(&url, NoTls).await.is_err());
}

#[tokio::test]
async fn a_stopped_server_starts_again_with_its_port_and_its_data() {
    let postgres = testkit::postgres().await;
    postgres.admin_query("CREATE TABLE kept AS SELECT 7 AS n").await;

    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        let port = postgres.port();
        postgres.stop(how).await;
        assert!(tokio_postgres::connect(&postgres.url(), NoTls).await.is_err());
        postgres.start().await;
        assert_eq!(postgres.port(), port);
        let expected = vec![vec!["7".to_owned()]];
        // Unlogged durability: only the orderly stop promises the row.
        if how == Stop::Fast {
            assert_eq!(postgres.admin_query("SELECT n FROM kept").await, expected);
        }
    }
}

#[tokio::test]
async fn a_frozen_server_answers_nobody_until_it_is_thawed() {
    let postgres = testkit::postgres().await;
    let (client, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);

    postgres.freeze();
    let query = client.simple_query("SELECT 1");
    tokio::pin!(query);
    assert!(timeout(Duration::from_millis(100), &mut query).await.is_err());
    postgres.thaw();

    timeout(BOUND, query).await.expect("still frozen").unwrap();
}

#[tokio::test]
async fn the_limits_of_server_and_role_are_real() {
    let options = PostgresOptions { max_connections: 10, ..PostgresOptions::default() };
    let postgres = testkit::postgres_with(options).await;
    assert_eq!(postgres.admin_query("SHOW max_connections").await[0][0], "10");

    let url = postgres.create_role_with_limit("narrow", 1).await;
    let _first = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let second = tokio_postgres::connect(&url, NoTls).await;

    assert_eq!(second.err().unwrap().code().unwrap().code(), "53300");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_server_leaves_neither_process_nor_directory() {
    let postgres = testkit::postgres().await;
    let folder = postgres.socket_dir().to_owned();
    let pid_file = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    let server = Path::new("/proc").join(pid_file.lines().next().unwrap());
    assert!(server.exists());
    postgres.freeze();

    drop(postgres);

    assert!(!folder.exists());
    assert!(!server.exists());
}
