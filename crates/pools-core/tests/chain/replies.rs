//! What nodes answer, right, odd and wrong.

use pools_core::chain::{Block, Call, ChainError, Function};
use serde_json::{Value, json};
use testkit::{Fault, Reply, RpcError};

use crate::support::*;

#[tokio::test]
async fn chain_01_every_caller_gets_its_own_value_from_replies_in_any_order() {
    let node = node().await;
    node.misbehave(calls(|_| Fault::Reordered));
    let pool = pool(&node.url());
    read_all(&ready(&pool).await, 0..500).await;
    assert!(posts(&node).iter().any(|post| post.is_batch));
}

#[tokio::test]
async fn chain_02_a_duplicated_id_never_gives_a_wrong_value() {
    let node = node().await;
    node.misbehave(calls(|post| {
        let mut answers = answers(post);
        if post.is_batch {
            // The answer to the third call arrives under the second's id, as viem and others would believe.
            answers[2]["id"] = answers[1]["id"].clone();
        }
        answer(answers)
    }));
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let reads = (0..10).map(|n| read(&provider, n));
    for (n, answer) in (0..).zip(futures_util::future::join_all(reads).await) {
        match answer {
            Ok(value) => assert_eq!(value, n, "another's value"),
            Err(ChainError::BadReply { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    node.misbehave(calls(|_| Fault::Duplicated(3)));
    read_all(&provider, 20..40).await;
}

#[tokio::test]
async fn chain_03_extra_ids_low_and_high_are_ignored_and_counted() {
    let node = node().await;
    node.misbehave(calls(|post| {
        let mut answers = answers(post);
        answers.insert(0, json!({"jsonrpc": "2.0", "id": 0, "result": "0xbad"}));
        answers.push(json!({"jsonrpc": "2.0", "id": u64::MAX, "result": "0xbad"}));
        answer(answers)
    }));
    let pool = pool(&node.url());
    read_all(&ready(&pool).await, 0..50).await;
    let strays = 2.0 * posts(&node).len() as f64;
    let samples = pool.snapshot().samples;
    let counted = samples.iter().find(|sample| sample.labels.contains(&("event", "stray_reply")));
    assert_eq!(counted.map(|sample| sample.value), Some(strays));
}

#[tokio::test]
async fn chain_04_only_the_call_whose_entry_is_missing_is_asked_again() {
    let node = node().await;
    node.misbehave(first_batch(Fault::Missing(7)));
    let pool = pool(&node.url());
    read_all(&ready(&pool).await, 0..50).await;
    let asked: usize = posts(&node).iter().map(|post| post.entries.len()).sum();
    assert_eq!(asked, 51);
}

#[tokio::test]
async fn chain_05_one_revert_is_typed_with_its_data_and_hurts_nobody_else() {
    // Error("too late"), as Solidity encodes it.
    let data = format!(
        "0x08c379a0{:064x}{:064x}{:0<64}",
        32,
        8,
        "too late".bytes().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    let revert = RpcError { data: Some(json!(data)), ..RpcError::new(3, "execution reverted: too late") };
    let node = testkit::rpc_node(move |method, params| match params[0].as_u64() {
        Some(5) => Err(revert.clone()),
        _ => honest(method, params),
    })
    .await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let answers = futures_util::future::join_all((0..10).map(|n| read(&provider, n))).await;
    for (n, answer) in (0..).zip(answers) {
        match answer {
            Err(ChainError::Reverted { data, reason }) => {
                assert_eq!((n, data.len(), reason.as_deref()), (5, 100, Some("too late")));
            }
            answer => assert_eq!(answer.ok(), Some(n)),
        }
    }
    let asked: usize = posts(&node).iter().map(|post| post.entries.len()).sum();
    assert_eq!((asked, pool.is_up()), (10, true), "a revert was asked again, or taken for an outage");
}

#[tokio::test]
async fn chain_06_one_call_told_to_slow_down_waits_alone() {
    let refused = std::sync::atomic::AtomicBool::new(false);
    let node = testkit::rpc_node(move |method, params| {
        let first = params[0] == 5 && !refused.swap(true, std::sync::atomic::Ordering::SeqCst);
        if first { Err(RpcError::new(-32005, "limit exceeded")) } else { honest(method, params) }
    })
    .await;
    let pool = pool(&node.url());
    read_all(&ready(&pool).await, 0..10).await;
    let posts = posts(&node);
    let asked: usize = posts.iter().map(|post| post.entries.len()).sum();
    assert_eq!(asked, 11);
    assert_eq!(posts.last().map(|post| post.entries.len()), Some(1));
}

#[tokio::test]
async fn chain_15_odd_but_legal_replies_are_accepted() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.misbehave(calls(|_| Fault::IdsAsText));
    read_all(&provider, 0..20).await;
    node.misbehave(calls(|post| {
        let bare = |entry: &testkit::Entry| json!({"id": entry.id, "error": null, "result": entry.params[0]});
        answer(post.entries.iter().map(bare).collect())
    }));
    read_all(&provider, 20..40).await;
    let values = provider.request::<Value>("eth_getBalance", (json!({"deep": ["\u{1f600}", null]}),)).await;
    assert_eq!(values.unwrap(), json!({"deep": ["\u{1f600}", null]}));
}

#[tokio::test]
async fn chain_16_null_is_none_and_a_future_block_is_typed() {
    let node = testkit::anvil().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    assert_eq!(provider.header(1_000).await.unwrap(), None);
    let hash = format!("0x{:064x}", 7);
    for method in ["eth_getTransactionByHash", "eth_getTransactionReceipt"] {
        assert_eq!(provider.request::<Option<Value>>(method, (&hash,)).await.unwrap(), None);
    }
    let error = provider.balance(Default::default(), Block::Number(1_000)).await.unwrap_err();
    assert!(matches!(error, ChainError::BlockUnavailable { .. }), "{error:?}");
    assert!(!error.is_unavailable());
}

#[tokio::test]
async fn chain_16_a_block_one_node_lacks_is_asked_of_another() {
    let behind = testkit::rpc_node(|method, params| match method {
        "eth_getBalance" => Err(RpcError::new(-32000, "header not found")),
        _ => honest(method, params),
    })
    .await;
    let ahead = node().await;
    let pool = pool(&format!("{},{}", behind.url(), ahead.url()));
    read_all(&ready(&pool).await, 0..10).await;
    assert_eq!(behind.calls("eth_getBalance"), 10);
    assert_eq!(ahead.calls("eth_getBalance"), 10);
}

#[tokio::test]
async fn a_call_to_an_address_without_code_says_so() {
    let node = testkit::anvil().await;
    let pool = pool(&node.url());
    let function =
        std::sync::Arc::new(Function::parse("function nextLoanId() view returns (uint256)").unwrap());
    let call = Call::new(Default::default(), &function, Vec::new());
    let error = ready(&pool).await.call(&call, Block::Latest).await.unwrap_err();
    assert!(matches!(error, ChainError::NoContract { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_garbage_is_typed_and_free_of_its_text() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.misbehave(calls(|_| Fault::Answer(Reply::json("{\"result\":"))));
    let error = read(&provider, 1).await.unwrap_err();
    assert!(matches!(error, ChainError::BadReply { .. }), "{error:?}");
}
