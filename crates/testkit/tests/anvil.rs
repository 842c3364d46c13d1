//! The Ethereum node of the kit.

use std::time::Duration;

use serde_json::json;
use testkit::AnvilOptions;
use tokio::net::TcpStream;
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn options_reach_the_node() {
    let options = AnvilOptions {
        chain_id: Some(5),
        timestamp: Some(1_700_000_000),
        accounts: Some(3),
        ..AnvilOptions::default()
    };
    let anvil = testkit::anvil_with(options).await;

    assert_eq!(anvil.rpc("eth_chainId", json!([])).await, "0x5");
    assert_eq!(anvil.rpc("eth_accounts", json!([])).await.as_array().unwrap().len(), 3);
    let genesis = anvil.rpc("eth_getBlockByNumber", json!(["0x0", false])).await;
    assert_eq!(genesis["timestamp"], "0x6553f100");
}

#[tokio::test]
async fn a_kept_chain_survives_a_restart_on_the_same_port() {
    let anvil = testkit::anvil_with(AnvilOptions { keep_state: true, ..AnvilOptions::default() }).await;
    anvil.rpc("anvil_mine", json!(["0x3"])).await;

    anvil.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", anvil.port())).await.is_err());
    anvil.start().await;

    assert_eq!(anvil.rpc("eth_blockNumber", json!([])).await, "0x3");
}

#[tokio::test]
async fn a_frozen_node_answers_nobody_until_it_is_thawed() {
    let anvil = testkit::anvil().await;

    anvil.freeze();
    let call = anvil.rpc("eth_blockNumber", json!([]));
    tokio::pin!(call);
    assert!(timeout(Duration::from_millis(100), &mut call).await.is_err());
    anvil.thaw();

    assert_eq!(timeout(BOUND, call).await.expect("still frozen"), "0x0");
}
