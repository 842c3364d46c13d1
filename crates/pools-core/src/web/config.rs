//! Knobs that both services have.

use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use super::{address::networks, cors::origins, limits::Limits, windows::Allowance};
use crate::settings::{count, flag, optional_secret, seconds, text};

crate::settings! {
    /// Knobs of a service, whatever it serves.
    pub struct ServiceConfig in "Service" {
        /// Lets operators use the routes that change or reveal something, as `Authorization: Bearer <token>`.
        /// Without it those routes answer 503.
        pub admin_token: Option<SecretString> = optional_secret("ADMIN_TOKEN", "token");
        /// error, warn, info, debug, trace, or a filter such as `info,pools_core=debug`.
        pub log_level: String = text("LOG_LEVEL", "filter", "info");
        /// Longest time for an incoming request, from its head to the head of the answer. What it asks of others
        /// gets what is left of it. More than an upstream's `…_HEAD_TIMEOUT_MS`, or its silence is never counted. Uploads have
        /// `PINATA_UPLOAD_TOTAL_TIMEOUT_MS` instead.
        pub request_timeout: Duration = seconds("REQUEST_TIMEOUT", 30, 1..=3_600);
        /// Most requests worked on at once; one more is answered 503 with `Retry-After`. As many as may
        /// wait for one host of the HTTP pool. Probes, `/health`, `/metrics` and pool stats are answered all the same.
        pub max_requests: u32 = count("MAX_REQUESTS", "requests", 1_000, 1..=1_000_000);
        /// Proxies whose `X-Forwarded-For` is believed.
        pub trusted_proxies: Vec<IpNet> = networks("TRUSTED_PROXIES");
        /// Origins whose pages may read the answers in a browser.
        pub cors_origins: Vec<String> = origins("CORS_ORIGINS");
        /// How long a service that was told to stop goes on accepting connections, for balancers that need
        /// time to look away. 5 suits Kubernetes.
        pub shutdown_delay: Duration = seconds("SHUTDOWN_DELAY", 0, 0..=600);
        /// Longest time for accepted requests, jobs and pools to end before they are cut: 5 s less than the
        /// 30 s after which Kubernetes kills.
        pub shutdown_timeout: Duration = seconds("SHUTDOWN_TIMEOUT", 25, 0..=3_600);
    }
}

crate::settings! {
    /// How often an address may ask. Probes, `/metrics` and pool stats are never limited.
    pub struct LimitConfig in "Rate limits" {
        /// Whether addresses are limited at all. ml-api limits nobody: its callers are our own services, and the backend limits theirs.
        pub enabled: bool = flag("RATE_LIMIT", true);
        /// Requests of one address within the window, on ordinary routes.
        pub requests: u32 = count("RATE_LIMIT_REQUESTS", "requests", 100, 1..=1_000_000_000);
        /// The same on each group of costly routes.
        pub costly_requests: u32 = count("RATE_LIMIT_COSTLY_REQUESTS", "requests", 20, 1..=1_000_000_000);
        /// The window, which begins with an address' first request.
        pub window: Duration = seconds("RATE_LIMIT_WINDOW", 900, 1..=86_400);
        /// Requests of one address to `/health` within a minute.
        pub health_requests: u32 = count("RATE_LIMIT_HEALTH_REQUESTS", "requests", 60, 1..=1_000_000_000);
    }
}

impl LimitConfig {
    /// The limits of a service with these costly groups of routes, named by their common prefix; `None` when switched off.
    pub fn limits(&self, costly: &[&'static str]) -> Option<Limits> {
        let allow = |requests, window| Allowance { requests, window };
        let costly = costly.iter().map(|prefix| (*prefix, allow(self.costly_requests, self.window)));
        let health = ("/health", allow(self.health_requests, Duration::from_secs(60)));
        let groups: Vec<_> = costly.chain([health]).collect();
        self.enabled.then(|| Limits::new(allow(self.requests, self.window), &groups))
    }
}
