//! `/pool/stats` and `/metrics`.

use serde_json::{Value, json};

use crate::api::{Api, OK};

fn numbers(stats: &Value) -> [u64; 5] {
    ["size", "checked_in", "checked_out", "overflow", "total_connections"]
        .map(|name| stats[name].as_u64().unwrap_or_else(|| panic!("{name} is no count: {stats}")))
}

#[tokio::test]
async fn without_a_database_the_stats_say_so_and_nothing_else() {
    let api = Api::start(&[]).await;
    assert_eq!(
        api.get("/pool/stats").await.json(),
        json!({ "status": "no_database", "pool_configured": false })
    );
}

#[tokio::test]
async fn with_a_database_the_stats_are_the_guides_and_add_up() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    api.get("/data/statistics").await;

    let stats = api.get("/pool/stats").await.json();

    assert_eq!((&stats["status"], &stats["pool_configured"]), (&json!("active"), &json!(true)));
    let [size, checked_in, checked_out, overflow, total] = numbers(&stats);
    assert_eq!((size, overflow), (10, 0));
    assert!(total >= 1);
    assert_eq!(checked_in + checked_out, total);
    assert!(stats["leases"].is_null());

    let metrics = api.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text.contains(r#"pool="postgres""#), "{}", metrics.text);
    assert!(metrics.text.contains("http_server_requests_total"));
}

#[tokio::test]
async fn the_leases_are_shown_to_the_admin_only() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("ADMIN_TOKEN", "open sesame")]).await;
    let path = "/pool/stats?detail=leases";

    assert_eq!(api.get(path).await.problem().0, 401);
    let wrong = api.send("GET", path, &[("authorization", "Bearer open sesam")], "").await;
    assert_eq!(wrong.problem().0, 401);
    assert_eq!(api.get("/pool/stats?detail=more").await.problem().0, 400);

    let right = api.send("GET", path, &[("authorization", "Bearer open sesame")], "").await;
    assert_eq!(right.status, OK);
    assert!(right.json()["leases"].is_array());

    let closed = Api::start(&[]).await;
    assert_eq!(closed.get(path).await.problem().0, 503);
}

#[tokio::test]
async fn without_a_database_there_are_metrics_all_the_same() {
    let api = Api::start(&[]).await;
    let metrics = api.get("/metrics").await;
    assert_eq!(metrics.status, OK, "{metrics:?}");
    assert!(metrics.text.contains("http_server_active_requests"), "{}", metrics.text);
    assert!(!metrics.text.contains("pools_connections"), "{}", metrics.text);
}
