//! What the service allows itself towards one upstream: how much at once, how long, how often again. Operators change it through
//! [`policy_settings!`](crate::policy_settings).

mod settings;

use std::time::Duration;

use ::http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use chrono::{DateTime, Utc};

use super::{HttpError, Response};
use crate::resilience::Rate;

/// The rules for one upstream. Change what differs: `Policy { max_retries: 0, ..Policy::default() }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most requests under way at once, their bodies included: what it may take of the pool's places, so that a slow
    /// upstream never takes another's.
    pub max_in_flight: u32,
    /// Most requests that wait for one of these places, and most that wait for their turn.
    pub max_queue: u32,
    /// Longest wait for a place, and for a connection.
    pub wait_timeout: Duration,
    /// Longest time from the end of an upload to the end of the answer's head. Silence that ends earlier, because a caller's deadline or
    /// the total did, is nobody's fault and not counted by the breaker: this is to be the shortest of the three.
    pub head_timeout: Duration,
    /// Longest time for everything: waits, attempts, pauses, body.
    pub total_timeout: Duration,
    /// How often a request that does no harm twice is sent again.
    pub max_retries: u32,
    /// How many per cent of the requests may be sent again in all.
    pub retry_budget: u32,
    /// Bound of the first pause before a retry; each next one is twice as long.
    pub backoff: Duration,
    /// Bound of every pause.
    pub max_backoff: Duration,
    /// Answers that are retried.
    pub retry_statuses: &'static [u16],
    /// When to stop asking; `None` never does.
    pub breaker: Option<BreakerPolicy>,
    /// How many calls the upstream allows; `None` for any.
    pub rate: Option<Rate>,
}

/// When to stop asking an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// So many failures in a row.
    pub failures: u32,
    /// How long nobody is sent, before one request tries.
    pub pause: Duration,
    /// Answers that are failures, beside no answer at all.
    pub statuses: &'static [u16],
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        // Ten in a row are no coincidence; after five seconds a restarted server answers again.
        Self { failures: 10, pause: Duration::from_secs(5), statuses: &[500, 502, 503, 504] }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            // Two of five upstreams can take all they may before a host's 50 places are gone.
            max_in_flight: 20,
            max_queue: 200,
            wait_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(30),
            max_retries: 2,
            // The share that tower, linkerd and Finagle took as their default.
            retry_budget: 20,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            retry_statuses: &[429, 502, 503, 504],
            breaker: Some(BreakerPolicy::default()),
            rate: None,
        }
    }
}

/// What an attempt tells the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The upstream works.
    Good,
    /// It does not.
    Bad,
    /// It was not asked, or the caller did not wait for the answer.
    Unknown,
}

impl Policy {
    pub(super) fn verdict(&self, result: &Result<Response, HttpError>) -> Verdict {
        match result {
            Ok(response) => {
                let bad = self.breaker.as_ref().map_or(&[][..], |breaker| breaker.statuses);
                if bad.contains(&response.status().as_u16()) { Verdict::Bad } else { Verdict::Good }
            }
            // That it closed an idle connection says nothing about how it does.
            Err(HttpError::Stale { .. }) => Verdict::Unknown,
            Err(error) if error.is_failure() => Verdict::Bad,
            Err(_) => Verdict::Unknown,
        }
    }

    /// Whether another attempt may do better.
    pub(super) fn is_worth_repeating(&self, result: &Result<Response, HttpError>) -> bool {
        match result {
            Ok(response) => self.retry_statuses.contains(&response.status().as_u16()),
            Err(HttpError::Protocol { .. }) => false,
            Err(error) => error.is_failure(),
        }
    }
}

/// The pause that the upstream asks for: nothing if the moment has passed.
pub(super) fn retry_after(response: &Response, now: DateTime<Utc>) -> Option<Duration> {
    let asks = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    asks.contains(&response.status()).then(|| pause_of(response.headers(), now)).flatten()
}

/// `Retry-After` in either of its two forms. Rubbish counts as nothing.
fn pause_of(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        // More digits than a number holds are still "not for a long time".
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let moment = httpdate::parse_http_date(value).ok()?;
    Some((DateTime::<Utc>::from(moment) - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_39_retry_after_is_read_in_seconds_as_a_date_in_the_past_and_absurd() {
        let now = DateTime::parse_from_rfc3339("1994-11-06T08:49:30Z").unwrap().to_utc();
        let pause =
            |value: &str| pause_of(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]), now);
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!(pause("7"), secs(7));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT"), secs(7));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:07 GMT"), secs(0));
        assert_eq!(pause("0"), secs(0));
        assert_eq!(pause("1000000000"), secs(1_000_000_000));
        assert_eq!(pause("99999999999999999999999"), secs(u64::MAX));
        for rubbish in ["", "soon", "-1", "1.5", "6 Nov 1994"] {
            assert_eq!(pause(rubbish), None, "{rubbish:?}");
        }
    }
}
