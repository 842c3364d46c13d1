//! `/api/ml/*`: ml-api through the HTTP pool.

mod faults;

use http::Method;
use pools_core::{config::http::HttpConfig, http::HttpPool};
use serde_json::{Value, json};
use testkit::{Reply, Service};

use crate::stack::{Answer, BOUND, Backend, program};

/// What is read, below `/api/ml`.
const READ: [&str; 5] = ["health", "model/info", "model/metrics", "comparison", "data/statistics"];
/// What is sent on.
const SENT: [&str; 4] = ["predict", "predict/batch", "data/record", "data/update"];

/// The real ml-api on a port of its own, without a database.
fn ml_api(port: u16) -> Service {
    testkit::service(program("ml-api"), &[], &[("ML_PORT", &port.to_string())])
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

async fn read(backend: &Backend, path: &str) -> Answer {
    backend.must_get(&format!("/api/ml/{path}")).await
}

async fn send(backend: &Backend, path: &str, body: &Value) -> Answer {
    backend.must_post(&format!("/api/ml/{path}"), body).await
}

/// Every route once, with its path.
async fn every_route(backend: &Backend) -> Vec<(&'static str, Answer)> {
    let mut answers = Vec::new();
    for path in READ {
        answers.push((path, read(backend, path).await));
    }
    for path in SENT {
        answers.push((path, send(backend, path, &json!({})).await));
    }
    answers
}

async fn until_loaded(backend: &Backend) {
    testkit::until_async(BOUND, async || read(backend, "health").await.body["model_loaded"] == true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_is_asked_of_the_real_ml_api() {
    let port = testkit::free_port();
    let _ml = ml_api(port);
    let backend = Backend::start(&[("ML_SERVICE_URL", &format!("http://127.0.0.1:{port}"))]).await;
    until_loaded(&backend).await;

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

#[tokio::test(flavor = "multi_thread")]
async fn what_ml_api_says_is_passed_on_from_every_route_good_or_bad() {
    let (postgres, port) = (testkit::postgres().await, testkit::free_port());
    let variables = [("ML_PORT", port.to_string()), ("DATABASE_URL", postgres.url())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let _ml = testkit::service(program("ml-api"), &[], &variables);
    let url = format!("http://127.0.0.1:{port}");
    let backend = Backend::start(&[("ML_SERVICE_URL", &url)]).await;
    until_loaded(&backend).await;
    testkit::until_async(BOUND, async || read(&backend, "data/statistics").await.status == 200).await;

    let loan = json!({ "loan_id": "loan-7", "loan_amount": 1.5, "note": "kept" });
    let recorded = send(&backend, "data/record", &loan).await;
    assert_eq!((recorded.status, &recorded.body["created"]), (200, &json!(true)), "{}", recorded.text);
    let again = send(&backend, "data/record", &loan).await;
    assert_eq!((again.status, &again.body["created"]), (200, &json!(false)), "{}", again.text);
    let outcome = json!({ "loan_id": "loan-7", "outcome": { "default": 1 } });
    let updated = send(&backend, "data/update", &outcome).await;
    assert_eq!((updated.status, &updated.body["loan_id"]), (200, &json!("loan-7")), "{}", updated.text);
    let batch = json!({ "loans": [{ "tx_count": 3 }, { "tx_count": "many" }] });
    let predicted = send(&backend, "predict/batch", &batch).await;
    assert_eq!((predicted.status, &predicted.body["count"]), (200, &json!(2)), "{}", predicted.text);
    assert_eq!(predicted.body["predictions"][1]["success"], false, "{}", predicted.text);

    let http = HttpPool::new(HttpConfig::default());
    for path in READ {
        let direct = http.get(&format!("{url}/{path}")).send().await.unwrap();
        let (status, direct) = (direct.status().as_u16(), direct.bytes(1 << 20).await.unwrap());
        let passed = read(&backend, path).await;
        assert_eq!((passed.status, status), (200, 200), "{path}: {}", passed.text);
        // What is watched changes from one moment to the next.
        let same = passed.text.as_bytes() == &*direct || path == "model/metrics";
        assert!(same, "{path}: {} is not {direct:?}", passed.text);
        assert_eq!(passed.headers["content-type"], "application/json", "{path}");
    }

    let unknown = json!({ "loan_id": "nobody's", "outcome": { "default": 1 } });
    let cases = [
        ("data/update", unknown, (404, "not_found"), json!("loan_id")),
        ("data/update", json!({ "loan_id": "loan-7" }), (422, "invalid_field"), json!("outcome")),
        ("data/record", json!({ "loan_amount": 1 }), (422, "invalid_field"), json!("loan_id")),
        ("predict/batch", json!({}), (422, "invalid_field"), json!("loans")),
        ("predict", json!({ "tx_count": [] }), (422, "invalid_field"), json!("tx_count")),
    ];
    for (path, body, expected, field) in cases {
        let answer = send(&backend, path, &body).await;
        assert_eq!((code(&answer), &answer.body["field"]), (expected, &field), "{path}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(answer.body["request_id"], id, "{path}: ml-api knows the request by another id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ml_api_without_a_database_says_so_where_it_needs_one_and_predicts_all_the_same() {
    let port = testkit::free_port();
    let _ml = ml_api(port);
    let backend = Backend::start(&[("ML_SERVICE_URL", &format!("http://127.0.0.1:{port}"))]).await;
    until_loaded(&backend).await;
    let outcome = json!({ "loan_id": "loan-7", "outcome": { "default": 1 } });
    for answer in [
        read(&backend, "data/statistics").await,
        send(&backend, "data/record", &json!({ "loan_id": "loan-7" })).await,
        send(&backend, "data/update", &outcome).await,
    ] {
        assert_eq!(code(&answer), (503, "upstream_not_configured"), "{}", answer.text);
        assert!(answer.body["detail"].as_str().unwrap().contains("DATABASE_URL"), "{}", answer.text);
    }
    for path in ["health", "model/info", "model/metrics", "comparison"] {
        assert_eq!(read(&backend, path).await.status, 200, "{path}");
    }
    let predicted = send(&backend, "predict/batch", &json!({ "loans": [{}] })).await;
    assert_eq!(predicted.status, 200, "{}", predicted.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_checks_in_the_same_order_and_counts_in_the_same_group() {
    let backend = Backend::start(&[]).await;
    let json = "application/json";
    for path in SENT {
        let path = format!("/api/ml/{path}");
        let post = || backend.request(Method::POST, &path);
        let cases = [
            (backend.request(Method::GET, &path), 405, "method_not_allowed"),
            (post().header("content-type", "text/plain").body("{"), 415, "unsupported_media_type"),
            (post().header("content-type", json).body(vec![b'{'; 11 << 20]), 413, "payload_too_large"),
            (post().header("content-type", json).body("{\"loan_id\":"), 400, "bad_request"),
            (post().header("content-type", json).body("{} {}"), 400, "bad_request"),
        ];
        for (request, status, expected) in cases {
            let answer = backend.send(request).await.unwrap_or_else(|| panic!("{path}: expected {status}"));
            assert_eq!(code(&answer), (status, expected), "{path}: {}", answer.text);
        }
    }
    for path in READ {
        assert_eq!(code(&send(&backend, path, &json!({})).await), (405, "method_not_allowed"), "{path}");
    }
    let limited = [("RATE_LIMIT", "on"), ("RATE_LIMIT_COSTLY_REQUESTS", "8")];
    let answers = every_route(&Backend::start(&limited).await).await;
    let statuses: Vec<_> = answers.iter().map(|(_, answer)| answer.status).collect();
    assert_eq!(statuses, [503, 503, 503, 503, 503, 503, 503, 503, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_room_for_the_probe_is_no_news_of_ml_api() {
    let ml = testkit::upstream(|request| match &*request.target {
        "/predict" => Reply::never(),
        _ => Reply::json("{}"),
    })
    .await;
    let url = ml.url();
    // As with the defaults: the host's sockets are as many as the calls.
    let full = [("ML_SERVICE_URL", &*url), ("HTTP_MAX_SOCKETS", "2"), ("ML_API_MAX_IN_FLIGHT", "2")];
    let backend = Backend::start(&full).await;
    testkit::until_async(BOUND, async || backend.health_of("ml").await == "up").await;
    let nothing = json!({});
    let calls = futures_util::future::join_all((0..2).map(|_| send(&backend, "predict", &nothing)));
    let probes = async {
        testkit::until(BOUND, || ml.in_flight() == 2).await;
        // The probe waits for a connection, gives up, and waits again.
        for waiting in [1, 0, 1] {
            testkit::until_async(BOUND, async || {
                let stats = backend.must_get("/api/pools/stats").await.body;
                stats["http"]["requests"][ml.addr().to_string()].as_u64().unwrap_or(0) == waiting
            })
            .await;
        }
        assert_eq!(backend.health_of("ml").await, "up");
        ml.end_all(testkit::End::Close);
    };
    let (calls, ()) = futures_util::future::join(calls, probes).await;
    assert!(calls.iter().all(|answer| answer.status == 502), "{calls:?}");
}
