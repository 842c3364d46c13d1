//! Knobs that both services have.

use std::time::Duration;

use secrecy::SecretString;

use crate::settings::{optional_secret, seconds, text};

crate::settings! {
    /// Knobs of a service, whatever it serves.
    pub struct ServiceConfig in "Service" {
        /// Lets operators use the routes that change or reveal something, as `Authorization: Bearer <token>`.
        /// Without it those routes answer 503.
        pub admin_token: Option<SecretString> = optional_secret("ADMIN_TOKEN", "token");
        /// error, warn, info, debug, trace, or a filter such as `info,pools_core=debug`.
        pub log_level: String = text("LOG_LEVEL", "filter", "info");
        /// How long a service that was told to stop goes on accepting connections, for balancers that need
        /// time to look away. 5 suits Kubernetes.
        pub shutdown_delay: Duration = seconds("SHUTDOWN_DELAY", 0, 0..=600);
        /// Longest time for accepted requests, jobs and pools to end before they are cut: 5 s less than the
        /// 30 s after which Kubernetes kills.
        pub shutdown_timeout: Duration = seconds("SHUTDOWN_TIMEOUT", 25, 0..=3_600);
    }
}
