//! From `DATABASE_URL` to what the driver needs.
//!
//! The driver's own parser knows neither `verify-ca`, `verify-full` nor `sslrootcert`, and quotes unknown parts in
//! its errors; so those parameters are taken out first, and its errors are not passed on.

use std::{path::PathBuf, time::Duration};

use bb8_postgres::tokio_postgres::{
    Config,
    config::{Host, SslMode, SslNegotiation},
};

use super::{
    config::PgConfig,
    error::UrlFault,
    tls::{Connector, Mode},
};
use crate::redact::ExposeSecret;

/// The guide's TCP keepalive: first probe after 30 s of silence, then every 10 s, dead after 5 without an answer.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 5);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) connector: Connector,
    /// Directories of Unix sockets with their ports; empty for TCP.
    pub(super) sockets: Vec<(PathBuf, u16)>,
}

impl Target {
    pub(super) fn parse(settings: &PgConfig) -> Result<Self, UrlFault> {
        let url = settings.url.as_ref().ok_or(UrlFault::Absent)?.expose_secret();
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(UrlFault::Scheme);
        }
        let (url, tls) = take_tls(url)?;
        let mut config: Config = url.parse().map_err(|_| UrlFault::Malformed)?;
        let addresses = config.get_hostaddrs().to_vec();
        if config.get_hosts().is_empty() {
            // The driver's TLS wants a name for every address.
            for address in addresses {
                config.host(address.to_string());
            }
        }
        let connector = Connector::new(tls.mode, tls.roots.as_deref())?;
        apply(&mut config, settings);
        let sockets = sockets(&config)?;
        Ok(Self { config, connector, sockets })
    }
}

fn apply(config: &mut Config, settings: &PgConfig) {
    // Our connector makes the handshake, TLS or not; the driver only has to call it.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    if config.get_application_name().is_none() {
        config.application_name(settings.application_name.as_str());
    }
    let (idle, interval, probes) = KEEPALIVE;
    config.keepalives_idle(idle).keepalives_interval(interval).keepalives_retries(probes);
    config.connect_timeout(settings.connect_timeout);
    // Ours first: the server takes the last of two values, and the URL is the more particular place.
    let options = format!(
        "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} {}",
        settings.statement_timeout.as_millis(),
        settings.lock_timeout.as_millis(),
        settings.idle_in_transaction_timeout.as_millis(),
        config.get_options().unwrap_or_default(),
    );
    config.options(options.trim_end());
}

struct Tls {
    mode: Mode,
    roots: Option<PathBuf>,
}

/// The URL without its TLS parameters, and those.
fn take_tls(url: &str) -> Result<(String, Tls), UrlFault> {
    let mut tls = Tls { mode: Mode::Prefer, roots: None };
    // A `?` in an unescaped password stands before the `@`.
    let after_credentials = url.rfind('@').unwrap_or_default();
    let Some(query) = url[after_credentials..].find('?').map(|at| at + after_credentials) else {
        return Ok((url.to_owned(), tls));
    };
    let mut rest = Vec::new();
    for parameter in url[query + 1..].split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", mode)) => tls.mode = parse_mode(mode)?,
            Some(("sslrootcert", path)) => tls.roots = Some(decode(path).into()),
            Some(("sslnegotiation", "postgres")) => {}
            _ => rest.push(parameter),
        }
    }
    let separator = if rest.is_empty() { "" } else { "?" };
    Ok((format!("{}{separator}{}", &url[..query], rest.join("&")), tls))
}

fn parse_mode(mode: &str) -> Result<Mode, UrlFault> {
    Ok(match mode {
        "disable" => Mode::Disable,
        "allow" | "prefer" => Mode::Prefer,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        _ => return Err(UrlFault::TlsMode),
    })
}

fn decode(text: &str) -> String {
    let pair = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn sockets(config: &Config) -> Result<Vec<(PathBuf, u16)>, UrlFault> {
    let hosts = config.get_hosts();
    let ports = config.get_ports();
    let socket = |(index, host): (usize, &Host)| match host {
        Host::Unix(path) => Some((path.clone(), ports.get(index).or(ports.first()).copied().unwrap_or(5432))),
        Host::Tcp(_) => None,
    };
    let sockets: Vec<_> = hosts.iter().enumerate().filter_map(socket).collect();
    match (hosts.len(), sockets.len()) {
        (0, _) => Err(UrlFault::Host),
        (all, some) if some == 0 || some == all => Ok(sockets),
        _ => Err(UrlFault::MixedHosts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, UrlFault> {
        Target::parse(&PgConfig { url: Some(url.into()), ..PgConfig::default() })
    }

    #[test]
    fn faults_are_named_and_never_quote_the_url() {
        assert_eq!(Target::parse(&PgConfig::default()).unwrap_err(), UrlFault::Absent);
        for (url, fault) in [
            ("mysql://root:secret@localhost/db", UrlFault::Scheme),
            ("postgres://u:secret@h/db?sslmode=maybe", UrlFault::TlsMode),
            ("postgres://u:secret@h/db?colour=blue", UrlFault::Malformed),
            ("postgres://u:secret@h:no/db", UrlFault::Malformed),
            ("postgres:///db", UrlFault::Host),
            ("postgres://u:secret@h,%2Ftmp/db", UrlFault::MixedHosts),
            ("postgres://u:secret@h/db?sslmode=verify-full&sslrootcert=/nowhere", UrlFault::RootCertificates),
        ] {
            let found = parse(url).unwrap_err();
            assert_eq!(found, fault, "{url}");
            assert!(!found.to_string().contains("secret"));
        }
    }

    #[test]
    fn a_target_shows_no_password() {
        let target = parse("postgres://u:hunter2@h/db?sslmode=verify-full&application_name=mine").unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
        assert_eq!(target.config.get_application_name(), Some("mine"));
    }
}
