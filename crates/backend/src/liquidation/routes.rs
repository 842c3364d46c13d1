//! `/api/liquidation/*`.

use actix_web::{HttpRequest, HttpResponse, web};
use pools_core::{
    chain::checksummed,
    web::{AdminToken, Problem, authorise},
};
use serde_json::{Value, json};

use super::service::{LastScan, LiquidationService};

/// The bot, or what it lacks.
#[derive(Clone, Debug)]
pub struct Bot {
    /// `None` without a contract address or a key.
    pub service: Option<LiquidationService>,
    /// `LOANVERSE_CONTRACT_ADDRESS`, as given.
    pub contract: Option<String>,
    /// `RPC_URL`, printable.
    pub rpc_url: String,
}

impl Bot {
    fn service(&self) -> Result<&LiquidationService, Problem> {
        let missing =
            if self.contract.is_none() { "LOANVERSE_CONTRACT_ADDRESS" } else { "LIQUIDATOR_PRIVATE_KEY" };
        self.service.as_ref().ok_or_else(|| Problem::not_configured(format!("{missing} is not set")))
    }
}

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/liquidation/status").route(web::get().to(status)))
        .service(web::resource("/api/liquidation/check").route(web::post().to(check)))
        .service(web::resource("/api/liquidation/start").route(web::post().to(start)))
        .service(web::resource("/api/liquidation/stop").route(web::post().to(stop)));
}

async fn status(bot: web::Data<Bot>) -> HttpResponse {
    let service = bot.service.as_ref();
    let (last_scan, last_error) = match service.and_then(LiquidationService::last) {
        Some(LastScan::Done(report)) => (json!(report), Value::Null),
        Some(LastScan::Failed { reason }) => (Value::Null, json!(reason)),
        None => (Value::Null, Value::Null),
    };
    HttpResponse::Ok().json(json!({
        "isActive": service.is_some_and(LiquidationService::is_active),
        "contractAddress": bot.contract,
        "liquidatorAddress": service.map(|service| checksummed(service.addresses().1)),
        "rpcUrl": bot.rpc_url,
        "activeAuctions": [],
        "lastScan": last_scan,
        "lastError": last_error,
    }))
}

async fn check(
    request: HttpRequest,
    token: web::Data<AdminToken>,
    bot: web::Data<Bot>,
) -> Result<HttpResponse, Problem> {
    authorise(&request, &token)?;
    let report = bot.service()?.scan().await?;
    Ok(HttpResponse::Ok().json(json!({ "success": true, "lastScan": report })))
}

async fn start(
    request: HttpRequest,
    token: web::Data<AdminToken>,
    bot: web::Data<Bot>,
) -> Result<HttpResponse, Problem> {
    switch(&request, &token, &bot, true)
}

async fn stop(
    request: HttpRequest,
    token: web::Data<AdminToken>,
    bot: web::Data<Bot>,
) -> Result<HttpResponse, Problem> {
    switch(&request, &token, &bot, false)
}

fn switch(
    request: &HttpRequest,
    token: &AdminToken,
    bot: &Bot,
    active: bool,
) -> Result<HttpResponse, Problem> {
    authorise(request, token)?;
    bot.service()?.set_active(active);
    Ok(HttpResponse::Ok().json(json!({ "success": true, "isActive": active })))
}
