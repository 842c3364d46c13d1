//! The stand-in for Etherscan says what the documentation says.

#![allow(clippy::unwrap_used, reason = "a panic is a failure")]

use serde_json::Value;
use testkit::{
    etherscan,
    etherscan::{Etherscan, Row, Trouble},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const WALLET: &str = "0x00000000000000000000000000000000000000AA";
const OTHER: &str = "0x00000000000000000000000000000000000000bb";

/// The body of the answer to a call with these parameters.
async fn ask(server: &Etherscan, query: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let head = format!("GET /v2/api?{query} HTTP/1.1\r\nhost: etherscan\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn list(server: &Etherscan, more: &str) -> Value {
    let key = server.key();
    let query = format!("chainid=1&module=account&address={WALLET}&apikey={key}&{more}");
    serde_json::from_str(&ask(server, &query).await).unwrap()
}

#[tokio::test]
async fn rows_are_listed_by_account_chain_order_and_page() {
    let server = etherscan().await;
    server.put((1..=5).map(|n| Row::transaction(WALLET, OTHER, n * 1_000).nonce(n)));
    server.put([
        Row::transaction(OTHER, WALLET, 9_000).value(7).failed(),
        Row::transaction(WALLET, OTHER, 9_500).on(11_155_111),
        Row::internal(OTHER, WALLET, 10_000).value(3),
        Row::token(OTHER, "USDC", OTHER, WALLET, 11_000).value(5),
    ]);

    let newest = list(&server, "action=txlist&page=1&offset=2&sort=desc").await;
    let times = |answer: &Value| -> Vec<String> {
        let rows = answer["result"].as_array().unwrap();
        rows.iter().map(|row| row["timeStamp"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((newest["status"].as_str(), newest["message"].as_str()), (Some("1"), Some("OK")));
    assert_eq!(times(&newest), ["9000", "5000"]);
    assert_eq!(
        (newest["result"][0]["isError"].as_str(), newest["result"][0]["value"].as_str()),
        (Some("1"), Some("7"))
    );
    let last = list(&server, "action=txlist&page=3&offset=2&sort=desc").await;
    assert_eq!(times(&last), ["2000", "1000"]);
    assert_eq!(times(&list(&server, "action=txlistinternal&sort=asc").await), ["10000"]);
    let tokens = list(&server, "action=tokentx&sort=asc").await;
    assert_eq!(tokens["result"][0]["tokenSymbol"], "USDC");
    let beyond = list(&server, "action=txlist&page=4&offset=2&sort=desc").await;
    assert_eq!(
        (beyond["status"].as_str(), beyond["message"].as_str()),
        (Some("0"), Some("No transactions found"))
    );
    assert_eq!(beyond["result"], serde_json::json!([]));
    assert_eq!(server.calls().len(), 5);
    assert_eq!(server.calls()[0].get("offset"), "2");
}

#[tokio::test]
async fn what_it_refuses_is_told_with_status_200() {
    let server = etherscan().await;
    let key = server.key();
    let refusals = [
        (format!("chainid=1&module=account&action=txlist&address={WALLET}"), "Missing/Invalid API Key"),
        (format!("chainid=1&module=account&action=txlist&address={WALLET}&apikey=x"), "Invalid API Key"),
        (format!("module=account&action=txlist&address={WALLET}&apikey={key}"), "chainid"),
        (format!("chainid=1&module=account&action=x&address={WALLET}&apikey={key}"), "Action"),
        (format!("chainid=1&module=account&action=txlist&address=0x1&apikey={key}"), "address"),
        (
            format!(
                "chainid=1&module=account&action=txlist&address={WALLET}&apikey={key}&page=2&offset=10000"
            ),
            "Result window is too large",
        ),
    ];
    for (query, text) in refusals {
        let answer: Value = serde_json::from_str(&ask(&server, &query).await).unwrap();
        assert_eq!(
            (answer["status"].as_str(), answer["message"].as_str()),
            (Some("0"), Some("NOTOK")),
            "{query}"
        );
        assert!(answer["result"].as_str().unwrap().contains(text), "{answer}");
    }
    server.trouble(Trouble::TooFast);
    let answer = list(&server, "action=txlist").await;
    assert_eq!(answer["result"], "Max calls per sec rate limit reached (3/sec)");
}
