//! Brings the schema up to date at start, whatever the number of replicas that try at once.
//!
//! Each migration is one transaction that first takes an advisory lock: of several processes one applies it, the
//! others wait and find it applied. The lock ends with the transaction, so it also works behind a proxy that pools
//! by transaction, and nothing can leak.

use std::{panic::Location, sync::Arc, time::Duration};

use super::{Shared, errand::Caller, error::PgError, lease::Lease};

/// One step of the schema. Never changed once released; numbers go up.
#[derive(Clone, Copy, Debug)]
pub struct Migration<'a> {
    /// Its number, by which it is known.
    pub id: u32,
    /// Its name, to be read by people.
    pub name: &'a str,
    /// One or more statements that may run in a transaction.
    pub sql: &'a str,
}

/// `pg_advisory_xact_lock`'s key: "schema_m" as bytes, so that it collides with nobody by accident.
const LOCK: i64 = i64::from_be_bytes(*b"schema_m");
/// Building an index may take long, and so may the replica that we wait for.
const PATIENCE: Duration = Duration::from_secs(3_600);

impl Shared {
    pub(super) async fn migrate(
        self: Arc<Self>,
        migrations: &[Migration<'_>],
        site: &'static Location<'static>,
    ) -> Result<u32, PgError> {
        let mut lease = self.acquire(Caller::at(site)).await?;
        let mut applied = 0;
        for migration in migrations {
            let result = apply(&mut lease, migration).await;
            let failed = |cause| PgError::Migration { id: migration.id, cause: Box::new(cause) };
            match result {
                Ok(true) => {
                    tracing::info!(pool = "postgres", id = migration.id, name = migration.name, "migrated");
                    applied += 1;
                }
                Ok(false) => {}
                Err(error @ PgError::MigrationChanged { .. }) => return Err(error),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(applied)
    }
}

async fn apply(lease: &mut Lease, migration: &Migration<'_>) -> Result<bool, PgError> {
    let transaction = lease.begin().await?;
    let prepare = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL client_min_messages = warning; \
         SELECT pg_advisory_xact_lock({LOCK}); \
         CREATE TABLE IF NOT EXISTS schema_migrations \
         (id bigint PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    );
    transaction.batch_within(PATIENCE, &prepare).await?;
    let id = i64::from(migration.id);
    let row = transaction.query_opt("SELECT name FROM schema_migrations WHERE id = $1", &[&id]).await?;
    if let Some(row) = row {
        let applied: String = row.get(0);
        transaction.rollback().await?;
        if applied == migration.name {
            return Ok(false);
        }
        let given = migration.name.to_owned();
        return Err(PgError::MigrationChanged { id: migration.id, applied, given });
    }
    transaction.batch_within(PATIENCE, migration.sql).await?;
    let record = "INSERT INTO schema_migrations (id, name) VALUES ($1, $2)";
    transaction.execute(record, &[&id, &migration.name]).await?;
    transaction.commit().await?;
    Ok(true)
}
