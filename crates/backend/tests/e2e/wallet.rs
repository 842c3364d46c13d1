//! `/api/wallet/{address}`: Etherscan's lists, the node and the contract put together, each missing on its own.

use serde_json::{Value, json};
use testkit::{
    Etherscan, etherscan,
    etherscan::{Row, Trouble},
};

use crate::stack::{BOUND, Backend, seeded_chain};

/// Account 1 of anvil, a borrower of the development chain.
pub(crate) const BORROWER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const OTHER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const NOBODY: &str = "0x000000000000000000000000000000000000dEaD";
/// tUSD and tGOV of the development chain, of both of which the borrowers have plenty.
const T_USD: &str = "0xDc64a140Aa3E981100a9becA4E685f962f0cF6C9";
const T_GOV: &str = "0x5FC8d32690cc91D4c39d9d3abcBD16989F875707";
/// What a development chain counts as.
const MAINNET: u64 = 1;
const DAY: u64 = 86_400;

pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Variables of a backend that asks this stand-in as fast as it likes.
pub(crate) fn asking(server: &Etherscan) -> Vec<(&'static str, String)> {
    vec![
        ("ETHERSCAN_URL", server.endpoint()),
        ("ETHERSCAN_API_KEY", server.key().to_owned()),
        ("ETHERSCAN_RPS", "1000".to_owned()),
        ("RATE_LIMIT", "off".to_owned()),
    ]
}

pub(crate) async fn start(variables: &[(&str, String)]) -> Backend {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Backend::start(&variables).await
}

/// What a borrower did, 40 days in all: one ETH in, a half out, three calls of two contracts.
pub(crate) fn history(wallet: &str, chain: u64) -> Vec<Row> {
    let (now, ether) = (now(), |tenths: u64| (u128::from(tenths) * 10_u128.pow(17)).to_string());
    let deposit = format!("0xb6b55f25{}", "00".repeat(32));
    let rows = [
        Row::transaction(OTHER, wallet, now - 40 * DAY).value(ether(10)).nonce(900),
        Row::transaction(wallet, OTHER, now - 30 * DAY).value(ether(5)).nonce(0).gas(21_000, 1_000_000_000),
        Row::transaction(wallet, T_USD, now - 20 * DAY).input(&deposit).nonce(1),
        Row::transaction(wallet, T_USD, now - 10 * DAY).input("0xa9059cbb").nonce(2),
        Row::transaction(wallet, T_GOV, now - 9 * DAY).input("0xa9059cbb").nonce(3),
        Row::transaction(wallet, NOBODY, now - 8 * DAY).value(ether(70)).nonce(4).failed(),
        Row::internal(T_GOV, wallet, now - 20 * DAY).value(ether(1)),
        Row::token(T_USD, "USDC", OTHER, wallet, now - 30 * DAY).value(500),
        Row::token(T_GOV, "GOV", OTHER, wallet, now - 10 * DAY).value(500),
        Row::token(NOBODY, "GONE", OTHER, wallet, now - 10 * DAY).value(500),
    ];
    rows.into_iter().map(|row| row.on(chain)).collect()
}

fn near(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|found| (found - expected).abs() < 0.01)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_put_together_from_etherscan_the_node_and_the_contract() {
    let ((anvil, chain), server) = (seeded_chain().await, etherscan().await);
    server.put(history(BORROWER, MAINNET));
    // A contract that gives no balance.
    server.put([Row::token(&chain.contract, "ODD", OTHER, BORROWER, now() - DAY).value(500)]);
    let mut variables = asking(&server);
    variables.extend([("RPC_URL", anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone())]);
    let backend = start(&variables).await;
    let signed = anvil.rpc("eth_getTransactionCount", json!([BORROWER, "latest"])).await;
    let signed = u64::from_str_radix(&signed.as_str().unwrap()[2..], 16).unwrap();
    assert!(signed > 4, "the plan has the borrower sign");

    let answer = backend.must_get(&format!("/api/wallet/{}", BORROWER.to_lowercase())).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = &answer.body;
    assert_eq!(body["walletAddress"], BORROWER);
    let transactions = &body["transactionMetrics"];
    assert_eq!(transactions["transactionCount"], signed, "{transactions}");
    assert_eq!(transactions["totalVolume"], 1.6, "{transactions}");
    assert!(near(&transactions["avgFrequency"], 6.0 / 40.0), "{transactions}");
    assert!(near(&transactions["avgTimeBetween"], 31.0 * 24.0 / 5.0), "{transactions}");
    let portfolio = &body["portfolioStability"];
    assert_eq!((&portfolio["tokenCount"], &portfolio["heldTokens"]), (&json!(4), &json!(3)), "{portfolio}");
    assert!(near(&portfolio["stablecoinRatio"], 1.0 / 3.0), "{portfolio}");
    assert_eq!(portfolio["diversityScore"], 0.3, "{portfolio}");
    assert!(near(&portfolio["avgHoldingPeriod"], 50.0 / 3.0), "{portfolio}");
    assert_eq!(portfolio["volatilityIndex"], 0.3, "anvil's accounts are rich");
    assert_eq!(
        body["lendingHistory"],
        json!({ "totalLoans": 3, "repaidLoans": 1, "defaultedLoans": 0, "avgRepaymentTime": 0.0 })
    );
    let defi = &body["defiBehavior"];
    assert_eq!((&defi["protocolCount"], &defi["smartContractCalls"]), (&json!(2), &json!(3)), "{defi}");
    assert!(near(&defi["yieldFarmingActivity"], 1.0 / 3.0) && near(&defi["defiExperience"], 20.0), "{defi}");
    let sources = &body["sources"];
    assert_eq!(sources["transactionMetrics"]["from"], json!(["etherscan", "chain"]), "{sources}");
    assert_eq!(
        sources["portfolioStability"]["from"],
        json!(["etherscan", "chain", "transfers"]),
        "{sources}"
    );
    assert_eq!(sources["lendingHistory"]["from"], json!(["chain", "etherscan"]));
    for part in ["transactionMetrics", "portfolioStability", "lendingHistory", "defiBehavior"] {
        assert_eq!(sources[part]["status"], "ok", "{part}: {sources}");
        assert_eq!(sources[part]["cache"], "loaded", "{part}: {sources}");
    }
    assert_eq!(sources["defiBehavior"]["network"], "mainnet");
    assert!(chrono::DateTime::parse_from_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());

    let again = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;
    assert_eq!(again["sources"]["transactionMetrics"]["cache"], "memory", "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repayment_that_etherscan_lists_tells_how_early_it_was() {
    let ((anvil, chain), server) = (seeded_chain().await, etherscan().await);
    let backend_variables = |server: &Etherscan| {
        let mut variables = asking(server);
        variables.extend([("RPC_URL", anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone())]);
        variables
    };
    let backend = start(&backend_variables(&server)).await;
    let loan = backend.must_get("/api/loan-analytics/loan/1").await.body;
    assert_eq!(loan["statusName"], "repaid", "{loan}");
    let funded: u64 = loan["fundedAt"].as_str().unwrap().parse().unwrap();
    let data = format!("0xab7b1c89{:064x}", 1);
    server.put([Row::transaction(BORROWER, &chain.contract, funded + 1_800).input(&data)]);

    let wallet = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;

    assert_eq!(wallet["lendingHistory"]["avgRepaymentTime"], 0.5, "half of an hour: {wallet}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_of_that_network_the_transfers_tell() {
    let server = etherscan().await;
    server.put(history(BORROWER, 1));
    server.put([
        Row::token(T_GOV, "GOV", BORROWER, OTHER, now() - DAY).value(500),
        Row::transaction(OTHER, NOBODY, now() - DAY),
    ]);
    let backend = start(&asking(&server)).await;

    let body = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;

    assert_eq!(body["transactionMetrics"]["transactionCount"], 5, "the newest nonce is 4: {body}");
    let portfolio = &body["portfolioStability"];
    assert_eq!((&portfolio["tokenCount"], &portfolio["heldTokens"]), (&json!(3), &json!(2)), "{portfolio}");
    // 1.1 ETH came, 0.5 went, and gas for 21,000 gwei.
    assert_eq!(portfolio["ethBalance"], "599979000000000000", "{portfolio}");
    assert_eq!(portfolio["volatilityIndex"], 0.6);
    let sources = &body["sources"];
    assert_eq!(sources["portfolioStability"]["from"], json!(["etherscan", "transfers"]), "{sources}");
    assert_eq!(sources["transactionMetrics"]["network"], "mainnet");
    assert!(body["lendingHistory"].is_null());
    assert_eq!(sources["lendingHistory"]["status"], "not_configured");
    assert!(sources["lendingHistory"]["reason"].as_str().unwrap().contains("LOANVERSE_CONTRACT_ADDRESS"));
    let chains: Vec<_> = server.calls().iter().map(|call| call.get("chainid").to_owned()).collect();
    assert_eq!(chains, ["1", "1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_network_is_asked_about_where_one_is_named() {
    let (anvil, server) = (testkit::anvil().await, etherscan().await);
    server.put(history(BORROWER, 11_155_111));
    let mut variables = asking(&server);
    variables.extend([("RPC_URL", anvil.url()), ("ETHERSCAN_CHAIN_ID", "11155111".to_owned())]);
    let backend = start(&variables).await;
    testkit::until_async(BOUND, async || backend.health_of("chain").await == "up").await;
    let body = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;
    let portfolio = &body["sources"]["portfolioStability"];
    assert_eq!(portfolio["network"], "sepolia", "{body}");
    assert_eq!(portfolio["from"], json!(["etherscan", "transfers"]), "anvil is another chain: {body}");
    assert_eq!(body["transactionMetrics"]["transactionCount"], 5, "not that of anvil: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_takes_its_share_away_and_the_answer_says_so() {
    let ((anvil, chain), server) = (seeded_chain().await, etherscan().await);
    server.put(history(BORROWER, MAINNET));
    let mut variables = asking(&server);
    variables.extend([("RPC_URL", anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", chain.contract.clone())]);
    let backend = start(&variables).await;
    testkit::until_async(BOUND, async || backend.health_of("chain").await == "up").await;
    anvil.stop().await;

    let body = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;

    let sources = &body["sources"];
    assert_eq!(body["transactionMetrics"]["transactionCount"], 5, "{body}");
    assert_eq!(sources["portfolioStability"]["from"], json!(["etherscan", "transfers"]), "{sources}");
    for part in ["transactionMetrics", "portfolioStability", "lendingHistory"] {
        assert!(sources[part]["reason"].as_str().unwrap().contains("chain"), "{part}: {sources}");
    }
    assert_eq!(
        (&body["lendingHistory"], &sources["lendingHistory"]["status"]),
        (&Value::Null, &json!("unavailable"))
    );

    anvil.start().await;
    testkit::until_async(BOUND, async || backend.health_of("chain").await == "up").await;
    let body = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;
    let portfolio = &body["sources"]["portfolioStability"];
    assert_eq!(
        portfolio["from"],
        json!(["etherscan", "chain", "transfers"]),
        "what was not confirmed was cached: {body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etherscan_the_loans_alone_are_known() {
    let (anvil, chain) = seeded_chain().await;
    let backend =
        Backend::start(&[("RPC_URL", &anvil.url()), ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract)]).await;
    let answer = backend.must_get(&format!("/api/wallet/{BORROWER}")).await;
    assert_eq!(
        (answer.status, &answer.body["lendingHistory"]["totalLoans"]),
        (200, &json!(3)),
        "{}",
        answer.text
    );
    for part in ["transactionMetrics", "portfolioStability", "defiBehavior"] {
        assert!(answer.body[part].is_null(), "{part} was made up: {}", answer.text);
        assert_eq!(answer.body["sources"][part]["status"], "not_configured", "{part}");
    }
    assert_eq!(backend.health_of("etherscan").await, "not_configured");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_wallet_is_data_too() {
    let server = etherscan().await;
    let backend = start(&asking(&server)).await;
    let answer = backend.must_get(&format!("/api/wallet/{NOBODY}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["transactionMetrics"]["transactionCount"], 0);
    assert_eq!(answer.body["portfolioStability"]["tokenCount"], 0);
    backend.must_get(&format!("/api/wallet/{NOBODY}")).await;
    assert_eq!(server.calls().len(), 3, "an empty list was not cached");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_checked_before_anything_is_asked_and_all_its_spellings_are_one() {
    let (server, redis) = (etherscan().await, testkit::redis().await);
    server.put(history(BORROWER, 1));
    let mut variables = asking(&server);
    variables.push(("REDIS_URL", redis.url()));
    let backend = start(&variables).await;
    testkit::until_async(BOUND, async || backend.health_of("redis").await == "up").await;
    let wrong_case = BORROWER.replace("C5", "c5");
    for bad in [&wrong_case, "0x1", "vitalik.eth", &BORROWER[2..], &format!("{BORROWER}00")] {
        let answer = backend.must_get(&format!("/api/wallet/{bad}")).await;
        assert_eq!(
            (answer.status, answer.body["field"].as_str()),
            (400, Some("address")),
            "{bad}: {}",
            answer.text
        );
    }
    assert_eq!(server.calls().len(), 0);
    let refused = backend.must_post(&format!("/api/wallet/{BORROWER}"), &json!({})).await;
    assert_eq!(refused.status, 405);

    let upper = format!("0x{}", BORROWER[2..].to_uppercase());
    for spelling in [BORROWER, &BORROWER.to_lowercase(), &upper] {
        let body = backend.must_get(&format!("/api/wallet/{spelling}")).await.body;
        assert_eq!(body["walletAddress"], BORROWER, "{body}");
    }

    assert_eq!(server.calls().len(), 3, "one wallet was looked up more than once");
    let address = BORROWER.to_lowercase();
    for list in ["tx_history", "token_balances"] {
        let ttl: i64 =
            redis.cli(&["TTL", &format!("{list}:mainnet:{address}")]).await.trim().parse().unwrap();
        assert!(ttl > 0, "{list} is not in Redis");
    }
    let replica = start(&variables).await;
    testkit::until_async(BOUND, async || replica.health_of("redis").await == "up").await;
    let shared = replica.must_get(&format!("/api/wallet/{BORROWER}")).await.body;
    assert_eq!(shared["sources"]["transactionMetrics"]["cache"], "redis", "{shared}");
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_source_at_all_the_variables_are_named() {
    let backend = Backend::start(&[]).await;
    let body = json!({ "address": BORROWER });
    let answers = [
        backend.must_get(&format!("/api/wallet/{BORROWER}")).await,
        backend.must_get(&format!("/api/credit-score/{BORROWER}")).await,
        backend.must_post("/api/credit-score/analyze", &body).await,
        backend.must_post("/api/credit-score/batch", &json!({ "addresses": [BORROWER] })).await,
    ];
    for answer in answers {
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (503, Some("upstream_not_configured")),
            "{}",
            answer.text
        );
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.contains("ETHERSCAN_API_KEY") && detail.contains("LOANVERSE_CONTRACT_ADDRESS"),
            "{detail}"
        );
    }
    let bad = backend.must_get("/api/wallet/0x1").await;
    assert_eq!(bad.status, 400, "the address is checked first: {}", bad.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_transactions_are_summed_up_and_marked_as_truncated() {
    let server = etherscan().await;
    let now = now();
    server.put(
        (0..10_050)
            .map(|n| Row::transaction(BORROWER, OTHER, now - 20_000_000 + n * 1_200).nonce(n).value(1)),
    );
    let backend = start(&asking(&server)).await;
    let body = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;
    assert_eq!(body["sources"]["transactionMetrics"]["truncated"], true, "{body}");
    assert_eq!(body["transactionMetrics"]["transactionCount"], 10_050, "by the newest nonce: {body}");
    assert_eq!(
        body["sources"]["portfolioStability"]["status"], "unavailable",
        "no balance can be known: {body}"
    );
    server.trouble(Trouble::Reset);
    let again = backend.must_get(&format!("/api/wallet/{BORROWER}")).await.body;
    assert_eq!(
        again["sources"]["transactionMetrics"]["cache"], "memory",
        "a long history is cached too: {again}"
    );
}
