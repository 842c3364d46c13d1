//! The database as both features see it: a pool, whose schema is kept in place.
//!
//! ```text
//!  no schema ──tend: migrated──► schema ──a statement finds no table──► no schema
//! ```
//!
//! **Schema.** Migrated as soon as Postgres can be reached: at start, or whenever it appears. Until then every
//! statement is refused here, and nothing is kept in memory in its place. A server that only reads is as good as any
//! where the tables are there already.
//!
//! **Refusals** that an operator ends are told from one another: the disk is full, the server only reads. The next
//! statement after their end succeeds. Connections to a server that only reads are closed when they come back,
//! because the address may lead to its successor by now, or the setting may have been that of the session.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::http::StatusCode;
use pools_core::{
    health::HealthState,
    postgres::{Migration, PgError, PgPool, SqlState},
    web::Problem,
};
use tokio::time::{Instant, sleep};

/// The schema, oldest first. Never edited, only added to.
const MIGRATIONS: &[Migration<'static>] = &[
    Migration { id: 1, name: "loans", sql: include_str!("../migrations/0001_loans.sql") },
    Migration { id: 2, name: "matching", sql: include_str!("../migrations/0002_matching.sql") },
    Migration { id: 3, name: "models", sql: include_str!("../migrations/0003_models.sql") },
    Migration { id: 4, name: "watching", sql: include_str!("../migrations/0004_watching.sql") },
    Migration { id: 5, name: "expiry", sql: include_str!("../migrations/0005_expiry.sql") },
];

/// How often it is looked whether the schema is due; while it is not, that costs one atomic read.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after a migration that failed: soon enough to be used within 2 s of its cause's end.
const RETRY: Duration = Duration::from_secs(1);

/// Connections to a server that only reads are given up this often at most.
const LEAVE: Duration = Duration::from_secs(1);
/// When a full disk or a server that only reads is worth another try: somebody has to do something first.
const AGAIN: Duration = Duration::from_secs(5);

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// Postgres has not been reached since the start, refuses the migration, or has lost its tables.
    #[error("Postgres, which this route needs, is away or has no tables for it yet; the log says why")]
    NoSchema,
    /// The pool or the server says why.
    #[error("the database did not carry out the statement")]
    Postgres(#[source] PgError),
}

/// A pool and whether its tables are there. Clones share both.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    schema: Arc<AtomicBool>,
    left: Arc<Mutex<Option<Instant>>>,
}

impl Database {
    /// Without a schema until [`keep_schema`](Self::keep_schema) has seen to it.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, schema: Arc::default(), left: Arc::default() }
    }

    /// The pool, whatever the state of its schema.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether the tables were there last time.
    pub fn has_schema(&self) -> bool {
        self.schema.load(Ordering::Acquire)
    }

    /// The pool, to send a statement through.
    ///
    /// # Errors
    /// There is no schema yet.
    pub fn ready(&self) -> Result<&PgPool, DatabaseError> {
        if self.has_schema() { Ok(&self.pool) } else { Err(DatabaseError::NoSchema) }
    }

    /// What a failed statement means. Somebody may have put an empty database in the place of ours: that is migrated
    /// again.
    pub fn failed(&self, cause: PgError) -> DatabaseError {
        if cause.sqlstate() == Some(&SqlState::UNDEFINED_TABLE) {
            self.schema.store(false, Ordering::Release);
            return DatabaseError::NoSchema;
        }
        if only_reads(&cause) {
            self.leave();
        }
        DatabaseError::Postgres(cause)
    }

    fn leave(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_none_or(|left| left.elapsed() >= LEAVE) {
            *left = Some(Instant::now());
            self.pool.invalidate();
        }
    }

    /// Keeps the schema in place until `stopping` resolves.
    ///
    /// # Cancel safety
    /// Stopped in the middle of a migration, that is rolled back by the server.
    pub async fn keep_schema(self, stopping: impl Future<Output = ()>) {
        tokio::select! {
            () = stopping => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut told = None;
        loop {
            let fault = self.tend().await.err().map(|error| error.reason());
            if fault.is_some() && fault != told {
                tracing::warn!(cause = fault, "the schema cannot be brought up to date; trying again");
            }
            let pause = if fault.is_some() { RETRY } else { LOOK };
            told = fault;
            sleep(pause).await;
        }
    }

    /// Migrates where that is due and the pool says that the server is there. The pool looks for the server by
    /// itself, so that a server out of reach costs no second row of attempts.
    async fn tend(&self) -> Result<(), PgError> {
        if self.has_schema() || self.pool.health().state != HealthState::Up {
            return Ok(());
        }
        match self.pool.migrate(MIGRATIONS).await {
            Ok(_) => {}
            Err(cause) if only_reads(&cause) && self.is_migrated().await? => {}
            Err(cause) => return Err(cause),
        }
        self.schema.store(true, Ordering::Release);
        tracing::info!(migrations = MIGRATIONS.len(), "database schema is in place");
        Ok(())
    }

    /// Whether all migrations have been applied, as far as one can see without writing. If not, the next attempt goes
    /// over new connections.
    async fn is_migrated(&self) -> Result<bool, PgError> {
        let lane = self.pool.lane();
        let last = MIGRATIONS.last().map_or(0, |migration| i64::from(migration.id));
        let there = lane.read_one("SELECT to_regclass('schema_migrations') IS NOT NULL", &[]).await?.get(0);
        let migrated = there && !lane.read(MIGRATED, &[&last]).await?.is_empty();
        if !migrated {
            self.leave();
        }
        Ok(migrated)
    }
}

const MIGRATED: &str = "SELECT 1 FROM schema_migrations WHERE id = $1";

fn only_reads(cause: &PgError) -> bool {
    cause.sqlstate() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::NoSchema => Self::unavailable(error.to_string()),
            DatabaseError::Postgres(cause) => postgres(&cause),
        }
    }
}

/// Whether all places are taken by attempts to reach a server that cannot be reached, rather than by work.
fn waits_for_the_server(cause: &PgError) -> bool {
    let PgError::Exhausted { connect: Some(connect), .. } = cause else { return false };
    // A server that has no place left is there.
    connect.sqlstate() != Some(&SqlState::TOO_MANY_CONNECTIONS)
}

fn postgres(cause: &PgError) -> Problem {
    if cause.is_busy() && !waits_for_the_server(cause) {
        return Problem::busy("all connections to Postgres are in use");
    }
    if cause.sqlstate() == Some(&SqlState::DISK_FULL) {
        tracing::error!(cause = cause.reason(), "Postgres has no space left");
        return refused("database_full", "Postgres has no space left; nothing was stored");
    }
    if only_reads(cause) {
        tracing::error!(cause = cause.reason(), "Postgres only reads");
        return refused("database_read_only", "Postgres only reads now; nothing was stored");
    }
    if matches!(cause, PgError::Late { .. }) {
        tracing::warn!(cause = cause.reason(), "a request's time was over before Postgres answered");
        return Problem::gateway_timeout("Postgres took longer than this request may");
    }
    if cause.is_unavailable() {
        tracing::warn!(cause = cause.reason(), "a request needed Postgres, which is away");
        return Problem::unavailable("Postgres, which this route needs, is away");
    }
    // Class 22, data exception. The checks before name the field of all that is known to end here.
    if cause.sqlstate().is_some_and(|state| state.code().starts_with("22")) {
        let detail = "Postgres cannot store a value of this body";
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail);
    }
    tracing::error!(cause = cause.reason(), "a statement failed");
    if cause.sqlstate() == Some(&SqlState::QUERY_CANCELED) {
        return Problem::gateway_timeout("Postgres took longer than DB_STATEMENT_TIMEOUT");
    }
    Problem::internal()
}

fn refused(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(AGAIN)
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use pools_core::postgres::OpenError;

    use super::*;

    fn answer(cause: PgError) -> (u16, Problem) {
        let problem = Problem::from(DatabaseError::Postgres(cause));
        (problem.status_code().as_u16(), problem)
    }

    #[test]
    fn a_full_pool_is_503_with_the_time_to_come_again() {
        let waited = Duration::from_secs(30);
        let (status, problem) =
            answer(PgError::Exhausted { size: 10, overflow: 20, waited, longest: None, connect: None });
        assert_eq!(status, 503);
        assert!(problem.to_string().starts_with("pool_busy"), "{problem}");
        assert!(problem.error_response().headers().contains_key("retry-after"));
    }

    #[test]
    fn a_server_that_is_away_is_503_and_says_no_more_than_that() {
        for cause in [PgError::Closed, PgError::Stalled { after: Duration::from_secs(1) }] {
            let (status, problem) = answer(cause);
            assert_eq!(status, 503);
            assert!(problem.to_string().starts_with("upstream_unavailable"), "{problem}");
        }
    }

    #[test]
    fn a_pool_that_is_full_of_attempts_to_connect_is_told_as_a_server_that_is_away() {
        let waited = Duration::from_secs(30);
        let connect = Some(OpenError::TimedOut { after: Duration::from_secs(10) });
        let (status, problem) =
            answer(PgError::Exhausted { size: 10, overflow: 20, waited, longest: None, connect });
        assert_eq!(status, 503);
        assert!(problem.to_string().starts_with("upstream_unavailable"), "{problem}");
    }

    #[test]
    fn a_fault_of_ours_is_500_without_its_cause() {
        let (status, problem) = answer(PgError::Rows { expected: "one row", found: 2 });
        assert_eq!(status, 500);
        assert!(!problem.to_string().contains("row"), "{problem}");
    }
}
