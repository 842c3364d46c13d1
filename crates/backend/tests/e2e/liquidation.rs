//! The bot on the development chain.

use serde_json::{Value, json};

use crate::stack::{BOUND, Backend, LIQUIDATOR_KEY, seeded_chain};

async fn status_of(backend: &Backend, loan: u64) -> String {
    let answer = backend.must_get(&format!("/api/loan-analytics/loan/{loan}")).await;
    answer.body["statusName"].as_str().unwrap_or_default().to_owned()
}

async fn scanned(backend: &Backend) -> Value {
    testkit::until_async(BOUND, async || {
        !backend.must_get("/api/liquidation/status").await.body["lastScan"].is_null()
    })
    .await;
    backend.must_get("/api/liquidation/status").await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_loans_are_liquidated_healthy_ones_never_and_a_stale_price_is_reported() {
    let (anvil, chain) = seeded_chain().await;
    let backend = Backend::start(&[
        ("RPC_URL", &anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract),
        ("LIQUIDATOR_PRIVATE_KEY", LIQUIDATOR_KEY),
        ("LIQUIDATION_INTERVAL", "1"),
    ])
    .await;

    let status = scanned(&backend).await;

    assert_eq!(status["isActive"], true);
    assert_eq!(status["contractAddress"], chain.contract.as_str());
    assert_eq!(status["liquidatorAddress"], "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720");
    assert_eq!(status["rpcUrl"], anvil.url().trim_end_matches('/'));
    assert_eq!(status["activeAuctions"], json!([]));
    for bad in [4, 5, 7, 14, 15] {
        testkit::until_async(BOUND, async || status_of(&backend, bad).await == "defaulted").await;
    }
    testkit::until_async(BOUND, async || {
        let scan = backend.must_get("/api/liquidation/status").await.body["lastScan"].clone();
        scan["candidates"] == 0 && scan["loansRead"] == 15
    })
    .await;
    let last = backend.must_get("/api/liquidation/status").await.body["lastScan"].clone();
    assert_eq!(last["skipped"].as_array().unwrap().len(), 1, "{last}");
    assert_eq!(last["skipped"][0]["loanId"], "6");
    assert!(last["skipped"][0]["reason"].as_str().unwrap().contains("collateral"), "{last}");
    for (untouched, status) in
        [(6, "funded"), (11, "funded"), (12, "funded"), (13, "voting"), (8, "requested")]
    {
        assert_eq!(status_of(&backend, untouched).await, status, "loan {untouched}");
    }
    // One transaction per ETH loan, approve and liquidate per ERC-20 loan: nothing was paid twice.
    let sent = anvil
        .rpc("eth_getTransactionCount", json!(["0xa0Ee7A142d267C1f36714E4a8F75612F20a79720", "latest"]))
        .await;
    assert_eq!(sent, "0x7");
    assert_eq!(backend.health_of("liquidation").await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bot_obeys_the_admin_token_alone() {
    let (anvil, chain) = seeded_chain().await;
    let backend = Backend::start(&[
        ("RPC_URL", &anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract),
        ("LIQUIDATOR_PRIVATE_KEY", LIQUIDATOR_KEY),
        ("LIQUIDATION_INTERVAL", "3600"),
    ])
    .await;
    scanned(&backend).await;
    for path in ["/api/liquidation/check", "/api/liquidation/start", "/api/liquidation/stop"] {
        let refused = backend.must_post(path, &json!({})).await;
        assert_eq!((refused.status, refused.body["code"].as_str()), (401, Some("unauthorised")), "{path}");
    }
    assert_eq!(backend.must_command("/api/liquidation/stop").await.body["isActive"], false);
    assert_eq!(backend.must_get("/api/liquidation/status").await.body["isActive"], false);
    let checked = backend.must_command("/api/liquidation/check").await;
    assert_eq!(
        (checked.status, &checked.body["lastScan"]["loansRead"]),
        (200, &json!(15)),
        "{}",
        checked.text
    );
    assert_eq!(backend.must_command("/api/liquidation/start").await.body["isActive"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_away_ends_the_scan_and_the_bot_goes_on_when_it_is_back() {
    let (anvil, chain) = seeded_chain().await;
    let proxy = testkit::proxy(anvil.port()).await;
    let backend = Backend::start(&[
        ("RPC_URL", &proxy.through(&anvil.url())),
        ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract),
        ("LIQUIDATOR_PRIVATE_KEY", LIQUIDATOR_KEY),
        ("LIQUIDATION_INTERVAL", "1"),
    ])
    .await;
    scanned(&backend).await;
    proxy.stop().await;
    testkit::until_async(BOUND, async || backend.health_of("liquidation").await == "down").await;
    let status = backend.must_get("/api/liquidation/status").await.body;
    assert!(status["lastError"].is_string(), "{status}");
    proxy.start().await;
    testkit::until_async(BOUND, async || backend.health_of("liquidation").await == "up").await;
}
