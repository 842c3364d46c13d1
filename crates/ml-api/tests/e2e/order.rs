//! What is wrong with a request is told in the same order on every route with a body, before it matters whether there is
//! a database.

use crate::api::Api;

#[tokio::test]
async fn media_type_comes_before_size_size_before_syntax_and_syntax_before_fields() {
    let api = Api::start_healthy(&[]).await;
    let (text, json) = ([("content-type", "text/plain")], [("content-type", "application/json")]);
    let large = "x".repeat(10 * 1024 * 1024 + 1);
    for (method, path) in [
        ("POST", "/data/record"),
        ("POST", "/data/update"),
        ("POST", "/matches"),
        ("POST", "/predict/batch"),
        ("PUT", "/requests/1"),
        ("PUT", "/offers/1"),
    ] {
        let status = async |headers, body| api.send(method, path, headers, body).await.problem().0;
        assert_eq!(status(&text, &large).await, 415, "{path}");
        assert_eq!(status(&text, "{").await, 415, "{path}");
        assert_eq!(status(&json, &large).await, 413, "{path}");
        assert_eq!(status(&json, "{").await, 400, "{path}");
        assert_eq!(status(&json, "[]").await, 422, "{path}");
        assert_eq!(status(&json, "{}").await, 422, "{path}");
    }
}
