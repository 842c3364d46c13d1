//! How many POSTs calls cost, by the node's own count.

use std::{sync::Arc, time::Duration};

use pools_core::chain::{Block, Call, ChainConfig, Function, Token, U256};
use testkit::Fault;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test]
async fn chain_22_a_thousand_distinct_reads_go_in_at_most_14_posts() {
    let node = node().await;
    let pool = pool(&node.url());
    read_all(&ready(&pool).await, 0..1_000).await;
    assert!(node.requests() <= 14, "{} POSTs", node.requests());
    assert!(posts(&node).iter().all(|post| post.entries.len() <= 100));
    assert!(node.peak_in_flight() <= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chain_22_a_thousand_reads_by_a_thousand_tasks_go_in_at_most_14_posts() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let tasks: Vec<_> = (0..1_000)
        .map(|n| {
            let provider = provider.clone();
            tokio::spawn(async move { (read(&provider, n).await.unwrap(), n) })
        })
        .collect();
    for task in tasks {
        let (got, asked) = task.await.unwrap();
        assert_eq!(got, asked);
    }
    assert!(node.requests() <= 14, "{} POSTs", node.requests());
}

#[tokio::test]
async fn chain_22_a_lone_call_pays_no_stall() {
    let node = node().await;
    // A stall that could not be missed.
    let stall = Duration::from_secs(1);
    let pool = pool_with(ChainConfig { batch_stall: stall, ..config(&node.url()) });
    let provider = ready(&pool).await;
    let started = Instant::now();
    for n in 0..10 {
        read(&provider, n).await.unwrap();
    }
    assert!(started.elapsed() < stall, "{:?}", started.elapsed());
    assert!(posts(&node).iter().all(|post| !post.is_batch));
}

#[tokio::test]
async fn chain_22_a_call_behind_a_slow_one_waits_no_longer_than_the_stall() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let slow = Duration::from_secs(2);
    node.misbehave(calls(
        move |post| {
            if post.entries[0].params[0] == 0 { Fault::Late(slow) } else { Fault::None }
        },
    ));
    let started = Instant::now();
    let quick = async {
        testkit::until(Duration::from_secs(5), || node.calls("eth_getBalance") == 1).await;
        read(&provider, 1).await.unwrap();
        assert!(started.elapsed() < slow);
    };
    let (answer, ()) = tokio::join!(read(&provider, 0), quick);
    answer.unwrap();
}

#[tokio::test]
async fn chain_21_a_thousand_identical_reads_are_one_entry() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let answers = futures_util::future::join_all((0..1_000).map(|_| read(&provider, 7))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == 7));
    assert_eq!(node.calls("eth_getBalance"), 1);
    read(&provider, 7).await.unwrap();
    assert_eq!(node.calls("eth_getBalance"), 2, "an answer was cached");
}

#[tokio::test]
async fn chain_21_an_error_is_shared_but_not_kept_and_writes_share_nothing() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let ask = |method: &'static str| {
        let provider = provider.clone();
        async move { provider.request::<bool>(method, ("0x00",)).await }
    };
    node.misbehave(calls(|_| Fault::Late(Duration::from_millis(50))));
    let answers = futures_util::future::join_all((0..100).map(|_| ask("eth_getCode"))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(node.calls("eth_getCode"), 1);
    ask("eth_getCode").await.unwrap_err();
    assert_eq!(node.calls("eth_getCode"), 2);
    futures_util::future::join_all((0..100).map(|_| ask("eth_sendRawTransaction"))).await;
    assert_eq!(node.calls("eth_sendRawTransaction"), 100);
}

#[tokio::test]
async fn calls_nobody_waits_for_any_more_are_not_sent() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.misbehave(calls(|_| Fault::Late(Duration::from_millis(300))));
    let first = read(&provider, 0);
    let given_up = async {
        testkit::until(Duration::from_secs(5), || node.calls("eth_getBalance") == 1).await;
        let reads = futures_util::future::join_all((1..50).map(|n| read(&provider, n)));
        tokio::time::timeout(Duration::from_millis(1), reads).await.unwrap_err();
    };
    let (answer, ()) = tokio::join!(first, given_up);
    answer.unwrap();
    read(&provider, 50).await.unwrap();
    assert_eq!(node.calls("eth_getBalance"), 2);
}

#[tokio::test]
async fn a_scan_reads_one_block_in_few_posts() {
    let function = Arc::new(Function::parse("function loans(uint256) view returns (uint256 id)").unwrap());
    let node = testkit::rpc_node(|method, params| match method {
        "eth_call" => Ok(params[0]["data"].as_str().map(|data| format!("0x{}", &data[10..])).into()),
        _ => honest(method, params),
    })
    .await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let call = |id: u64| Call::new(Default::default(), &function, vec![Token::Uint(U256::from(id))]);
    let loans = provider.read_many((0..950).map(call).collect(), Block::Latest).await;
    for (id, loan) in (0_u64..).zip(loans) {
        assert_eq!(loan.unwrap(), [Token::Uint(U256::from(id))]);
    }
    let posts = posts(&node);
    assert!(posts.len() <= 11, "{} POSTs", posts.len());
    let reads = posts.iter().flat_map(|post| &post.entries).filter(|entry| entry.method == "eth_call");
    assert!(reads.into_iter().all(|entry| entry.params[1] == "0x10"), "not all of one block");
}
