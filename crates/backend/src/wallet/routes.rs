//! `/api/wallet/{address}`.

use std::time::Duration;

use actix_web::web::{self, Data, Json, Path};
use chrono::Utc;
use pools_core::{resilience::deadline, web::Problem};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{model::Analysis, service::WalletService};
use crate::address::WalletAddress;

/// Longest answer: three calls at three a second behind a full queue of others.
const PATIENCE: Duration = Duration::from_secs(25);

/// The route of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/api/wallet/{address}").route(web::get().to(wallet)));
}

async fn wallet(address: Path<String>, wallets: Data<WalletService>) -> Result<Json<Value>, Problem> {
    let address = WalletAddress::in_path(&address)?;
    wallets.check_configured()?;
    let analysis = deadline::scope(Instant::now() + PATIENCE, async {
        wallets.analyse(address, &wallets.network().await, true).await
    });
    Ok(Json(shown(&analysis.await?)))
}

/// An analysis as the API shows it.
pub fn shown(analysis: &Analysis) -> Value {
    let mut body = json!(analysis);
    body["timestamp"] = json!(Utc::now());
    body
}
