//! `/api/loan-analytics/*`.

use actix_web::{HttpResponse, web};
use pools_core::{
    cache::{Cached, Source},
    web::Problem,
};
use serde::Serialize;

use super::service::ContractService;
use crate::address::WalletAddress;

/// Says where an answer came from: `chain`, or the level of the cache that had it.
const SOURCE: &str = "x-source";

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/loan-analytics/loan/{id}").route(web::get().to(loan)))
        .service(web::resource("/api/loan-analytics/borrower/{address}").route(web::get().to(borrower)))
        .service(web::resource("/api/loan-analytics/tokens").route(web::get().to(tokens)))
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

async fn borrower(
    address: web::Path<String>,
    contracts: web::Data<ContractService>,
) -> Result<HttpResponse, Problem> {
    let cached = contracts.borrower(WalletAddress::in_path(&address)?.get()).await?;
    Ok(from(cached.source, &cached.value.body))
}

async fn tokens(contracts: web::Data<ContractService>) -> Result<HttpResponse, Problem> {
    Ok(answer(&contracts.tokens().await?))
}

fn answer<T: Serialize>(cached: &Cached<T>) -> HttpResponse {
    from(cached.source, &cached.value)
}

fn from(source: Source, body: &impl Serialize) -> HttpResponse {
    let source = match source {
        Source::Loaded => "chain",
        Source::Level1 => "memory",
        Source::Redis => "redis",
        Source::Stale => "stale",
    };
    HttpResponse::Ok().insert_header((SOURCE, source)).json(body)
}
