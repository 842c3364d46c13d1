//! The HTTP pool: Node's agent semantics over hyper's connections.
//!
//! ```text
//!  get/post ─► RequestBuilder ── send() ─► acquire ─► exchange ─► Response ── body ends ─► idle (LIFO)
//!                                            │ queue     │ stale: once more,              │
//!                                            ▼           │ on a fresh connection          ├─ keep-alive, linger, age ─► closed
//!                                          dial          └───────────────                 └─ the server closes it    ─► closed
//! ```
//!
//! * `state.rs` decides everything in one critical section per transition and does nothing itself.
//! * `connection.rs`: one task per connection owns its place until the socket is closed; `manager.rs` dials.
//! * `lease.rs`: a connection in the hands of one request; `request.rs` builds a request, `redirect.rs` follows; `exchange.rs`, `upload.rs` and
//!   `response.rs` are the exchange. Bodies stream both ways: [`RequestBuilder::stream`], [`Response`].
//!
//! **Limits.** Per host and over all hosts, from the start of a dial to the closed socket; a bounded queue per host; order
//! of arrival. Every wait ends: in the queue after `HTTP_TIMEOUT_MS` or at the caller's deadline, in a dial after
//! the connect time-out, in the exchange after `HTTP_TIMEOUT_MS` without a byte.
//!
//! **Time-outs** are told apart by phase: [`HttpError::Wait`], [`HttpError::Open`], [`HttpError::Head`],
//! [`HttpError::BodyIdle`], [`HttpError::Deadline`].
//!
//! **Cancel safety.** Every future may be dropped at any point. A waiter leaves its queue; its dial goes on and serves the
//! next; a connection in the middle of an exchange is closed; one that was just handed over goes to the next.
//!
//! **Panic**: a panicking caller drops its lease as above; a panicking connection task frees its place.
//!
//! **Shutdown**: [`Pool::drain`] closes idle connections at once, lets requests that wait or are under way finish until the
//! deadline, then cuts and names the rest. Dropping the last clone of the pool closes its idle connections.
//!
//! **Policies** (retries, breaker, rate, bulkhead) belong to an [`Upstream`]; what is sent past one obeys the pool's limits alone.
//!
//! **Not here**: cookies, proxies, HTTP/2. A connection serves one
//! request at a time; HTTP/2 needs places per stream beside those per connection in `state.rs`.

mod connection;
mod decoding;
mod error;
mod exchange;
mod lease;
mod manager;
pub mod multipart;
mod policy;
mod redirect;
mod request;
mod response;
mod state;
mod stats;
mod target;
mod upload;
mod upstream;
mod wire;

use std::{
    fmt,
    panic::Location,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::http::Method;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_rustls::rustls::ClientConfig;

pub use self::{
    error::{At, HttpError, OpenError},
    manager::Resolver,
    policy::{BreakerPolicy, Policy},
    redirect::RedirectError,
    request::RequestBuilder,
    response::Response,
    stats::HttpStats,
    upload::{SourceError, UploadError},
    upstream::Upstream,
};
pub use crate::config::http::HttpConfig;

use self::{
    connection::Conn,
    lease::Waiter,
    manager::Dialer,
    state::{Limits, SlotId, State},
    target::Key,
};
use crate::{
    health::HealthCell,
    holders::Holders,
    pool::{Drained, Pool, PoolKind},
    stats::{Recorder, Sample, SampleKind, Snapshot},
    tasks::Tasks,
};

/// Requests sent again because the server had closed the idle connection. Counter.
const STALE_RETRIES: &str = "pools_http_stale_retries_total";

/// Longest queue per host: at 50 connections and 100 ms an answer, the last of 1,000 waits two seconds, which a user
/// still sits through; more would be served after they have gone.
const MAX_QUEUE: usize = 1_000;
/// Node has none and waits for the kernel, over two minutes; a server that needs ten seconds to accept is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Old enough to pay for its handshake many times, young enough that a DNS change is followed within minutes.
const MAX_AGE: Duration = Duration::from_secs(600);

type PoolState = State<Conn, Waiter>;

/// What `HttpConfig` does not say.
#[derive(Clone)]
#[must_use = "`build` makes the pool"]
pub struct HttpPoolBuilder {
    config: HttpConfig,
    max_queue: usize,
    connect_timeout: Duration,
    max_age: Duration,
    tls: Option<Arc<ClientConfig>>,
    resolver: Option<Resolver>,
}

impl fmt::Debug for HttpPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPoolBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl HttpPoolBuilder {
    /// Most requests that wait for one host.
    pub fn max_queue(self, max_queue: usize) -> Self {
        Self { max_queue, ..self }
    }

    /// Longest time for TCP and TLS together.
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// A connection older than this, a tenth more or less, is not used again. It never cuts a request.
    pub fn max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Other roots or client certificates than the default (Mozilla's roots, none).
    pub fn tls(self, tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Another resolver than the system's.
    pub fn resolver(self, resolver: Resolver) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    /// The pool. No I/O happens before the first request.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> HttpPool {
        let Self { config, max_queue, connect_timeout, max_age, tls, resolver } = self;
        let recorder = Arc::new(Recorder::default());
        let limits = Limits {
            per_host: config.max_sockets,
            total: config.max_total_sockets,
            free: config.max_free_sockets,
            linger: config.free_linger,
            queue: max_queue,
        };
        let tls = tls.unwrap_or_else(manager::default_tls);
        let resolver = resolver.unwrap_or_else(manager::system_resolver);
        let health = HealthCell::new(PoolKind::Http);
        // It has no server of its own that could be down.
        health.up();
        let inner = Arc::new(Inner {
            dialer: Dialer::new(config.keep_alive, connect_timeout, tls, resolver),
            state: Mutex::new(State::new(limits, Arc::clone(&recorder))),
            config,
            max_age,
            recorder,
            holders: Holders::new(PoolKind::Http),
            health,
            stale_retries: AtomicU64::new(0),
            upstreams: Mutex::default(),
            tasks: Tasks::new(),
            runtime: Handle::current(),
            reap: Arc::new(Notify::new()),
            emptied: Notify::new(),
        });
        inner.spawn("http reaper", reap(Arc::downgrade(&inner), Arc::clone(&inner.reap)));
        HttpPool(inner)
    }
}

/// The pool. Clones share the same connections.
#[derive(Clone)]
pub struct HttpPool(Arc<Inner>);

struct Inner {
    config: HttpConfig,
    max_age: Duration,
    dialer: Dialer,
    state: Mutex<PoolState>,
    recorder: Arc<Recorder>,
    holders: Arc<Holders>,
    health: HealthCell,
    stale_retries: AtomicU64,
    upstreams: Mutex<Vec<Weak<upstream::Shared>>>,
    tasks: Tasks,
    /// Leases may be dropped outside the runtime.
    runtime: Handle,
    reap: Arc<Notify>,
    emptied: Notify,
}

impl fmt::Debug for HttpPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpPool").field(&self.stats()).finish()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl HttpPool {
    /// A pool with these limits. No I/O happens before the first request.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: HttpConfig) -> Self {
        Self::builder(config).build()
    }

    /// For what the settings do not say.
    pub fn builder(config: HttpConfig) -> HttpPoolBuilder {
        let (max_queue, connect_timeout, max_age) = (MAX_QUEUE, CONNECT_TIMEOUT, MAX_AGE);
        HttpPoolBuilder { config, max_queue, connect_timeout, max_age, tls: None, resolver: None }
    }

    /// A GET request. A bad URL is told by `send`.
    #[track_caller]
    pub fn get(&self, url: &str) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A POST request. A bad URL is told by `send`.
    #[track_caller]
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Any request. A bad URL is told by `send`.
    #[track_caller]
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), Location::caller(), method, url)
    }

    /// The guide's object for `GET /api/pools/stats`.
    pub fn stats(&self) -> HttpStats {
        let targets = self.0.state.lock().targets();
        HttpStats::new(self.0.config.max_sockets, self.0.config.max_free_sockets, targets)
    }
}

impl Pool for HttpPool {
    fn kind(&self) -> PoolKind {
        PoolKind::Http
    }

    fn snapshot(&self) -> Snapshot {
        let (targets, totals) = {
            let state = self.0.state.lock();
            (state.targets(), self.0.recorder.totals())
        };
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
        let stale_retries = Sample {
            name: STALE_RETRIES,
            help: "Requests sent again because the server had closed the idle connection.",
            kind: SampleKind::Counter,
            labels: Vec::new(),
            value: self.0.stale_retries.load(Ordering::Relaxed) as f64,
        };
        Snapshot {
            pool: PoolKind::Http,
            health: self.0.health.get(),
            limit: self.0.config.max_total_sockets,
            targets,
            holders: self.0.holders.list(),
            totals,
            samples: [vec![stale_retries], upstream::samples(&self.0.upstreams)].concat(),
        }
    }

    fn drain(&self, deadline: Instant) -> BoxFuture<'_, Drained> {
        Box::pin(self.0.drain(deadline))
    }
}

impl Inner {
    async fn drain(self: &Arc<Self>, deadline: Instant) -> Drained {
        self.apply(|state, _| state.drain());
        let emptied = timeout_at(deadline, async {
            loop {
                let notified = self.emptied.notified();
                if self.state.lock().is_empty() {
                    return;
                }
                notified.await;
            }
        });
        let mut cut = Vec::new();
        if emptied.await.is_err() {
            cut.extend(self.holders.list().iter().map(|holder| format!("request of {holder}")));
            let state = self.state.lock();
            let waiting = state.waiting().map(Waiter::site);
            cut.extend(waiting.map(|site| format!("waiting request of {}:{}", site.file(), site.line())));
        }
        self.apply(|state, now| state.cut(now));
        // Whoever listens has ended; connections in use do not listen and are closed here.
        self.tasks.shutdown(Instant::now()).await;
        Drained { cut }
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let _runtime = self.runtime.enter();
        self.tasks.spawn(name, task);
    }

    fn dial(self: &Arc<Self>, slot: SlotId, key: Key) {
        self.spawn("http connection", connection::run(Arc::downgrade(self), slot, key));
    }

    fn wake_at(self: &Arc<Self>, key: Key, at: Instant) {
        let pool = Arc::downgrade(self);
        self.spawn("http dial pause", async move {
            sleep_until(at).await;
            if let Some(pool) = pool.upgrade() {
                pool.apply(|state, now| state.wake(&key, now));
            }
        });
    }

    /// Until when an idle connection may be used: the pool's limit, the server's hint, its age.
    fn expiry(&self, conn: &Conn, now: Instant) -> Instant {
        // The server counts from when it sent, we from when we received: leave before it does.
        let hinted = conn.hint.map(|hint| hint.saturating_sub((hint / 2).min(Duration::from_secs(1))));
        let keep = hinted.map_or(self.config.keep_alive, |hint| hint.min(self.config.keep_alive));
        (now + keep).min(conn.retires)
    }

    /// Age limits differ by up to a tenth each way, so that connections opened together do not close together.
    fn lifetime(&self) -> Duration {
        self.max_age.mul_f64(0.9 + 0.2 * fastrand::f64())
    }
}

/// Closes idle connections when their time is over.
async fn reap(pool: Weak<Inner>, woken: Arc<Notify>) {
    loop {
        let Some(next) = pool.upgrade().map(|pool| pool.expire()) else { return };
        match next {
            Some(at) => drop(timeout_at(at, woken.notified()).await),
            None => woken.notified().await,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The reaper holds the pool weakly; this wakes it to see that it has gone.
        self.reap.notify_one();
    }
}
