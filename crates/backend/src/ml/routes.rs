//! `/api/ml/*`: ml-api's routes under the same names, and a prediction in the front end's form.

use std::collections::BTreeMap;

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use pools_core::web::{JsonBody, Problem};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    client::{Answer, MlClient},
    error::MlError,
};

/// What is asked without a body, with ml-api's path.
const READ: [&str; 5] = ["/health", "/model/info", "/model/metrics", "/comparison", "/data/statistics"];
/// What is sent on, with ml-api's path.
const SENT: [&str; 3] = ["/predict/batch", "/data/record", "/data/update"];

/// JSON, kept as it came: ml-api is to see each number and each member as it was written.
type Body = JsonBody<Box<RawValue>>;

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    let at = |path: &str| web::resource(format!("/api/ml{path}"));
    config.service(at("/predict").route(web::post().to(predict)));
    for path in READ {
        config.service(at(path).route(web::get().to(move |ml: Data<MlClient>| read(path, ml))));
    }
    for path in SENT {
        let send = move |body: Body, ml: Data<MlClient>| send(path, body, ml);
        config.service(at(path).route(web::post().to(send)));
    }
}

async fn read(path: &'static str, ml: Data<MlClient>) -> Result<HttpResponse, Problem> {
    Ok(pass(ml.get(path).await?))
}

async fn send(path: &'static str, JsonBody(body): Body, ml: Data<MlClient>) -> Result<HttpResponse, Problem> {
    Ok(pass(ml.post(path, bytes(body)).await?))
}

/// What is read of ml-api's answer to `/predict`, its numbers as they were written.
#[derive(Debug, Deserialize)]
struct Predicted {
    prediction: BTreeMap<String, Box<RawValue>>,
    missing_features: Option<Box<RawValue>>,
    model: Option<Box<RawValue>>,
}

/// The same as the front end reads it.
#[derive(Debug, Serialize)]
struct Shown {
    success: bool,
    #[serde(rename = "logisticRegression")]
    logistic_regression: BTreeMap<String, Box<RawValue>>,
    missing_features: Option<Box<RawValue>>,
    model: Option<Box<RawValue>>,
}

async fn predict(JsonBody(features): Body, ml: Data<MlClient>) -> Result<HttpResponse, Problem> {
    let answer = ml.post("/predict", bytes(features)).await?;
    if !answer.status.is_success() {
        return Ok(pass(answer));
    }
    let Predicted { prediction, missing_features, model } =
        serde_json::from_slice(&answer.body).map_err(MlError::Answer)?;
    let shown = Shown { success: true, logistic_regression: prediction, missing_features, model };
    Ok(HttpResponse::Ok().json(shown))
}

/// ml-api's answer: its status, its body, and what of its head concerns the caller.
pub fn pass(answer: Answer) -> HttpResponse {
    let mut response = HttpResponse::build(answer.status);
    for header in answer.headers {
        response.insert_header(header);
    }
    response.content_type(answer.content_type).body(answer.body)
}

fn bytes(body: Box<RawValue>) -> web::Bytes {
    String::from(Box::<str>::from(body)).into()
}
