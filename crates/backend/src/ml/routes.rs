//! `/api/ml/*`.

use actix_web::{HttpResponse, web};
use pools_core::web::{JsonBody, Problem};
use serde_json::{Value, json};

use super::{
    client::{Answer, MlClient},
    error::MlError,
};

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/ml/health").route(web::get().to(health)))
        .service(web::resource("/api/ml/predict").route(web::post().to(predict)));
}

async fn health(ml: web::Data<MlClient>) -> Result<HttpResponse, Problem> {
    Ok(pass(ml.get("/health").await?))
}

async fn predict(
    ml: web::Data<MlClient>,
    JsonBody(features): JsonBody<Value>,
) -> Result<HttpResponse, Problem> {
    let answer = ml.post("/predict", features.to_string().into()).await?;
    if !answer.status.is_success() {
        return Ok(pass(answer));
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(MlError::Answer)?;
    Ok(HttpResponse::Ok().json(json!({
        "success": true,
        "logisticRegression": body["prediction"],
        "missing_features": body["missing_features"],
        "model": body["model"],
    })))
}

/// ml-api's answer with its status, media type and body.
pub fn pass(answer: Answer) -> HttpResponse {
    HttpResponse::build(answer.status).content_type(answer.content_type).body(answer.body)
}
