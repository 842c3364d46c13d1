//! `/health`: 200 as long as the process can serve, and what of its surroundings answers.

use actix_web::{HttpResponse, web};
use chrono::Utc;
use pools_core::{chain::ChainPool, health::HealthState, redis::RedisPool};
use serde_json::json;

use crate::{
    chatbot::service::ChatService, ipfs::service::IpfsService, liquidation::service::LiquidationService,
    ml::monitor::MlMonitor, wallet::etherscan::EtherscanClient,
};

/// What `/health` looks at.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Redis.
    pub redis: RedisPool,
    /// The node.
    pub chain: ChainPool,
    /// ml-api.
    pub ml: MlMonitor,
    /// The bot, if it is configured.
    pub liquidation: Option<LiquidationService>,
    /// Etherscan, if it is configured.
    pub etherscan: Option<EtherscanClient>,
    /// Pinata.
    pub ipfs: IpfsService,
    /// Gemini.
    pub chat: ChatService,
}

/// The route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/health").route(web::get().to(health)));
}

async fn health(surroundings: web::Data<Surroundings>) -> HttpResponse {
    let liquidation =
        surroundings.liquidation.as_ref().map_or(HealthState::NotConfigured, LiquidationService::health);
    let (pinata, gemini) = tokio::join!(surroundings.ipfs.health(), surroundings.chat.health());
    let etherscan =
        surroundings.etherscan.as_ref().map_or(HealthState::NotConfigured, EtherscanClient::health);
    let services = [
        ("redis", surroundings.redis.health().state),
        ("chain", surroundings.chain.health().state),
        ("ml", surroundings.ml.state()),
        ("liquidation", liquidation),
        ("etherscan", etherscan),
        ("pinata", pinata),
        ("gemini", gemini),
    ];
    let degraded = services.iter().any(|(_, state)| *state == HealthState::Down);
    let services: serde_json::Map<_, _> =
        services.into_iter().map(|(name, state)| (name.to_owned(), json!(state))).collect();
    HttpResponse::Ok().json(json!({
        "status": if degraded { "degraded" } else { "healthy" },
        "timestamp": Utc::now(),
        "version": env!("CARGO_PKG_VERSION"),
        "services": services,
    }))
}
