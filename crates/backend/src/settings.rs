//! What this service can be told.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use pools_core::{
    config::{chain::ChainConfig, http::HttpConfig, redis::RedisConfig},
    redact::SecretString,
    settings::{Section, StartError, Values, optional_secret, optional_text, port, seconds, text},
    web::{LimitConfig, ServiceConfig, healthcheck_command, is_healthcheck},
};

use crate::{
    chatbot::client::GeminiPolicy,
    ipfs::client::{PinataPolicy, UploadConfig},
    ml::client::MlPolicy,
    wallet::etherscan::{EtherscanConfig, EtherscanPolicy},
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
        /// How long a wallet's transactions stay in the cache.
        pub tx_history_ttl: Duration = seconds("TX_HISTORY_TTL", 300, 1..=86_400);
        /// How long a wallet's tokens stay in the cache.
        pub token_balances_ttl: Duration = seconds("TOKEN_BALANCES_TTL", 300, 1..=86_400);
        /// How long a credit score stays in the cache.
        pub credit_score_ttl: Duration = seconds("CREDIT_SCORE_TTL", 300, 1..=86_400);
        /// How long analytics results stay in the cache.
        pub analytics_ttl: Duration = seconds("ANALYTICS_TTL", 600, 1..=86_400);
    }
}

pools_core::settings! {
    /// Where third parties are, and the keys to them. Without its key a feature answers 503.
    pub struct UpstreamConfig in "Upstreams" {
        /// Pinata's API.
        pub pinata_url: String = text("PINATA_URL", "URL", "https://api.pinata.cloud");
        /// Where Pinata takes files, with `PINATA_JWT`.
        pub pinata_upload_url: String = text("PINATA_UPLOAD_URL", "URL", "https://uploads.pinata.cloud");
        /// Key for Pinata's legacy API, with `PINATA_SECRET_KEY`.
        pub pinata_api_key: Option<SecretString> = optional_secret("PINATA_API_KEY", "key");
        /// The other half of `PINATA_API_KEY`.
        pub pinata_secret_key: Option<SecretString> = optional_secret("PINATA_SECRET_KEY", "key");
        /// Token for Pinata's V3 API, which is used when it is set. Files of one API are unknown to the other.
        pub pinata_jwt: Option<SecretString> = optional_secret("PINATA_JWT", "token");
        /// Gemini's API.
        pub gemini_url: String = text("GEMINI_URL", "URL", "https://generativelanguage.googleapis.com");
        /// Key for Gemini.
        pub gemini_api_key: Option<SecretString> = optional_secret("GEMINI_API_KEY", "key");
        /// The model that answers in the chat.
        pub gemini_model: String = text("GEMINI_MODEL", "name", "gemini-2.5-flash");
    }
}

/// Everything, read once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The backend's own.
    pub backend: BackendConfig,
    /// Third parties.
    pub upstreams: UpstreamConfig,
    /// Those of every service.
    pub service: ServiceConfig,
    /// How often an address may ask.
    pub limits: LimitConfig,
    /// Calls to Etherscan.
    pub etherscan: EtherscanConfig,
    /// What each upstream may take.
    pub policies: Policies,
    /// HTTP pool.
    pub http: HttpConfig,
    /// Chain pool.
    pub chain: ChainConfig,
    /// Redis pool.
    pub redis: RedisConfig,
}

/// What each upstream may take.
#[derive(Clone, Debug)]
pub struct Policies {
    /// ml-api.
    pub ml: MlPolicy,
    /// Etherscan.
    pub etherscan: EtherscanPolicy,
    /// Pinata.
    pub pinata: PinataPolicy,
    /// Uploads to Pinata.
    pub upload: UploadConfig,
    /// Gemini.
    pub gemini: GeminiPolicy,
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
            .about("HTTP API of the lending platform: contract reads, credit scores, liquidation, risk predictions")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand(healthcheck_command());
        let (values, matches) = Values::from_args(command, &sections(), args, environment)?;
        let backend = BackendConfig::read(&values)?;
        if is_healthcheck(&matches) {
            return Ok(Self::HealthCheck { port: backend.port });
        }
        Ok(Self::Serve(Box::new(Settings {
            backend,
            upstreams: UpstreamConfig::read(&values)?,
            service: ServiceConfig::read(&values)?,
            limits: LimitConfig::read(&values)?,
            etherscan: EtherscanConfig::read(&values)?,
            policies: Policies {
                ml: MlPolicy::read(&values)?,
                etherscan: EtherscanPolicy::read(&values)?,
                pinata: PinataPolicy::read(&values)?,
                upload: UploadConfig::read(&values)?,
                gemini: GeminiPolicy::read(&values)?,
            },
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
        UpstreamConfig::section(),
        ServiceConfig::section(),
        LimitConfig::section(),
        EtherscanConfig::section(),
        MlPolicy::section(),
        EtherscanPolicy::section(),
        PinataPolicy::section(),
        UploadConfig::section(),
        GeminiPolicy::section(),
        HttpConfig::section(),
        ChainConfig::section(),
        RedisConfig::section(),
    ]
}
