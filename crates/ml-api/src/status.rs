//! What an operator asks: `/health` and `/pool/stats`.

use actix_web::{
    HttpRequest,
    web::{self, Data, Json, Query},
};
use pools_core::{
    health::HealthState,
    pool::Pool,
    postgres::PgPool,
    web::{AdminToken, Problem, authorise},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{loans::LoanService, risk::service::RiskService};

/// Everything that the answers are made from.
#[derive(Clone, Debug)]
pub struct Status {
    /// Says whether there is a model.
    pub risk: RiskService,
    /// Says whether loans can be recorded.
    pub loans: LoanService,
    /// The pool, if there is a database.
    pub pool: Option<PgPool>,
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
    let database = status.pool.as_ref().map_or(HealthState::NotConfigured, |pool| pool.health().state);
    let healthy = model_loaded && database != HealthState::Down && status.loans.is_ready();
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
    let Some(pool) = &status.pool else {
        return Ok(Json(json!({ "status": "no_database", "pool_configured": false })));
    };
    let mut body = json!(pool.stats());
    if leases {
        body["leases"] = json!(pool.snapshot().holders);
    }
    Ok(Json(body))
}
