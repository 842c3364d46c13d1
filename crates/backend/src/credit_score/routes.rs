//! `/api/credit-score/*`.

use std::time::Duration;

use actix_web::web::{self, Data, Json, Path};
use chrono::Utc;
use pools_core::{
    cache::{Cached, Source as Level},
    web::{JsonBody, Problem},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    model::{breakdown, metrics},
    service::{ScoreError, ScoreService, Scored},
};
use crate::{
    address::WalletAddress,
    wallet::{routes::shown, service::level_name},
};

/// Most wallets in a batch.
const MOST: usize = 50;

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/credit-score/analyze").route(web::post().to(analyze)))
        .service(web::resource("/api/credit-score/batch").route(web::post().to(batch)))
        .service(web::resource("/api/credit-score/{address}").route(web::get().to(score)));
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Analyze {
    address: String,
    #[serde(default = "yes")]
    include_lending_history: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
struct Batch {
    addresses: Vec<String>,
}

impl Batch {
    fn wallets(&self) -> Result<Vec<WalletAddress>, Problem> {
        if !(1..=MOST).contains(&self.addresses.len()) {
            return Err(Problem::invalid_field(
                "addresses",
                "addresses: must be a list of 1 to 50 addresses",
            ));
        }
        let wallet =
            |(index, text): (usize, &String)| WalletAddress::in_field(text, format!("addresses[{index}]"));
        self.addresses.iter().enumerate().map(wallet).collect()
    }
}

async fn score(address: Path<String>, scores: Data<ScoreService>) -> Result<Json<Value>, Problem> {
    let wallet = WalletAddress::in_path(&address)?;
    scores.check_configured()?;
    let scored = scores.score(wallet).await?;
    let analysis = &scored.value.analysis;
    Ok(Json(json!({
        "address": wallet.to_string(),
        "creditScore": scored.value.score,
        "category": scored.value.category,
        "breakdown": breakdown(&scored.value.parts),
        "metrics": metrics(analysis),
        "sources": sources(&scored),
        "timestamp": Utc::now(),
    })))
}

async fn analyze(
    JsonBody(body): JsonBody<Analyze>,
    scores: Data<ScoreService>,
) -> Result<Json<Value>, Problem> {
    let wallet = WalletAddress::in_field(&body.address, "address")?;
    scores.check_configured()?;
    let scored = if body.include_lending_history {
        scores.score(wallet).await?
    } else {
        let value = scores.score_without_loans(wallet).await?;
        Cached { value, source: Level::Loaded, age: Duration::ZERO }
    };
    let mut analysis = shown(&scored.value.analysis);
    analysis["sources"] = sources(&scored);
    Ok(Json(json!({
        "address": wallet.to_string(),
        "creditScore": scored.value.score,
        "analysis": analysis,
        "timestamp": Utc::now(),
    })))
}

async fn batch(JsonBody(body): JsonBody<Batch>, scores: Data<ScoreService>) -> Result<Json<Value>, Problem> {
    let wallets = body.wallets()?;
    scores.check_configured()?;
    let outcomes = scores.scores(&wallets).await;
    let successful = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let results: Vec<_> =
        wallets.iter().zip(&outcomes).map(|(wallet, outcome)| item(*wallet, outcome)).collect();
    Ok(Json(json!({
        "results": results,
        "total": outcomes.len(),
        "successful": successful,
        "failed": outcomes.len() - successful,
        "timestamp": Utc::now(),
    })))
}

fn item(wallet: WalletAddress, outcome: &Result<Cached<Scored>, ScoreError>) -> Value {
    let address = wallet.to_string();
    match outcome {
        Ok(scored) => {
            let mut item = json!({ "address": address, "success": true, "creditScore": scored.value.score });
            let failed = scored.value.analysis.failed();
            if !failed.is_empty() {
                // The score is that of the other parts.
                item["missing"] = json!(failed);
            }
            item
        }
        Err(error) => json!({ "address": address, "success": false, "error": error.to_string() }),
    }
}

/// Where the parts came from when the score was made, and where the score itself did.
fn sources(scored: &Cached<Scored>) -> Value {
    let mut sources = json!(scored.value.analysis.sources);
    sources["creditScore"] =
        json!({ "cache": level_name(scored.source), "ageSeconds": scored.age.as_secs() });
    sources
}

impl From<ScoreError> for Problem {
    fn from(error: ScoreError) -> Self {
        match &error {
            ScoreError::Wallet(cause) => Self::from(&**cause),
            ScoreError::Late => Self::gateway_timeout(error.to_string()),
            ScoreError::Panicked => Self::internal(),
        }
    }
}
