//! One open connection: statements on it, the check, its end.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bb8_postgres::tokio_postgres::{
    self as driver, CancelToken, Client, Row, Statement, error::SqlState, types::ToSql,
};
use parking_lot::Mutex;
use tokio::{
    net::UnixStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    cache::Statements,
    error::{PgError, is_disconnect},
    tls::Connector,
    wire::Wire,
};

/// How to reach a connection that somebody else holds.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) token: Token,
    pub(super) wire: Arc<Wire>,
    /// Set by the connection's task when it ends.
    pub(super) ended: AtomicBool,
    /// Makes the connection's task close the socket at once.
    pub(super) cut: CancellationToken,
}

/// Asks the server to cancel what a connection is doing.
pub(super) struct Token {
    pub(super) token: CancelToken,
    pub(super) connector: Connector,
    /// The socket, when it is not TCP.
    pub(super) socket: Option<PathBuf>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key of a cancel request is a secret.
        f.debug_struct("Token").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Token {
    /// Returns when the server has closed the request's own connection, which is after the signal was sent: no
    /// statement begun later can be hit by it.
    pub(super) async fn cancel(&self) -> Result<(), driver::Error> {
        let Some(path) = &self.socket else {
            return self.token.cancel_query(self.connector.fresh()).await;
        };
        match UnixStream::connect(path).await {
            Ok(stream) => self.token.cancel_query_raw(stream, self.connector.plain().handshake("")).await,
            // Without the socket there is no server, and nothing left to cancel.
            Err(_) => Ok(()),
        }
    }
}

/// An open connection. Dropping it closes it in the background; [`close`](Self::close) waits for that.
#[derive(Debug)]
pub(super) struct Conn {
    // The client goes before the statements: each of those would send a message of its own to be closed.
    pub(super) client: Client,
    pub(super) statements: Mutex<Statements>,
    pub(super) id: u64,
    pub(super) epoch: u64,
    pub(super) expires: Instant,
    /// When it was last given back.
    pub(super) used: Instant,
    pub(super) link: Arc<Link>,
    pub(super) driver: JoinHandle<Option<()>>,
    /// Longest wait for any answer, a little above the server's own statement time-out.
    pub(super) patience: Duration,
    /// A statement's future was dropped before it ended.
    pub(super) abandoned: AtomicBool,
    /// A transaction was dropped open.
    pub(super) rollback_due: AtomicBool,
    /// `statement_timeout` was changed.
    pub(super) limited: AtomicBool,
    /// It did not answer in time; closing it politely would only wait again.
    pub(super) stalled: AtomicBool,
}

impl Conn {
    pub(super) fn is_dead(&self) -> bool {
        self.link.ended.load(Ordering::Acquire) || self.client.is_closed()
    }

    pub(super) async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        self.run(async {
            let statement = self.prepare(sql).await?;
            match self.client.query(&statement, params).await {
                Err(error) if self.is_outdated(&error) => {
                    self.client.query(&self.prepare_again(sql).await?, params).await
                }
                result => result,
            }
        })
        .await
    }

    pub(super) async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        self.run(async {
            let statement = self.prepare(sql).await?;
            match self.client.execute(&statement, params).await {
                Err(error) if self.is_outdated(&error) => {
                    self.client.execute(&self.prepare_again(sql).await?, params).await
                }
                result => result,
            }
        })
        .await
    }

    /// One or more statements as text.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), PgError> {
        self.batch_within(self.patience, sql).await
    }

    /// The same for work whose server-side time-out was lifted.
    pub(super) async fn batch_within(&self, patience: Duration, sql: &str) -> Result<(), PgError> {
        if asks_for_copy_data(sql) {
            return Err(PgError::Copy);
        }
        self.run_within(patience, self.client.batch_execute(sql)).await
    }

    /// One round trip.
    pub(super) async fn ping(&self, limit: Duration) -> bool {
        let unfinished = Unfinished::begin(&self.abandoned);
        match timeout(limit, self.client.batch_execute("")).await {
            Ok(answer) => {
                unfinished.end();
                answer.is_ok()
            }
            Err(_) => {
                self.stalled.store(true, Ordering::Release);
                false
            }
        }
    }

    async fn run<T>(&self, work: impl Future<Output = Result<T, driver::Error>>) -> Result<T, PgError> {
        self.run_within(self.patience, work).await
    }

    async fn run_within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, driver::Error>>,
    ) -> Result<T, PgError> {
        let unfinished = Unfinished::begin(&self.abandoned);
        let Ok(result) = timeout(patience, work).await else {
            return Err(PgError::Stalled { after: patience });
        };
        unfinished.end();
        result.map_err(PgError::of_statement)
    }

    async fn prepare(&self, sql: &str) -> Result<Statement, driver::Error> {
        let cached = self.statements.lock().get(sql);
        match cached {
            Some(statement) => Ok(statement),
            None => self.prepare_again(sql).await,
        }
    }

    async fn prepare_again(&self, sql: &str) -> Result<Statement, driver::Error> {
        let statement = self.client.prepare(sql).await?;
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

    /// Brings a connection whose last user left something behind back to idle: what still runs is cancelled, an
    /// open transaction rolled back.
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
            self.client.batch_execute("ROLLBACK").await?;
        }
        self.rollback_due.store(false, Ordering::Release);
        if self.limited.swap(false, Ordering::AcqRel) {
            self.client.batch_execute("RESET statement_timeout").await?;
        }
        Ok(())
    }

    /// Cancels, and waits until everything sent so far is answered and no cancel request is on its way.
    async fn stop_statement(&self) -> Result<(), driver::Error> {
        // Most statements are over in this time, and a cancel request costs the server a process.
        const GRACE: Duration = Duration::from_millis(3);
        let mut fence = std::pin::pin!(self.fence());
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
        link.cut.cancel();
        // The task only has to drop a socket now; its result says nothing more.
        drop(driver.await);
        false
    }
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
