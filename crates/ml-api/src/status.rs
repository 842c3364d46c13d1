//! What an operator asks: `/health` and `/pool/stats`.

use actix_web::{
    HttpRequest,
    web::{self, Data, Json, Query},
};
use pools_core::{
    health::HealthState,
    pool::Pool,
    web::{AdminToken, Problem, authorise},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{database::Database, risk::service::RiskService};

/// Everything that the answers are made from.
#[derive(Clone, Debug)]
pub struct Status {
    /// Says whether there is a model.
    pub risk: RiskService,
    /// The pool and its schema, if there is a database.
    pub database: Option<Database>,
    /// Opens `?detail=leases`.
    pub admin: AdminToken,
}

/// Adds the routes.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/health").route(web::get().to(health)))
        .service(web::resource("/pool/stats").route(web::get().to(pool_stats)));
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    model_loaded: bool,
    service: &'static str,
    database: HealthState,
}

/// A database that nobody configured is no fault; one that is away, or has no tables yet, is.
async fn health(status: Data<Status>) -> Json<Health> {
    let model_loaded = status.risk.is_ready();
    let database = status.database.as_ref();
    let has_schema = database.is_none_or(Database::has_schema);
    let database = database.map_or(HealthState::NotConfigured, |database| database.pool().health().state);
    let healthy = model_loaded && database != HealthState::Down && has_schema;
    Json(Health {
        status: if healthy { "healthy" } else { "degraded" },
        model_loaded,
        service: "ML Risk Assessment Service",
        database,
    })
}

#[derive(Deserialize)]
struct Detail {
    detail: Option<String>,
}

async fn pool_stats(
    request: HttpRequest,
    query: Query<Detail>,
    status: Data<Status>,
) -> Result<Json<Value>, Problem> {
    let leases = match query.detail.as_deref() {
        None => false,
        Some("leases") => true,
        Some(_) => return Err(Problem::bad_request("detail: must be leases").field("detail")),
    };
    if leases {
        authorise(&request, &status.admin)?;
    }
    let Some(pool) = status.database.as_ref().map(Database::pool) else {
        return Ok(Json(json!({ "status": "no_database", "pool_configured": false })));
    };
    let mut body = json!(pool.stats());
    if leases {
        body["leases"] = json!(pool.snapshot().holders);
    }
    Ok(Json(body))
}
