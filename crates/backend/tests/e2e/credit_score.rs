//! `/api/credit-score/*`.

use serde_json::{Value, json};
use testkit::{etherscan, etherscan::Trouble};

use crate::{
    stack::{BOUND, seeded_chain},
    wallet::{BORROWER, asking, history, start},
};

const DEAD: &str = "0x000000000000000000000000000000000000dEaD";

#[tokio::test(flavor = "multi_thread")]
async fn a_score_follows_from_the_parts_and_one_entry_serves_every_spelling() {
    let ((anvil, chain), server, redis) = (seeded_chain().await, etherscan().await, testkit::redis().await);
    server.put(history(BORROWER, 1));
    let mut variables = asking(&server);
    variables.extend([
        ("RPC_URL", anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone()),
        ("REDIS_URL", redis.url()),
    ]);
    let backend = start(&variables).await;
    testkit::until_async(BOUND, async || backend.health_of("redis").await == "up").await;
    testkit::until_async(BOUND, async || backend.health_of("chain").await == "up").await;

    let answer = backend.must_get(&format!("/api/credit-score/{BORROWER}")).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = &answer.body;
    // tx: 0.5, between 10 and 100 signed, 0.15 a day, 148.8 h apart: +.05, and next to no volume.
    // portfolio: a third stablecoins +.10, 17 days, volatility .3: +.03, three tokens: +.03.
    // history: a third repaid: −.30. defi: three calls of two contracts, a third of them farming: +.05, 20 days: −.05.
    let count = body["metrics"]["transactionCount"].as_u64().unwrap();
    let tx = 0.55 + if count < 10 { -0.15 } else { 0.0 };
    let scores = [
        ("transactionAnalysis", tx),
        ("portfolioStability", 0.66),
        ("lendingHistory", 0.2),
        ("defiBehavior", 0.5),
    ];
    for (part, score) in scores {
        assert_eq!(body["breakdown"][part]["score"], json!((score * 100.0_f64).round()), "{part}: {body}");
    }
    let expected = 300.0 + 550.0 * (0.30 * tx + 0.25 * 0.66 + 0.25 * 0.2 + 0.20 * 0.5);
    assert_eq!(body["creditScore"], json!(expected.round() as u32), "{body}");
    assert_eq!(body["category"], "Poor");
    assert_eq!(body["address"], BORROWER);
    assert_eq!(body["breakdown"]["transactionAnalysis"]["weight"], "30%");
    assert_eq!(
        (&body["metrics"]["stablecoinRatio"], &body["metrics"]["protocolCount"]),
        (&json!(1.0 / 3.0), &json!(2))
    );
    assert_eq!(body["sources"]["creditScore"]["cache"], "loaded");

    let calls = server.calls().len();
    let upper = format!("0x{}", BORROWER[2..].to_uppercase());
    for spelling in [&upper, &BORROWER.to_lowercase()] {
        let again = backend.must_get(&format!("/api/credit-score/{spelling}")).await.body;
        assert_eq!((&again["creditScore"], &again["address"]), (&body["creditScore"], &json!(BORROWER)));
        assert_eq!(again["sources"]["creditScore"]["cache"], "memory", "{again}");
    }
    assert_eq!(server.calls().len(), calls);
    let keys = redis.cli(&["KEYS", "credit_score:*"]).await;
    assert_eq!(keys.lines().filter(|key| key.starts_with("credit_score:mainnet:0x")).count(), 1, "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_had_is_left_out_and_such_a_score_is_not_cached() {
    let ((anvil, chain), server) = (seeded_chain().await, etherscan().await);
    server.put(history(BORROWER, 1));
    server.trouble(Trouble::InvalidKey);
    let mut variables = asking(&server);
    variables.extend([("RPC_URL", anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone())]);
    let backend = start(&variables).await;
    let path = format!("/api/credit-score/{BORROWER}");

    let partial = backend.must_get(&path).await;

    // One of three loans repaid: 0.5 − 0.3.
    assert_eq!((partial.status, &partial.body["creditScore"]), (200, &json!(410)), "{}", partial.text);
    assert_eq!(partial.body["breakdown"], json!({ "lendingHistory": { "weight": "100%", "score": 20.0 } }));
    assert!(partial.body["metrics"]["transactionCount"].is_null(), "{}", partial.text);
    assert_eq!(partial.body["sources"]["transactionMetrics"]["status"], "unavailable");
    let batch = backend.must_post("/api/credit-score/batch", &json!({ "addresses": [BORROWER] })).await.body;
    let missing = json!(["transactionMetrics", "portfolioStability", "defiBehavior"]);
    assert_eq!((&batch["results"][0]["missing"], &batch["successful"]), (&missing, &json!(1)), "{batch}");
    server.trouble(Trouble::None);
    let whole = backend.must_get(&path).await;
    assert_eq!(
        whole.body["breakdown"].as_object().unwrap().len(),
        4,
        "a partial score was cached: {}",
        whole.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_borrower_without_loans_is_neither_good_nor_bad() {
    let (anvil, chain) = seeded_chain().await;
    let variables = [("RPC_URL", anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone())];
    let backend = start(&variables).await;
    let body = backend.must_get(&format!("/api/credit-score/{DEAD}")).await.body;
    assert_eq!((&body["creditScore"], &body["category"]), (&json!(575), &json!("Poor")), "{body}");
    let again = backend.must_get(&format!("/api/credit-score/{DEAD}")).await.body;
    assert_eq!(
        again["sources"]["creditScore"]["cache"], "memory",
        "what is not configured is no failure: {again}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_may_leave_the_loans_out() {
    let ((anvil, chain), server) = (seeded_chain().await, etherscan().await);
    server.put(history(BORROWER, 1));
    let mut variables = asking(&server);
    variables.extend([("RPC_URL", anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone())]);
    let backend = start(&variables).await;
    let ask = async |body: Value| backend.must_post("/api/credit-score/analyze", &body).await;

    let with = ask(json!({ "address": BORROWER })).await;
    assert_eq!(with.status, 200, "{}", with.text);
    assert_eq!(with.body["analysis"]["lendingHistory"]["totalLoans"], 3);
    assert_eq!(with.body["analysis"]["walletAddress"], BORROWER);
    let score = backend.must_get(&format!("/api/credit-score/{BORROWER}")).await.body;
    assert_eq!(with.body["creditScore"], score["creditScore"]);

    let without = ask(json!({ "address": BORROWER, "includeLendingHistory": false })).await;
    assert!(without.body["analysis"]["lendingHistory"].is_null(), "{}", without.text);
    assert_eq!(without.body["analysis"]["sources"]["lendingHistory"]["status"], "not_requested");
    assert!(without.body["creditScore"].as_u64() > with.body["creditScore"].as_u64(), "{}", without.text);

    let refusals = [
        (json!({}), "address"),
        (json!({ "address": 7 }), "address"),
        (json!({ "address": "0x1" }), "address"),
        (json!({ "address": BORROWER, "includeLendingHistory": "no" }), "includeLendingHistory"),
    ];
    for (body, field) in refusals {
        let answer = ask(body.clone()).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.text);
        assert!(answer.body["detail"].as_str().unwrap().contains(field), "{body}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_wallet_by_wallet_in_order() {
    let server = etherscan().await;
    server.put(history(BORROWER, 1));
    server.misbehave(|call| match call.get("address") {
        "0x0000000000000000000000000000000000000bad" => Trouble::Refused("Error!"),
        _ => Trouble::None,
    });
    let backend = start(&asking(&server)).await;
    let ask = async |addresses: Value| {
        backend.must_post("/api/credit-score/batch", &json!({ "addresses": addresses })).await
    };
    let bad = "0x0000000000000000000000000000000000000bad";

    let answer = ask(json!([BORROWER, bad, DEAD.to_lowercase(), BORROWER.to_lowercase()])).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = &answer.body;
    assert_eq!([&body["total"], &body["successful"], &body["failed"]], [4, 3, 1], "{body}");
    let addresses: Vec<_> =
        body["results"].as_array().unwrap().iter().map(|item| item["address"].clone()).collect();
    assert_eq!(addresses[0], BORROWER);
    assert_eq!(addresses[2], DEAD);
    assert_eq!(body["results"][1]["success"], false);
    assert!(body["results"][1]["error"].as_str().unwrap().contains("Error!"), "{body}");
    assert_eq!(body["results"][0]["creditScore"], body["results"][3]["creditScore"]);
    assert!(body["results"][2].get("error").is_none(), "{body}");

    let many: Vec<_> = (0..51).map(|n| format!("0x{n:040x}")).collect();
    let refusals = [
        (json!([]), "addresses"),
        (json!(many), "addresses"),
        (json!("x"), "addresses"),
        (json!([BORROWER, "0x1"]), "addresses[1]"),
    ];
    for (addresses, field) in refusals {
        let answer = ask(addresses).await;
        assert_eq!((answer.status, answer.body["field"].as_str()), (422, Some(field)), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_in_the_order_of_checks_whatever_is_configured() {
    let backend = start(&[("RATE_LIMIT", "off".to_owned())]).await;
    let json_type = "application/json";
    let routes = [
        "credit-score/analyze",
        "credit-score/batch",
        "matching/calculate-rate",
        "matching/borrower-recommendations",
        "matching/loan-request",
        "matching/lending-offer",
    ];
    for route in routes {
        let path = format!("/api/{route}");
        let get = backend.must_get(&path).await;
        assert_eq!((get.status, get.body["code"].as_str()), (405, Some("method_not_allowed")), "{path}");
        let send = async |media: &str, body: Vec<u8>| {
            let request = backend.request(http::Method::POST, &path).header("content-type", media).body(body);
            backend.send(request).await.unwrap().status
        };
        assert_eq!(send("text/plain", b"{".to_vec()).await, 415, "{path}");
        assert_eq!(send(json_type, vec![b' '; 11 << 20]).await, 413, "{path}");
        assert_eq!(send(json_type, b"{\"a\":".to_vec()).await, 400, "{path}");
        assert_eq!(send(json_type, b"[]".to_vec()).await, 422, "{path}");
        assert_eq!(send(json_type, b"{}".to_vec()).await, 422, "{path}");
    }
}
