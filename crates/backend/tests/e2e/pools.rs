//! `/api/pools/stats` and `/metrics`.

use std::io::Write as _;

use serde_json::json;

use crate::stack::{ADMIN, BOUND, Backend, seeded_chain};

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_objects_stand_at_the_top_and_under_pools() {
    let (anvil, chain) = seeded_chain().await;
    let redis = testkit::redis().await;
    let variables = [
        ("RPC_URL", anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone()),
        ("REDIS_URL", redis.url()),
    ];
    let backend = Backend::start(&variables.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    testkit::until_async(BOUND, async || {
        backend.must_get("/api/pools/stats").await.body["redis"]["connected"] == true
    })
    .await;

    let body = backend.must_get("/api/pools/stats").await.body;

    assert_eq!(body["success"], true);
    assert_eq!((&body["http"]["maxSockets"], &body["http"]["maxFreeSockets"]), (&json!(50), &json!(10)));
    assert!(body["http"]["sockets"].is_object() && body["http"]["freeSockets"].is_object(), "{body}");
    assert_eq!(body["blockchain"]["activeProviders"], 1);
    assert_eq!(body["blockchain"]["providers"], json!([anvil.url().trim_end_matches('/')]));
    for pool in ["http", "redis", "blockchain"] {
        assert!(body["pools"][pool].is_object(), "{pool} is missing under pools: {body}");
    }
    assert!(chrono::DateTime::parse_from_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_shown_to_the_admin_alone() {
    let backend = Backend::start(&[]).await;
    assert_eq!(backend.must_get("/api/pools/stats?detail=leases").await.status, 401);
    let request = backend.request(http::Method::GET, "/api/pools/stats?detail=leases");
    let answer = backend.send(request.header("authorization", &format!("Bearer {ADMIN}"))).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body["leases"]["http"].is_array(), "{}", answer.text);
    assert_eq!(backend.must_get("/api/pools/stats?detail=all").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_clean_for_promtool() {
    let redis = testkit::redis().await;
    let backend = Backend::start(&[("REDIS_URL", &redis.url())]).await;
    backend.must_get("/health").await;
    let metrics = backend.must_get("/metrics").await.text;
    for name in
        ["pools_connections{", "pools_wait_seconds_bucket{", "http_server_requests_total{", "pools_up{"]
    {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let mut promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool is installed by scripts/test");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
