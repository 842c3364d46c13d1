//! Proxies between us and a host: which one, if any, and the way through it.
//!
//! `HTTP_PROXY` is for `http://`, `HTTPS_PROXY` for `https://`, `ALL_PROXY` for what has none of its own; a URL with
//! `http`, `socks5` (we resolve the name) or `socks5h` (the proxy does), maybe with a user and a password. `NO_PROXY` lists hosts,
//! domains and networks that are reached directly. This machine itself and unix sockets always are.
//!
//! Requests in clear text are handed to an HTTP proxy whole; for TLS it is asked for a tunnel (`CONNECT`). Connections are counted
//! under the host that they serve, whatever is between. A proxy that is set and cannot be used is an error of every
//! request that needs it, never a silent way around it.

use std::{
    future::{Ready, ready},
    io,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{
    HeaderValue, Request, StatusCode, Uri,
    header::{HOST, PROXY_AUTHORIZATION},
};
use hyper::client::conn::http1;
use hyper_util::{
    client::{
        legacy::connect::proxy::SocksV5,
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{HttpConfig, error::OpenError, manager::Dialer, target::Key};

/// Why a proxy did not let us through.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It wants a user and a password, or others (407): see the URL in `HTTPS_PROXY`.
    #[error("it wants other credentials")]
    Credentials,
    /// The setting is not the URL of a proxy that we can use.
    #[error("{variable} is not the URL of an http, socks5 or socks5h proxy")]
    Setting {
        /// Which one.
        variable: &'static str,
    },
    /// It could not be reached.
    #[error("it cannot be reached")]
    Open(#[source] Box<OpenError>),
    /// It says no to a tunnel.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// It does not connect us to the host.
    #[error("it does not connect us")]
    Refused(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Which hosts are reached through what.
#[derive(Debug)]
pub(super) struct Proxies {
    matcher: Matcher,
    /// A setting that would be ignored otherwise.
    bad: Option<&'static str>,
}

/// Requests go to an HTTP proxy whole, with its credentials.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxies {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let url = |secret: &Option<SecretString>| {
            secret.as_ref().map(|url| url.expose_secret().to_owned()).unwrap_or_default()
        };
        let (http, https) = (url(&config.http_proxy), url(&config.https_proxy));
        let all = url(&config.all_proxy);
        let given = [("HTTP_PROXY", &http), ("HTTPS_PROXY", &https), ("ALL_PROXY", &all)];
        let bad = given.into_iter().find(|(_, url)| !url.is_empty() && !is_usable(url));
        let bad = bad.map(|(variable, _)| variable);
        let no = config.no_proxy.clone().unwrap_or_default();
        let matcher = Matcher::builder().all(all).http(http).https(https).no(no).build();
        Self { matcher, bad }
    }

    fn choose(&self, key: &Key) -> Result<Option<Intercept>, ProxyError> {
        if key.unix_path().is_some() || is_local(key.host()) {
            return Ok(None);
        }
        let scheme = if key.tls() { "https" } else { "http" };
        let Ok(host) = format!("{scheme}://{}", key.name()).parse::<Uri>() else { return Ok(None) };
        match (self.matcher.intercept(&host), self.bad) {
            (_, Some(variable)) => Err(ProxyError::Setting { variable }),
            (found, None) => Ok(found),
        }
    }
}

fn is_usable(url: &str) -> bool {
    let found = Matcher::builder().all(url).build().intercept(&Uri::from_static("http://host.example"));
    found.is_some_and(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "socks5" | "socks5h")))
}

fn is_local(host: &str) -> bool {
    let named = host == "localhost" || host.ends_with(".localhost");
    named || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Dialer {
    /// A way to the host: direct, or through a proxy, which may want the requests themselves.
    pub(super) async fn reach(&self, key: &Key) -> Result<(TcpStream, Option<Forward>), OpenError> {
        match self.proxies.choose(key).map_err(OpenError::Proxy)? {
            None => Ok((self.connect(key.host(), key.port()).await?, None)),
            Some(proxy) => self.through(&proxy, key).await,
        }
    }

    async fn through(&self, proxy: &Intercept, key: &Key) -> Result<(TcpStream, Option<Forward>), OpenError> {
        let uri = proxy.uri();
        let scheme = uri.scheme_str().unwrap_or("http");
        let default_port = if scheme == "http" { 80 } else { 1080 };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let unreachable = |cause| OpenError::Proxy(ProxyError::Open(Box::new(cause)));
        let tcp = self.connect(host, uri.port_u16().unwrap_or(default_port)).await.map_err(unreachable)?;
        if scheme == "http" && !key.tls() {
            return Ok((tcp, Some(Forward { authorization: proxy.basic_auth().cloned() })));
        }
        let name = match scheme {
            "socks5" => self.resolve(key.host(), key.port()).await?.front().map(ToString::to_string),
            _ => None,
        };
        let to = format!("https://{}", name.as_deref().unwrap_or(key.name()));
        let to = to.parse::<Uri>().map_err(|cause| refused(Arc::new(cause)))?;
        if scheme == "http" {
            let tcp = tunnel(tcp, key, proxy.basic_auth()).await.map_err(OpenError::Proxy)?;
            return Ok((tcp, None));
        }
        let socks = SocksV5::new(uri.clone(), Given(Some(tcp)));
        let mut socks = match proxy.raw_auth() {
            Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
            None => socks,
        };
        let tcp = socks.call(to).await;
        let tcp = tcp.map_err(|cause| refused(Arc::new(io::Error::other(format!("{cause:?}")))))?;
        Ok((tcp.into_inner(), None))
    }
}

/// Asks an HTTP proxy for a way to the host. The dial's time-out bounds it.
async fn tunnel(
    tcp: TcpStream,
    key: &Key,
    credentials: Option<&HeaderValue>,
) -> Result<TcpStream, ProxyError> {
    let refused = |cause: hyper::Error| ProxyError::Refused(Arc::new(cause));
    let mut request = Request::connect(key.name()).header(HOST, key.name());
    if let Some(credentials) = credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(String::new()).map_err(|cause| ProxyError::Refused(Arc::new(cause)))?;
    let (mut send, mut connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(refused)?;
    let asking = async {
        let answer = send.send_request(request).await;
        // Ends the connection's part, unless it has become a tunnel.
        drop(send);
        answer.map(|answer| answer.status())
    };
    let connected = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
    let (status, _ended) = tokio::join!(asking, connected);
    match status.map_err(refused)? {
        status if status.is_success() => Ok(connection.into_parts().io.into_inner()),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(ProxyError::Credentials),
        status => Err(ProxyError::Status(status)),
    }
}

fn refused(cause: Arc<dyn std::error::Error + Send + Sync>) -> OpenError {
    OpenError::Proxy(ProxyError::Refused(cause))
}

/// hyper-util's handshake wants to connect by itself; we have connected already.
struct Given(Option<TcpStream>);

impl Service<Uri> for Given {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
