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
    /// One per host, in the order in which they are tried.
    pub(super) hosts: Vec<Config>,
    pub(super) connector: Connector,
    /// After how long the server ends a statement.
    pub(super) statement_timeout: Duration,
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
        let statement_timeout = config.get_options().and_then(statement_timeout);
        let statement_timeout = statement_timeout.unwrap_or(settings.statement_timeout);
        apply(&mut config, settings);
        let sockets = sockets(&config)?;
        Ok(Self { hosts: apart(&config)?, connector, statement_timeout, sockets })
    }
}

/// One configuration per host, so that each can be given its share of the time: the driver would spend all of it
/// on a first host that takes the connection and says nothing.
fn apart(config: &Config) -> Result<Vec<Config>, UrlFault> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let fits = |count: usize| count <= 1 || count == hosts.len();
    if !fits(ports.len()) || !(addresses.is_empty() || addresses.len() == hosts.len()) {
        return Err(UrlFault::Malformed);
    }
    let one = |(index, host): (usize, &Host)| {
        let mut one = Config::new();
        one.ssl_mode(config.get_ssl_mode()).ssl_negotiation(config.get_ssl_negotiation());
        one.target_session_attrs(config.get_target_session_attrs());
        one.load_balance_hosts(config.get_load_balance_hosts());
        one.channel_binding(config.get_channel_binding());
        one.keepalives(config.get_keepalives()).keepalives_idle(config.get_keepalives_idle());
        config.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        config.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        config.get_connect_timeout().map(|limit| one.connect_timeout(*limit));
        config.get_tcp_user_timeout().map(|limit| one.tcp_user_timeout(*limit));
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        config.get_application_name().map(|name| one.application_name(name));
        match host {
            Host::Tcp(name) => one.host(name),
            Host::Unix(path) => one.host_path(path),
        };
        addresses.get(index).map(|address| one.hostaddr(*address));
        one.port(ports.get(index).or(ports.first()).copied().unwrap_or(5432));
        one
    };
    Ok(hosts.iter().enumerate().map(one).collect())
}

fn apply(config: &mut Config, settings: &PgConfig) {
    // Our connector makes the handshake, TLS or not; the driver only has to call it.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    if config.get_application_name().is_none() {
        config.application_name(settings.application_name.as_str());
    }
    let (idle, interval, probes) = KEEPALIVE;
    config.keepalives_idle(idle).keepalives_interval(interval).keepalives_retries(probes);
    // Ours first: the server takes the last of two values, and the URL is the more particular place.
    if settings.transaction_pooling {
        // PgBouncer refuses what it does not know, and the next session would not have it.
        return;
    }
    let options = format!(
        "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} {}",
        settings.statement_timeout.as_millis(),
        settings.lock_timeout.as_millis(),
        settings.idle_in_transaction_timeout.as_millis(),
        config.get_options().unwrap_or_default(),
    );
    config.options(options.trim_end());
}

/// The `statement_timeout` that the URL's options set, if they do: the last of several, as on the server. One without
/// a limit, or not understood here, is never waited for too short.
fn statement_timeout(options: &str) -> Option<Duration> {
    const UNKNOWN: Duration = Duration::from_secs(365 * 86_400);
    let value = |word: &str| {
        let word = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word);
        let (name, value) = word.split_once('=')?;
        let ours = name.replace('-', "_").eq_ignore_ascii_case("statement_timeout");
        ours.then(|| duration(value).filter(|limit| !limit.is_zero()).unwrap_or(UNKNOWN))
    };
    options.split_whitespace().filter_map(value).next_back()
}

/// A time as Postgres writes it: milliseconds, or a whole number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis)
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

    /// The socket shows the first of them only, see `tests/postgres/session.rs`.
    #[test]
    fn pg_26_each_host_is_probed_after_30_s_every_10_s_and_given_up_after_5_probes() {
        let target = parse("postgres://u@one,two/db").unwrap();
        let seconds = |time: Duration| time.as_secs();
        let probed = |host: &Config| {
            let interval = host.get_keepalives_interval().map(seconds);
            (
                host.get_keepalives(),
                seconds(host.get_keepalives_idle()),
                interval,
                host.get_keepalives_retries(),
            )
        };
        assert_eq!(target.hosts.len(), 2);
        assert!(target.hosts.iter().all(|host| probed(host) == (true, 30, Some(10), Some(5))));
    }

    #[test]
    fn pg_31_a_statement_time_out_among_the_urls_options_is_the_one_that_is_reckoned_with() {
        let effective = |options: &str| {
            let target = parse(&format!("postgres://u@h/db{options}")).unwrap();
            target.statement_timeout.as_millis()
        };
        assert_eq!(effective(""), 30_000);
        assert_eq!(effective("?options=-c%20lock_timeout%3D7"), 30_000);
        for (value, millis) in [("4000", 4_000), ("4s", 4_000), ("2min", 120_000), ("900ms", 900)] {
            assert_eq!(effective(&format!("?options=-c%20statement_timeout%3D{value}")), millis);
            assert_eq!(effective(&format!("?options=--statement-timeout%3D{value}")), millis);
        }
        let year = 365 * 86_400_000;
        assert_eq!(effective("?options=-cstatement_timeout%3D0"), year, "0 is no limit");
        assert_eq!(effective("?options=-cSTATEMENT_TIMEOUT%3D1e3"), year, "unknown, therefore long");
        assert_eq!(effective("?options=-cstatement_timeout%3D1s%20-cstatement_timeout%3D2s"), 2_000);
    }

    #[test]
    fn a_target_shows_no_password() {
        let target = parse("postgres://u:hunter2@h/db?sslmode=verify-full&application_name=mine").unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
        assert_eq!(target.hosts[0].get_application_name(), Some("mine"));
    }
}
