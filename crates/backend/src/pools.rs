//! `/api/pools/stats`: what the pools hold.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::Utc;
use pools_core::{
    chain::ChainPool,
    http::HttpPool,
    redis::RedisPool,
    registry::Registry,
    web::{AdminToken, Problem, authorise},
};
use serde::Deserialize;
use serde_json::json;

/// The pools of this service.
#[derive(Clone, Debug)]
pub struct Pools {
    /// HTTP.
    pub http: HttpPool,
    /// JSON-RPC.
    pub chain: ChainPool,
    /// Redis.
    pub redis: RedisPool,
    /// All of them, for leases.
    pub registry: Arc<Registry>,
}

#[derive(Debug, Deserialize)]
struct Query {
    detail: Option<String>,
}

/// The route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/api/pools/stats").route(web::get().to(stats)));
}

async fn stats(
    request: HttpRequest,
    query: web::Query<Query>,
    pools: web::Data<Pools>,
    token: web::Data<AdminToken>,
) -> Result<HttpResponse, Problem> {
    let shown = json!({
        "http": pools.http.stats(),
        "redis": pools.redis.stats(),
        "blockchain": pools.chain.stats(),
    });
    let mut body = shown.clone();
    body["success"] = json!(true);
    body["timestamp"] = json!(Utc::now());
    body["pools"] = shown;
    match query.detail.as_deref() {
        None => {}
        Some("leases") => {
            authorise(&request, &token)?;
            let snapshots = pools.registry.snapshots();
            body["leases"] = snapshots.iter().map(|s| (s.pool.to_string(), json!(s.holders))).collect();
        }
        Some(_) => {
            return Err(Problem::bad_request("the only detail is leases").field("detail"));
        }
    }
    Ok(HttpResponse::Ok().json(body))
}
