//! `/predict`, `/predict/batch`, `/model/info`, `/model/metrics`, `/comparison`.

use actix_web::web::{self, Data, Json};
use pools_core::web::{JsonBody, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Feature, FeatureRow, Model, Prediction, RowInput,
    batch::Rows,
    service::{RiskService, Trained},
};

/// The only kind of model there is.
const MODEL: &str = "logistic_regression";

/// Adds the routes.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/predict").route(web::post().to(predict)))
        .service(web::resource("/predict/batch").route(web::post().to(predict_batch)))
        .service(web::resource("/model/info").route(web::get().to(info)))
        .service(web::resource("/model/metrics").route(web::get().to(metrics)))
        .service(web::resource("/comparison").route(web::get().to(comparison)));
}

#[derive(Serialize)]
struct Answer {
    success: bool,
    prediction: Prediction,
    model: &'static str,
    missing_features: Vec<&'static str>,
}

async fn predict(
    JsonBody(RowInput(row)): JsonBody<RowInput>,
    risk: Data<RiskService>,
) -> Result<Json<Answer>, Problem> {
    let row = row?;
    let prediction = risk.predict(&row)?;
    Ok(Json(Answer { success: true, prediction, model: MODEL, missing_features: row.missing_features }))
}

#[derive(Deserialize)]
struct Batch {
    loans: Option<Rows>,
}

/// The answer for one row of a batch.
#[derive(Serialize)]
#[serde(untagged)]
enum Item {
    Good {
        success: bool,
        #[serde(flatten)]
        prediction: Prediction,
        missing_features: Vec<&'static str>,
    },
    Bad {
        success: bool,
        error: String,
        code: &'static str,
        field: Option<&'static str>,
    },
}

impl Item {
    fn of(model: &Model, RowInput(row): RowInput) -> Self {
        match row {
            Ok(FeatureRow { values, missing_features }) => {
                Self::Good { success: true, prediction: model.predict(&values), missing_features }
            }
            Err(error) => Self::Bad {
                success: false,
                error: error.to_string(),
                code: "invalid_field",
                field: error.field(),
            },
        }
    }
}

#[derive(Serialize)]
struct BatchAnswer {
    success: bool,
    count: usize,
    predictions: Vec<Item>,
    model: &'static str,
}

async fn predict_batch(
    JsonBody(batch): JsonBody<Batch>,
    risk: Data<RiskService>,
) -> Result<Json<BatchAnswer>, Problem> {
    let missing = || Problem::invalid_field("loans", "loans: must be an array of loans");
    let Rows(rows) = batch.loans.ok_or_else(missing)?;
    let trained = risk.trained()?;
    let predictions: Vec<_> = rows.into_iter().map(|row| Item::of(&trained.model, row)).collect();
    Ok(Json(BatchAnswer { success: true, count: predictions.len(), predictions, model: MODEL }))
}

async fn info(risk: Data<RiskService>) -> Result<Json<Value>, Problem> {
    let trained = risk.trained()?;
    let Trained { model, metrics, .. } = &*trained;
    let coefficients: Vec<_> = model
        .coefficients_by_weight()
        .into_iter()
        .map(|(feature, coefficient)| json!({ "feature": feature.name(), "coefficient": coefficient }))
        .collect();
    Ok(Json(json!({
        "success": true,
        "type": MODEL,
        "version": model.version(),
        "features": Feature::ALL.map(Feature::name),
        "intercept": model.intercept(),
        "coefficients": coefficients,
        "training_data": model.training_data(),
        "rows": { "training": model.rows(), "held_out": metrics.rows },
    })))
}

async fn metrics(risk: Data<RiskService>) -> Result<Json<Value>, Problem> {
    let trained = risk.trained()?;
    Ok(Json(json!({
        "success": true,
        "model": MODEL,
        "version": trained.model.version(),
        "training_data": trained.model.training_data(),
        "metrics": trained.metrics,
    })))
}

async fn comparison(risk: Data<RiskService>) -> Result<Json<Value>, Problem> {
    let trained = risk.trained()?;
    Ok(Json(json!({
        "success": true,
        "training_data": trained.model.training_data(),
        "rows": trained.metrics.rows,
        MODEL: trained.metrics,
        "heuristic": trained.heuristic,
    })))
}
