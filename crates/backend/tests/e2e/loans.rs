//! `/api/loan-analytics/*`: the contract through the chain pool, cached in Redis.

use crate::stack::{Backend, seeded_chain};

#[tokio::test(flavor = "multi_thread")]
async fn a_loan_is_shown_with_every_field_of_the_contract() {
    let (anvil, chain) = seeded_chain().await;
    let backend =
        Backend::start(&[("RPC_URL", &anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract)]).await;

    let loan = backend.must_get("/api/loan-analytics/loan/11").await;

    assert_eq!(loan.status, 200, "{}", loan.text);
    let body = &loan.body;
    assert_eq!(body["id"], "11");
    assert_eq!(body["amount"], "5000000000000000000");
    assert_eq!(body["collateralAmount"], "22500000000");
    assert_eq!(body["interestRate"], "450");
    assert_eq!(body["status"], 2);
    assert_eq!(body["statusName"], "funded");
    assert_eq!(body["isPastDue"], false);
    assert_eq!(body["collateralRatio"], 150.0);
    let fields = [
        "borrower",
        "tokenId",
        "collateralTokenId",
        "amountFunded",
        "duration",
        "minContribution",
        "fundingDeadline",
        "createdAt",
        "fundedAt",
        "dueDate",
        "ipfsDocumentHash",
        "riskScore",
        "liquidationThreshold",
        "totalRepaid",
        "earlyRepaymentPenalty",
    ];
    for field in fields {
        assert!(body[field].is_string(), "{field} is missing: {body}");
    }

    let overdue = backend.must_get("/api/loan-analytics/loan/4").await.body;
    assert_eq!(overdue["isPastDue"], true);
    let stale = backend.must_get("/api/loan-analytics/loan/6").await.body;
    assert!(stale["collateralRatio"].is_null(), "a stale price must not become a ratio: {stale}");
    assert!(stale["collateralRatioReason"].as_str().unwrap().contains("collateral"), "{stale}");

    let active = backend.must_get("/api/loan-analytics/active").await;
    let ids: Vec<_> = active.body.as_array().unwrap().iter().map(|loan| loan["id"].clone()).collect();
    assert_eq!(ids, ["8", "9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loan_that_does_not_exist_is_404_and_a_word_is_400() {
    let (anvil, chain) = seeded_chain().await;
    let backend =
        Backend::start(&[("RPC_URL", &anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract)]).await;
    for id in ["0", "16", "18446744073709551615"] {
        let answer = backend.must_get(&format!("/api/loan-analytics/loan/{id}")).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("not_found")), "{id}");
    }
    for id in ["first", "-1", "1.5", "18446744073709551616"] {
        let answer = backend.must_get(&format!("/api/loan-analytics/loan/{id}")).await;
        assert_eq!((answer.status, answer.body["field"].as_str()), (400, Some("id")), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_read_of_a_block_comes_from_the_cache_and_metrics_show_it() {
    let (anvil, chain) = seeded_chain().await;
    let redis = testkit::redis().await;
    let variables = [
        ("RPC_URL", anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone()),
        ("REDIS_URL", redis.url()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let first = Backend::start(&variables).await;
    testkit::until_async(crate::stack::BOUND, async || first.health_of("redis").await == "up").await;
    let loaded = first.must_get("/api/loan-analytics/loan/11").await;
    assert_eq!(loaded.headers["x-source"], "chain");
    let again = first.must_get("/api/loan-analytics/loan/11").await;
    assert_ne!(again.headers["x-source"], "chain");
    assert_eq!(again.body, loaded.body);

    let second = Backend::start(&variables).await;
    testkit::until_async(crate::stack::BOUND, async || second.health_of("redis").await == "up").await;
    let shared = second.must_get("/api/loan-analytics/loan/11").await;
    assert_eq!(shared.headers["x-source"], "redis", "another replica's read was not found in Redis");
    assert_eq!(shared.body, loaded.body);
    let metrics = second.must_get("/metrics").await.text;
    let hits =
        metrics.lines().find(|line| line.starts_with("pools_cache_requests_total") && line.contains("redis"));
    assert!(hits.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_works_on_without_redis() {
    let (anvil, chain) = seeded_chain().await;
    let redis = testkit::redis().await;
    let variables = [
        ("RPC_URL", anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone()),
        ("REDIS_URL", redis.url()),
    ];
    let backend = Backend::start(&variables.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    redis.stop().await;
    for _ in 0..3 {
        assert_eq!(backend.must_get("/api/loan-analytics/loan/11").await.status, 200);
    }
    testkit::until_async(crate::stack::BOUND, async || backend.health_of("redis").await == "down").await;
    assert_eq!(backend.must_get("/health").await.body["status"], "degraded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_borrower_is_shown_with_every_loan_and_the_contracts_own_score() {
    let (anvil, chain) = seeded_chain().await;
    let backend =
        Backend::start(&[("RPC_URL", &anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract)]).await;
    let borrower = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    let answer = backend.must_get(&format!("/api/loan-analytics/borrower/{}", borrower.to_lowercase())).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = &answer.body;
    assert_eq!(body["address"], borrower);
    let score = &body["creditScore"];
    assert_eq!(
        [&score["score"], &score["totalLoansCount"], &score["repaidLoansCount"]],
        ["620", "3", "1"],
        "{score}"
    );
    assert_eq!([&score["defaultedLoansCount"], &score["totalBorrowed"]], ["0", "2400000000000"], "{score}");
    assert!(score["totalRepaid"].is_string() && score["lastUpdated"].is_string(), "{score}");
    let ids: Vec<_> = body["loans"].as_array().unwrap().iter().map(|loan| loan["id"].clone()).collect();
    assert_eq!(ids, ["1", "7", "8", "11"]);
    assert_eq!(body["loans"][3]["collateralRatio"], 150.0, "{body}");
    assert_eq!(
        body["totals"],
        serde_json::json!({
            "loans": 4, "requested": 1, "active": 2, "repaid": 1, "defaulted": 0,
            "borrowedUSD": 24_000.0, "repaidUSD": 6_360.0,
        })
    );

    let nobody = "0x000000000000000000000000000000000000dEaD";
    let empty = backend.must_get(&format!("/api/loan-analytics/borrower/{nobody}")).await;
    assert_eq!((empty.status, &empty.body["loans"]), (200, &serde_json::json!([])), "{}", empty.text);
    assert_eq!(empty.body["creditScore"]["score"], "0");
    for bad in ["0x1", "0x70997970c51812dc3A010C7d01b50e0d17dc79C8"] {
        let answer = backend.must_get(&format!("/api/loan-analytics/borrower/{bad}")).await;
        assert_eq!((answer.status, answer.body["field"].as_str()), (400, Some("address")), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_listed_by_their_number() {
    let (anvil, chain) = seeded_chain().await;
    let backend =
        Backend::start(&[("RPC_URL", &anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract)]).await;
    let answer = backend.must_get("/api/loan-analytics/tokens").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let tokens = answer.body.as_array().unwrap();
    let symbols: Vec<_> = tokens.iter().map(|token| token["symbol"].clone()).collect();
    assert_eq!(symbols, ["ETH", "tUSD", "tGOV", "tOLD"]);
    for (token, seeded) in tokens.iter().zip(&chain.tokens) {
        assert_eq!(token["id"], seeded.id.to_string());
        assert_eq!(token["priceFeed"], seeded.feed);
        assert_eq!(token["isActive"], true, "{token}");
        if let Some(address) = &seeded.address {
            assert_eq!(
                (&token["contractAddress"], &token["tokenType"]),
                (&serde_json::json!(address), &serde_json::json!(1))
            );
        }
    }
    assert_eq!(
        (&tokens[0]["tokenType"], &tokens[1]["decimals"]),
        (&serde_json::json!(0), &serde_json::json!(6))
    );
}
