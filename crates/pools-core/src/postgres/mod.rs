//! The Postgres pool: SQLAlchemy's `QueuePool` on bb8, and what it lacks — order, real causes, cancel safety,
//! rollback on return, leak reports, a pipelined lane.
//!
//! ```text
//!             ┌────────────── gate: size + overflow places, fair, bounded queue ──────────────┐
//!  acquire ──►│ slot (bb8) ──► connection fit for use? ──► Lease ──drop──► clean? ──► idle      │
//!             │    │ empty        │ no                                     │ no                │
//!             │    └──► open ◄─────┘                                       └──► cleaned, closed │
//!             └──────────────────────────── tasks of the pool ─────────────────────────────────┘
//! ```
//!
//! bb8 holds *slots*: making one cannot fail, so bb8 has no errors to hide and nothing to retry. A place in the
//! gate comes first, so bb8 never makes anybody wait; while callers wait for places, a connection goes from hand to hand with
//! its slot and its place, and while nobody does, the latest that was given back stays at hand with both. Opening,
//! cleaning and closing run in tasks that keep the place, so at most `size + overflow` connections exist at any time by
//! the server's own count.
//!
//! **Limits.** The wait for a place ends after `DB_POOL_TIMEOUT`, opening after `DB_CONNECT_TIMEOUT`, a check after
//! 1 s, cleaning and closing after 2 s each. A server process that does not react to being cancelled or closed
//! (a frozen server) outlives its connection: `pools_postgres_cut_off_total` counts those.
//!
//! **Cancel safety.** Every future here may be dropped at any point. A dropped `acquire` leaves the queue or gives
//! its connection to the next caller; a dropped statement is cancelled on the server before anybody else gets the
//! connection.
//!
//! **Deadlines.** By the [deadline](crate::resilience::deadline) of its caller every statement has ended, and an acquire
//! too but for a check that is under way: cut short, it would condemn a connection for its caller's haste. Where less
//! than half of the server's own statement time-out is left, a lease's next statement tells the server.
//!
//! **A panic** in a holder drops its lease. **Shutdown**: [`Pool::drain`] refuses new callers, waits for leases
//! until its deadline, then cuts and names them.
//!
//! **At run time**: [`PgPool::resize`], [`PgPool::pause`], [`PgPool::resume`], [`PgPool::invalidate`],
//! [`Lease::invalidate`], [`Lease::detach`]. No waiter loses its turn by them.
//!
//! **Behind PgBouncer** in transaction mode: `DB_TRANSACTION_POOLING`.
//!
//! **Not here**: row streams, `COPY`, receiving what `LISTEN` listens for. Statements that a caller names with
//! `PREPARE` stay in the session under either `DB_RESET`.
//!
//! ```no_run
//! use pools_core::postgres::{PgConfig, PgError, PgPool};
//!
//! # async fn example() -> Result<(), PgError> {
//! let pool = PgPool::open(PgConfig { url: Some("postgresql://app@localhost/app".into()), ..PgConfig::default() })?;
//! let mut lease = pool.acquire().await?;
//! let transaction = lease.begin().await?;
//! transaction.execute("UPDATE loans SET status = $1 WHERE id = $2", &[&"repaid", &7_i64]).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```

mod binding;
mod cache;
mod changes;
mod checkout;
mod conn;
mod control;
mod drain;
mod errand;
mod error;
mod held;
mod lane;
mod lease;
mod link;
mod manager;
mod migrate;
mod opener;
mod opening;
mod rules;
mod seat;
mod state;
mod stats;
mod supervise;
#[cfg(test)]
mod tests;
mod tls;
mod url;
mod watch;
mod wire;

pub use bb8_postgres::tokio_postgres::{
    Row,
    error::{DbError, SqlState},
    types::{self, FromSql, ToSql},
};

pub use self::{
    error::{OpenError, PgError, UrlFault},
    lane::Lane,
    lease::{Lease, Transaction},
    migrate::Migration,
    stats::PoolStats,
};
pub use crate::config::postgres::PgConfig;

use std::{
    fmt,
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use bb8_postgres::bb8::{self, QueueStrategy};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use self::{
    changes::Changes,
    errand::Caller,
    held::Held,
    lane::Member,
    link::Link,
    manager::{Manager, Slots},
    opener::Opener,
    rules::Rules,
    seat::Seated,
    state::{Bounds, State},
    url::Target,
};
use crate::{
    admission::Admission,
    config::postgres as config,
    health::{Health, HealthCell},
    holders::{self, Leases, Record},
    pool::{Drained, Pool, PoolKind},
    stats::{Recorder, Snapshot},
    tasks::Tasks,
};

/// bb8 never makes anybody wait for long; if it did after all, this is when its caller would hear of it.
const SLOT_TIMEOUT: Duration = Duration::from_secs(60);

/// `DB_POOL_SIZE` and `DB_MAX_OVERFLOW` at their largest.
const MOST_SLOTS: u32 = 20_000;

/// A pool of connections to one Postgres. Clones share the same connections.
#[derive(Clone)]
pub struct PgPool(Arc<Shared>);

/// Everything the pool's parts share. Each part's methods stand in its own file.
struct Shared {
    config: PgConfig,
    rules: Rules,
    manager: Manager,
    slots: bb8::Pool<Slots>,
    gate: Arc<Admission<Held>>,
    /// Idle, and out of bb8's queue.
    seat: Mutex<Option<Seated>>,
    opener: Arc<Opener>,
    state: Mutex<State<Arc<Link>>>,
    /// Why the last connect failed; `None` after one that succeeded.
    connect_error: Mutex<Option<OpenError>>,
    lane: Vec<Member>,
    recorder: Recorder,
    health: HealthCell,
    /// Opening, cleaning, closing, supervising.
    tasks: Tasks,
    /// One per open connection. Apart from the others, since closing waits for these.
    links: Tasks,
    runtime: Handle,
    /// A connection ended: look whether the server is still there.
    wake: Arc<Notify>,
    /// More than `size` connections are idle.
    surplus: Arc<Notify>,
    changes: Changes,
    capacity_checked: AtomicBool,
    cleaned: AtomicU64,
    cut_off: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("connections", &self.state.lock().counts()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PgPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PgPool").field(&self.stats()).finish()
    }
}

impl PgPool {
    /// A pool without connections. Nothing is sent here; its tasks begin to look for the server.
    ///
    /// # Errors
    /// [`PgError::Url`] when the URL is absent or not understood, [`PgError::MinIdle`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(config: PgConfig) -> Result<Self, PgError> {
        if config.min_idle > config.size {
            return Err(PgError::MinIdle { min_idle: config.min_idle, size: config.size });
        }
        let target = Target::parse(&config).map_err(|fault| PgError::Url { fault })?;
        let bounds = Bounds { size: config.size, overflow: config.overflow };
        let slots = bb8::Pool::builder()
            // The gate is the bound; bb8 has one that cannot be changed later.
            .max_size(MOST_SLOTS)
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(SLOT_TIMEOUT)
            .queue_strategy(QueueStrategy::Lifo)
            .build_unchecked(Slots);
        let shared = Arc::new(Shared {
            rules: Rules::of(&config, target.statement_timeout),
            manager: Manager::new(target),
            slots,
            gate: Arc::new(Admission::handing_on(bounds.all(), config.queue)),
            seat: Mutex::default(),
            opener: Arc::default(),
            state: Mutex::new(State::new(bounds)),
            connect_error: Mutex::default(),
            lane: Member::all(&config),
            recorder: Recorder::default(),
            health: HealthCell::new(PoolKind::Postgres),
            tasks: Tasks::new(),
            links: Tasks::new(),
            runtime: Handle::current(),
            wake: Arc::default(),
            surplus: Arc::default(),
            changes: Changes::default(),
            capacity_checked: AtomicBool::new(false),
            cleaned: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
            config,
        });
        holders::watch(&shared, &shared.tasks, shared.config.leak_after);
        supervise::start(&shared);
        Ok(Self(shared))
    }

    /// Takes a connection, waiting for a place at most `DB_POOL_TIMEOUT`, in order of arrival.
    ///
    /// # Errors
    /// [`PgError::Exhausted`], [`PgError::QueueFull`], [`PgError::Open`] with the real reason at once, or
    /// [`PgError::Closed`].
    ///
    /// # Cancel safety
    /// Dropped at any point, nothing is lost; a connection being opened goes to the next caller.
    // Not an `async fn`: `track_caller` does nothing there.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<Lease, PgError>> + Send + use<> {
        Arc::clone(&self.0).acquire(Caller::at(Location::caller()))
    }

    /// Single statements over shared connections.
    #[track_caller]
    pub fn lane(&self) -> Lane {
        Lane::new(Arc::clone(&self.0), Location::caller())
    }

    /// Applies those migrations that the database does not have yet, in the order given; returns how many.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); [`PgError::Migration`] with the first that fails (it is rolled back, those
    /// before it stay); [`PgError::MigrationChanged`].
    #[track_caller]
    pub fn migrate<'a>(
        &self,
        migrations: &'a [Migration<'a>],
    ) -> impl Future<Output = Result<u32, PgError>> + Send + use<'a> {
        Arc::clone(&self.0).migrate(migrations, Location::caller())
    }

    /// Waits until `DB_MIN_IDLE` connections are open; at once when that is 0.
    ///
    /// # Errors
    /// Why the last attempt failed, when `deadline` passes first. The pool goes on trying by itself.
    ///
    /// # Cancel safety
    /// Dropped at any point, what was opened stays.
    pub async fn warm(&self, deadline: Instant) -> Result<(), PgError> {
        self.0.warm(deadline).await
    }

    /// Changes `DB_POOL_SIZE` and `DB_MAX_OVERFLOW`. Waiters get new places in order. What is idle and beyond the
    /// new bounds is closed now; what is out, when it comes back.
    ///
    /// # Panics
    /// With a size of 0, or more than 10,000 of either.
    pub fn resize(&self, size: u32, overflow: u32) {
        self.0.resize(Bounds { size, overflow });
    }

    /// Gives out no connections until [`resume`](Self::resume): callers wait, at most `DB_POOL_TIMEOUT`. Returns
    /// whether everything that was out came back by `deadline`; the pool is paused in any case.
    pub async fn pause(&self, deadline: Instant) -> bool {
        self.0.pause(deadline).await
    }

    /// Ends a pause. Whoever waited longest is served first.
    pub fn resume(&self) {
        self.0.resume();
    }

    /// Has every connection opened so far closed: idle ones now, others when they come back. For a change of
    /// servers or credentials behind the same URL.
    pub fn invalidate(&self) {
        self.0.invalidate();
    }

    /// The guide's `/pool/stats`.
    pub fn stats(&self) -> PoolStats {
        self.0.stats()
    }

    /// Whether the server answers.
    pub fn health(&self) -> Health {
        self.0.health.get()
    }
}

impl Pool for PgPool {
    fn kind(&self) -> PoolKind {
        PoolKind::Postgres
    }

    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    fn drain(&self, deadline: Instant) -> BoxFuture<'_, Drained> {
        Box::pin(self.0.drain(deadline))
    }
}

impl Leases for Shared {
    fn pool(&self) -> PoolKind {
        PoolKind::Postgres
    }

    fn visit(&self, see: &mut dyn FnMut(&mut Record)) {
        self.state.lock().holders().for_each(see);
    }
}

impl Shared {
    /// Runs `work` as a task of the pool.
    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(name, work));
    }
}
