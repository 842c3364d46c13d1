//! Transactions: nonces, doubts and receipts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pools_core::{
    chain::{Address, ChainError, ChainPool, Sender, Transaction, U256},
    redact::SecretString,
};
use serde_json::{Value, json};
use testkit::{Anvil, AnvilOptions, End, Fault, Reply, RpcError};
use tokio::time::Instant;

use crate::support::*;

/// anvil's published first key.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
/// The longest wait: a hang guard.
const BOUND: Duration = Duration::from_secs(60);

fn sender(pool: &ChainPool) -> Sender {
    pool.sender(&SecretString::from(KEY), pool.provider()).expect("a key")
}

fn payment(wei: u64) -> Transaction {
    let to = Address::from_low_u64_be(0xb0b);
    Transaction { to, value: U256::from(wei), data: Default::default(), gas: Some(21_000) }
}

fn soon() -> Instant {
    Instant::now() + BOUND
}

async fn mined_nonces(node: &Anvil) -> Value {
    node.rpc("eth_getTransactionCount", json!(["0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "latest"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chain_23_two_hundred_concurrent_sends_use_the_nonces_0_to_199_and_are_mined() {
    let node = testkit::anvil().await;
    let pool = pool(&node.url());
    // Two senders for one key are one owner.
    let senders = [sender(&pool), sender(&pool)];
    let sends = (0..200).map(|n| senders[n % 2].send(payment(1)));
    let sent = futures_util::future::join_all(sends).await;
    let mut nonces = Vec::new();
    for pending in sent {
        let pending = pending.unwrap();
        assert!(pending.receipt(soon()).await.unwrap().success);
        nonces.push(pending.nonce());
    }
    nonces.sort_unstable();
    assert_eq!(nonces, (0..200).collect::<Vec<_>>());
    assert_eq!(mined_nonces(&node).await, "0xc8");
}

#[tokio::test]
async fn chain_24_a_rejected_send_in_the_middle_leaves_no_gap() {
    let node = testkit::anvil().await;
    let pool = pool(&node.url());
    let sender = sender(&pool);
    let too_much = U256::exp10(30);
    let sends = (0..20).map(|n| {
        let value = if n == 10 { too_much } else { U256::one() };
        sender.send(Transaction { value, ..payment(0) })
    });
    let sent = futures_util::future::join_all(sends).await;
    for (n, pending) in sent.into_iter().enumerate() {
        match pending {
            Ok(pending) => assert!(pending.receipt(soon()).await.unwrap().success),
            Err(error) => {
                assert_eq!(n, 10, "{error:?}");
                assert!(matches!(error, ChainError::RpcError { .. }), "{error:?}");
            }
        }
    }
    assert!(sender.send(payment(1)).await.unwrap().receipt(soon()).await.unwrap().success);
}

#[tokio::test]
async fn chain_24_a_revert_found_by_the_estimate_uses_no_nonce() {
    let node = testkit::anvil().await;
    let pool = pool(&node.url());
    let sender = sender(&pool);
    let reverts = "0x00000000000000000000000000000000000000aa";
    // PUSH1 0 PUSH1 0 REVERT
    node.rpc("anvil_setCode", json!([reverts, "0x60006000fd"])).await;
    let transaction = Transaction { to: Address::from_low_u64_be(0xaa), gas: None, ..payment(0) };
    let error = sender.send(transaction).await.unwrap_err();
    assert!(matches!(error, ChainError::Reverted { .. }), "{error:?}");
    let pending = sender.send(Transaction { gas: None, ..payment(1) }).await.unwrap();
    assert_eq!(pending.nonce(), 0);
    assert!(pending.receipt(soon()).await.unwrap().success);
}

#[tokio::test]
async fn a_key_that_is_used_elsewhere_too_is_followed() {
    let node = testkit::anvil().await;
    let pool = pool(&node.url());
    let sender = sender(&pool);
    for round in 0..3 {
        let pending = sender.send(payment(1)).await.unwrap();
        assert_eq!(pending.nonce(), round * 2);
        pending.receipt(soon()).await.unwrap();
        let from = format!("{:?}", sender.address());
        node.rpc("eth_sendTransaction", json!([{"from": from, "to": from, "value": "0x1"}])).await;
    }
}

#[tokio::test]
async fn a_development_chain_that_began_anew_is_followed() {
    let node = testkit::anvil().await;
    let pool = pool(&node.url());
    let sender = sender(&pool);
    for _ in 0..3 {
        sender.send(payment(1)).await.unwrap().receipt(soon()).await.unwrap();
    }
    node.stop().await;
    node.start().await;
    testkit::until(BOUND, || pool.is_up()).await;
    testkit::until_async(BOUND, async || pool.provider().block_number().await.is_ok()).await;
    let pending = sender.send(payment(1)).await.unwrap();
    assert_eq!(pending.nonce(), 0);
    assert!(pending.receipt(soon()).await.unwrap().success);
}

#[tokio::test]
async fn chain_25_the_waiter_of_a_replaced_transaction_is_told() {
    let node = testkit::anvil_with(AnvilOptions {
        arguments: vec!["--no-mining".to_owned()],
        ..AnvilOptions::default()
    })
    .await;
    let pool = pool(&node.url());
    let sender = sender(&pool);
    let pending = sender.send(payment(1)).await.unwrap();
    let waiter = tokio::spawn({
        let pending = pending.clone();
        async move { pending.receipt(soon()).await }
    });
    let from = format!("{:?}", sender.address());
    let dearer = format!("{:#x}", 1_000_000_000_000_u64);
    let replacement = json!([{"from": from, "to": from, "nonce": "0x0", "gas": "0x5208", "maxFeePerGas": dearer,
        "maxPriorityFeePerGas": dearer}]);
    node.rpc("eth_sendTransaction", replacement).await;
    node.rpc("evm_mine", json!([])).await;
    let error = waiter.await.unwrap().unwrap_err();
    assert!(matches!(error, ChainError::Replaced { nonce: 0, .. }), "{error:?}");
}

#[tokio::test]
async fn chain_26_many_waiters_share_their_looks_at_the_head() {
    let node = testkit::anvil_with(AnvilOptions { block_time: Some(1), ..AnvilOptions::default() }).await;
    let pool = pool(&node.url());
    let sender = sender(&pool);
    let sent = futures_util::future::join_all((0..100).map(|_| sender.send(payment(1)))).await;
    let before = pool.snapshot();
    let receipts = sent.iter().map(|pending| pending.as_ref().unwrap().receipt(soon()));
    let receipts = futures_util::future::join_all(receipts).await;
    assert!(receipts.iter().all(|receipt| receipt.as_ref().is_ok_and(|receipt| receipt.success)));
    let posts = |snapshot: pools_core::stats::Snapshot| {
        snapshot.samples.iter().find(|sample| sample.name == "pools_chain_posts_total").unwrap().value
    };
    // A look every 50 ms for a second or two, and two batches a block.
    let spent = posts(pool.snapshot()) - posts(before);
    assert!(spent < 150.0, "{spent} POSTs for 100 receipts");
}

/// A node that knows one account and keeps what it is sent; `lost` says what happens to each answer.
async fn keeper(sent: Arc<AtomicUsize>, known: Arc<AtomicBool>) -> testkit::RpcNode {
    testkit::rpc_node(move |method, params| match method {
        "eth_getBlockByNumber" => Ok(json!({
            "number": "0x1", "hash": format!("0x{:064x}", 1), "parentHash": format!("0x{:064x}", 0),
            "timestamp": "0x1", "baseFeePerGas": "0x1"
        })),
        "eth_maxPriorityFeePerGas" => Ok(json!("0x1")),
        "eth_getTransactionCount" => Ok(json!("0x0")),
        "eth_getTransactionByHash" if known.load(Ordering::SeqCst) => Ok(json!({"hash": params[0]})),
        "eth_sendRawTransaction" => {
            sent.fetch_add(1, Ordering::SeqCst);
            if known.swap(true, Ordering::SeqCst) {
                return Err(RpcError::new(-32000, "already known"));
            }
            Ok(json!(format!("0x{:064x}", 7)))
        }
        _ => honest(method, params),
    })
    .await
}

fn is_send(post: &testkit::Post) -> bool {
    post.entries.iter().any(|entry| entry.method == "eth_sendRawTransaction")
}

#[tokio::test]
async fn chain_13_a_raw_transaction_whose_answer_was_lost_is_found_by_its_hash() {
    let (sent, known) = (Arc::default(), Arc::default());
    let node = keeper(Arc::clone(&sent), Arc::clone(&known)).await;
    let pool = pool(&node.url());
    ready(&pool).await;
    node.misbehave({
        let known = Arc::clone(&known);
        move |post| {
            if is_send(post) && !known.swap(true, Ordering::SeqCst) {
                // It arrived, and its answer did not.
                return Fault::Answer(Reply::none(End::Reset));
            }
            Fault::None
        }
    });
    let pending = sender(&pool).send(payment(1)).await.unwrap();
    assert_eq!((pending.nonce(), sent.load(Ordering::SeqCst)), (0, 0), "it was sent again");
}

#[tokio::test]
async fn a_raw_transaction_that_never_arrived_is_sent_again_with_the_same_bytes() {
    let (sent, known) = (Arc::default(), Arc::default());
    let node = keeper(Arc::clone(&sent), known).await;
    let pool = pool(&node.url());
    ready(&pool).await;
    let mut lost = 0;
    node.misbehave(move |post| {
        if is_send(post) && lost < 1 {
            lost += 1;
            return Fault::Answer(Reply::none(End::Reset));
        }
        Fault::None
    });
    sender(&pool).send(payment(1)).await.unwrap();
    let posts = node.posts();
    let raw: Vec<_> = posts
        .iter()
        .flat_map(|post| &post.entries)
        .filter(|entry| entry.method == "eth_sendRawTransaction")
        .map(|entry| entry.params[0].clone())
        .collect();
    assert_eq!(raw.len(), 2);
    assert_eq!(raw[0], raw[1], "two transactions for one");
}
