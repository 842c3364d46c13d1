//! What a pool is made of that no setting says.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify};
use tokio_rustls::rustls::ClientConfig;

use super::{
    HttpConfig, HttpPool, Inner, Resolver,
    manager::{self, Dialer},
    multiplex::Multiplex,
    proxy::Proxies,
    reap,
    resolver::Dns,
    state::{Limits, State},
};
use crate::{health::HealthCell, pool::PoolKind, stats::Recorder, tasks::Tasks};

/// What `HttpConfig` does not say.
#[derive(Clone)]
#[must_use = "`build` makes the pool"]
pub struct HttpPoolBuilder {
    config: HttpConfig,
    tls: Option<Arc<ClientConfig>>,
    resolver: Option<Resolver>,
    multiplex: Multiplex,
}

impl fmt::Debug for HttpPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPoolBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl HttpPoolBuilder {
    pub(super) fn new(config: HttpConfig) -> Self {
        Self { config, tls: None, resolver: None, multiplex: Multiplex::default() }
    }

    /// `HTTP_MAX_QUEUE`.
    pub fn max_queue(mut self, max_queue: u32) -> Self {
        self.config.max_queue = max_queue;
        self
    }

    /// `HTTP_CONNECT_TIMEOUT_MS`.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.config.connect_timeout = connect_timeout;
        self
    }

    /// `HTTP_MAX_AGE`, which the settings count in seconds.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.config.max_age = max_age;
        self
    }

    /// Most requests at once on one HTTP/2 connection, where the server allows more: 100 by default.
    pub fn max_streams(mut self, max_streams: u32) -> Self {
        self.multiplex.max_streams = max_streams.max(1);
        self
    }

    /// When an HTTP/2 connection with requests under way counts as dead: no frame for `after`, and no answer to a PING for
    /// `timeout`; ten seconds each by default.
    pub fn ping(mut self, after: Duration, timeout: Duration) -> Self {
        (self.multiplex.ping_after, self.multiplex.ping_timeout) = (after, timeout);
        self
    }

    /// Other roots or client certificates than the default (Mozilla's roots, none). HTTP/2 is spoken if its ALPN offers
    /// `h2`.
    pub fn tls(self, tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Another resolver than `HTTP_DNS` names. What it says is not kept.
    pub fn resolver(self, resolver: Resolver) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    /// The pool. No I/O happens before the first request.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> HttpPool {
        let Self { config, tls, resolver, multiplex } = self;
        let recorder = Arc::new(Recorder::default());
        let tls = tls.unwrap_or_else(manager::default_tls);
        let limits = Limits {
            per_host: config.max_sockets,
            total: config.max_total_sockets,
            free: config.max_free_sockets,
            linger: config.free_linger,
            queue: config.max_queue as usize,
            negotiates: tls.alpn_protocols.iter().any(|protocol| protocol == manager::H2),
        };
        let tasks = Tasks::new();
        let dns = (resolver.is_none() && config.dns == "cached")
            .then(|| Dns::new(&config, tasks.clone(), manager::system_resolver()));
        let own = || dns.as_ref().map_or_else(manager::system_resolver, Dns::resolver);
        let resolver = resolver.unwrap_or_else(own);
        let health = HealthCell::new(PoolKind::Http);
        // It has no server of its own that could be down.
        health.up();
        let inner = Arc::new(Inner {
            dialer: Dialer::new(
                config.keep_alive,
                config.connect_timeout,
                tls,
                resolver,
                Proxies::new(&config),
            ),
            state: Mutex::new(State::new(limits, Arc::clone(&recorder))),
            max_age: config.max_age,
            config,
            multiplex,
            recorder,
            health,
            stale_retries: AtomicU64::new(0),
            upstreams: Mutex::default(),
            tasks,
            dns,
            runtime: Handle::current(),
            reap: Arc::new(Notify::new()),
            emptied: Notify::new(),
        });
        inner.spawn("http reaper", reap(Arc::downgrade(&inner), Arc::clone(&inner.reap)));
        HttpPool(inner)
    }
}
