//! What callers are told of an ml-api that is away, errs or makes no sense.

use serde_json::json;
use testkit::{MlApi, Reply, ml_api::MlFault};

use super::{code, every_route, read, send};
use crate::stack::{Answer, Backend};

/// A backend with this ml-api, which it never leaves alone.
async fn backend(ml: &MlApi, more: &[(&str, &str)]) -> Backend {
    let url = ml.url();
    let variables = [("ML_SERVICE_URL", url.as_str()), ("ML_API_BREAKER_FAILURES", "0")];
    Backend::start(&[&variables, more].concat()).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

fn detail(answer: &Answer) -> &str {
    answer.body["detail"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_says_why_when_ml_api_is_away() {
    for (path, answer) in every_route(&Backend::start(&[]).await).await {
        assert_eq!(code(&answer), (503, "upstream_unavailable"), "{path}: {}", answer.text);
        assert!(detail(&answer).contains("ml-api cannot be asked"), "{path}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_ml_api_is_told_apart_on_every_route() {
    let ml = testkit::ml_api().await;
    let failed = (502, "upstream_failed");
    let cases = [
        (MlFault::TruncatedJson, failed, "cannot be read"),
        (MlFault::Cut, failed, "ended too early"),
        (MlFault::Html(502), failed, "not ml-api has answered: 502 Bad Gateway"),
        (MlFault::Html(200), failed, "not ml-api has answered: 200 OK"),
        (MlFault::Unavailable(7), (503, "upstream_not_configured"), "DATABASE_URL"),
        // On a connection that was idle it looks as if the idle one had been closed.
        (MlFault::Reset, failed, "ml-api cannot be asked"),
        (MlFault::Never, (504, "upstream_timeout"), "no answer after 3"),
    ];
    let backend = backend(&ml, &[("ML_API_HEAD_TIMEOUT_MS", "300")]).await;
    for (path, answer) in every_route(&backend).await {
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    for (fault, expected, why) in cases {
        ml.misbehave(fault.clone());
        for (path, answer) in every_route(&backend).await {
            assert_eq!(code(&answer), expected, "{fault:?} at {path}: {}", answer.text);
            assert!(detail(&answer).contains(why), "{fault:?} at {path}: {}", answer.text);
            let again = matches!(fault, MlFault::Unavailable(_)).then_some("7");
            assert_eq!(header(&answer, "retry-after"), again, "{fault:?} at {path}");
        }
        ml.behave();
    }
    assert_eq!(backend.health_of("ml").await, "up", "the probe was answered all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_head_of_an_answer_says_to_the_caller_is_passed_on_and_nothing_else() {
    let ml = testkit::ml_api().await;
    let backend = backend(&ml, &[]).await;
    let refusal = Reply::new(401)
        .header("content-type", "application/problem+json")
        .header("www-authenticate", "Bearer realm=\"ml\"")
        .header("retry-after", "12")
        .header("x-inner", "secret")
        .body(json!({ "status": 401, "code": "unauthorised" }).to_string());
    ml.misbehave(MlFault::Answer(refusal));
    for answer in [
        read(&backend, "comparison").await,
        send(&backend, "data/record", &json!({})).await,
        backend.must_get("/api/matching/market-stats").await,
    ] {
        assert_eq!(code(&answer), (401, "unauthorised"), "{}", answer.text);
        assert_eq!(header(&answer, "www-authenticate"), Some("Bearer realm=\"ml\""));
        assert_eq!((header(&answer, "retry-after"), header(&answer, "x-inner")), (Some("12"), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_prediction_is_no_success() {
    let ml = testkit::ml_api().await;
    let backend = backend(&ml, &[]).await;
    let bodies = [
        json!({ "success": true }),
        json!({ "success": true, "prediction": null }),
        json!({ "success": true, "prediction": [0.5] }),
        json!({ "success": true, "prediction": "Low" }),
        json!("Low"),
    ];
    for body in bodies {
        ml.misbehave(MlFault::Answer(Reply::json(body.to_string())));
        let answer = send(&backend, "predict", &json!({})).await;
        assert_eq!(code(&answer), (502, "upstream_failed"), "{body}: {}", answer.text);
        assert!(detail(&answer).contains("ml-api's answer cannot be read"), "{body}: {}", answer.text);
    }
    ml.behave();
    let answer = send(&backend, "predict", &json!({})).await;
    assert_eq!(answer.body["logisticRegression"]["risk_score"], 125, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn ml_api_gets_the_body_as_it_was_written() {
    let ml = testkit::ml_api().await;
    let backend = backend(&ml, &[]).await;
    let written = r#"{"z":1e400, "a":0.12345678901234567890, "a":18446744073709551617}"#;
    for path in super::SENT {
        let request = backend.request(http::Method::POST, &format!("/api/ml/{path}"));
        let request = request.header("content-type", "application/json").body(written);
        assert_eq!(backend.send(request).await.unwrap().status, 200, "{path}");
        let seen = ml.seen().into_iter().find(|request| request.target == format!("/{path}")).unwrap();
        assert_eq!(seen.body, written, "{path}");
        assert_eq!(seen.header("content-type"), Some("application/json"));
    }
}
