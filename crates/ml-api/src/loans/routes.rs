//! `/data/record`, `/data/update`, `/data/statistics`.

use actix_web::web::{self, Data, Json};
use pools_core::web::{JsonBody, Problem};
use serde_json::{Value, json};

use super::{
    model::{LoanRecord, Members, OutcomeUpdate},
    service::LoanService,
    store::Statistics,
};

/// Adds the routes.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/data/record").route(web::post().to(record)))
        .service(web::resource("/data/update").route(web::post().to(update)))
        .service(web::resource("/data/statistics").route(web::get().to(statistics)));
}

async fn record(JsonBody(body): JsonBody<Members>, loans: Data<LoanService>) -> Result<Json<Value>, Problem> {
    let loan = LoanRecord::parse(body)?;
    let created = loans.record(&loan).await?;
    let message = if created { "loan recorded" } else { "loan updated" };
    Ok(Json(json!({ "success": true, "message": message, "loan_id": loan.id.as_str(), "created": created })))
}

async fn update(JsonBody(body): JsonBody<Members>, loans: Data<LoanService>) -> Result<Json<Value>, Problem> {
    let update = OutcomeUpdate::parse(body)?;
    loans.update(&update).await?;
    Ok(Json(json!({ "success": true, "message": "outcome recorded", "loan_id": update.id.as_str() })))
}

async fn statistics(loans: Data<LoanService>) -> Result<Json<Statistics>, Problem> {
    Ok(Json(loans.statistics().await?))
}
