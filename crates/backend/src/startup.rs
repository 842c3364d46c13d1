//! The only wiring: settings → pools → clients → services → routes.

use std::{io, sync::Arc, time::Duration};

use actix_web::web;
use pools_core::{
    cache::{Cache, CacheConfig},
    chain::{Address, ChainError, ChainPool, parse_address},
    http::{HttpError, HttpPool},
    redact::{ExposeSecret, printed_url},
    redis::{RedisError, RedisPool},
    registry::Registry,
    tasks::Tasks,
    telemetry::{self, BadLevel, announce, announce_warning},
    web::{AdminToken, QUIET, Service, serve},
};

use crate::{
    analytics::{self, service::AnalyticsService},
    chatbot::{
        self,
        client::{GeminiClient, GeminiSetting},
        service::ChatService,
    },
    contracts::{self, client::ContractClient, service::ContractService},
    credit_score::{self, service::ScoreService},
    health::{self, Surroundings},
    ipfs::{
        self,
        client::{BadUrl, Credentials, PinataClient},
        service::IpfsService,
    },
    liquidation::{self, client::LiquidatorClient, routes::Bot, service::LiquidationService},
    matching::{self, client::BookClient, service::MatchingService},
    ml::{self, client::MlClient, monitor::MlMonitor},
    pools::{self, Pools},
    settings::{Policies, Settings},
    wallet::{
        self,
        client::NodeClient,
        etherscan::EtherscanClient,
        service::{Ttls, WalletService},
    },
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
    /// Correct `ETHERSCAN_URL`.
    #[error("ETHERSCAN_URL is not accepted")]
    Etherscan(#[source] HttpError),
    /// Correct `ML_SERVICE_URL`.
    #[error("ML_SERVICE_URL is not accepted")]
    Ml(#[source] HttpError),
    /// Correct `LIQUIDATOR_PRIVATE_KEY`.
    #[error("LIQUIDATOR_PRIVATE_KEY is not accepted")]
    Key(#[source] ChainError),
    /// Correct `PINATA_URL` or `PINATA_UPLOAD_URL`.
    #[error(transparent)]
    Pinata(#[from] BadUrl),
    /// Correct `GEMINI_URL` or `GEMINI_MODEL`.
    #[error(transparent)]
    Gemini(#[from] GeminiSetting),
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

/// What costs an upstream money or the chain a transaction.
const COSTLY: [&str; 3] = ["/api/ml", "/api/ipfs", "/api/liquidation"];

/// Runs the service until it was told to stop. Returns the exit code.
///
/// # Errors
/// A setting that only its user could judge was wrong, or the port is taken.
pub async fn run(settings: Settings) -> Result<u8, RunError> {
    telemetry::init(&settings.service.log_level, QUIET)?;
    announce("🚀", format_args!("Initializing connection pools..."));
    warn_of_uncounted_silence(&settings);
    let jobs = Tasks::new();
    let (features, registry) = wire(&settings, &jobs)?;
    announce("✅", format_args!("Connection pools initialized"));
    let port = settings.backend.port;
    let service = Service {
        port,
        jobs,
        pools: registry,
        limits: settings.limits.limits(&COSTLY),
        own_timeouts: vec![(ipfs::routes::UPLOAD, settings.policies.upload.total_timeout)],
        config: settings.service,
        warm_up: Box::pin(async {}),
    };
    let routes = move |config: &mut web::ServiceConfig| features.configure(config);
    serve(service, routes).await.map_err(|cause| RunError::Listen { port, cause })
}

/// A call that its request ends is no verdict on whom it asked: a breaker opens for silence only if the head's time-out comes first.
fn warn_of_uncounted_silence(settings: &Settings) {
    let Policies { ml, etherscan, pinata, upload, gemini } = &settings.policies;
    let within_request = |total: Duration| total.min(settings.service.request_timeout);
    let heads = [
        ("ML_API_HEAD_TIMEOUT_MS", ml.head_timeout, within_request(ml.total_timeout)),
        ("ETHERSCAN_HEAD_TIMEOUT_MS", etherscan.head_timeout, within_request(etherscan.total_timeout)),
        ("PINATA_HEAD_TIMEOUT_MS", pinata.head_timeout, within_request(pinata.total_timeout)),
        ("PINATA_UPLOAD_HEAD_TIMEOUT_MS", upload.head_timeout, upload.total_timeout),
        ("GEMINI_HEAD_TIMEOUT_MS", gemini.head_timeout, within_request(gemini.total_timeout)),
    ];
    for (variable, head, end) in heads.into_iter().filter(|(_, head, end)| head >= end) {
        tracing::warn!(variable, ?head, ?end, "a call ends before its time-out: silence is never counted");
    }
}

/// What the routes work with.
#[derive(Clone)]
struct Features {
    contracts: ContractService,
    wallets: WalletService,
    scores: ScoreService,
    analytics: AnalyticsService,
    matching: MatchingService,
    ml: MlClient,
    ipfs: IpfsService,
    chat: ChatService,
    bot: Bot,
    surroundings: Surroundings,
    pools: Pools,
    admin: AdminToken,
}

impl Features {
    fn configure(&self, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::new(self.contracts.clone()))
            .app_data(web::Data::new(self.wallets.clone()))
            .app_data(web::Data::new(self.scores.clone()))
            .app_data(web::Data::new(self.analytics.clone()))
            .app_data(web::Data::new(self.matching.clone()))
            .app_data(web::Data::new(self.ml.clone()))
            .app_data(web::Data::new(self.ipfs.clone()))
            .app_data(web::Data::new(self.chat.clone()))
            .app_data(web::Data::new(self.bot.clone()))
            .app_data(web::Data::new(self.surroundings.clone()))
            .app_data(web::Data::new(self.pools.clone()))
            .app_data(web::Data::new(self.admin.clone()))
            .configure(health::configure)
            .configure(pools::configure)
            .configure(contracts::routes::configure)
            .configure(wallet::routes::configure)
            .configure(credit_score::routes::configure)
            .configure(analytics::routes::configure)
            .configure(matching::routes::configure)
            .configure(liquidation::routes::configure)
            .configure(ml::routes::configure)
            .configure(ipfs::routes::configure)
            .configure(chatbot::routes::configure);
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
    let analytics_ttl = settings.backend.analytics_ttl;
    let analytics = AnalyticsService::new(contract.clone(), cache.clone(), analytics_ttl);
    let contracts = ContractService::new(contract, cache.clone(), analytics_ttl);
    let etherscan = etherscan(settings, &http, jobs)?;
    let wallets = wallets(settings, etherscan.clone(), &chain, contracts.clone(), &cache);
    let scores = ScoreService::new(wallets.clone(), cache.clone(), settings.backend.credit_score_ttl);
    let ml = MlClient::new(http.clone(), &settings.backend.ml_service_url, settings.policies.ml.policy());
    let ml = ml.map_err(RunError::Ml)?;
    let monitor = MlMonitor::start(ml.clone(), jobs);
    let ipfs = ipfs(settings, &http, jobs)?;
    let chat = chat(settings, &http, jobs)?;

    let registry = Arc::new(registry(&http, &chain, &redis, &cache, liquidation.as_ref()));
    let bot = Bot {
        service: liquidation.clone(),
        contract: settings.backend.contract.clone(),
        rpc_url: shown_urls(settings.chain.url.expose_secret()),
    };
    let features = Features {
        contracts,
        wallets,
        scores,
        analytics,
        matching: MatchingService::new(BookClient::new(ml.clone())),
        ml,
        ipfs: ipfs.clone(),
        chat: chat.clone(),
        bot,
        surroundings: Surroundings {
            redis: redis.clone(),
            chain: chain.clone(),
            ml: monitor,
            liquidation,
            etherscan,
            ipfs,
            chat,
        },
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

fn ipfs(settings: &Settings, http: &HttpPool, jobs: &Tasks) -> Result<IpfsService, RunError> {
    let upstreams = &settings.upstreams;
    let keys = (&upstreams.pinata_jwt, &upstreams.pinata_api_key, &upstreams.pinata_secret_key);
    let credentials = match keys {
        (Some(jwt), _, _) => Ok(Credentials::Jwt(jwt.clone())),
        (None, Some(key), Some(secret)) => Ok(Credentials::Keys { key: key.clone(), secret: secret.clone() }),
        (None, Some(_), None) => Err("PINATA_SECRET_KEY"),
        (None, None, Some(_)) => Err("PINATA_API_KEY"),
        (None, None, None) => Err("PINATA_JWT, or PINATA_API_KEY with PINATA_SECRET_KEY,"),
    };
    let urls = (upstreams.pinata_url.as_str(), upstreams.pinata_upload_url.as_str());
    let policies = &settings.policies;
    let client =
        |credentials| PinataClient::new(http, urls, credentials, policies.pinata.policy(), &policies.upload);
    let pinata = match credentials {
        Ok(credentials) => Ok(client(credentials)?),
        Err(missing) => Err(missing),
    };
    Ok(IpfsService::new(pinata, jobs))
}

fn chat(settings: &Settings, http: &HttpPool, jobs: &Tasks) -> Result<ChatService, RunError> {
    let upstreams = &settings.upstreams;
    let model = upstreams.gemini_model.as_str();
    let policy = settings.policies.gemini.policy();
    let client = |key| GeminiClient::new(http.clone(), &upstreams.gemini_url, model, key, policy);
    let gemini = upstreams.gemini_api_key.clone().map(client).transpose()?;
    Ok(ChatService::new(gemini, model, jobs))
}

fn contract(settings: &Settings, chain: &ChainPool) -> Result<Option<ContractClient>, RunError> {
    let Some(text) = settings.backend.contract.as_deref() else { return Ok(None) };
    let address = parse_address(text).ok_or_else(|| RunError::Contract(text.to_owned()))?;
    Ok(Some(ContractClient::new(chain.provider(), address)))
}

fn etherscan(
    settings: &Settings,
    http: &HttpPool,
    jobs: &Tasks,
) -> Result<Option<EtherscanClient>, RunError> {
    let config = &settings.etherscan;
    let client = EtherscanClient::new(http.clone(), config, &settings.policies.etherscan, jobs)
        .map_err(RunError::Etherscan)?;
    match client {
        Some(_) => {
            tracing::info!(url = printed_url(&config.url), rps = config.rps, "Etherscan is configured")
        }
        None => tracing::info!("wallets are known by their loans alone: ETHERSCAN_API_KEY is not set"),
    }
    Ok(client)
}

fn wallets(
    settings: &Settings,
    etherscan: Option<EtherscanClient>,
    chain: &ChainPool,
    contracts: ContractService,
    cache: &Cache,
) -> WalletService {
    let backend = &settings.backend;
    let ttls = Ttls { history: backend.tx_history_ttl, balances: backend.token_balances_ttl };
    let chain_id = Some(u64::from(settings.etherscan.chain_id)).filter(|id| *id != 0);
    WalletService::new(etherscan, NodeClient::new(chain.provider()), contracts, cache.clone(), ttls, chain_id)
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
