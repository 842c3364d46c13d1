//! Nothing is made up: what is missing takes away its own feature and says so.

use serde_json::json;

use crate::stack::{ADMIN, Backend, nowhere, seeded_chain};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_contract_its_routes_name_the_variable() {
    let backend = Backend::start(&[]).await;
    for path in ["/api/loan-analytics/loan/1", "/api/loan-analytics/active"] {
        let answer = backend.must_get(path).await;
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (503, Some("upstream_not_configured")),
            "{path}"
        );
        assert!(
            answer.body["detail"].as_str().unwrap().contains("LOANVERSE_CONTRACT_ADDRESS"),
            "{}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_the_chain_is_unavailable_and_the_rest_works() {
    let contract = "0xa513E6E4b8f2a923D98304ec87F64353C4D5C853";
    let backend = Backend::start(&[("LOANVERSE_CONTRACT_ADDRESS", contract)]).await;
    let answer = backend.must_get("/api/loan-analytics/loan/1").await;
    assert_eq!(
        (answer.status, answer.body["code"].as_str()),
        (503, Some("upstream_unavailable")),
        "{}",
        answer.text
    );
    assert_eq!(backend.must_get("/api/pools/stats").await.status, 200);
    assert_eq!(backend.must_get("/metrics").await.status, 200);
    assert_eq!(backend.must_get("/health/ready").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_liquidated_and_the_bot_says_why() {
    let (anvil, chain) = seeded_chain().await;
    let backend =
        Backend::start(&[("RPC_URL", &anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract)]).await;
    let status = backend.must_get("/api/liquidation/status").await.body;
    assert_eq!((&status["isActive"], &status["liquidatorAddress"]), (&json!(false), &json!(null)));
    let refused = backend.must_command("/api/liquidation/check").await;
    assert_eq!((refused.status, refused.body["code"].as_str()), (503, Some("upstream_not_configured")));
    assert!(refused.body["detail"].as_str().unwrap().contains("LIQUIDATOR_PRIVATE_KEY"), "{}", refused.text);
    assert_eq!(backend.health_of("liquidation").await, "not_configured");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_admin_token_admin_routes_are_off() {
    let backend = Backend::start(&[("ADMIN_TOKEN", "")]).await;
    let request = backend.request(http::Method::POST, "/api/liquidation/start");
    let request = request.header("authorization", &format!("Bearer {ADMIN}"));
    let answer = backend.send(request).await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("upstream_not_configured")));
    let leases = backend.must_get("/api/pools/stats?detail=leases").await;
    assert_eq!(leases.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_urls_and_keys_appear_nowhere() {
    let rpc = format!(
        "{}/v3/SECRETKEY?token=SECRETKEY",
        nowhere("http").replace("127.0.0.1", "user:SECRETKEY@127.0.0.1")
    );
    let redis = nowhere("redis").replace("127.0.0.1", "user:SECRETKEY@127.0.0.1");
    let key = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
    let backend = Backend::start(&[
        ("RPC_URL", &rpc),
        ("REDIS_URL", &redis),
        ("ADMIN_TOKEN", "SECRETKEY"),
        ("LIQUIDATOR_PRIVATE_KEY", key),
        ("LOANVERSE_CONTRACT_ADDRESS", "0xa513E6E4b8f2a923D98304ec87F64353C4D5C853"),
        ("LOG_LEVEL", "trace"),
    ])
    .await;
    let mut seen = String::new();
    for path in
        ["/health", "/metrics", "/api/pools/stats", "/api/liquidation/status", "/api/loan-analytics/loan/1"]
    {
        seen.push_str(&backend.must_get(path).await.text);
    }
    seen.push_str(&backend.process.lines().join("\n"));
    assert!(!seen.contains("SECRETKEY"), "a secret was printed: {}", line_with(&seen, "SECRETKEY"));
    assert!(!seen.contains(&key[2..]), "the private key was printed");
    assert!(seen.contains("/..."), "the URL is shown without its path");
}

fn line_with<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.contains(word)).unwrap_or_default()
}
