//! Rules of every route: problems, ids, order of checks.

use serde_json::json;

use crate::stack::Backend;

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_with_the_requests_id() {
    let backend = Backend::start(&[]).await;
    let request = |method, path: &str| backend.request(method, path).header("x-request-id", "caller-7");
    let predict = "/api/ml/predict";
    let cases = [
        (request(http::Method::GET, "/nothing/here"), 404, "not_found"),
        (request(http::Method::DELETE, "/health"), 405, "method_not_allowed"),
        (request(http::Method::POST, predict).body("a=1"), 415, "unsupported_media_type"),
        (
            request(http::Method::POST, predict).header("content-type", "text/plain").body("{}"),
            415,
            "unsupported_media_type",
        ),
        (
            request(http::Method::POST, predict)
                .header("content-type", "application/json")
                .body(vec![b' '; 11 << 20]),
            413,
            "payload_too_large",
        ),
        (
            request(http::Method::POST, predict).header("content-type", "application/json").body("{\"a\":"),
            400,
            "bad_request",
        ),
        (request(http::Method::GET, "/api/loan-analytics/loan/x"), 400, "bad_request"),
    ];
    for (request, status, code) in cases {
        let answer = backend.send(request).await.unwrap_or_else(|| panic!("no answer, expected {status}"));
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers["x-request-id"], "caller-7");
        assert_eq!(answer.body["request_id"], "caller-7");
        assert_eq!(answer.body["status"], status);
        for field in ["type", "title", "detail", "instance", "error"] {
            assert!(answer.body[field].is_string(), "{field} is missing: {}", answer.text);
        }
    }
    let line = backend.process.line_with("caller-7").expect("the request is logged with its id");
    assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "not JSON: {line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_that_could_forge_a_log_line_is_replaced() {
    let backend = Backend::start(&[]).await;
    let request = backend.request(http::Method::GET, "/health").header("x-request-id", "a b\u{7f}");
    let id = match backend.send(request).await {
        Some(answer) => answer.headers["x-request-id"].to_str().unwrap().to_owned(),
        None => backend.must_get("/health").await.headers["x-request-id"].to_str().unwrap().to_owned(),
    };
    assert_eq!(id.len(), 24, "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_405_names_the_methods_that_are_allowed() {
    let backend = Backend::start(&[]).await;
    let answer = backend.must_post("/health", &json!({})).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.headers["allow"], "GET");
}
