//! `/api/ml/*`: ml-api through the HTTP pool.

use serde_json::json;
use testkit::{Reply, Service};

use crate::stack::{BOUND, Backend, program};

/// The real ml-api on a port of its own, without a database.
fn ml_api(port: u16) -> Service {
    testkit::service(program("ml-api"), &[], &[("ML_PORT", &port.to_string())])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_is_asked_of_the_real_ml_api() {
    let port = testkit::free_port();
    let _ml = ml_api(port);
    let backend = Backend::start(&[("ML_SERVICE_URL", &format!("http://127.0.0.1:{port}"))]).await;
    testkit::until_async(BOUND, async || {
        backend.must_get("/api/ml/health").await.body["model_loaded"] == true
    })
    .await;

    let answer = backend.must_post("/api/ml/predict", &json!({ "tx_count": 12, "loan_amount": 5.0 })).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        (&answer.body["success"], &answer.body["model"]),
        (&json!(true), &json!("logistic_regression"))
    );
    let prediction = &answer.body["logisticRegression"];
    assert!((0.0..=1.0).contains(&prediction["default_probability"].as_f64().unwrap()), "{prediction}");
    assert!((0..=1000).contains(&prediction["risk_score"].as_i64().unwrap()), "{prediction}");
    let refused = backend.must_post("/api/ml/predict", &json!({ "tx_count": "many" })).await;
    assert_eq!((refused.status, refused.body["field"].as_str()), (422, Some("tx_count")), "{}", refused.text);
    testkit::until_async(BOUND, async || backend.health_of("ml").await == "up").await;
    let stats = backend.must_get("/api/pools/stats").await.body;
    let host = format!("127.0.0.1:{port}");
    let open = |map: &serde_json::Value| map[&host].as_u64().unwrap_or(0);
    assert!(open(&stats["http"]["sockets"]) + open(&stats["http"]["freeSockets"]) > 0, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_requests_open_at_most_fifty_sockets() {
    let upstream = testkit::upstream(|_| {
        Reply::json(json!({ "success": true, "prediction": {}, "model": "logistic_regression" }).to_string())
            .delay(std::time::Duration::from_millis(30))
    })
    .await;
    let backend = Backend::start(&[("ML_SERVICE_URL", &upstream.url())]).await;
    let asked = (0..300).map(|_| async {
        let answer = backend.must_post("/api/ml/predict", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    });
    futures_util::future::join_all(asked).await;
    assert!(upstream.peak_open() <= 50, "{} sockets", upstream.peak_open());
    assert!(upstream.peak_open() > 10, "the requests were not concurrent: {}", upstream.peak_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ml_api_that_is_away_slow_or_odd_is_told_apart() {
    let backend = Backend::start(&[]).await;
    let away = backend.must_post("/api/ml/predict", &json!({})).await;
    assert_eq!(
        (away.status, away.body["code"].as_str()),
        (503, Some("upstream_unavailable")),
        "{}",
        away.text
    );

    let odd = testkit::upstream(|_| Reply::new(200).header("content-type", "text/html").body("<html>")).await;
    let backend = Backend::start(&[("ML_SERVICE_URL", &odd.url())]).await;
    let answer = backend.must_post("/api/ml/predict", &json!({})).await;
    assert_eq!(
        (answer.status, answer.body["code"].as_str()),
        (502, Some("upstream_failed")),
        "{}",
        answer.text
    );
}
