//! The only wiring: settings → pools → clients → services → routes.

use std::{io, sync::Arc};

use actix_web::web;
use pools_core::{
    cache::{Cache, CacheConfig},
    chain::{Address, ChainError, ChainPool, parse_address},
    http::HttpPool,
    redact::{ExposeSecret, printed_url},
    redis::{RedisError, RedisPool},
    registry::Registry,
    tasks::Tasks,
    telemetry::{self, BadLevel, announce, announce_warning},
    web::{AdminToken, QUIET, Service, serve},
};

use crate::{
    contracts::{self, client::ContractClient, service::ContractService},
    health::{self, Surroundings},
    liquidation::{self, client::LiquidatorClient, routes::Bot, service::LiquidationService},
    ml::{self, client::MlClient, monitor::MlMonitor},
    pools::{self, Pools},
    settings::Settings,
};

/// Why the service does not start. A server that is away is not among the reasons.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Correct `LOG_LEVEL`.
    #[error(transparent)]
    Level(#[from] BadLevel),
    /// Correct `REDIS_URL`.
    #[error("REDIS_URL is not accepted")]
    Redis(#[source] RedisError),
    /// Correct `LOANVERSE_CONTRACT_ADDRESS`.
    #[error("LOANVERSE_CONTRACT_ADDRESS: {0:?} is not an address (0x and 40 hex digits, EIP-55 where mixed)")]
    Contract(String),
    /// Correct `LIQUIDATOR_PRIVATE_KEY`.
    #[error("LIQUIDATOR_PRIVATE_KEY is not accepted")]
    Key(#[source] ChainError),
    /// Free the port, or choose another with `PORT`.
    #[error("port {port} cannot be listened on: free it or set PORT")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Runs the service until it was told to stop. Returns the exit code.
///
/// # Errors
/// A setting that only its user could judge was wrong, or the port is taken.
pub async fn run(settings: Settings) -> Result<u8, RunError> {
    telemetry::init(&settings.service.log_level, QUIET)?;
    announce("🚀", format_args!("Initializing connection pools..."));
    let jobs = Tasks::new();
    let (features, registry) = wire(&settings, &jobs)?;
    announce("✅", format_args!("Connection pools initialized"));
    let port = settings.backend.port;
    let service = Service {
        port,
        jobs,
        pools: registry,
        delay: settings.service.shutdown_delay,
        timeout: settings.service.shutdown_timeout,
        warm_up: Box::pin(async {}),
    };
    let routes = move |config: &mut web::ServiceConfig| features.configure(config);
    serve(service, routes).await.map_err(|cause| RunError::Listen { port, cause })
}

/// What the routes work with.
#[derive(Clone)]
struct Features {
    contracts: ContractService,
    ml: MlClient,
    bot: Bot,
    surroundings: Surroundings,
    pools: Pools,
    admin: AdminToken,
}

impl Features {
    fn configure(&self, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::new(self.contracts.clone()))
            .app_data(web::Data::new(self.ml.clone()))
            .app_data(web::Data::new(self.bot.clone()))
            .app_data(web::Data::new(self.surroundings.clone()))
            .app_data(web::Data::new(self.pools.clone()))
            .app_data(web::Data::new(self.admin.clone()))
            .configure(health::configure)
            .configure(pools::configure)
            .configure(contracts::routes::configure)
            .configure(liquidation::routes::configure)
            .configure(ml::routes::configure);
    }
}

fn wire(settings: &Settings, jobs: &Tasks) -> Result<(Features, Arc<Registry>), RunError> {
    let http = HttpPool::new(settings.http.clone());
    let chain = ChainPool::new(settings.chain.clone(), http.clone());
    let redis = RedisPool::open(settings.redis.clone()).map_err(RunError::Redis)?;
    let cache = Cache::new(redis.clone(), CacheConfig::default());
    announce_redis(&redis, jobs);

    let contract = contract(settings, &chain)?;
    let liquidation = start_bot(settings, &chain, contract.as_ref(), jobs)?;
    let ml = MlClient::new(http.clone(), &settings.backend.ml_service_url);
    let monitor = MlMonitor::start(ml.clone(), jobs);

    let registry = Arc::new(registry(&http, &chain, &redis, &cache, liquidation.as_ref()));
    let bot = Bot {
        service: liquidation.clone(),
        contract: settings.backend.contract.clone(),
        rpc_url: shown_urls(settings.chain.url.expose_secret()),
    };
    let features = Features {
        contracts: ContractService::new(contract, cache, settings.backend.analytics_ttl),
        ml,
        bot,
        surroundings: Surroundings { redis: redis.clone(), chain: chain.clone(), ml: monitor, liquidation },
        pools: Pools { http, chain, redis, registry: Arc::clone(&registry) },
        admin: AdminToken(settings.service.admin_token.clone()),
    };
    Ok((features, registry))
}

fn registry(
    http: &HttpPool,
    chain: &ChainPool,
    redis: &RedisPool,
    cache: &Cache,
    bot: Option<&LiquidationService>,
) -> Registry {
    let mut registry = Registry::new();
    registry.add(Arc::new(http.clone()));
    registry.add(Arc::new(chain.clone()));
    registry.add(Arc::new(redis.clone()));
    let cache = cache.clone();
    registry.add_samples(move || cache.samples());
    if let Some(bot) = bot.cloned() {
        registry.add_samples(move || bot.samples());
    }
    registry
}

fn contract(settings: &Settings, chain: &ChainPool) -> Result<Option<ContractClient>, RunError> {
    let Some(text) = settings.backend.contract.as_deref() else { return Ok(None) };
    let address = parse_address(text).ok_or_else(|| RunError::Contract(text.to_owned()))?;
    Ok(Some(ContractClient::new(chain.provider(), address)))
}

/// Tells operators once how the first connection to Redis ended; the pool itself logs what changes later.
fn announce_redis(redis: &RedisPool, jobs: &Tasks) {
    let (first, stopping) = (redis.first_attempt(), jobs.stopping());
    jobs.spawn("redis announcement", async move {
        tokio::select! {
            outcome = first => match outcome {
                Ok(()) => announce("✅", format_args!("Redis connection pool ready")),
                // The reason was logged by the pool.
                Err(_) => announce_warning("⚠️", format_args!("Running without Redis cache")),
            },
            () = stopping => {}
        }
    });
}

fn start_bot(
    settings: &Settings,
    chain: &ChainPool,
    contract: Option<&ContractClient>,
    jobs: &Tasks,
) -> Result<Option<LiquidationService>, RunError> {
    let Some((contract, key)) = contract.zip(settings.backend.liquidator_key.as_ref()) else {
        tracing::info!("liquidation is off: it needs LOANVERSE_CONTRACT_ADDRESS and LIQUIDATOR_PRIVATE_KEY");
        return Ok(None);
    };
    let sender = chain.sender(key, chain.provider()).map_err(RunError::Key)?;
    let address: Address = contract.address();
    let liquidator = LiquidatorClient::new(chain.provider(), sender, address);
    let interval = settings.backend.liquidation_interval;
    Ok(Some(LiquidationService::start(contract.clone(), liquidator, interval, jobs)))
}

fn shown_urls(list: &str) -> String {
    list.split(',').map(|url| printed_url(url.trim())).collect::<Vec<_>>().join(",")
}
