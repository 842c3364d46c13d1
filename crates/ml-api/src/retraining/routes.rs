//! `/retrain`, `/model/versions`, `/model/versions/{version}/restore`.

use actix_web::{
    HttpRequest,
    web::{self, Data, Json, Path},
};
use pools_core::web::{AdminToken, Problem, authorise};
use serde_json::{Value, json};

use super::{
    service::{RetrainingService, Verdict},
    store::Versions,
};

/// Adds the routes.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/retrain").route(web::post().to(retrain)))
        .service(web::resource("/model/versions").route(web::get().to(versions)))
        .service(web::resource("/model/versions/{version}/restore").route(web::post().to(restore)));
}

async fn retrain(
    request: HttpRequest,
    admin: Data<AdminToken>,
    retraining: Data<RetrainingService>,
) -> Result<Json<Verdict>, Problem> {
    authorise(&request, &admin)?;
    Ok(Json(retraining.retrain().await?))
}

async fn versions(retraining: Data<RetrainingService>) -> Result<Json<Value>, Problem> {
    let Versions { total, listed } = retraining.versions().await?;
    Ok(Json(json!({ "success": true, "total": total, "count": listed.len(), "versions": listed })))
}

async fn restore(
    request: HttpRequest,
    path: Path<String>,
    admin: Data<AdminToken>,
    retraining: Data<RetrainingService>,
) -> Result<Json<Value>, Problem> {
    let wrong = |_| Problem::bad_request("version: must be a whole number").field("version");
    let version: u32 = path.parse().map_err(wrong)?;
    authorise(&request, &admin)?;
    retraining.roll_back(version).await?;
    Ok(Json(json!({ "success": true, "message": "version restored", "version": version })))
}
