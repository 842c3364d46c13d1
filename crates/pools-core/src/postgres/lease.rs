//! What a caller holds: a connection to itself, and transactions on it.

use std::{sync::atomic::Ordering, time::Duration};

use bb8_postgres::tokio_postgres::{Row, types::ToSql};
use tokio::time::Instant;

use super::{
    conn::{Conn, First},
    error::PgError,
    held::Held,
};
use crate::{pool::PoolKind, resilience::deadline};

/// A borrowed connection. Goes back to its pool when dropped.
///
/// Statements on one lease may run at the same time; the server does them one after the other.
///
/// # Cancel safety
/// When a statement's future is dropped before its end, the lease refuses further statements with
/// [`PgError::Unfinished`]. Dropped, it goes to a task of the pool that cancels the statement on the server, waits
/// for its end and rolls back what was open; the place stays taken until then.
///
/// # Deadlines
/// No statement outlives its caller's [deadline](crate::resilience::deadline): it ends with [`PgError::Late`] as if its
/// future had been dropped. Where that leaves less than half of the server's own statement time-out, the server is
/// told, in front of the lease's next statement and without a round trip of its own.
#[must_use = "a lease that is not used still takes a place in the pool"]
#[derive(Debug)]
pub struct Lease {
    held: Held,
}

impl Lease {
    pub(super) fn new(held: Held) -> Self {
        Self { held }
    }

    pub(super) fn conn(&self) -> &Conn {
        self.held.conn()
    }

    /// All rows of a statement, prepared once per connection.
    ///
    /// # Errors
    /// [`PgError::Statement`] when the server refuses it, [`PgError::Lost`], [`PgError::Stalled`] and
    /// [`PgError::Closed`] when the connection is gone, [`PgError::Unfinished`] after a cancelled one.
    pub async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        self.ready().await?;
        self.seen(self.conn().query(sql, params).await)
    }

    /// The only row, or none.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PgError::Rows`] when there are more.
    pub async fn query_opt(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, PgError> {
        self.query_first(sql, params).await?.at_most_one()
    }

    /// The only row.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PgError::Rows`] when there is none, or more.
    pub async fn query_one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, PgError> {
        self.query_first(sql, params).await?.exactly_one()
    }

    async fn query_first(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<First, PgError> {
        self.ready().await?;
        self.seen(self.conn().query_first(sql, params).await)
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        self.ready().await?;
        self.seen(self.conn().execute(sql, params).await)
    }

    /// Runs one or more statements without parameters.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PgError::Copy`] for `COPY … FROM STDIN`.
    pub async fn batch_execute(&self, sql: &str) -> Result<(), PgError> {
        self.ready().await?;
        self.seen(self.conn().batch(sql).await)
    }

    /// Begins a transaction. Dropped without [`commit`](Transaction::commit), it is rolled back.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// Dropped at any point, nothing stays open: see [`Lease`].
    pub async fn begin(&mut self) -> Result<Transaction<'_>, PgError> {
        self.ready().await?;
        // Set before the statement: whatever becomes of this future, the transaction has an end.
        self.conn().rollback_due.store(true, Ordering::Release);
        self.seen(self.conn().batch(self.conn().rules.texts().begin).await)?;
        Ok(Transaction { lease: self, failed: false.into() })
    }

    /// Makes the server cancel each further statement of this lease that runs longer than `limit`, such as the
    /// time that is left to answer a request. Never lengthens `DB_STATEMENT_TIMEOUT`; ends with the lease.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`PgError::NoSession`] with `DB_TRANSACTION_POOLING`.
    pub async fn limit(&self, limit: Duration) -> Result<(), PgError> {
        if self.conn().rules.transaction_pooling {
            return Err(PgError::NoSession);
        }
        self.conn().limited.store(true, Ordering::Release);
        self.ready().await?;
        self.seen(self.conn().batch(&self.conn().rules.limit(limit)).await)
    }

    /// Has the connection closed instead of used again, such as when its session cannot be trusted any more.
    pub fn invalidate(self) {
        self.conn().unwanted.store(true, Ordering::Release);
    }

    /// Takes the connection out of the pool, for work that would hold a place for long. The place goes to the next
    /// caller at once; the lease works as before, outside the bound, and its connection is closed at the end.
    pub fn detach(&mut self) {
        self.held.detach();
    }

    /// Whether a statement may be sent now; ends a transaction that was dropped open.
    async fn ready(&self) -> Result<(), PgError> {
        let conn = self.conn();
        if conn.abandoned.load(Ordering::Acquire) {
            return Err(PgError::Unfinished);
        }
        if conn.is_dead() && self.held.pool().state.lock().is_draining() {
            return Err(PgError::Closed);
        }
        if conn.rollback_due.load(Ordering::Acquire) && conn.rollback_due.swap(false, Ordering::AcqRel) {
            self.seen(conn.batch(conn.rules.texts().rollback).await)?;
        }
        if let Some(deadline) = deadline::current() {
            conn.limit_by(deadline);
        }
        Ok(())
    }

    /// A connection that breaks condemns those opened before it: the server was probably restarted.
    fn seen<T>(&self, result: Result<T, PgError>) -> Result<T, PgError> {
        if matches!(result, Err(PgError::Lost { .. } | PgError::Stalled { .. })) {
            self.held.pool().suspect(self.conn().epoch);
        }
        result
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (pool, now) = (self.held.pool(), Instant::now());
        let took = now.saturating_duration_since(self.held.since);
        if took >= pool.config.leak_after
            && let Some(holder) = pool.state.lock().release(self.conn().id)
        {
            holder.returned(PoolKind::Postgres);
        }
        self.held.give_back(now, Some(took));
    }
}

/// An open transaction on a [`Lease`]. Dropped without [`commit`](Self::commit), it is rolled back: before the
/// lease's next statement, or before anybody else gets the connection.
#[must_use = "a transaction that is dropped is rolled back"]
#[derive(Debug)]
pub struct Transaction<'a> {
    lease: &'a Lease,
    /// A statement failed, so that the server would answer `COMMIT` with a rollback and call it success.
    failed: std::sync::atomic::AtomicBool,
}

impl Transaction<'_> {
    /// As [`Lease::query`].
    ///
    /// # Errors
    /// As [`Lease::query`].
    pub async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        self.check()?;
        self.seen(self.lease.conn().query(sql, params).await)
    }

    /// As [`Lease::query_opt`].
    ///
    /// # Errors
    /// As [`Lease::query_opt`].
    pub async fn query_opt(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, PgError> {
        self.query_first(sql, params).await?.at_most_one()
    }

    /// As [`Lease::query_one`].
    ///
    /// # Errors
    /// As [`Lease::query_one`].
    pub async fn query_one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, PgError> {
        self.query_first(sql, params).await?.exactly_one()
    }

    async fn query_first(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<First, PgError> {
        self.check()?;
        self.seen(self.lease.conn().query_first(sql, params).await)
    }

    /// As [`Lease::execute`].
    ///
    /// # Errors
    /// As [`Lease::query`].
    pub async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        self.check()?;
        self.seen(self.lease.conn().execute(sql, params).await)
    }

    /// As [`Lease::batch_execute`].
    ///
    /// # Errors
    /// As [`Lease::batch_execute`].
    pub async fn batch_execute(&self, sql: &str) -> Result<(), PgError> {
        self.check()?;
        self.seen(self.lease.conn().batch(sql).await)
    }

    /// [`batch_execute`](Self::batch_execute) for work whose server-side time-out was lifted.
    pub(super) async fn batch_within(&self, patience: Duration, sql: &str) -> Result<(), PgError> {
        self.check()?;
        self.seen(self.lease.conn().batch_within(patience, sql).await)
    }

    /// Makes the changes last.
    ///
    /// # Errors
    /// [`PgError::Aborted`] when an earlier statement failed: nothing was changed. [`PgError::Lost`] leaves open
    /// whether it was.
    ///
    /// # Cancel safety
    /// Dropped before its end, the server may or may not have committed.
    pub async fn commit(self) -> Result<(), PgError> {
        self.check()?;
        if self.failed.load(Ordering::Acquire) {
            self.lease.ready().await?;
            return Err(PgError::Aborted);
        }
        self.finish(self.lease.conn().rules.texts().commit).await
    }

    /// Undoes the changes.
    ///
    /// # Errors
    /// As [`Lease::query`]; the changes are undone all the same.
    pub async fn rollback(self) -> Result<(), PgError> {
        self.finish(self.lease.conn().rules.texts().rollback).await
    }

    async fn finish(&self, sql: &str) -> Result<(), PgError> {
        self.check()?;
        self.seen(self.lease.conn().batch(sql).await)?;
        self.lease.conn().rollback_due.store(false, Ordering::Release);
        Ok(())
    }

    fn check(&self) -> Result<(), PgError> {
        if self.lease.conn().abandoned.load(Ordering::Acquire) { Err(PgError::Unfinished) } else { Ok(()) }
    }

    fn seen<T>(&self, result: Result<T, PgError>) -> Result<T, PgError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        self.lease.seen(result)
    }
}
