//! `/model/metrics`.

use actix_web::web::{self, Data, Json};
use pools_core::web::Problem;
use serde_json::{Map, Value, json};

use super::service::WatchService;
use crate::risk::{Feature, drift::ENOUGH, routes::MODEL, service::InUse};

/// Adds the route.
pub fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/model/metrics").route(web::get().to(metrics)));
}

async fn metrics(watch: Data<WatchService>) -> Result<Json<Value>, Problem> {
    let in_use = watch.risk().in_use()?;
    let trained = &in_use.trained;
    Ok(Json(json!({
        "success": true,
        "model": MODEL,
        "version": trained.model.version(),
        "training_data": trained.model.training_data(),
        "row_sources": trained.row_sources,
        "metrics": trained.metrics,
        "calibration": trained.calibration,
        "live": live(&watch).await,
        "drift": drift(&in_use),
    })))
}

/// Recent predictions beside what came true.
async fn live(watch: &WatchService) -> Value {
    match watch.picture().await {
        Some(picture) => json!(*picture),
        None if watch.has_store() => json!({ "reason": "Postgres has not been reached since the start" }),
        None => json!({ "reason": "predictions are kept with recorded loans, which needs DATABASE_URL" }),
    }
}

/// How far what is asked has moved from the training rows.
fn drift(in_use: &InUse) -> Value {
    let Some(drift) = in_use.drift() else {
        return json!({ "reason": "what this version was trained on was not kept" });
    };
    match drift.indices {
        Some(indices) => {
            let named = Feature::ALL.into_iter().map(|feature| feature.name().to_owned());
            let psi: Map<String, Value> = named.zip(indices.map(Value::from)).collect();
            json!({ "rows": drift.rows, "psi": psi })
        }
        None => json!({ "rows": drift.rows, "reason": format!("fewer than {ENOUGH} rows say nothing") }),
    }
}
