//! How often an address may ask: per group of routes, told by `RateLimit-*` headers.
//!
//! The groups go by the pattern of the route, so that no spelling of a path leads to another group. Every request counts; one
//! too many is still told first what is wrong with it (see `guard.rs`).

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Problem,
    windows::{Allowance, Standing, Windows},
};

/// Addresses remembered per group: about 10 MB.
const ADDRESSES: usize = 65_536;

/// Asked by machines, or needed most when something floods the service.
const EXEMPT: [&str; 5] = ["/health/live", "/health/ready", "/metrics", "/api/pools/stats", "/pool/stats"];

/// The limits of a service.
#[derive(Debug)]
pub struct Limits {
    groups: Vec<(&'static str, Mutex<Windows>)>,
}

impl Limits {
    /// `ordinary` for all routes but those below one of the prefixes, which have an allowance each.
    pub fn new(ordinary: Allowance, groups: &[(&'static str, Allowance)]) -> Self {
        let groups = groups.iter().copied().chain([("", ordinary)]);
        let windows = |allowance| Mutex::new(Windows::new(allowance, ADDRESSES));
        Self { groups: groups.map(|(prefix, allowance)| (prefix, windows(allowance))).collect() }
    }

    /// Counts a request for the route with this pattern; `None` for what is exempt.
    pub(super) fn hit(&self, pattern: &str, client: Option<IpAddr>, now: Instant) -> Option<Standing> {
        if is_exempt(pattern) {
            return None;
        }
        // Without an address there is one caller, who is all of them.
        let client = client.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let is_below = |prefix: &str| {
            let rest = pattern.strip_prefix(prefix);
            prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let group = self.groups.iter().find(|(prefix, _)| is_below(prefix));
        group.map(|(_, windows)| windows.lock().hit(client, now))
    }
}

/// Whether limits and shedding leave this route alone.
pub(super) fn is_exempt(pattern: &str) -> bool {
    EXEMPT.contains(&pattern)
}

impl Standing {
    /// 429, and when to come again.
    pub(super) fn problem(&self) -> Problem {
        let Allowance { requests, window } = self.allowance;
        let detail = format!("more than {requests} requests within {} s from this address", window.as_secs());
        Problem::rate_limited(detail).retry_after(self.reset)
    }

    /// `RateLimit-*` as in the IETF's draft 6, which is what clients of the day read.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let Allowance { requests, window } = self.allowance;
        let reset = self.reset.as_secs_f64().ceil();
        let values = [
            ("ratelimit-limit", requests.to_string()),
            ("ratelimit-remaining", self.remaining.to_string()),
            ("ratelimit-reset", reset.to_string()),
            ("ratelimit-policy", format!("{requests};w={}", window.as_secs())),
        ];
        for (name, value) in values {
            let value = HeaderValue::try_from(value).expect("BUG: digits are a header value");
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_group_counts_by_itself_and_a_similar_name_is_not_a_prefix() {
        let allowance = |requests| Allowance { requests, window: Duration::from_secs(60) };
        let limits = Limits::new(allowance(100), &[("/api/ml", allowance(20)), ("/health", allowance(60))]);
        let limit = |pattern: &str| {
            let standing = limits.hit(pattern, None, Instant::now())?;
            Some((standing.allowance.requests, standing.remaining))
        };
        assert_eq!(limit("/api/ml/predict"), Some((20, 19)));
        assert_eq!(limit("/api/ml"), Some((20, 18)));
        assert_eq!(limit("/api/mlx"), Some((100, 99)));
        assert_eq!(limit("/api/wallet/{address}"), Some((100, 98)));
        assert_eq!(limit("unmatched"), Some((100, 97)));
        assert_eq!(limit("/health"), Some((60, 59)));
        for exempt in EXEMPT {
            assert_eq!(limit(exempt), None, "{exempt}");
        }
    }
}
