//! The Redis pool: one shared connection that recovers whatever happens, and a few dedicated ones.
//!
//! ```text
//!                  run ──► state: up? ──no──► Down { since, last_error }, in microseconds
//!                            │ yes
//!                            ▼
//!                    one multiplexed connection ◄── supervisor: opens, pings every 15 s, closes, tries again for ever
//!                            ▲                        (state.rs: up, degraded, down)
//!  acquire ──► Admission ──► bb8's slots ──► Lease: a connection of one's own (lease.rs)
//! ```
//!
//! Commands that answer at once go through [`RedisPool::run`]: sharing one connection pipelines them, which
//! carries several times as many as lending connections out. What blocks, watches or subscribes needs a
//! connection of its own, [`RedisPool::acquire`]; on the shared one it would hold everybody up.
//!
//! **Bounded.** At most one shared and [`Options::dedicated`] other connections, all named [`CLIENT_NAME`] on the
//! server; at most [`Options::in_flight`] commands unanswered; none above [`Options::command_bytes`]. There is no
//! queue of commands for later.
//!
//! **Prompt.** A command ends within `REDIS_COMMAND_TIMEOUT_MS`. After two silences in a row, or when the server
//! hangs up, the pool is down: calls fail at once and the supervisor reconnects, with pauses of 100 ms · 2ⁿ (full
//! jitter, at most 1 s) `REDIS_MAX_RETRIES` times, then, after one log line, every second for ever; every 30 s
//! when the server refuses our login. No call ever waits for a connection attempt.
//!
//! **Cancel safety.** `run` may be dropped at any point: the answer is thrown away when it comes, never given to
//! another. For leases see [`Lease`].
//!
//! **Tasks.** The supervisor and one driver per connection; they end with [`Pool::drain`], or soon after the last
//! [`RedisPool`] is dropped. A panic in a driver is a lost connection.
//!
//! **Not here.** Sentinel and Cluster; CLIENT TRACKING (the cache's first level relies on a short life instead).

mod error;
mod lease;
mod manager;
mod request;
mod state;
mod stats;
mod supervisor;

pub use self::{
    error::{BadUrl, Reason, RedisError},
    lease::Lease,
    manager::CLIENT_NAME,
    state::{End, Standing},
    stats::{COMMANDS, Connections, IN_FLIGHT, RedisStats},
};
pub use crate::config::redis::RedisConfig;
pub use ::redis::{Cmd, FromRedisValue, Pipeline, PushInfo, PushKind, ToRedisArgs, Value, cmd, pipe};

use std::{fmt, panic::Location, sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    lease::Lanes,
    manager::{Census, Manager},
    request::Request,
    state::State,
};
use crate::{
    health::{Health, HealthCell},
    pool::{Drained, Pool, PoolKind},
    redact::{ExposeSecret, printed_url},
    resilience::{deadline, outgoing},
    stats::{Recorder, Snapshot},
    tasks::Tasks,
};

/// How often a drain looks whether the last command and the last lease have ended.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// How long closing sockets may take beyond a deadline that has passed.
const CLOSING: Duration = Duration::from_secs(1);

/// Bounds that are no settings: nobody has needed to change one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Dedicated connections. Four, because what needs one is rare: a lock, a subscription, a queue.
    pub dedicated: u32,
    /// Callers that may wait for a dedicated connection.
    pub queue: u32,
    /// How long a caller waits for a dedicated connection.
    pub wait: Duration,
    /// Commands without an answer. At 100 B each this is a megabyte, and more than a second's worth would be
    /// past its deadline anyway.
    pub in_flight: u32,
    /// Largest command on the shared connection, in bytes of its arguments: what follows waits behind it.
    pub command_bytes: usize,
    /// A lease out for longer is reported, once: a leak, or work to be shortened.
    pub leak_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dedicated: 4,
            queue: 64,
            wait: Duration::from_secs(5),
            in_flight: 10_000,
            command_bytes: 32 << 20,
            leak_after: Duration::from_secs(60),
        }
    }
}

/// What the handles, the leases and the tasks of one pool share.
struct Shared {
    state: Mutex<State<::redis::aio::MultiplexedConnection>>,
    /// Wakes the supervisor to look at the state.
    look: Notify,
    first: watch::Sender<Option<Result<(), Reason>>>,
    manager: Manager,
    lanes: Lanes,
    shared_census: Arc<Census>,
    recorder: Recorder,
    health: HealthCell,
    tasks: Tasks,
    stop: CancellationToken,
    server: String,
    command_timeout: Duration,
    ping_interval: Duration,
    command_bytes: usize,
}

impl fmt::Debug for Shared {
    /// Not derived: the login among the fields is nobody's to see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A handle of the pool. Clones share it; when the last one is dropped the connections are closed.
#[derive(Clone, Debug)]
pub struct RedisPool {
    shared: Arc<Shared>,
    _last: Arc<DropGuard>,
}

impl RedisPool {
    /// Starts connecting in the background and returns at once, whether Redis is there or not.
    ///
    /// # Errors
    /// [`BadUrl`]: the URL can never work.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(config: RedisConfig) -> Result<Self, RedisError> {
        Self::open_with(config, Options::default())
    }

    /// [`open`](Self::open) with other bounds.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Panics
    /// As [`open`](Self::open), and when `options.dedicated` is 0.
    #[expect(clippy::needless_pass_by_value, reason = "the pool is the end of its settings' way")]
    pub fn open_with(config: RedisConfig, options: Options) -> Result<Self, RedisError> {
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let manager = Manager::new(&config, tasks.clone(), stop.clone())?;
        let epoch = (Instant::now(), Utc::now());
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(
                config.max_retries,
                config.command_timeout,
                options.in_flight,
                epoch,
            )),
            look: Notify::new(),
            first: watch::Sender::new(None),
            manager,
            lanes: Lanes::new(options.dedicated, options.queue, options.wait),
            shared_census: Arc::default(),
            recorder: Recorder::default(),
            health: HealthCell::new(PoolKind::Redis),
            tasks: tasks.clone(),
            stop: stop.clone(),
            server: printed_url(config.url.expose_secret()),
            command_timeout: config.command_timeout,
            ping_interval: config.ping_interval,
            command_bytes: options.command_bytes,
        });
        shared.lanes.holders.watch(&tasks, options.leak_after);
        tasks.spawn("redis supervisor", supervisor::run(Arc::clone(&shared)));
        Ok(Self { shared, _last: Arc::new(stop.drop_guard()) })
    }

    /// Sends a command on the shared connection and waits for its answer, at most `REDIS_COMMAND_TIMEOUT_MS`.
    /// Not for commands that block.
    ///
    /// # Errors
    /// [`RedisError::Down`], `Busy`, `TooLarge`, `NeedsLease` and `Closed` at once, with nothing sent; the others after sending.
    ///
    /// # Cancel safety
    /// Safe, but a command that was sent may be carried out.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let value = self.shared.call(Request::One(command)).await?;
        ::redis::from_redis_value(value).map_err(RedisError::Type)
    }

    /// [`run`](Self::run) for several commands in one round trip; with an atomic pipeline, one transaction.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisError> {
        let value = self.shared.call(Request::Many(pipeline)).await?;
        ::redis::from_redis_value(value).map_err(RedisError::Type)
    }

    /// Waits for a connection of one's own, for what blocks, watches or subscribes.
    ///
    /// # Errors
    /// [`RedisError::Down`], `QueueFull` and `Closed` at once, `Exhausted` after [`Options::wait`], `Open` when
    /// no connection could be made.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost, and nothing stays open.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<Lease, RedisError>> + Send + use<> {
        let (pool, site) = (self.clone(), Location::caller());
        async move { pool.shared.lease(site).await }
    }

    /// Resolves when the first attempt to connect has ended, with the reason if it failed. Later calls repeat
    /// that first result.
    pub fn first_attempt(&self) -> impl Future<Output = Result<(), Reason>> + Send + use<> {
        let mut first = self.shared.first.subscribe();
        let pool = self.clone();
        async move {
            let ended = first.wait_for(Option::is_some).await;
            let result = ended.map_or(None, |result| result.clone());
            drop(pool);
            result.unwrap_or(Err(Reason::NotReached))
        }
    }

    /// Whether the server answers, and if not why.
    pub fn health(&self) -> Health {
        self.shared.health.get()
    }

    /// Whether a command would be sent.
    pub fn is_up(&self) -> bool {
        self.shared.state.lock().is_up()
    }

    /// The pool at this moment.
    pub fn stats(&self) -> RedisStats {
        self.shared.stats()
    }

    /// The pool at this moment, as all pools show it.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Connections made so far: what was seen through an earlier one may have been lost with its server.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.state.lock().generation()
    }

    /// The owner of the pool's tasks, for what works on its behalf.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }
}

impl Pool for RedisPool {
    fn kind(&self) -> PoolKind {
        PoolKind::Redis
    }

    fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    fn drain(&self, deadline: Instant) -> BoxFuture<'_, Drained> {
        Box::pin(self.shared.drain(deadline))
    }
}

/// A command that has entered; leaves as cancelled unless something else becomes known.
struct Call<'a> {
    shared: &'a Shared,
    generation: u64,
    sent: Instant,
    end: End,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let look = state.leave(self.generation, self.end, self.sent, Instant::now());
        if look && !state.is_up() {
            self.shared.health.down(state.last_error());
        }
        drop(state);
        if look {
            self.shared.look.notify_one();
        }
    }
}

impl Shared {
    async fn call(&self, request: Request<'_>) -> Result<Value, RedisError> {
        if let Err(refusal) = request.check(self.command_bytes) {
            self.state.lock().commands.add(End::NotSent);
            return Err(refusal);
        }
        outgoing::begin().await;
        let left = deadline::current().map(|by| by.saturating_duration_since(Instant::now()));
        let limit = left.map_or(self.command_timeout, |left| left.min(self.command_timeout));
        let (mut conn, generation) = self.state.lock().enter()?;
        let mut call = Call { shared: self, generation, sent: Instant::now(), end: End::Cancelled };
        let answer = match request {
            Request::One(command) => timeout(limit, command.query_async(&mut conn)).await,
            Request::Many(pipeline) => timeout(limit, pipeline.query_async(&mut conn)).await,
        };
        let result = match answer {
            Ok(answer) => answer.map_err(RedisError::of),
            Err(_) => Err(RedisError::Timeout { after: limit }),
        };
        call.end = match &result {
            Ok(_) => End::Answered,
            // The request's time was up, which says nothing about the server.
            Err(RedisError::Timeout { after }) if *after < self.command_timeout => End::Cancelled,
            Err(RedisError::Timeout { .. }) => End::TimedOut,
            Err(RedisError::Lost(_)) => End::Lost,
            Err(RedisError::Refused { code, .. }) if **code == *"READONLY" => End::ReadOnly,
            Err(_) => End::Refused,
        };
        result
    }

    fn refuse_unless_up(&self) -> Result<(), RedisError> {
        let state = self.state.lock();
        match (state.is_closed(), state.is_up()) {
            (true, _) => Err(RedisError::Closed),
            (false, false) => Err(state.down_error()),
            (false, true) => Ok(()),
        }
    }

    async fn drain(&self, deadline: Instant) -> Drained {
        self.state.lock().close();
        self.lanes.close();
        let mut cut = Vec::new();
        if tokio::time::timeout_at(deadline, self.finished()).await.is_err() {
            cut.extend(self.lanes.holders.list().iter().map(|holder| format!("lease of {holder}")));
            let commands = self.state.lock().in_flight();
            cut.extend((commands > 0).then(|| format!("{commands} commands without an answer")));
        }
        self.stop.cancel();
        let closed_by = deadline.max(Instant::now() + CLOSING);
        cut.extend(self.tasks.shutdown(closed_by).await.into_iter().map(|task| format!("task {task}")));
        Drained { cut }
    }

    /// Resolves when no command is out and no lease. Closed, so neither number can grow.
    async fn finished(&self) {
        while self.state.lock().in_flight() > 0 || !self.lanes.is_idle() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}
