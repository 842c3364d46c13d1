//! `/api/analytics/market`: every loan of the development chain, by the figures of `deploy/anvil/seed.md`.

use serde_json::json;

use crate::stack::{BOUND, Backend, nowhere, seeded_chain};

#[tokio::test(flavor = "multi_thread")]
async fn the_market_adds_up_to_what_the_plan_says() {
    let (anvil, chain) = seeded_chain().await;
    let backend =
        Backend::start(&[("RPC_URL", &anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract)]).await;

    let answer = backend.must_get("/api/analytics/market").await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = &answer.body;
    let by_status = json!({ "requested": 2, "funding_failed": 1, "funded": 7, "repaid": 1, "defaulted": 1, "cancelled": 1, "voting": 2 });
    assert_eq!(body["loansByStatus"], by_status);
    assert_eq!((&body["totalLoans"], &body["activeLoans"]), (&json!(15), &json!(9)));
    // 14 ETH at $3,000 and 16,700 tUSD.
    assert_eq!(body["totalVolumeUSD"], 58_700.0, "{body}");
    // 49,500 tUSD, 11.4 ETH and 750 tGOV at $10; the 900 tOLD have no price.
    assert_eq!(body["collateralUSD"], 91_200.0, "{body}");
    assert_eq!(body["unpriced"], json!([{ "tokenId": "3", "reason": "the price is stale" }]));
    let rate = body["averageInterestRate"].as_f64().unwrap();
    assert!((rate - 9_750.0 / 11.0).abs() < 1e-9, "{body}");
    let defaults = body["defaultRate"].as_f64().unwrap();
    assert!((defaults - 1.0 / 11.0).abs() < 1e-9, "{body}");
    assert_eq!(body["block"], chain.block_number);
    assert_eq!(body["sources"]["market"]["cache"], "loaded");
    assert!(chrono::DateTime::parse_from_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());

    anvil.rpc("evm_mine", json!([])).await;
    let again = backend.must_get("/api/analytics/market").await.body;
    assert_eq!(
        (&again["block"], &again["sources"]["market"]["cache"]),
        (&body["block"], &json!("memory")),
        "{again}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_repeated_when_its_time_is_over() {
    let (anvil, chain) = seeded_chain().await;
    let backend = Backend::start(&[
        ("RPC_URL", &anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract),
        ("ANALYTICS_TTL", "1"),
    ])
    .await;
    let first = backend.must_get("/api/analytics/market").await.body["block"].as_u64().unwrap();
    anvil.rpc("evm_mine", json!([])).await;
    testkit::until_async(BOUND, async || {
        backend.must_get("/api/analytics/market").await.body["block"].as_u64().unwrap() > first
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_contract_or_a_node_there_is_no_market() {
    let contract = "0xa513E6E4b8f2a923D98304ec87F64353C4D5C853";
    let address = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    let none = Backend::start(&[]).await;
    let away =
        Backend::start(&[("LOANVERSE_CONTRACT_ADDRESS", contract), ("RPC_URL", &nowhere("http"))]).await;
    for path in [
        "/api/analytics/market",
        &format!("/api/loan-analytics/borrower/{address}"),
        "/api/loan-analytics/tokens",
    ] {
        let answer = none.must_get(path).await;
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (503, Some("upstream_not_configured")),
            "{path}"
        );
        let answer = away.must_get(path).await;
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (503, Some("upstream_unavailable")),
            "{path}: {}",
            answer.text
        );
    }
}
