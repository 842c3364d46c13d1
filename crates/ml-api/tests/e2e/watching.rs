//! `/model/metrics` and the gauges: predictions beside outcomes, and how far what is asked has moved.

use futures_util::future::join_all;
use ml_api::risk::{Example, Feature, generator};
use serde_json::{Map, Value, json};
use testkit::{Stop, until_async};

use crate::{
    api::{Api, BOUND, OK},
    retraining,
};

fn loans(count: usize) -> Vec<Example> {
    generator::generate(count, 77)
}

fn features(example: &Example) -> Map<String, Value> {
    let values = Feature::ALL.into_iter().zip(example.features);
    values.map(|(feature, value)| (feature.name().to_owned(), json!(value))).collect()
}

/// Records loans, and how they ended.
async fn live(api: &Api, loans: &[Example]) {
    let one = async |id: usize, example: &Example| {
        let id = format!("live-{id}");
        let mut loan = features(example);
        loan.insert("loan_id".to_owned(), json!(id));
        let recorded = api.post("/data/record", &loan.into()).await.status;
        let outcome = json!({ "loan_id": id, "outcome": { "default": u8::from(example.default) } });
        (recorded, api.post("/data/update", &outcome).await.status)
    };
    let done = join_all(loans.iter().enumerate().map(|(id, example)| one(id, example))).await;
    assert_eq!(done, vec![(OK, OK); loans.len()]);
}

async fn metrics(api: &Api) -> Value {
    let answer = api.get("/model/metrics").await;
    assert_eq!(answer.status, OK, "{answer:?}");
    answer.json()
}

fn gauge(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn predictions_made_at_recording_are_judged_by_how_the_loans_ended() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    until_async(BOUND, async || metrics(&api).await["live"]["loans"] == 0).await;
    let empty = metrics(&api).await;
    assert_eq!((&empty["live"]["loans"], &empty["live"]["metrics"]), (&json!(0), &Value::Null));
    assert_eq!(empty["metrics"]["rows"], 2000);
    let loans = loans(300);
    // What is asked and what is kept must be the same.
    let asked = api.post("/predict", &features(&loans[0]).into()).await.json();

    live(&api, &loans).await;

    let probability = asked["prediction"]["default_probability"].as_f64().unwrap();
    let kept =
        postgres.admin_query("SELECT predicted, predicted_by FROM loans WHERE loan_id = 'live-0'").await;
    assert_eq!(kept, [[probability.to_string(), "1".to_owned()]]);
    until_async(BOUND, async || metrics(&api).await["live"]["loans"] == 300).await;
    let seen = metrics(&api).await["live"].clone();
    let defaults = loans.iter().filter(|example| example.default).count();
    assert_eq!(seen["loans"], 300);
    assert_eq!(seen["versions"][0]["loans"], 300);
    let auc = seen["metrics"]["roc_auc"].as_f64().unwrap();
    assert!((0.7..1.0).contains(&auc), "{auc}");
    let calibration = &seen["calibration"];
    assert_eq!(calibration["default_rate"].as_f64(), Some(defaults as f64 / 300.0));
    let rows: u64 =
        calibration["bins"].as_array().unwrap().iter().map(|bin| bin["rows"].as_u64().unwrap()).sum();
    assert_eq!(rows, 300);

    let text = api.get("/metrics").await.text;
    assert_eq!(gauge(&text, "ml_live_auc"), Some(auc));
    assert_eq!(gauge(&text, "ml_live_loans"), Some(300.0));
    assert_eq!(gauge(&text, "ml_live_calibration_error"), calibration["error"].as_f64());
    assert_eq!(gauge(&text, "ml_model_version"), Some(1.0));
}

#[tokio::test]
async fn live_measures_and_drift_outlast_a_restart_and_an_outage() {
    let postgres = testkit::postgres().await;
    let url = postgres.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let first = Api::start_healthy(&environment).await;
    live(&first, &loans(200)).await;
    // A picture that cannot be had in time is the last one.
    until_async(BOUND, async || metrics(&first).await["live"]["loans"] == 200).await;
    let before = metrics(&first).await;
    drop(first);

    let second = Api::start_healthy(&environment).await;
    until_async(BOUND, async || metrics(&second).await["drift"]["rows"] == 200).await;
    until_async(BOUND, async || metrics(&second).await["live"]["loans"] == 200).await;
    let after = metrics(&second).await;
    assert_eq!(after["live"]["metrics"], before["live"]["metrics"]);
    assert_eq!(after["drift"]["psi"].as_object().unwrap().len(), 22);

    postgres.stop(Stop::Immediate).await;
    assert_eq!(metrics(&second).await["live"]["metrics"], before["live"]["metrics"]);
    assert_eq!(second.get("/metrics").await.status, OK);
}

#[tokio::test]
async fn a_feature_that_moves_shows_up_alone() {
    let api = Api::start_healthy(&[]).await;
    let too_few = metrics(&api).await;
    assert_eq!((&too_few["drift"]["rows"], &too_few["drift"]["psi"]), (&json!(0), &Value::Null));
    assert!(too_few["live"]["reason"].as_str().unwrap().contains("DATABASE_URL"), "{too_few}");
    assert_eq!(gauge(&api.get("/metrics").await.text, "ml_feature_psi{feature=\"tx_count\"}"), None);

    let moved = loans(1_200).into_iter().map(|example| {
        let mut row = features(&example);
        row["duration_days"] = json!(1_000);
        Value::from(row)
    });
    let rows: Vec<Value> = moved.collect();
    let (batch, singly) = rows.split_at(1_100);
    assert_eq!(api.post("/predict/batch", &json!({ "loans": batch })).await.status, OK);
    for row in singly {
        assert_eq!(api.post("/predict", row).await.status, OK);
    }

    let drift = metrics(&api).await["drift"].clone();
    assert_eq!(drift["rows"], 1_200);
    let text = api.get("/metrics").await.text;
    for feature in Feature::ALL {
        let psi = drift["psi"][feature.name()].as_f64().unwrap();
        assert_eq!(psi > 0.25, feature == Feature::DurationDays, "{}: {psi}", feature.name());
        assert_eq!(gauge(&text, &format!("ml_feature_psi{{feature=\"{}\"}}", feature.name())), Some(psi));
    }
}

#[tokio::test]
async fn what_is_recorded_before_the_window_of_a_new_model_is_filled_counts_once() {
    let postgres = testkit::postgres().await;
    let api = retraining::start(&postgres).await;
    retraining::record(&api, 120).await;
    assert_eq!(retraining::admin(&api, "/retrain").await.json()["replaced"], true);
    // Most often between the swap and the next look at Postgres, which comes every 5 s.
    live(&api, &loans(300)[120..]).await;

    until_async(BOUND, async || metrics(&api).await["drift"]["rows"].as_u64() >= Some(300)).await;

    assert_eq!(metrics(&api).await["drift"]["rows"], 300);
}

#[tokio::test]
async fn a_prediction_is_never_one_of_a_model_that_may_have_seen_the_end() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    let said = async |id: &str| {
        let sql = format!("SELECT predicted, outcome_at IS NOT NULL FROM loans WHERE loan_id = '{id}'");
        postgres.admin_query(&sql).await.remove(0)
    };
    // Without features nothing is said.
    api.post("/data/record", &json!({ "loan_id": "a" })).await;
    assert_eq!(said("a").await, ["", "f"]);
    // The first prediction stays.
    api.post("/data/record", &json!({ "loan_id": "a", "tx_count": 1 })).await;
    let first = said("a").await;
    assert!(!first[0].is_empty());
    api.post("/data/record", &json!({ "loan_id": "a", "tx_count": 100_000 })).await;
    assert_eq!(said("a").await, first);
    // What is learnt after the end is no prediction.
    api.post("/data/record", &json!({ "loan_id": "b" })).await;
    api.post("/data/update", &json!({ "loan_id": "b", "outcome": { "default": 1 } })).await;
    api.post("/data/record", &json!({ "loan_id": "b", "tx_count": 1 })).await;
    assert_eq!(said("b").await, ["", "t"]);
}
