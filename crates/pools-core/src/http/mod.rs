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
//! * `connection.rs`: one task per connection owns its place until the socket is closed; `manager.rs` dials,
//!   `resolver.rs` finds the addresses and keeps them for their TTL; `wire.rs` is the socket, `wakes.rs` what wakes its task.
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
//! **HTTP/2** is spoken where a TLS server wants it (ALPN). One connection then carries many requests, no more than its server
//! allows; `multiplex.rs` drives it. `sockets` and every cap count connections; requests on shared ones are
//! `pools_http_streams`.
//!
//! **Not here**: cookies; HTTP/2 in clear text; proxies that are spoken to over TLS.

mod builder;
mod connection;
mod decoding;
mod error;
mod exchange;
mod head;
mod lease;
mod manager;
pub mod multipart;
mod multiplex;
mod policy;
mod proxy;
mod redirect;
mod request;
mod resolver;
mod response;
mod state;
mod stats;
mod target;
mod upload;
mod upstream;
mod wakes;
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

pub use self::{
    builder::HttpPoolBuilder,
    error::{At, HttpError, OpenError},
    manager::Resolver,
    policy::{BreakerPolicy, Policy},
    proxy::ProxyError,
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
    multiplex::Multiplex,
    resolver::Dns,
    state::{Effects, SlotId, State},
    target::Key,
};
use crate::{
    health::HealthCell,
    holders::{Leases, Record},
    pool::{Drained, Pool, PoolKind},
    stats::{Recorder, Sample, SampleKind, Snapshot},
    tasks::Tasks,
};

/// Requests under way on HTTP/2 connections, of which one carries many. Gauge.
const STREAMS: &str = "pools_http_streams";
/// Requests sent again because the server had closed the idle connection. Counter.
const STALE_RETRIES: &str = "pools_http_stale_retries_total";

type PoolState = State<Box<Conn>, Waiter>;
type PoolEffects = Effects<Box<Conn>, Waiter>;

/// The pool. Clones share the same connections.
#[derive(Clone)]
pub struct HttpPool(Arc<Inner>);

struct Inner {
    config: HttpConfig,
    multiplex: Multiplex,
    max_age: Duration,
    dialer: Dialer,
    state: Mutex<PoolState>,
    recorder: Arc<Recorder>,
    health: HealthCell,
    stale_retries: AtomicU64,
    upstreams: Mutex<Vec<Weak<upstream::Shared>>>,
    dns: Option<Dns>,
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
        HttpPoolBuilder::new(config)
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
        let (targets, totals, streams) = {
            let state = self.0.state.lock();
            (state.targets(), self.0.recorder.totals_with(&state.tally), state.streams())
        };
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
        let stale_retries = Sample {
            name: STALE_RETRIES,
            help: "Requests sent again because the server had closed the idle connection.",
            kind: SampleKind::Counter,
            labels: Vec::new(),
            value: self.0.stale_retries.load(Ordering::Relaxed) as f64,
        };
        let streams = Sample {
            name: STREAMS,
            help: "Requests under way on HTTP/2 connections, of which one carries many.",
            kind: SampleKind::Gauge,
            labels: Vec::new(),
            value: f64::from(streams),
        };
        Snapshot {
            pool: PoolKind::Http,
            health: self.0.health.get(),
            limit: self.0.config.max_total_sockets,
            targets,
            holders: self.0.list(),
            totals,
            samples: [
                vec![stale_retries, streams],
                upstream::samples(&self.0.upstreams),
                self.0.dns.as_ref().map(Dns::samples).unwrap_or_default(),
            ]
            .concat(),
        }
    }

    fn drain(&self, deadline: Instant) -> BoxFuture<'_, Drained> {
        Box::pin(self.0.drain(deadline))
    }
}

impl Leases for Inner {
    fn pool(&self) -> PoolKind {
        PoolKind::Http
    }

    fn visit(&self, see: &mut dyn FnMut(&mut Record)) {
        self.state.lock().holders.iter_mut().for_each(|(_, record)| see(record));
    }
}

impl Inner {
    async fn drain(self: &Arc<Self>, deadline: Instant) -> Drained {
        self.apply(|state, _, fx| state.drain(fx));
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
            cut.extend(self.list().iter().map(|holder| format!("request of {holder}")));
            let state = self.state.lock();
            let waiting = state.waiting().map(Waiter::site);
            cut.extend(waiting.map(|site| format!("waiting request of {}:{}", site.file(), site.line())));
        }
        self.apply(|state, now, fx| state.cut(now, fx));
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
                pool.apply(|state, now, fx| state.wake(&key, now, fx));
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
