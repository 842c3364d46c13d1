//! `/predict`, `/predict/batch`, `/model/info`, `/comparison`.

use actix_web::web::{self, Data, Json};
use pools_core::web::{JsonBody, Problem};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Feature, FeatureRow, Features, Prediction, RowError, RowInput, Trained,
    batch::BatchBody,
    service::{InUse, RiskService},
};

/// The only kind of model there is.
pub(crate) const MODEL: &str = "logistic_regression";

/// Adds the routes.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/predict").route(web::post().to(predict)))
        .service(web::resource("/predict/batch").route(web::post().to(predict_batch)))
        .service(web::resource("/model/info").route(web::get().to(info)))
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
        /// Its place in the batch, from 0.
        row: usize,
        error: String,
        code: &'static str,
        field: Option<&'static str>,
    },
}

impl Item {
    fn good(prediction: Prediction, missing_features: Vec<&'static str>) -> Self {
        Self::Good { success: true, prediction, missing_features }
    }

    fn bad(row: usize, error: RowError) -> Self {
        let field = error.field();
        Self::Bad {
            success: false,
            row,
            error: format!("loans[{row}]: {error}"),
            code: "invalid_field",
            field,
        }
    }
}

/// The good rows are predicted together.
fn answers(model: &InUse, rows: Vec<RowInput>) -> Vec<Item> {
    let values: Vec<Features> =
        rows.iter().filter_map(|RowInput(row)| Some(row.as_ref().ok()?.values)).collect();
    let mut predictions = model.predict_batch(&values).into_iter();
    let mut predicted = || predictions.next().expect("BUG: each good row has a prediction");
    let item = |(place, RowInput(row)): (usize, RowInput)| match row {
        Ok(FeatureRow { missing_features, .. }) => Item::good(predicted(), missing_features),
        Err(error) => Item::bad(place, error),
    };
    rows.into_iter().enumerate().map(item).collect()
}

#[derive(Serialize)]
struct BatchAnswer {
    success: bool,
    count: usize,
    predictions: Vec<Item>,
    model: &'static str,
}

async fn predict_batch(
    BatchBody(rows): BatchBody,
    risk: Data<RiskService>,
) -> Result<Json<BatchAnswer>, Problem> {
    let missing = || Problem::invalid_field("loans", "loans: must be an array of loans");
    let rows = rows.ok_or_else(missing)?;
    let predictions = answers(&*risk.in_use()?, rows);
    Ok(Json(BatchAnswer { success: true, count: predictions.len(), predictions, model: MODEL }))
}

async fn info(risk: Data<RiskService>) -> Result<Json<Value>, Problem> {
    let trained = risk.trained()?;
    let Trained { model, metrics, row_sources, .. } = &*trained;
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
        "row_sources": row_sources,
    })))
}

async fn comparison(risk: Data<RiskService>) -> Result<Json<Value>, Problem> {
    let trained = risk.trained()?;
    Ok(Json(json!({
        "success": true,
        "training_data": trained.model.training_data(),
        "rows": trained.metrics.rows,
        "row_sources": trained.row_sources,
        MODEL: trained.metrics,
        "heuristic": trained.heuristic,
    })))
}
