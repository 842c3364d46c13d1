//! `/health`: 200 as long as the process can serve, and what of its surroundings answers.

use actix_web::{HttpResponse, web};
use chrono::Utc;
use pools_core::{chain::ChainPool, health::HealthState, redis::RedisPool};
use serde_json::json;

use crate::{liquidation::service::LiquidationService, ml::monitor::MlMonitor};

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
}

/// The route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/health").route(web::get().to(health)));
}

async fn health(surroundings: web::Data<Surroundings>) -> HttpResponse {
    let liquidation =
        surroundings.liquidation.as_ref().map_or(HealthState::NotConfigured, LiquidationService::health);
    let services = [
        ("redis", surroundings.redis.health().state),
        ("chain", surroundings.chain.health().state),
        ("ml", surroundings.ml.state()),
        ("liquidation", liquidation),
        ("etherscan", HealthState::NotConfigured),
        ("pinata", HealthState::NotConfigured),
        ("gemini", HealthState::NotConfigured),
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
