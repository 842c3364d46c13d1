//! One name asked of the DNS servers: the search list, both families.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RecordType},
    system_conf::parse_resolv_conf,
};
use tokio::time::{Instant, sleep_until};

use super::{Fault, Outcome};

/// How much longer the second family may take than the first (RFC 8305's "Resolution Delay"): some middleboxes swallow questions
/// for AAAA.
const SECOND_FAMILY: Duration = Duration::from_millis(50);
/// Where one family is missing for want of an answer, the other is not kept for long.
const INCOMPLETE: Duration = Duration::from_secs(10);
/// Attempts after the first; a lookup's time is divided among all.
const RETRIES: usize = 2;

/// The servers of `resolv.conf`, and how names are completed.
#[derive(Clone)]
pub(super) struct Servers {
    resolver: TokioResolver,
    search: Arc<[Name]>,
    ndots: usize,
}

impl Servers {
    /// From the text of a `resolv.conf`, with other servers `instead` of its own if there are any. `None` where there is no server.
    pub(super) fn read(text: Option<&str>, instead: &[SocketAddr], limit: Duration) -> Option<Self> {
        // Without a server of its own it counts as unusable.
        let text = match instead.first() {
            Some(server) => format!("{}\nnameserver {}\n", text.unwrap_or_default(), server.ip()),
            None => text.unwrap_or_default().to_owned(),
        };
        let servers = parse_resolv_conf(text).and_then(|(mut config, options)| {
            if !instead.is_empty() {
                config.name_servers = instead.iter().map(server_at).collect();
            }
            Self::new(config, options, limit)
        });
        match servers {
            Ok(servers) => Some(servers),
            Err(cause) => {
                tracing::warn!(%cause, "resolv.conf names no DNS server: the system's resolver is asked for each connection");
                None
            }
        }
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts, limit: Duration) -> Result<Self, NetError> {
        let ResolverConfig { search, name_servers, .. } = config;
        let ndots = options.ndots;
        let mut builder = TokioResolver::builder_with_config(
            ResolverConfig::from_parts(None, Vec::new(), name_servers),
            TokioRuntimeProvider::default(),
        );
        let attempts = u32::try_from(RETRIES).unwrap_or_default() + 1;
        options.timeout = options.timeout.min(limit / attempts);
        options.attempts = RETRIES;
        // `cache.rs` keeps what is known, `files.rs` reads the hosts.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        *builder.options_mut() = options;
        Ok(Self { resolver: builder.build()?, search: search.into(), ndots })
    }

    /// The first name of the search list that has addresses.
    pub(super) async fn ask(&self, host: &str) -> Outcome {
        let names = match self.names(host) {
            Ok(names) => names,
            Err(fault) => return Outcome::Failed(fault),
        };
        let mut unknown_for = Duration::MAX;
        let mut failed = None;
        for name in names {
            match self.addresses(name).await {
                Outcome::Unknown(pause) => unknown_for = unknown_for.min(pause),
                // A server that is silent about one name is silent about all.
                Outcome::Failed(fault @ Fault::Silent { .. }) => return Outcome::Failed(fault),
                // The server of a search domain may fail and the name exist all the same, as in glibc.
                Outcome::Failed(fault) => failed = Some(fault),
                found => return found,
            }
        }
        failed.map_or(Outcome::Unknown(unknown_for), Outcome::Failed)
    }

    /// The names to be asked for, by `search` and `ndots`.
    fn names(&self, host: &str) -> Result<Vec<Name>, Fault> {
        let bad = |cause| Fault::BadName(Arc::new(cause));
        let mut name = Name::from_ascii(host).map_err(bad)?;
        if name.is_fqdn() {
            return Ok(vec![name]);
        }
        // One that becomes too long cannot exist.
        let completed = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut names: Vec<Name> = completed.collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        name.set_fqdn(true);
        let place = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(place, name);
        for name in &mut names {
            name.set_fqdn(true);
        }
        Ok(names)
    }

    /// Both families at once.
    async fn addresses(&self, name: Name) -> Outcome {
        let mut v4 = pin!(self.family(name.clone(), RecordType::A));
        let mut v6 = pin!(self.family(name, RecordType::AAAA));
        let (mut first, mut second) = (None, None);
        let mut patience = None;
        while first.is_none() || second.is_none() {
            let enough = async {
                match patience {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = &mut v4, if first.is_none() => first = Some(outcome),
                outcome = &mut v6, if second.is_none() => second = Some(outcome),
                () = enough => break,
            }
            if let Some(Outcome::Found(..)) = first.as_ref().or(second.as_ref()) {
                patience = Some(Instant::now() + SECOND_FAMILY);
            }
        }
        let late = || Outcome::Failed(Fault::Silent { after: SECOND_FAMILY });
        together(first.unwrap_or_else(late), second.unwrap_or_else(late))
    }

    async fn family(&self, name: Name, family: RecordType) -> Outcome {
        let lookup = match self.resolver.lookup(name, family).await {
            Ok(lookup) => lookup,
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let pause = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
                return Outcome::Unknown(pause.unwrap_or_default());
            }
            Err(NetError::Timeout) => {
                let after = self.resolver.options().timeout * u32::try_from(RETRIES + 1).unwrap_or(1);
                return Outcome::Failed(Fault::Silent { after });
            }
            Err(cause) => return Outcome::Failed(Fault::Failed(Arc::new(cause))),
        };
        let addresses: Vec<IpAddr> =
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        let ttl = Duration::from_secs(ttl.into());
        match addresses.is_empty() {
            true => Outcome::Unknown(ttl),
            false => Outcome::Found(addresses.into(), ttl),
        }
    }
}

/// What both families say.
fn together(v4: Outcome, v6: Outcome) -> Outcome {
    match (v4, v6) {
        (Outcome::Found(v4, a), Outcome::Found(v6, b)) => {
            Outcome::Found(v4.iter().chain(&*v6).copied().collect(), a.min(b))
        }
        (Outcome::Found(found, ttl), Outcome::Unknown(_))
        | (Outcome::Unknown(_), Outcome::Found(found, ttl)) => Outcome::Found(found, ttl),
        (Outcome::Found(found, ttl), _) | (_, Outcome::Found(found, ttl)) => {
            Outcome::Found(found, ttl.min(INCOMPLETE))
        }
        (Outcome::Unknown(a), Outcome::Unknown(b)) => Outcome::Unknown(a.min(b)),
        (failed @ Outcome::Failed(_), _) | (_, failed @ Outcome::Failed(_)) => failed,
    }
}

fn server_at(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, connections.map(with_port).to_vec())
}
