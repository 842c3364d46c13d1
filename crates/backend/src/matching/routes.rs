//! `/api/matching/*`.

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use pools_core::web::{JsonBody, Problem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::MatchingError,
    model::{Amount, BasisPoints, LendingOffer, Loan, LoanRequest, Risk, Seconds, TokenType},
    service::MatchingService,
};
use crate::ml::routes::pass;

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    let at = |path: &str| web::resource(format!("/api/matching/{path}"));
    config
        .service(at("market-stats").route(web::get().to(stats)))
        .service(at("active-pools").route(web::get().to(pools)))
        .service(at("calculate-rate").route(web::post().to(rate)))
        .service(at("borrower-recommendations").route(web::post().to(recommendation)))
        .service(at("loan-request").route(web::post().to(request)))
        .service(at("lending-offer").route(web::post().to(offer)));
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wish {
    token_type: TokenType,
    amount: Amount,
    duration: Seconds,
    risk_score: Risk,
    max_rate: BasisPoints,
}

async fn stats(matching: Data<MatchingService>) -> Result<HttpResponse, Problem> {
    answer(matching.stats().await)
}

async fn pools(matching: Data<MatchingService>) -> Result<HttpResponse, Problem> {
    answer(matching.pools().await)
}

async fn rate(
    JsonBody(loan): JsonBody<Loan>,
    matching: Data<MatchingService>,
) -> Result<HttpResponse, Problem> {
    let rate = matching.rate(&loan).await;
    answer(rate.map(|breakdown| json!({ "rate": breakdown.rate(), "breakdown": breakdown })))
}

async fn recommendation(
    JsonBody(wish): JsonBody<Wish>,
    matching: Data<MatchingService>,
) -> Result<HttpResponse, Problem> {
    // Not flattened, so that a member at fault is named.
    let Wish { token_type, amount, duration, risk_score, max_rate } = wish;
    let loan = Loan { token_type, amount, duration, risk_score };
    let found = matching.recommendation(&loan, max_rate).await;
    answer(found.map(|recommendation| json!(recommendation)))
}

async fn request(
    JsonBody(request): JsonBody<LoanRequest>,
    matching: Data<MatchingService>,
) -> Result<HttpResponse, Problem> {
    let order = matching.request(&request).await;
    answer(order.map(|order| ordered("loanId", &request.loan_id.to_string(), order)))
}

async fn offer(
    JsonBody(offer): JsonBody<LendingOffer>,
    matching: Data<MatchingService>,
) -> Result<HttpResponse, Problem> {
    let upper =
        |field: &'static str| Problem::invalid_field(field, format!("{field}: must be at least its minimum"));
    if offer.max_interest_rate < offer.min_interest_rate {
        return Err(upper("maxInterestRate"));
    }
    if offer.max_duration < offer.min_duration {
        return Err(upper("maxDuration"));
    }
    let order = matching.offer(&offer).await;
    answer(order.map(|order| ordered("offerId", &offer.offer_id.to_string(), order)))
}

fn ordered(field: &str, id: &str, (message, found): (Value, Option<Value>)) -> Value {
    let mut body = json!({ "success": true, "message": message, field: id });
    if let Some(found) = found {
        body["match"] = found;
    }
    body
}

/// Our answer, or ml-api's own where it refused.
fn answer(result: Result<Value, MatchingError>) -> Result<HttpResponse, Problem> {
    match result {
        Ok(body) => Ok(HttpResponse::Ok().json(body)),
        Err(MatchingError::Refused(answer)) => Ok(pass(*answer)),
        Err(MatchingError::Ml(cause)) => Err(cause.into()),
    }
}
