//! Etherscan as it really is: refusals dressed as successes, a rate to be held, days when it is not there.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::json;
use testkit::{
    etherscan,
    etherscan::{Row, Trouble},
};

use crate::{
    stack::{BOUND, Backend},
    wallet::{BORROWER, asking, history, start},
};

fn path() -> String {
    format!("/api/wallet/{BORROWER}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_or_a_broken_answer_is_told_and_never_cached_as_data() {
    let (server, redis) = (etherscan().await, testkit::redis().await);
    server.put(history(BORROWER, 1));
    let mut variables = asking(&server);
    variables.push(("REDIS_URL", redis.url()));
    let backend = start(&variables).await;
    testkit::until_async(BOUND, async || backend.health_of("redis").await == "up").await;
    let troubles = [
        (Trouble::InvalidKey, "ETHERSCAN_API_KEY"),
        (Trouble::RateLimited, "no more calls"),
        (Trouble::TooFast, "no more calls"),
        (Trouble::Refused("Max daily rate limit reached. 110000 (110%) of 100000"), "quota"),
        (Trouble::Refused("Query Timeout occured. Please select a smaller result dataset"), "Query Timeout"),
        (Trouble::Html(200), "documented JSON"),
        (Trouble::Html(403), "403"),
        (Trouble::Html(502), "502"),
        (Trouble::Truncated(100), "documented JSON"),
        (Trouble::Reset, "reset"),
    ];
    for (trouble, reason) in troubles {
        server.trouble(trouble.clone());
        let answer = backend.must_get(&path()).await;
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (503, Some("upstream_unavailable")),
            "{trouble:?}: {}",
            answer.text
        );
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(reason), "{trouble:?}: {detail}");
        assert!(!answer.text.contains(server.key()), "{}", answer.text);
        let keys = redis.cli(&["KEYS", "*"]).await;
        assert!(
            !keys.contains("tx_history:") && !keys.contains("token_balances:"),
            "{trouble:?} was cached: {keys}"
        );
    }
    server.trouble(Trouble::None);
    // The breaker may be open after so many failures; it lets one through after five seconds.
    testkit::until_async(BOUND, async || backend.must_get(&path()).await.status == 200).await;
    let body = backend.must_get(&path()).await.body;
    assert_eq!(body["transactionMetrics"]["transactionCount"], 5, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_came_too_fast_is_made_again() {
    let server = etherscan().await;
    server.put(history(BORROWER, 1));
    let refused = AtomicU32::new(0);
    server.misbehave(move |_| match refused.fetch_add(1, Ordering::SeqCst) {
        0 | 2 => Trouble::TooFast,
        1 => Trouble::RateLimited,
        _ => Trouble::None,
    });
    let backend = start(&asking(&server)).await;
    let answer = backend.must_get(&path()).await;
    assert_eq!(
        (answer.status, &answer.body["transactionMetrics"]["transactionCount"]),
        (200, &json!(5)),
        "{}",
        answer.text
    );
    assert_eq!(server.calls().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_list_that_fails_takes_only_its_parts_away() {
    let server = etherscan().await;
    server.put(history(BORROWER, 1));
    server.misbehave(|call| {
        if call.get("action") == "tokentx" { Trouble::Refused("Error!") } else { Trouble::None }
    });
    let backend = start(&asking(&server)).await;
    let body = backend.must_get(&path()).await.body;
    assert!(body["portfolioStability"].is_null() && body["defiBehavior"].is_object(), "{body}");
    assert_eq!(body["sources"]["portfolioStability"]["status"], "unavailable");
    server.misbehave(
        |call| if call.get("action") == "txlistinternal" { Trouble::Html(200) } else { Trouble::None },
    );
    let other = backend.must_get("/api/wallet/0x000000000000000000000000000000000000dead").await;
    assert_eq!(other.status, 503, "half of the transactions are not the transactions: {}", other.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_sees_more_calls_than_the_key_allows() {
    // The rate is exact as long as nothing takes longer than 250 ms from the pool to the server. On a machine that stands
    // still for longer two seconds' calls may arrive in one; a rate that is not held shows in every round.
    let mut most = Vec::new();
    while most.iter().all(|seen| *seen > 7) {
        assert!(most.len() < 5, "calls within a second, round by round: {most:?}");
        let server = etherscan().await;
        let mut variables = asking(&server);
        variables.retain(|(name, _)| *name != "ETHERSCAN_RPS");
        variables.push(("ETHERSCAN_RPS", "7".to_owned()));
        let backend = start(&variables).await;
        let addresses: Vec<_> = (1..=10).map(|n| format!("0x{n:040x}")).collect();
        let answer = backend.must_post("/api/credit-score/batch", &json!({ "addresses": addresses })).await;
        assert_eq!((answer.status, &answer.body["successful"]), (200, &json!(10)), "{}", answer.text);
        let calls = server.calls();
        assert_eq!(calls.len(), 30);
        assert!(calls[29].at - calls[0].at > Duration::from_secs(2), "30 calls at 7 a second take 4 s");
        most.push(server.most_in_a_second());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_are_those_that_are_documented() {
    let server = etherscan().await;
    let backend = start(&asking(&server)).await;
    backend.must_get(&path()).await;
    let mut actions: Vec<_> = server.calls().iter().map(|call| call.get("action").to_owned()).collect();
    actions.sort();
    assert_eq!(actions, ["tokentx", "txlist", "txlistinternal"]);
    let address = BORROWER.to_lowercase();
    let expected = [
        ("chainid", "1"),
        ("module", "account"),
        ("address", &address),
        ("startblock", "0"),
        ("endblock", "99999999"),
        ("page", "1"),
        ("offset", "10000"),
        ("sort", "desc"),
    ];
    for call in server.calls() {
        for (name, value) in expected {
            assert_eq!(call.get(name), value, "{name}: {call:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_goes_by_what_the_last_call_said_and_asks_nothing_itself() {
    let server = etherscan().await;
    let backend = start(&asking(&server)).await;
    for _ in 0..3 {
        assert_eq!(backend.health_of("etherscan").await, "up");
    }
    assert_eq!(server.calls().len(), 0, "/health made traffic up");
    server.trouble(Trouble::InvalidKey);
    assert_eq!(backend.must_get(&path()).await.status, 503);
    let health = backend.must_get("/health").await.body;
    assert_eq!((&health["services"]["etherscan"], &health["status"]), (&json!("down"), &json!("degraded")));
    server.trouble(Trouble::None);
    assert_eq!(backend.must_get(&path()).await.status, 200);
    assert_eq!(backend.health_of("etherscan").await, "up");
    server.stop().await;
    assert_eq!(backend.must_get("/api/wallet/0x000000000000000000000000000000000000dead").await.status, 503);
    assert_eq!(backend.health_of("etherscan").await, "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_stats_show_etherscans_connections() {
    let server = etherscan().await;
    server.put([Row::transaction(BORROWER, BORROWER, 1_000)]);
    let backend = start(&asking(&server)).await;
    backend.must_get(&path()).await;
    let host = server.addr().to_string();
    let stats = backend.must_get("/api/pools/stats").await.body;
    let open = |map: &serde_json::Value| map[&host].as_u64().unwrap_or(0);
    assert!(open(&stats["http"]["sockets"]) + open(&stats["http"]["freeSockets"]) > 0, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_too_slow_is_given_up_at_the_requests_deadline() {
    let server = etherscan().await;
    server.put(history(BORROWER, 1));
    server.trouble(Trouble::Slow(Duration::from_secs(60)));
    let mut variables = asking(&server);
    variables.push(("REQUEST_TIMEOUT", "1".to_owned()));
    let backend = start(&variables).await;
    let answer = backend.must_get(&path()).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    let batch = json!({ "addresses": [BORROWER, "0x000000000000000000000000000000000000dead"] });
    let late = backend.must_post("/api/credit-score/batch", &batch).await;
    assert_eq!((late.status, &late.body["failed"]), (200, &json!(2)), "{}", late.text);
    assert!(late.body["results"][0]["error"].is_string(), "{}", late.text);
    assert_eq!(backend.health_of("etherscan").await, "down");
    testkit::until(BOUND, || server.in_flight() == 0).await;
    server.trouble(Trouble::Slow(Duration::from_millis(100)));
    assert_eq!(backend.must_get(&path()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_come_from_a_file_and_is_printed_nowhere() {
    let server = etherscan().await;
    let file = std::env::temp_dir().join(format!("etherscan-key-{}", testkit::free_port()));
    std::fs::write(&file, server.key()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let mut variables = asking(&server);
    variables.retain(|(name, _)| *name != "ETHERSCAN_API_KEY");
    variables.extend([("ETHERSCAN_API_KEY_FILE", file.clone()), ("LOG_LEVEL", "trace".to_owned())]);
    let backend = start(&variables).await;
    std::fs::remove_file(&file).unwrap();
    let mut seen = backend.must_get(&path()).await.text;
    assert!(
        server.calls().len() == 3 && seen.contains("\"ok\""),
        "the key of the file was not accepted: {seen}"
    );
    server.trouble(Trouble::Refused("Error! you sent STANDINETHERSCANKEY0123456789ABCDE"));
    for path in
        ["/api/wallet/0x000000000000000000000000000000000000dead", "/health", "/metrics", "/api/pools/stats"]
    {
        seen.push_str(&backend.must_get(path).await.text);
    }
    seen.push_str(&backend.process.lines().join("\n"));
    assert!(!seen.contains(server.key()), "the key was printed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_endpoint_stops_the_start_and_is_named() {
    let backend = Backend::launch(&[("ETHERSCAN_URL", "ftp://etherscan"), ("ETHERSCAN_API_KEY", "k")]);
    assert_ne!(backend.process.wait(BOUND).await, 0);
    assert!(backend.process.line_with("ETHERSCAN_URL").is_some());
}
