//! Migrations.

use pools_core::postgres::{Migration, PgError};

use crate::{at, open};

const FIRST: Migration<'_> =
    Migration { id: 1, name: "loans", sql: "CREATE TABLE loans (id int); INSERT INTO loans VALUES (1)" };
const SECOND: Migration<'_> = Migration { id: 2, name: "more", sql: "INSERT INTO loans VALUES (2)" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_33_replicas_that_migrate_at_once_apply_each_step_once() {
    let server = testkit::postgres().await;
    let replicas: Vec<_> = (0..6)
        .map(|_| {
            let pool = open(at(&server.url()));
            tokio::spawn(async move { pool.migrate(&[FIRST, SECOND]).await.unwrap() })
        })
        .collect();
    let mut applied = 0;
    for replica in replicas {
        applied += replica.await.unwrap();
    }
    assert_eq!(applied, 2);
    let rows = server.admin_query("SELECT count(*) FROM loans").await;
    assert_eq!(rows[0][0], "2");
}

#[tokio::test]
async fn pg_33_a_failed_migration_is_named_and_leaves_nothing() {
    let server = testkit::postgres().await;
    let pool = open(at(&server.url()));
    let bad = Migration { id: 2, name: "bad", sql: "INSERT INTO loans VALUES (2); SELECT 1/0" };
    let error = pool.migrate(&[FIRST, bad]).await.unwrap_err();
    assert!(matches!(error, PgError::Migration { id: 2, .. }), "{error:?}");
    assert!(error.reason().contains("division by zero"), "{}", error.reason());
    assert_eq!(server.admin_query("SELECT count(*) FROM loans").await[0][0], "1");
    assert_eq!(pool.migrate(&[FIRST, SECOND]).await.unwrap(), 1);
    let renamed = Migration { name: "other", ..FIRST };
    let error = pool.migrate(&[renamed]).await.unwrap_err();
    assert!(matches!(error, PgError::MigrationChanged { id: 1, .. }), "{error:?}");
}
