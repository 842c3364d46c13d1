//! Single statements from many callers over few connections, pipelined.
//!
//! ```text
//!  caller ─┐                          ┌─► answers in order
//!  caller ─┼─► member 0 ─ lease ─ wire ┤
//!  caller ─┘   member 1 (from the 16th statement at a time)
//! ```
//!
//! A member holds an ordinary lease while it carries statements, and gives it back with the last of them: so its
//! connections are inside the pool's bound, checked, recycled, cleaned and drained as all others.
//!
//! Who finds no member waits for one acquire together with the others: it goes on as long as one of them waits, and
//! its lease is for all of them. So a caller that goes away loses nobody's turn, and those who wait for a place wait
//! once, not one after the other.
//!
//! **Limits**: autocommit only; a slow statement holds up those behind it on the same connection. Statements of
//! one caller run in the order in which it awaits them. The first word tells what needs a connection to itself, but
//! not what a function does: one that changes the session (`pg_advisory_lock`, `set_config` for more than its
//! transaction) does so for everybody, and belongs on a lease.
//! **Sent again** is only what the caller calls a [`read`](Lane::read).
//! **Cancel safety**: a statement whose future is dropped, or whose caller's deadline passes, runs on; its member takes
//! no new statements, and when its neighbours are done it is cancelled on the server. The server's own statement
//! time-out holds for it and for each of them.

use std::{
    panic::Location,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use bb8_postgres::tokio_postgres::{Row, types::ToSql};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared as Joined, WeakShared},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::{Shared, config::PgConfig, conn::First, errand::Caller, error::PgError, lease::Lease};
use crate::resilience::{deadline, outgoing};

/// Statements at a time on one member before the next one is opened: few round trips' worth, so that a lone
/// caller never opens two connections.
const FULL: usize = 16;

/// Statements that may share a connection: each is a transaction of its own and changes no session state.
const ALONE: [&str; 9] = ["select", "insert", "update", "delete", "merge", "with", "values", "table", "show"];

/// Beyond any limit that an acquire has.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// An acquire that several callers wait for. Errors are shared, hence the `Arc`.
type Acquiring = BoxFuture<'static, Result<Arc<Lease>, Arc<PgError>>>;

#[derive(Debug, Default)]
pub(super) struct Member {
    carrier: Mutex<Weak<Lease>>,
    /// Owned by those who wait for it: with the last of them it is over.
    acquiring: Mutex<Option<WeakShared<Acquiring>>>,
}

impl Member {
    /// Those of a pool.
    pub(super) fn all(config: &PgConfig) -> Vec<Self> {
        let off = config.transaction_pooling;
        let count = if off { 0 } else { config.pipeline_connections.min(config.size) };
        (0..count).map(|_| Self::default()).collect()
    }

    /// The lease it carries, if new statements may go there: it is of this epoch, which a paused pool has none of.
    fn usable(&self, epoch: Option<u64>, now: Instant) -> Option<Arc<Lease>> {
        let carrier = self.carrier.lock().upgrade()?;
        let conn = carrier.conn();
        let good = Some(conn.epoch) == epoch
            && !conn.is_dead()
            && !conn.abandoned.load(Ordering::Acquire)
            && now < conn.expires;
        good.then_some(carrier)
    }
}

/// Sends single statements over shared connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lane {
    pool: Arc<Shared>,
    site: &'static Location<'static>,
}

impl Lane {
    pub(super) fn new(pool: Arc<Shared>, site: &'static Location<'static>) -> Self {
        Self { pool, site }
    }

    /// All rows of a statement, which is sent once. See [`read`](Self::read) for those that may be sent again.
    ///
    /// # Errors
    /// As [`Lease::query`]; [`PgError::NotAlone`] for statements that need a connection to themselves.
    pub async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        let carrier = self.carrier(sql).await?;
        self.seen(&carrier, carrier.conn().query(sql, params).await)
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

    /// All rows of a statement that changes nothing, by the caller's word: it is sent once more when the shared
    /// connection breaks under it. A `SELECT` of a function that writes must not come here.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn read(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PgError> {
        match self.query(sql, params).await {
            Err(PgError::Lost { .. }) => self.query(sql, params).await,
            result => result,
        }
    }

    async fn query_first(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<First, PgError> {
        let carrier = self.carrier(sql).await?;
        self.seen(&carrier, carrier.conn().query_first(sql, params).await)
    }

    async fn read_first(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<First, PgError> {
        match self.query_first(sql, params).await {
            Err(PgError::Lost { .. }) => self.query_first(sql, params).await,
            result => result,
        }
    }

    /// The only row of a [`read`](Self::read), or none.
    ///
    /// # Errors
    /// As [`query_opt`](Self::query_opt).
    pub async fn read_opt(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, PgError> {
        self.read_first(sql, params).await?.at_most_one()
    }

    /// The only row of a [`read`](Self::read).
    ///
    /// # Errors
    /// As [`query_one`](Self::query_one).
    pub async fn read_one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, PgError> {
        self.read_first(sql, params).await?.exactly_one()
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PgError> {
        let carrier = self.carrier(sql).await?;
        self.seen(&carrier, carrier.conn().execute(sql, params).await)
    }

    fn seen<T>(&self, carrier: &Lease, result: Result<T, PgError>) -> Result<T, PgError> {
        if matches!(result, Err(PgError::Lost { .. } | PgError::Stalled { .. })) {
            self.pool.suspect(carrier.conn().epoch);
        }
        result
    }

    pub(super) async fn carrier(&self, sql: &str) -> Result<Arc<Lease>, PgError> {
        if !begins_with(sql, &ALONE) {
            return Err(PgError::NotAlone);
        }
        outgoing::begin().await;
        let started = Instant::now();
        let latest = started + self.pool.config.timeout;
        let latest = deadline::current().map_or(latest, |deadline| deadline.min(latest));
        let mut now = started;
        loop {
            let Members { best, vacant } = self.pool.members(now);
            let vacant = match (best, vacant) {
                (Some((load, carrier)), vacant) => {
                    if load > 1 {
                        carrier.conn().link.wire.shared.store(true, Ordering::Relaxed);
                    }
                    match vacant {
                        Some(vacant) if load >= FULL && self.pool.has_room() => vacant,
                        _ => return Ok(carrier),
                    }
                }
                (None, Some(vacant)) => vacant,
                // Without members the lane is an acquire per statement.
                (None, None) => return self.acquire().await,
            };
            let (acquiring, new) = match self.join(vacant, now) {
                Vacancy::Acquiring { acquiring, new } => (acquiring, new),
                Vacancy::Filled(carrier) => return Ok(carrier),
            };
            // One that begins now has the pool's own time-out as its limit, and its own error for it.
            let limit = if new { deadline::current() } else { Some(latest) };
            let result = match limit {
                None => acquiring.await,
                Some(limit) => match timeout_at(limit, acquiring).await {
                    Ok(result) => result,
                    Err(_) => return Err(self.pool.exhausted(started)),
                },
            };
            match result {
                Ok(carrier) => return Ok(carrier),
                // Began for a caller who had less time.
                Err(error) if matches!(*error, PgError::Exhausted { .. }) && Instant::now() < latest => {}
                Err(error) => return Err(error.of_acquire()),
            }
            now = Instant::now();
        }
    }

    /// The acquire under way for this member, or a new one, unless one ended since the member was seen vacant.
    pub(super) fn join(&self, member: usize, now: Instant) -> Vacancy {
        let epoch = self.pool.lane_epoch();
        let mut acquiring = self.pool.lane[member].acquiring.lock();
        if let Some(joined) = acquiring.as_ref().and_then(WeakShared::upgrade) {
            return Vacancy::Acquiring { acquiring: joined, new: false };
        }
        // A second acquire would put its lease in the place of this one: a connection more than the lane has members.
        if let Some(carrier) = self.pool.lane[member].usable(epoch, now) {
            return Vacancy::Filled(carrier);
        }
        let lane = self.clone();
        let new = async move {
            // It is for all who wait, and none of their deadlines is its own.
            let result = deadline::beyond(Instant::now() + NEVER, lane.acquire()).await;
            let member = &lane.pool.lane[member];
            if let Ok(carrier) = &result {
                *member.carrier.lock() = Arc::downgrade(carrier);
            }
            // From now on it is to be found there. Another acquire than this one cannot have begun meanwhile.
            *member.acquiring.lock() = None;
            result.map_err(Arc::new)
        };
        let new = new.boxed().shared();
        *acquiring = new.downgrade();
        Vacancy::Acquiring { acquiring: new, new: true }
    }

    async fn acquire(&self) -> Result<Arc<Lease>, PgError> {
        let caller = Caller { site: self.site, shared: true };
        Arc::clone(&self.pool).acquire(caller).await.map(Arc::new)
    }
}

impl Shared {
    /// Of which connections must be that take new statements.
    fn lane_epoch(&self) -> Option<u64> {
        let state = self.state.lock();
        (!state.is_paused()).then(|| state.epoch())
    }

    fn members(&self, now: Instant) -> Members {
        let epoch = self.lane_epoch();
        let mut members = Members { best: None, vacant: None };
        for (index, member) in self.lane.iter().enumerate() {
            let Some(carrier) = member.usable(epoch, now) else {
                members.vacant = members.vacant.or(Some(index));
                continue;
            };
            let load = Arc::strong_count(&carrier) - 1;
            if members.best.as_ref().is_none_or(|(least, _)| load < *least) {
                members.best = Some((load, carrier));
            }
        }
        members
    }
}

/// Where a statement could go.
struct Members {
    /// The one that carries the fewest, and how many.
    best: Option<(usize, Arc<Lease>)>,
    /// The first that takes none before it has a connection.
    vacant: Option<usize>,
}

/// What becomes of a member that was seen vacant.
pub(super) enum Vacancy {
    /// Wait for it, together with others.
    Acquiring { acquiring: Joined<Acquiring>, new: bool },
    /// It has its connection by now.
    Filled(Arc<Lease>),
}

fn begins_with(sql: &str, words: &[&str]) -> bool {
    let sql = sql.trim_ascii_start().as_bytes();
    let end = sql.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(sql.len());
    words.iter().any(|each| sql[..end].eq_ignore_ascii_case(each.as_bytes()))
}
