//! One open connection: statements on it, the check, its end.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bb8_postgres::tokio_postgres::{self as driver, Client, Row, Statement, error::SqlState, types::ToSql};
use futures_util::{FutureExt, TryStreamExt, future::join};
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    cache::Statements,
    error::{PgError, is_disconnect},
    link::Link,
    rules::{FULL_RESET, MARGIN, Rules, Texts},
    state::ConnId,
};
use crate::resilience::deadline;

/// The first of the rows that were found.
#[derive(Default)]
pub(super) struct First {
    row: Option<Row>,
    found: usize,
}

impl First {
    pub(super) fn at_most_one(self) -> Result<Option<Row>, PgError> {
        match self.found {
            0 | 1 => Ok(self.row),
            found => Err(PgError::Rows { expected: "at most one", found }),
        }
    }

    pub(super) fn exactly_one(self) -> Result<Row, PgError> {
        self.at_most_one()?.ok_or(PgError::Rows { expected: "one", found: 0 })
    }
}

/// An open connection. Dropping it closes it in the background; [`close`](Self::close) waits for that.
#[derive(Debug)]
pub(super) struct Conn {
    // The client goes before the statements: each of those would send a message of its own to be closed.
    pub(super) client: Client,
    pub(super) statements: Mutex<Statements>,
    pub(super) id: ConnId,
    pub(super) epoch: u64,
    pub(super) expires: Instant,
    /// When it was last given back.
    pub(super) used: Instant,
    pub(super) link: Arc<Link>,
    pub(super) driver: JoinHandle<Option<()>>,
    /// A statement's future was dropped before it ended.
    pub(super) abandoned: AtomicBool,
    /// A transaction was dropped open.
    pub(super) rollback_due: AtomicBool,
    /// `statement_timeout` was changed.
    pub(super) limited: AtomicBool,
    /// It did not answer in time; closing it politely would only wait again.
    pub(super) stalled: AtomicBool,
    /// A statement was run since the last full reset.
    pub(super) touched: AtomicBool,
    /// Its holder wants it closed.
    pub(super) unwanted: AtomicBool,
    pub(super) rules: Rules,
    /// Held by a statement in a transaction that we opened for it: those of others must not get into it.
    pub(super) alone: tokio::sync::Mutex<()>,
}

impl Conn {
    pub(super) fn is_dead(&self) -> bool {
        self.link.ended.load(Ordering::Acquire) || self.client.is_closed()
    }

    pub(super) async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        self.prepared(sql, |statement| async move { self.client.query(&statement, params).await }).await
    }

    /// The first row, and how many there were.
    pub(super) async fn query_first(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<First, PgError> {
        let call = |statement| async move {
            let mut rows = pin!(self.client.query_raw(&statement, params.iter().copied()).await?);
            let mut first = First::default();
            while let Some(row) = rows.try_next().await? {
                first.found += 1;
                first.row.get_or_insert(row);
            }
            Ok(first)
        };
        self.prepared(sql, call).await
    }

    pub(super) async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        self.prepared(sql, |statement| async move { self.client.execute(&statement, params).await }).await
    }

    async fn prepared<T, F>(&self, sql: &str, call: impl Fn(Statement) -> F) -> Result<T, PgError>
    where
        F: Future<Output = Result<T, driver::Error>>,
    {
        let work = pin!(async {
            if self.rules.transaction_pooling {
                return Box::pin(self.in_one_transaction(sql, call)).await;
            }
            match call(self.prepare(sql).await?).await {
                Err(error) if self.is_outdated(&error) => call(self.prepare_again(sql).await?).await,
                result => result,
            }
        });
        self.run(|| excerpt(sql), work).await
    }

    /// Only inside a transaction does a proxy that pools by transaction keep us on the session in which the
    /// statement was prepared.
    async fn in_one_transaction<T, F>(
        &self,
        sql: &str,
        call: impl Fn(Statement) -> F,
    ) -> Result<T, driver::Error>
    where
        F: Future<Output = Result<T, driver::Error>>,
    {
        let _alone = self.alone.lock().await;
        if !self.link.wire.outside_transaction() {
            return call(self.client.prepare(sql).await?).await;
        }
        // Polled in this order, and therefore sent in it.
        let Texts { begin, commit, rollback } = self.rules.texts();
        let (begun, statement) = join(self.client.batch_execute(begin), self.client.prepare(sql)).await;
        begun?;
        let result = match statement {
            Ok(statement) => call(statement).await,
            Err(error) => Err(error),
        };
        let ended = self.client.batch_execute(if result.is_ok() { commit } else { rollback }).await;
        // The statement's own error says more than the end's.
        result.and_then(|value| ended.map(|()| value))
    }

    /// One or more statements as text.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), PgError> {
        if asks_for_copy_data(sql) {
            return Err(PgError::Copy);
        }
        let _alone = match self.rules.transaction_pooling {
            true => Some(self.alone.lock().await),
            false => None,
        };
        // Text may have values in it that are nobody's business: the log gets the first word.
        let first_word = || sql.split_whitespace().next().unwrap_or_default().to_owned();
        self.run(first_word, pin!(self.client.batch_execute(sql))).await
    }

    /// The same for work whose server-side time-out was lifted.
    pub(super) async fn batch_within(&self, patience: Duration, sql: &str) -> Result<(), PgError> {
        let _allowance = self.link.watch.allow(patience);
        self.batch(sql).await
    }

    /// Tells the server when less time is left than it would take by itself, in front of the next statement. Once per
    /// lease; [`clean`](Self::clean) undoes it.
    pub(super) fn limit_by(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(share) = self.rules.share_of(left) else { return };
        if !self.limited.swap(true, Ordering::AcqRel) {
            // Polled once, it is sent. Nobody waits for the answer, which comes before that of the statement.
            drop(self.client.batch_execute(&self.rules.limit(share)).now_or_never());
        }
    }

    /// One round trip.
    pub(super) async fn ping(&self, limit: Duration) -> bool {
        let unfinished = Unfinished::begin(&self.abandoned);
        let _allowance = self.link.watch.allow(limit);
        let answer = self.client.batch_execute("").await;
        unfinished.end();
        answer.is_ok()
    }

    async fn run<T>(
        &self,
        shown: impl Fn() -> String,
        work: Pin<&mut impl Future<Output = Result<T, driver::Error>>>,
    ) -> Result<T, PgError> {
        let (started, deadline) = (Instant::now(), deadline::current());
        if deadline.is_some_and(|deadline| deadline <= started) {
            return Err(PgError::Late { after: Duration::ZERO });
        }
        let unfinished = Unfinished::begin(&self.abandoned);
        self.touched.store(true, Ordering::Release);
        let result = match deadline {
            None => Ok(work.await),
            Some(deadline) => timeout_at(deadline, work).await,
        };
        let took = started.elapsed();
        if took >= self.rules.slow && !self.rules.slow.is_zero() {
            tracing::warn!(pool = "postgres", ?took, statement = shown(), "slow statement");
        }
        match result {
            Ok(result) => {
                unfinished.end();
                result.map_err(|error| match deadline {
                    Some(deadline) if self.was_cut_short(&error, deadline) => PgError::Late { after: took },
                    _ if self.link.watch.is_silent() => {
                        PgError::Stalled { after: self.link.watch.patience() }
                    }
                    _ => PgError::of_statement(error),
                })
            }
            Err(_) => Err(PgError::Late { after: took }),
        }
    }

    /// Whether the server ended the statement because of the [limit](Self::limit_by) that the deadline has led to.
    fn was_cut_short(&self, error: &driver::Error, deadline: Instant) -> bool {
        error.code() == Some(&SqlState::QUERY_CANCELED)
            && self.limited.load(Ordering::Acquire)
            && Instant::now() + 2 * MARGIN >= deadline
    }

    async fn prepare(&self, sql: &str) -> Result<Statement, driver::Error> {
        let cached = self.statements.lock().get(sql);
        match cached {
            Some(statement) => Ok(statement),
            None => self.prepare_again(sql).await,
        }
    }

    async fn prepare_again(&self, sql: &str) -> Result<Statement, driver::Error> {
        // In a box, since it is large and seldom needed.
        let statement = Box::pin(self.client.prepare(sql)).await?;
        self.statements.lock().put(sql, statement.clone());
        Ok(statement)
    }

    /// Whether the server's plan is from before a change of the schema. Inside a transaction the error has
    /// already aborted it, and trying again would only hide that.
    fn is_outdated(&self, error: &driver::Error) -> bool {
        let outdated = error.as_db_error().is_some_and(|error| {
            *error.code() == SqlState::INVALID_SQL_STATEMENT_NAME
                || (*error.code() == SqlState::FEATURE_NOT_SUPPORTED
                    && error.routine() == Some("RevalidateCachedQuery"))
        });
        outdated && self.link.wire.outside_transaction()
    }

    /// Whether its last user left something behind.
    pub(super) fn needs_cleaning(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
            || self.limited.load(Ordering::Acquire)
            || (self.rules.full_reset && self.touched.load(Ordering::Acquire))
            || self.link.wire.busy()
            || !self.link.wire.outside_transaction()
    }

    /// Brings a connection whose last user left something behind back to idle: what still runs is cancelled, an
    /// open transaction rolled back, and under `DB_RESET=full` the session reset.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub(super) async fn clean(&self) -> Result<(), driver::Error> {
        if self.abandoned.load(Ordering::Acquire) {
            self.stop_statement().await?;
            self.abandoned.store(false, Ordering::Release);
        } else if self.link.wire.busy() {
            self.fence().await?;
        }
        if !self.link.wire.outside_transaction() {
            self.client.batch_execute(self.rules.texts().rollback).await?;
        }
        self.rollback_due.store(false, Ordering::Release);
        let limited = self.limited.swap(false, Ordering::AcqRel);
        if self.rules.full_reset && self.touched.swap(false, Ordering::AcqRel) {
            self.client.batch_execute(FULL_RESET).await?;
        } else if limited {
            self.client.batch_execute("RESET statement_timeout").await?;
        }
        Ok(())
    }

    /// Cancels, and waits until everything sent so far is answered and no cancel request is on its way.
    async fn stop_statement(&self) -> Result<(), driver::Error> {
        // Most statements are over in this time, and a cancel request costs the server a process.
        const GRACE: Duration = Duration::from_millis(3);
        let mut fence = pin!(self.fence());
        let mut pause = GRACE;
        for _ in 0..4 {
            if let Ok(answered) = timeout(pause, &mut fence).await {
                return answered;
            }
            // Sequential on purpose: the fence is not looked at before the request has come to its end, so that
            // nobody after us can be hit by it. A request may come too early (the statement still sits in the
            // driver's queue), hence more than one.
            self.link.token.cancel().await?;
            pause = (pause * 8).max(Duration::from_millis(25));
        }
        fence.await
    }

    /// An empty query behind everything sent so far.
    async fn fence(&self) -> Result<(), driver::Error> {
        match self.client.batch_execute("").await {
            // The cancel request may hit the fence itself.
            Err(error) if !is_disconnect(&error) && error.code().is_some() => Ok(()),
            answer => answer,
        }
    }

    /// Closes it and waits for the server's end of it, at most `grace`. False when it had to be cut off, so that
    /// its server process may live on for a while.
    pub(super) async fn close(self: Box<Self>, grace: Duration) -> bool {
        let Self { client, statements, mut driver, link, stalled, .. } = *self;
        drop(client);
        drop(statements);
        let grace = if stalled.into_inner() { Duration::ZERO } else { grace };
        if timeout(grace, &mut driver).await.is_ok() {
            return true;
        }
        link.cut();
        // The task only has to drop a socket now; its result says nothing more.
        drop(driver.await);
        false
    }
}

/// A statement as the log shows it: one line, of bounded length.
fn excerpt(sql: &str) -> String {
    const LENGTH: usize = 200;
    let words: Vec<_> = sql.split_whitespace().collect();
    words.join(" ").chars().take(LENGTH).collect()
}

fn asks_for_copy_data(sql: &str) -> bool {
    let words: Vec<_> = sql.split_whitespace().map(str::to_ascii_lowercase).collect();
    words.iter().any(|word| word == "copy")
        && words.windows(2).any(|pair| pair[0] == "from" && pair[1].starts_with("stdin"))
}

/// Marks the connection when the future that owns this is dropped before its end.
struct Unfinished<'a> {
    mark: &'a AtomicBool,
    ended: bool,
}

impl<'a> Unfinished<'a> {
    fn begin(mark: &'a AtomicBool) -> Self {
        Self { mark, ended: false }
    }

    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.mark.store(true, Ordering::Release);
        }
    }
}
