//! Knobs of the Redis pool.

use std::time::Duration;

use crate::{
    redact::SecretString,
    settings::{count, millis, secret_with_default},
};

crate::settings! {
    /// Knobs of the Redis pool.
    pub struct RedisConfig in "Redis pool" {
        /// Server address: `redis://`, `rediss://` or `unix://`. Printed without its password.
        pub url: SecretString = secret_with_default("REDIS_URL", "URL", "redis://localhost:6379");
        /// Reconnects with growing pauses before one log line says so; after that the pool keeps probing every
        /// second, for ever.
        pub max_retries: u32 = count("REDIS_MAX_RETRIES", "retries", 10, 0..=1_000);
        /// Longest time to open a connection, log in included.
        pub connect_timeout: Duration = millis("REDIS_CONNECT_TIMEOUT_MS", 10_000, 1..=600_000);
        /// TCP keep-alive probes start after this long without traffic.
        pub keep_alive: Duration = millis("REDIS_KEEP_ALIVE_MS", 30_000, 1_000..=3_600_000);
        /// Time between two PINGs, idle or not.
        pub ping_interval: Duration = millis("REDIS_PING_INTERVAL_MS", 15_000, 100..=600_000);
        /// Longest time that one command may take: no request waits longer for a sick Redis.
        pub command_timeout: Duration = millis("REDIS_COMMAND_TIMEOUT_MS", 250, 1..=60_000);
    }
}
