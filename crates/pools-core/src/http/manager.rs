//! Opens one connection: names to addresses, TCP, TLS. What happens afterwards is in `connection.rs`.
//!
//! Addresses are tried in the order of the resolver, families alternating, each [`STAGGER`] after the one before or
//! at once when that failed (RFC 8305), so that one dead address costs a quarter of a second and not a time-out.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use ::http::Uri;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tower_service::Service;

use super::{
    error::{OpenError, io_kind},
    proxy::{Forward, Proxies},
    target::Key,
    wire::Stream,
};

/// RFC 8305's recommended "Connection Attempt Delay".
const STAGGER: Duration = Duration::from_millis(250);

/// HTTP/2 over TLS, as ALPN calls it.
pub(super) const H2: &[u8] = b"h2";

/// Turns a host name and a port into addresses, the preferred first.
pub type Resolver = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver (`getaddrinfo`, on tokio's blocking threads).
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|host, port| async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed())
}

/// Mozilla's roots; HTTP/2 where the server speaks it.
pub(super) fn default_tls() -> Arc<ClientConfig> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("BUG: ring offers TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// How connections are opened.
#[derive(Clone)]
pub(super) struct Dialer {
    tcp: HttpConnector,
    tls: TlsConnector,
    resolver: Resolver,
    limit: Duration,
    pub(super) proxies: Arc<Proxies>,
}

impl Dialer {
    pub(super) fn new(
        probe_after: Duration,
        limit: Duration,
        tls: Arc<ClientConfig>,
        resolver: Resolver,
        proxies: Proxies,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        // Probes are sent from this age on; the kernel counts in seconds.
        tcp.set_keepalive(Some(probe_after.max(Duration::from_secs(1))));
        Self { tcp, tls: TlsConnector::from(tls), resolver, limit, proxies: Arc::new(proxies) }
    }

    /// Connects, with TLS if the key asks for it, within the limit for both.
    pub(super) async fn open(&self, key: &Key) -> Result<(Stream, Option<Forward>), OpenError> {
        let opened = timeout(self.limit, async {
            if let Some(path) = key.unix_path() {
                let connected = UnixStream::connect(path).await.map_err(OpenError::connecting)?;
                return Ok((Stream::Unix(connected), None));
            }
            let (tcp, forward) = self.reach(key).await?;
            if !key.tls() {
                return Ok((Stream::Plain(tcp), forward));
            }
            let name = ServerName::try_from(key.host().to_owned());
            let name = name.map_err(|cause| OpenError::Tls(Arc::new(io::Error::other(cause))))?;
            let tls = self.tls.connect(name, tcp).await.map_err(|cause| OpenError::Tls(Arc::new(cause)))?;
            Ok((Stream::Tls(Box::new(tls)), None))
        });
        opened.await.unwrap_or(Err(OpenError::TimedOut { after: self.limit }))
    }

    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, OpenError> {
        let mut addresses = self.resolve(host, port).await?;
        let mut attempts = FuturesUnordered::new();
        let mut failed = None;
        loop {
            match addresses.pop_front() {
                Some(address) => attempts.push(self.connect_to(address)),
                None if attempts.is_empty() => {
                    let nothing = || OpenError::Dns(Arc::new(io::ErrorKind::NotFound.into()));
                    return Err(failed.unwrap_or_else(nothing));
                }
                None => {}
            }
            let stagger = async {
                match addresses.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(STAGGER).await,
                }
            };
            tokio::select! {
                biased;
                Some(attempt) = attempts.next() => match attempt {
                    Ok(tcp) => return Ok(tcp),
                    Err(cause) => failed = Some(cause),
                },
                () = stagger => {}
            }
        }
    }

    pub(super) async fn resolve(&self, host: &str, port: u16) -> Result<VecDeque<SocketAddr>, OpenError> {
        if let Ok(ip) = host.parse() {
            return Ok(VecDeque::from([SocketAddr::new(ip, port)]));
        }
        let found = (self.resolver)(host.to_owned(), port).await;
        Ok(alternate(found.map_err(|cause| OpenError::Dns(Arc::new(cause)))?))
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<TcpStream, OpenError> {
        let uri = format!("http://{address}").parse::<Uri>().expect("BUG: an address is an authority");
        match self.tcp.clone().call(uri).await {
            Ok(stream) => Ok(stream.into_inner()),
            Err(cause) => {
                let kind = io_kind(&cause).unwrap_or(io::ErrorKind::Other);
                Err(OpenError::connecting(io::Error::new(kind, cause)))
            }
        }
    }
}

/// The families in turn, beginning with that of the first address.
fn alternate(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut others): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = VecDeque::new();
    while !preferred.is_empty() || !others.is_empty() {
        ordered.extend(preferred.pop_front());
        ordered.extend(others.pop_front());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (address("[::1]:1"), address("[::2]:1"), address("127.0.0.1:1"));
        assert_eq!(alternate(vec![a, b, c]), [a, c, b]);
    }
}
