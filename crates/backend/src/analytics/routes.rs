//! `/api/analytics/*`.

use actix_web::web::{self, Data, Json};
use chrono::{DateTime, Utc};
use pools_core::web::Problem;
use serde_json::{Value, json};

use super::service::AnalyticsService;
use crate::wallet::service::level_name;

/// The route of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/api/analytics/market").route(web::get().to(market)));
}

async fn market(analytics: Data<AnalyticsService>) -> Result<Json<Value>, Problem> {
    let market = analytics.market().await?;
    let mut body = json!(market.value);
    let scanned: DateTime<Utc> = Utc::now() - market.age;
    body["timestamp"] = json!(scanned);
    body["sources"] = json!({ "market": { "from": ["chain"], "cache": level_name(market.source), "ageSeconds": market.age.as_secs() } });
    Ok(Json(body))
}
