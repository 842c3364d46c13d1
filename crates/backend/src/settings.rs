//! What this service can be told.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use pools_core::{
    config::{chain::ChainConfig, http::HttpConfig, redis::RedisConfig},
    redact::SecretString,
    settings::{Section, StartError, Values, optional_secret, optional_text, port, seconds, text},
    web::{ServiceConfig, healthcheck_command, is_healthcheck},
};

pools_core::settings! {
    /// Knobs of the backend alone.
    pub struct BackendConfig in "Backend" {
        /// Port to listen on.
        pub port: u16 = port("PORT", 3001);
        /// Where ml-api is.
        pub ml_service_url: String = text("ML_SERVICE_URL", "URL", "http://localhost:3002");
        /// Address of the lending contract. Without it the routes that read it answer 503.
        pub contract: Option<String> = optional_text("LOANVERSE_CONTRACT_ADDRESS", "address");
        /// Key of the account that liquidates. Without it nothing is liquidated; it never has a default.
        pub liquidator_key: Option<SecretString> = optional_secret("LIQUIDATOR_PRIVATE_KEY", "hex key");
        /// Time between two liquidation scans.
        pub liquidation_interval: Duration = seconds("LIQUIDATION_INTERVAL", 10, 1..=86_400);
        /// How long analytics results stay in the cache.
        pub analytics_ttl: Duration = seconds("ANALYTICS_TTL", 600, 1..=86_400);
    }
}

/// Everything, read once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The backend's own.
    pub backend: BackendConfig,
    /// Those of every service.
    pub service: ServiceConfig,
    /// HTTP pool.
    pub http: HttpConfig,
    /// Chain pool.
    pub chain: ChainConfig,
    /// Redis pool.
    pub redis: RedisConfig,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Task {
    /// Serve.
    Serve(Box<Settings>),
    /// Ask the service that listens on this port whether it lives.
    HealthCheck {
        /// Of this machine.
        port: u16,
    },
}

impl Task {
    /// From arguments and environment.
    ///
    /// # Errors
    /// `--help`, a wrong flag, a wrong or unknown variable.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, StartError> {
        let command = clap::Command::new("backend")
            .about("HTTP API of the lending platform: contract reads, liquidation, risk predictions")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand(healthcheck_command());
        let (values, matches) = Values::from_args(command, &sections(), args, environment)?;
        let backend = BackendConfig::read(&values)?;
        if is_healthcheck(&matches) {
            return Ok(Self::HealthCheck { port: backend.port });
        }
        Ok(Self::Serve(Box::new(Settings {
            backend,
            service: ServiceConfig::read(&values)?,
            http: HttpConfig::read(&values)?,
            chain: ChainConfig::read(&values)?,
            redis: RedisConfig::read(&values)?,
        })))
    }
}

/// Every setting of this service, for help and documentation.
pub fn sections() -> Vec<Section> {
    vec![
        BackendConfig::section(),
        ServiceConfig::section(),
        HttpConfig::section(),
        ChainConfig::section(),
        RedisConfig::section(),
    ]
}
