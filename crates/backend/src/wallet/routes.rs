//! `/api/wallet/{address}`.

use actix_web::web::{self, Data, Json, Path};
use chrono::Utc;
use pools_core::web::Problem;
use serde_json::{Value, json};

use super::{model::Analysis, service::WalletService};
use crate::address::WalletAddress;

/// The route of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/api/wallet/{address}").route(web::get().to(wallet)));
}

async fn wallet(address: Path<String>, wallets: Data<WalletService>) -> Result<Json<Value>, Problem> {
    let address = WalletAddress::in_path(&address)?;
    wallets.check_configured()?;
    let network = wallets.network().await;
    Ok(Json(shown(&wallets.analyse(address, &network, true).await?)))
}

/// An analysis as the API shows it.
pub fn shown(analysis: &Analysis) -> Value {
    let mut body = json!(analysis);
    body["timestamp"] = json!(Utc::now());
    body
}
