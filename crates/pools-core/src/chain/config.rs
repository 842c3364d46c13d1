//! Knobs of the chain pool.

use std::time::Duration;

use crate::{
    redact::SecretString,
    settings::{count, flag, millis, seconds, secret_with_default},
};

crate::settings! {
    /// Knobs of the chain pool; names and numbers are those of ethers.js' `JsonRpcProvider`.
    pub struct ChainConfig in "Chain pool" {
        /// JSON-RPC endpoint, or a comma-separated list of endpoints of one chain, the preferred first. May
        /// hold an API key, so it is printed as scheme, host and port only.
        pub url: SecretString = secret_with_default("RPC_URL", "URL list", "http://localhost:8000");
        /// Take the chain id as fixed once it was read (ethers.js' `staticNetwork`). When false it is read again
        /// after each reconnect.
        pub static_network: bool = flag("RPC_STATIC_NETWORK", true);
        /// Most calls in one POST (ethers.js' `batchMaxCount`). Nodes that accept less are found out.
        pub batch_max_count: u32 = count("RPC_BATCH_MAX_COUNT", "calls", 100, 1..=10_000);
        /// Longest time that a call waits for others to share its POST (ethers.js' `batchStallTime`). A lone
        /// call never waits.
        pub batch_stall: Duration = millis("RPC_BATCH_STALL_MS", 10, 0..=1_000);
        /// Time between two polls of the head, one poll for all subscribers.
        pub polling_interval: Duration = millis("RPC_POLLING_INTERVAL_MS", 4_000, 100..=600_000);
        /// A provider that nobody used for this long is dropped.
        pub provider_ttl: Duration = seconds("RPC_PROVIDER_TTL", 300, 1..=86_400);
    }
}
