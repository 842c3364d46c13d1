//! Where a request goes: parsed once, strictly. What `http::Uri` refuses (spaces, CR, LF) is refused, not repaired.
//!
//! A server on a unix socket is `http+unix://%2Frun%2Fapp.sock/path`: the path of the socket, percent-encoded, in the
//! place of the host (the convention of `requests-unixsocket` and of Docker's clients). It is counted like any host, as
//! `unix:/run/app.sock`; the server is told `Host: localhost`.

use std::{cell::RefCell, fmt, path::Path, sync::Arc};

use ::http::{
    HeaderMap, HeaderValue, Uri,
    header::{ACCEPT_ENCODING, HOST, USER_AGENT},
    uri::PathAndQuery,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{decoding::ACCEPTED, error::HttpError};
use crate::redact::printed_url;

/// Marks the name of a unix socket; no host has a slash in it.
const UNIX: &str = "unix:/";
/// What is encoded of the path of a socket.
const SOCKET_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');
/// What `http::Uri` takes.
const MAX_URL: usize = 65_534;
/// What the kernel's `sockaddr_un` holds, without the final zero.
const MAX_UNIX_PATH: usize = 107;

/// Some servers refuse requests without one.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pools-core/", env!("CARGO_PKG_VERSION")));

/// Most processes ask fewer hosts than this at a time.
const MAX_RECENT: usize = 8;

thread_local! {
    /// What this thread asked last. To take an origin apart costs more than all else that is done to a URL.
    static RECENT: RefCell<Vec<Origin>> = const { RefCell::new(Vec::new()) };
}

/// A URL up to its path, and what came of it.
struct Origin {
    url: Box<str>,
    key: Key,
    headers: Arc<HeaderMap>,
}

/// Scheme, host and port: connections of one key are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tls: bool,
    /// `host:port`, the host in lower case; or `unix:` and the path of a socket.
    name: Arc<str>,
}

impl Key {
    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    /// The path of the socket, if it is a unix socket.
    pub(super) fn unix_path(&self) -> Option<&Path> {
        self.name.starts_with(UNIX).then(|| Path::new(&self.name[UNIX.len() - 1..]))
    }

    /// `host:port`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The host without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        let host = self.name.rsplit_once(':').map_or(&*self.name, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        let port = self.name.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.expect("BUG: a key ends in its port")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A URL taken apart.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) key: Key,
    /// What every request there says of itself, unless it says otherwise. Put together once, since that costs more than a copy.
    pub(super) headers: Arc<HeaderMap>,
    pub(super) path: PathAndQuery,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Path and query may hold keys.
        f.debug_struct("Target").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, HttpError> {
        if let Some(target) = Self::at_known_origin(url) {
            return Ok(target);
        }
        let target = Self::take_apart(url)?;
        target.remember_origin(url);
        Ok(target)
    }

    /// Nothing when the origin or the path is not known to be good: then all of it is looked at.
    fn at_known_origin(url: &str) -> Option<Self> {
        RECENT.with_borrow(|recent| {
            let (origin, rest) = recent.iter().find_map(|origin| {
                let rest = url.strip_prefix(&*origin.url)?;
                (rest.is_empty() || rest.starts_with('/')).then_some((origin, rest))
            })?;
            let path = match rest {
                "" | "/" => PathAndQuery::from_static("/"),
                _ if url.len() > MAX_URL => return None,
                path => path.parse().ok()?,
            };
            Some(Self { key: origin.key.clone(), headers: Arc::clone(&origin.headers), path })
        })
    }

    fn remember_origin(&self, url: &str) {
        let Some(host) = url.find("://").map(|at| at + "://".len()) else { return };
        let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
        let (key, headers) = (self.key.clone(), Arc::clone(&self.headers));
        RECENT.with_borrow_mut(|recent| {
            recent.truncate(MAX_RECENT - 1);
            recent.insert(0, Origin { url: url[..end].into(), key, headers });
        });
    }

    fn take_apart(url: &str) -> Result<Self, HttpError> {
        let bad = |why| HttpError::Url { url: printed_url(url), why };
        if let Some(rest) = url.strip_prefix("http+unix://") {
            return Self::parse_unix(rest).map_err(bad);
        }
        let parts = url.parse::<Uri>().map_err(|_| bad("not a URL"))?.into_parts();
        let (tls, default_port) = match parts.scheme.as_ref().map(::http::uri::Scheme::as_str) {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(bad("neither http, https nor http+unix")),
        };
        let authority = parts.authority.ok_or_else(|| bad("without a host"))?;
        if authority.as_str().contains('@') {
            // In a URL they end up in logs; a header can be marked sensitive.
            return Err(bad("with credentials: send an Authorization header instead"));
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().len() > host.len() => return Err(bad("with a bad port")),
            None => default_port,
        };
        if host.is_empty() || port == 0 {
            return Err(bad("without a host or port"));
        }
        let name: Arc<str> = format!("{host}:{port}").into();
        let shown = if port == default_port { &host } else { &*name };
        let headers = headers(HeaderValue::from_str(shown).map_err(|_| bad("with a bad host"))?);
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { key: Key { tls, name }, headers, path })
    }

    /// The URL again, with its port.
    pub(super) fn url(&self) -> String {
        let scheme = if self.key.tls { "https" } else { "http" };
        match self.key.name.strip_prefix("unix:") {
            Some(socket) => {
                format!("http+unix://{}{}", utf8_percent_encode(socket, SOCKET_PATH), self.path)
            }
            None => format!("{scheme}://{}{}", self.key.name, self.path),
        }
    }

    /// What comes after `http+unix://`.
    fn parse_unix(rest: &str) -> Result<Self, &'static str> {
        let (socket, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let socket =
            percent_decode_str(socket).decode_utf8().map_err(|_| "with a socket's path that is not text")?;
        if !socket.starts_with('/') || socket.contains(char::is_control) || socket.len() > MAX_UNIX_PATH {
            return Err("without the absolute path of a socket");
        }
        let path = if path.is_empty() { Ok(PathAndQuery::from_static("/")) } else { path.parse() };
        let path = path.map_err(|_| "with a bad path")?;
        let name: Arc<str> = format!("unix:{socket}").into();
        let headers = headers(HeaderValue::from_static("localhost"));
        Ok(Self { key: Key { tls: false, name }, headers, path })
    }
}

fn headers(host: HeaderValue) -> Arc<HeaderMap> {
    Arc::new(HeaderMap::from_iter([(HOST, host), (USER_AGENT, AGENT), (ACCEPT_ENCODING, ACCEPTED)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_scheme_host_and_port_whatever_the_spelling() {
        let key = |url| Target::parse(url).unwrap().key;
        assert_eq!(key("http://Example.com/a"), key("http://example.com:80/b?c"));
        assert_ne!(key("http://example.com:443"), key("https://example.com"));
        assert_eq!((key("http://[::1]:81/").host(), key("http://[::1]:81/").port()), ("::1", 81));
        assert_eq!(Target::parse("https://example.com:8443/x").unwrap().headers[HOST], "example.com:8443");
        assert_eq!(Target::parse("https://example.com:443/x").unwrap().headers[HOST], "example.com");
    }

    #[test]
    fn what_is_known_of_an_origin_makes_no_other_target() {
        let many = (1..=2 * MAX_RECENT).map(|port| format!("http://a:{port}"));
        for origin in many.chain(["HTTPS://A.b".to_owned(), "http+unix://%2Fa.sock".to_owned()]) {
            for path in ["", "/", "/x?y=1#z", "?y", "#z", "/b c", "/é", ":81/", "b/", "@b/"] {
                let url = format!("{origin}{path}");
                let parsed = |target: Result<Target, HttpError>| {
                    target
                        .map(|target| (target.key, target.headers, target.path))
                        .map_err(|bad| bad.to_string())
                };
                let expected = parsed(Target::take_apart(&url));
                assert_eq!(
                    (parsed(Target::parse(&url)), parsed(Target::parse(&url))),
                    (expected.clone(), expected)
                );
            }
        }
        let long = format!("http://a:1/{}", "x".repeat(MAX_URL));
        assert!(Target::parse("http://a:1/").is_ok() && Target::parse(&long).is_err());
    }

    #[test]
    fn http_46_the_path_of_a_unix_socket_is_read_strictly() {
        let target = Target::parse("http+unix://%2Frun%2Fa%20b.sock/x?y=1").unwrap();
        assert_eq!(target.key.unix_path(), Some(Path::new("/run/a b.sock")));
        assert_eq!((target.key.name(), target.path.as_str()), ("unix:/run/a b.sock", "/x?y=1"));
        let target = Target::parse("http+unix://%2Frun%2Fa.sock").unwrap();
        assert_eq!((target.path.as_str(), target.headers[HOST].as_bytes()), ("/", &b"localhost"[..]));
        assert_eq!(Target::parse("http://unix:80/").unwrap().key.unix_path(), None);
        let long = format!("http+unix://%2F{}/", "x".repeat(MAX_UNIX_PATH));
        for bad in
            ["http+unix:///a", "http+unix://run/", "http+unix://%2F%00/", "http+unix://%2F%0D%0A/", &long]
        {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        assert!(Target::parse("http+unix://%2Fa/b c").is_err());
    }

    #[test]
    fn http_47_a_url_with_cr_lf_a_space_or_credentials_is_refused() {
        for bad in [
            "http://a/\r\nx: y",
            "http://a/b c",
            "http://a\r\nhost: b/",
            "ftp://a/",
            "/path",
            "http://",
            "http://user:pw@a/",
            "http://a:0/",
            "http://a:99999/",
        ] {
            let error = Target::parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }
}
