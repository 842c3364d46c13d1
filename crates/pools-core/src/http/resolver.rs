//! Names to addresses, each kept for as long as its TTL says.
//!
//! ```text
//!  dial ─► number? ─► hosts file, localhost ─► cache ─► asked already? wait with the others
//!                                               │ fresh: taken       │ no
//!                                               │                    ▼
//!                                               │       A and AAAA of each name in the search list
//!                                               │         found │ unknown to DNS │ no answer
//!                                               │               │       ▼        ▼
//!                                               │               │  the system's  an address whose time is over,
//!                                               │               │  resolver      for HTTP_DNS_STALE; else an error
//!                                               ◄───────────────┴── kept for its TTL
//! ```
//!
//! * `cache.rs` decides what is known, what is asked and what may still be used; it does nothing itself.
//! * `query.rs` asks the servers of `resolv.conf` through hickory, which speaks DNS (UDP, TCP where an answer is too long, EDNS, several
//!   servers) and keeps nothing. `files.rs` reads `resolv.conf` and `hosts` again when they have changed.
//!
//! **Whom it asks.** `search` and `ndots` count as in glibc, so that the names of a Kubernetes cluster work. What DNS does not know is asked of the
//! system's resolver: mDNS, LDAP or `myhostname` in `nsswitch.conf` work as for any program. Without a server in `resolv.conf` (a container
//! `FROM scratch`) the system's resolver is asked for every dial, and the log says so.
//!
//! **Limits.** [`NAMES`] names; a TTL counts from one second to `HTTP_DNS_MAX_TTL`; a name that does not exist is asked for again after ten seconds at
//! most. A lookup has half the connect time-out: what is left must do for TCP and TLS, and a silent server is told from a silent host.
//!
//! **One question.** A lookup belongs to the name and runs in a task of the pool's: whoever needs the name meanwhile waits for the same
//! answer, and a caller who leaves takes nothing from the others. A caller who could use an old address waits for [`PATIENCE`] only.
//!
//! **Cancel safety**: a wait may be dropped at any point. **Panic**: the task's callers get an error, the next one asks anew.
//! **Shutdown**: the pool's drain cuts what is still asked. **Not here**: DNSSEC, DNS over TLS, the order of RFC 6724 (IPv4 comes first: where
//! only IPv6 leads out, an IPv4 address is refused at once).

mod cache;
mod files;
mod query;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use self::{
    cache::{Bounds, Cache, Look},
    files::{Hosts, Watched},
    query::Servers,
};
use super::{HttpConfig, Resolver};
use crate::{
    stats::{Sample, SampleKind},
    tasks::Tasks,
};

/// Most names kept: many times the hosts that a service calls.
const NAMES: usize = 1_024;
/// A caller with an old address at hand waits this long for a new one: RFC 8767's "client response timer".
const PATIENCE: Duration = Duration::from_millis(1_800);

/// Lookups by how they ended. Counter. Label: `outcome` (`local`, `cached`, `answered`, `system`, `stale`, `unknown`, `failed`).
const LOOKUPS: &str = "pools_http_dns_lookups_total";
/// Names that the servers were asked for: however many callers waited, once. Counter.
const ASKED: &str = "pools_http_dns_asked_total";
/// Names in the cache. Gauge.
const CACHED: &str = "pools_http_dns_names";

/// The addresses of a name, the preferred first.
type Addresses = Arc<[IpAddr]>;
/// A lookup that several wait for.
type Asking = Shared<BoxFuture<'static, Result<Addresses, Fault>>>;

/// Why a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("DNS does not know the name")]
    Unknown,
    #[error("the DNS servers have not answered within {after:?}")]
    Silent { after: Duration },
    #[error("the DNS servers cannot answer")]
    Failed(#[source] Arc<hickory_resolver::net::NetError>),
    #[error("DNS has no such names")]
    BadName(#[source] Arc<hickory_resolver::proto::ProtoError>),
    #[error("the lookup was broken off")]
    Cut,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::Unknown => io::ErrorKind::NotFound,
            Fault::Silent { .. } => io::ErrorKind::TimedOut,
            Fault::BadName(_) => io::ErrorKind::InvalidInput,
            Fault::Failed(_) | Fault::Cut => io::ErrorKind::Other,
        };
        Self::new(kind, fault)
    }
}

/// What asking has brought.
#[derive(Clone, Debug)]
enum Outcome {
    /// To be kept so long.
    Found(Addresses, Duration),
    /// There is none, for so long.
    Unknown(Duration),
    /// Nobody knows.
    Failed(Fault),
}

/// The resolver. Clones share cache and counters.
#[derive(Clone)]
pub(super) struct Dns(Arc<Inner>);

struct Inner {
    hosts: Watched<Hosts>,
    servers: Watched<Option<Servers>>,
    system: Resolver,
    cache: Mutex<Cache<Asking>>,
    limit: Duration,
    patience: Duration,
    tasks: Tasks,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    local: AtomicU64,
    cached: AtomicU64,
    answered: AtomicU64,
    system: AtomicU64,
    stale: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
    asked: AtomicU64,
}

impl Dns {
    /// By the settings and the files of the system.
    pub(super) fn new(config: &HttpConfig, tasks: Tasks, system: Resolver) -> Self {
        let files = (Path::new("/etc/resolv.conf"), Path::new("/etc/hosts"));
        Self::with_files(files, config, tasks, system)
    }

    fn with_files(
        (resolv_conf, hosts): (&Path, &Path),
        config: &HttpConfig,
        tasks: Tasks,
        system: Resolver,
    ) -> Self {
        let limit = config.connect_timeout / 2;
        let instead = config.dns_servers.clone();
        let bounds = Bounds { names: NAMES, max_ttl: config.dns_max_ttl, stale: config.dns_stale };
        Self(Arc::new(Inner {
            hosts: Watched::new(hosts, Hosts::read),
            servers: Watched::new(resolv_conf, move |text| Servers::read(text, &instead, limit)),
            system,
            cache: Mutex::new(Cache::new(bounds)),
            limit,
            patience: PATIENCE.min(limit),
            tasks,
            counts: Counts::default(),
        }))
    }

    /// As the dialler wants it.
    pub(super) fn resolver(&self) -> Resolver {
        let dns = self.clone();
        Arc::new(move |host, port| {
            let dns = dns.clone();
            async move { dns.find(&host, port).await }.boxed()
        })
    }

    async fn find(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let Inner { hosts, servers, system, counts, .. } = &*self.0;
        let host = host.to_ascii_lowercase();
        let with_port = |ip: &IpAddr| SocketAddr::new(*ip, port);
        let hosts = hosts.get().await;
        if let Some(addresses) = local(&hosts, &host) {
            counts.local.fetch_add(1, Relaxed);
            return Ok(addresses.iter().map(with_port).collect());
        }
        let servers = servers.get().await;
        let Some(servers) = Option::clone(&servers) else {
            counts.system.fetch_add(1, Relaxed);
            return system(host, port).await;
        };
        let found = self.cached(host.into(), servers).await?;
        Ok(found.iter().map(with_port).collect())
    }

    async fn cached(&self, host: Arc<str>, servers: Servers) -> Result<Addresses, Fault> {
        let counts = &self.0.counts;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Relaxed);
        let (asking, stale) = match self.look(&host, servers) {
            Look::Fresh(addresses) => {
                count(&counts.cached);
                return Ok(addresses);
            }
            Look::Stale(addresses) => {
                count(&counts.stale);
                return Ok(addresses);
            }
            Look::Refused(fault) => {
                count(if matches!(fault, Fault::Unknown) { &counts.unknown } else { &counts.failed });
                return Err(fault);
            }
            Look::Wait { asking, stale } => (asking, stale),
        };
        let answer = match &stale {
            Some(_) => timeout(self.0.patience, asking).await.unwrap_or_else(|_| {
                let silent = Fault::Silent { after: self.0.patience };
                self.0.cache.lock().gives_up(&host, silent.clone(), Instant::now());
                Err(silent)
            }),
            None => asking.await,
        };
        if let Err(Fault::Cut) = answer {
            // Its task has not done so.
            self.0.cache.lock().settle(&host, Outcome::Failed(Fault::Cut), Instant::now());
        }
        match (answer, stale) {
            (Ok(addresses), _) => {
                count(&counts.answered);
                Ok(addresses)
            }
            (Err(Fault::Unknown), _) => {
                count(&counts.unknown);
                Err(Fault::Unknown)
            }
            (Err(fault), Some(addresses)) => {
                count(&counts.stale);
                tracing::warn!(%host, cause = %fault, "an address whose time is over is used");
                Ok(addresses)
            }
            (Err(fault), None) => {
                count(&counts.failed);
                Err(fault)
            }
        }
    }

    /// What is known. Begins to ask where nobody does.
    fn look(&self, host: &Arc<str>, servers: Servers) -> Look<Asking> {
        let mut cache = self.0.cache.lock();
        cache.look(host, Instant::now(), || {
            self.0.counts.asked.fetch_add(1, Relaxed);
            let task = self.clone().ask(Arc::clone(host), servers);
            let task = self.0.tasks.spawn("http dns", task);
            let answer = task.map(|ended| ended.ok().flatten().unwrap_or(Err(Fault::Cut)));
            answer.boxed().shared()
        })
    }

    async fn ask(self, host: Arc<str>, servers: Servers) -> Result<Addresses, Fault> {
        let limit = self.0.limit;
        let end = Instant::now() + limit;
        let outcome = match timeout_at(end, servers.ask(&host)).await {
            Ok(Outcome::Unknown(pause)) => self.ask_system(&host, pause, end).await,
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(Fault::Silent { after: limit }),
        };
        self.0.cache.lock().settle(&host, outcome.clone(), Instant::now());
        match outcome {
            Outcome::Found(addresses, _) => Ok(addresses),
            Outcome::Unknown(_) => Err(Fault::Unknown),
            Outcome::Failed(fault) => Err(fault),
        }
    }

    /// What is unknown to DNS may stand in `nsswitch.conf`'s other sources. They tell no TTL: it is kept for as long as DNS's
    /// refusal.
    async fn ask_system(&self, host: &str, pause: Duration, end: Instant) -> Outcome {
        match timeout_at(end, (self.0.system)(host.to_owned(), 0)).await {
            Ok(Ok(found)) if !found.is_empty() => {
                Outcome::Found(found.iter().map(SocketAddr::ip).collect(), pause)
            }
            _ => Outcome::Unknown(pause),
        }
    }

    /// Its metrics.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let counts = &self.0.counts;
        let names = self.0.cache.lock().len();
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
        let sample =
            |name, help, kind, labels, value: u64| Sample { name, help, kind, labels, value: value as f64 };
        let outcomes = [
            ("local", &counts.local),
            ("cached", &counts.cached),
            ("answered", &counts.answered),
            ("system", &counts.system),
            ("stale", &counts.stale),
            ("unknown", &counts.unknown),
            ("failed", &counts.failed),
        ];
        let lookups = outcomes.into_iter().map(|(outcome, counter)| {
            let labels = vec![("outcome", outcome)];
            let help = "Names looked up for a dial, by how it ended.";
            sample(LOOKUPS, help, SampleKind::Counter, labels, counter.load(Relaxed))
        });
        let asked = counts.asked.load(Relaxed);
        let asked =
            sample(ASKED, "Names that DNS servers were asked for.", SampleKind::Counter, Vec::new(), asked);
        let cached = sample(CACHED, "Names in the DNS cache.", SampleKind::Gauge, Vec::new(), names as u64);
        lookups.chain([asked, cached]).collect()
    }
}

/// What needs no server: numbers, the hosts file, and `localhost` (RFC 6761).
fn local(hosts: &Hosts, host: &str) -> Option<Addresses> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(Arc::new([ip]));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_localhost = name == "localhost" || name.ends_with(".localhost");
    let loopback = || -> Addresses { Arc::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]) };
    hosts.find(name).or_else(|| is_localhost.then(loopback))
}
