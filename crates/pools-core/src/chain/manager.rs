//! Which providers exist: one per normalised URL (or list of URLs), made on first use, dropped after its time to live.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

use super::{
    ChainConfig, ChainError, Provider,
    driver::{Inner, Shared, drive},
    endpoint::Endpoint,
    provider::Handle,
    state::{SLOTS, State, Tuning},
    stats::{ChainStats, Counts},
    transport::Transport,
};
use crate::{
    health::HealthCell,
    http::HttpPool,
    redact::{self, ExposeSecret},
    stats::{CloseReason, Target},
    tasks::Tasks,
    telemetry,
};

/// Endpoints of one list that are used: each has its bit in the set of those that failed a call.
const MAX_ENDPOINTS: usize = 64;

/// A provider of the pool, and the handle its users hold.
struct Entry {
    inner: Arc<Inner>,
    handle: std::sync::Weak<Handle>,
}

/// The providers of a pool.
pub(super) struct Providers {
    config: ChainConfig,
    http: HttpPool,
    tasks: Tasks,
    shared: Arc<Shared>,
    health: Arc<HealthCell>,
    stop: tokio_util::sync::CancellationToken,
    entries: Mutex<HashMap<String, Entry>>,
    /// The provider of `RPC_URL` is supervised and therefore always in use.
    default: Mutex<Option<Provider>>,
}

impl Providers {
    pub(super) fn new(
        config: ChainConfig,
        http: HttpPool,
        tasks: Tasks,
        shared: Arc<Shared>,
        health: Arc<HealthCell>,
        stop: tokio_util::sync::CancellationToken,
    ) -> Self {
        let (entries, default) = (Mutex::default(), Mutex::default());
        Self { config, http, tasks, shared, health, stop, entries, default }
    }

    pub(super) fn ttl(&self) -> Duration {
        self.config.provider_ttl
    }

    /// The provider of `RPC_URL`.
    pub(super) fn default(&self) -> Provider {
        let mut default = self.default.lock();
        default.get_or_insert_with(|| self.of_config()).clone()
    }

    fn of_config(&self) -> Provider {
        let urls = match parse(self.config.url.expose_secret()) {
            Ok(urls) => urls,
            Err(error) => {
                // Every call says so again; the rest of the process works.
                self.health.down(&error);
                tracing::error!(%error, "RPC_URL cannot be used");
                Vec::new()
            }
        };
        self.get(&urls, Some(&self.health))
    }

    /// The provider of another URL or list.
    pub(super) fn of_url(&self, list: &str) -> Result<Provider, ChainError> {
        let urls = parse(list)?;
        let is_default = parse(self.config.url.expose_secret()).is_ok_and(|default| default == urls);
        Ok(if is_default { self.default() } else { self.get(&urls, None) })
    }

    fn get(&self, urls: &[Url], health: Option<&Arc<HealthCell>>) -> Provider {
        let key = urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
        // Held while the provider is made, so that a crowd makes one.
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(&key) {
            let handle = entry.handle.upgrade().unwrap_or_else(|| Arc::new(Handle(Arc::clone(&entry.inner))));
            entry.handle = Arc::downgrade(&handle);
            return Provider::new(handle);
        }
        let inner = Arc::new(self.make(urls, health));
        let handle = Arc::new(Handle(Arc::clone(&inner)));
        self.tasks.spawn("chain provider", drive(Arc::clone(&inner)));
        for name in inner.transports.iter().map(|transport| &transport.name) {
            telemetry::announce("✅", format_args!("Created pooled blockchain provider for {name}"));
        }
        entries.insert(key, Entry { inner, handle: Arc::downgrade(&handle) });
        Provider::new(handle)
    }

    fn make(&self, urls: &[Url], health: Option<&Arc<HealthCell>>) -> Inner {
        let config = &self.config;
        let max_calls = config.batch_max_count as usize;
        let tuning = Tuning {
            max_calls,
            stall: config.batch_stall,
            idle_probe: config.polling_interval,
            fixed_network: config.static_network,
        };
        let now = Instant::now();
        let transports: Vec<_> = urls.iter().map(|url| Transport::new(self.http.clone(), url)).collect();
        let endpoints =
            transports.iter().map(|transport| Endpoint::new(Arc::clone(&transport.name), max_calls, now));
        let secrets = transports.iter().map(|transport| transport.secrets.clone()).collect();
        let state = State::new(tuning, endpoints.collect(), secrets);
        Inner::new(state, transports, health.cloned(), Arc::clone(&self.shared), self.stop.child_token())
    }

    /// Drops the providers that nobody holds and nobody used for the time to live.
    pub(super) fn clean_up(&self, now: Instant) {
        let ttl = self.config.provider_ttl;
        self.entries.lock().retain(|_, entry| {
            let held = entry.handle.strong_count() > 0;
            let keep = held || *entry.inner.last_used.lock() + ttl > now || !entry.inner.is_idle();
            if !keep {
                entry.inner.stop.cancel();
                self.shared.recorder.closed(CloseReason::Idle);
                tracing::debug!(provider = entry.inner.name, "idle provider dropped");
            }
            keep
        });
    }

    /// Every provider there is.
    pub(super) fn all(&self) -> Vec<Arc<Inner>> {
        let entries = self.entries.lock();
        let mut all: Vec<_> = entries.values().map(|entry| Arc::clone(&entry.inner)).collect();
        all.sort_by_key(|inner| inner.created);
        all
    }

    pub(super) fn stats(&self) -> ChainStats {
        let all = self.all();
        let providers =
            all.iter().flat_map(|inner| inner.transports.iter().map(|each| each.name.to_string()));
        ChainStats { active_providers: all.len(), providers: providers.collect() }
    }

    pub(super) fn targets(&self) -> (Vec<Target>, Counts) {
        let mut counts = Counts::default();
        let mut targets = Vec::new();
        for inner in self.all() {
            let state = inner.state.lock();
            counts.add(&state.counts);
            for (index, endpoint) in state.endpoints.iter().enumerate() {
                targets.push(Target {
                    name: endpoint.name.to_string(),
                    limit: SLOTS as u32,
                    in_use: endpoint.in_flight as u32,
                    // The queue is the provider's; it is shown with the endpoint that is asked first.
                    waiting: if index == 0 { state.queued() as u32 } else { 0 },
                    ..Target::default()
                });
            }
        }
        (targets, counts)
    }
}

/// The URLs of a comma-separated list, each in the one form that all its spellings share.
fn parse(list: &str) -> Result<Vec<Url>, ChainError> {
    let bad = |text: &str| ChainError::BadUrl { printed: redact::printed_url(text) };
    let mut urls = Vec::new();
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let mut url = Url::parse(text).map_err(|_| bad(text))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(bad(text));
        }
        url.set_fragment(None);
        if url.path().len() > 1 && url.path().ends_with('/') {
            let path = url.path().trim_end_matches('/').to_owned();
            url.set_path(&path);
        }
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    if urls.is_empty() || urls.len() > MAX_ENDPOINTS {
        return Err(ChainError::BadUrl { printed: format!("a list of {} URLs", urls.len()) });
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_url_are_one() {
        let one = parse("http://LocalHost:80/v3/key/").unwrap();
        assert_eq!(one, parse(" http://localhost/v3/key#x ,, http://localhost/v3/key").unwrap());
        assert_ne!(one, parse("https://localhost/v3/key").unwrap());
        for bad in ["", "localhost:8545", "ws://a/", "http://", "my secret"] {
            let error = parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
