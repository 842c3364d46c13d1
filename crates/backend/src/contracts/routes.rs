//! `/api/loan-analytics/*`.

use actix_web::{HttpResponse, web};
use pools_core::{
    cache::{Cached, Source},
    web::Problem,
};
use serde::Serialize;

use super::service::ContractService;

/// Says where an answer came from: `chain`, or the level of the cache that had it.
const SOURCE: &str = "x-source";

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/loan-analytics/loan/{id}").route(web::get().to(loan)))
        .service(web::resource("/api/loan-analytics/active").route(web::get().to(active)));
}

async fn loan(id: web::Path<String>, contracts: web::Data<ContractService>) -> Result<HttpResponse, Problem> {
    let id =
        id.parse().map_err(|_| Problem::bad_request("a loan id is a whole number from 1").field("id"))?;
    Ok(answer(&contracts.loan(id).await?))
}

async fn active(contracts: web::Data<ContractService>) -> Result<HttpResponse, Problem> {
    Ok(answer(&contracts.active().await?))
}

fn answer<T: Serialize>(cached: &Cached<T>) -> HttpResponse {
    let source = match cached.source {
        Source::Loaded => "chain",
        Source::Level1 => "memory",
        Source::Redis => "redis",
        Source::Stale => "stale",
    };
    HttpResponse::Ok().insert_header((SOURCE, source)).json(&cached.value)
}
