//! Nodes and proxies that fail, and what takes their place.

use std::time::Duration;

use pools_core::chain::{ChainConfig, ChainError};
use testkit::{Accept, End, Fault, Reply, RpcError};
use tokio::time::{Instant, timeout};

use crate::support::*;

/// The longest wait in these tests: a hang guard.
const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn chain_11_a_bad_gateway_fails_over_and_its_page_is_cut_and_scrubbed() {
    for status in [502, 503, 504] {
        let (bad, good) = (node().await, node().await);
        let pool = pool(&format!("{}/v3/SECRETKEY42, {}", bad.url(), good.url()));
        let provider = ready(&pool).await;
        let page = format!("<html>no upstream for /v3/SECRETKEY42 {}</html>", "x".repeat(1_000));
        bad.misbehave(calls(move |_| Fault::Answer(Reply::new(status).body(page.clone()))));
        read_all(&provider, 0..50).await;
        assert_eq!(good.calls("eth_getBalance"), 50);

        good.misbehave(calls(|_| Fault::Html { status: 502 }));
        let alone = pool.provider_for(&format!("{}/v3/SECRETKEY42", bad.url())).unwrap();
        let error = read(&alone, 1).await.unwrap_err();
        let ChainError::Status { excerpt, .. } = &error else { panic!("{error:?}") };
        assert!(excerpt.len() <= 200, "{}", excerpt.len());
        assert!(!everything(&error).contains("SECRETKEY42"), "{}", everything(&error));
    }
}

#[tokio::test]
async fn chain_12_garbage_under_200_is_penalised_and_asked_elsewhere() {
    for fault in [Fault::Html { status: 200 }, Fault::CutAt(20), Fault::Answer(Reply::json("[{\"id\":"))] {
        let (bad, good) = (node().await, node().await);
        let pool = pool(&format!("{},{}", bad.url(), good.url()));
        let provider = ready(&pool).await;
        bad.misbehave(calls(move |_| fault.clone()));
        read_all(&provider, 0..50).await;
        assert_eq!(good.calls("eth_getBalance"), 50);
    }
}

#[tokio::test]
async fn chain_13_a_read_whose_connection_is_reset_is_sent_once_more() {
    for fault in
        [Reply::none(End::Reset), Reply::none(End::Close), Reply::json("[1,2,3]").cut_at(3, End::Reset)]
    {
        let node = node().await;
        let pool = pool(&node.url());
        let provider = ready(&pool).await;
        node.misbehave(first_batch(Fault::Answer(fault)));
        read_all(&provider, 0..20).await;
        assert!(pool.is_up(), "one reset was taken for an outage");
    }
}

#[tokio::test]
async fn chain_13_an_idle_connection_closed_just_before_use_costs_nothing() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    for n in 0..20 {
        node.close_idle();
        assert_eq!(read(&provider, n).await.unwrap(), n);
    }
    assert!(pool.is_up());
}

#[tokio::test]
async fn chain_13_a_raw_transaction_is_never_sent_again_blindly() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.misbehave(calls(|_| Fault::Answer(Reply::none(End::Reset))));
    let error = provider.request::<String>("eth_sendRawTransaction", ("0x00",)).await.unwrap_err();
    assert!(matches!(error, ChainError::NotReachable { sent: true, .. }), "{error:?}");
    assert_eq!(node.calls("eth_sendRawTransaction"), 1);
}

#[tokio::test]
async fn chain_14_a_node_that_never_answers_is_left_after_the_attempt_time_out() {
    let (silent, good) = (node().await, node().await);
    let pool = pool(&format!("{},{}", silent.url(), good.url()));
    let provider = ready(&pool).await.within(Duration::from_secs(1));
    silent.misbehave(calls(|_| Fault::Answer(Reply::never())));
    read_all(&provider, 0..10).await;
    assert_eq!(good.calls("eth_getBalance"), 10);

    good.misbehave(calls(|_| Fault::Answer(Reply::never())));
    let started = Instant::now();
    let error = read(&provider, 11).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(started.elapsed() < BOUND);
}

#[tokio::test]
async fn chain_14_a_cancelled_caller_does_not_cancel_its_batch() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.misbehave(calls(|_| Fault::Late(Duration::from_millis(200))));
    let (stays, goes) = (read(&provider, 1), read(&provider, 2));
    let goes = timeout(Duration::from_millis(50), goes);
    let (stays, goes) = tokio::join!(stays, goes);
    goes.unwrap_err();
    assert_eq!(stays.unwrap(), 1);
    assert_eq!(posts(&node).len(), 1);
}

#[tokio::test]
async fn chain_17_a_wrong_chain_is_refused_before_any_answer() {
    let right = node().await;
    let wrong = testkit::rpc_node(|method, params| match method {
        "eth_chainId" => Ok("0x1".into()),
        _ => honest(method, params),
    })
    .await;
    let pool = pool(&format!("{},{}", right.url(), wrong.url()));
    let provider = ready(&pool).await;
    read_all(&provider, 0..10).await;
    right.stop().await;
    let error = read(&provider, 11).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(wrong.calls("eth_getBalance"), 0, "the wrong chain was asked");
}

#[tokio::test]
async fn chain_17_a_node_that_comes_back_as_another_chain_is_refused() {
    let changed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let node = testkit::rpc_node({
        let changed = changed.clone();
        move |method, params| match method {
            "eth_chainId" if changed.load(std::sync::atomic::Ordering::SeqCst) => Ok("0x1".into()),
            _ => honest(method, params),
        }
    })
    .await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.stop().await;
    testkit::until_async(BOUND, async || read(&provider, 1).await.is_err() && !pool.is_up()).await;
    changed.store(true, std::sync::atomic::Ordering::SeqCst);
    node.start().await;
    testkit::until_async(BOUND, async || {
        matches!(read(&provider, 2).await, Err(ChainError::WrongChain { expected: 31337, found: 1, .. }))
    })
    .await;
    assert!(!pool.is_up());
}

#[tokio::test]
async fn chain_17_the_chain_id_is_asked_once_for_ten_thousand_calls() {
    let node = node().await;
    // Idle probes are another matter.
    let config = ChainConfig { polling_interval: Duration::from_secs(600), ..config(&node.url()) };
    let pool = pool_with(config);
    let provider = ready(&pool).await;
    for burst in 0..10 {
        read_all(&provider, burst * 1_000..(burst + 1) * 1_000).await;
        assert_eq!(provider.chain_id().await.unwrap(), 31337);
    }
    assert_eq!(node.calls("eth_chainId"), 1);
}

#[tokio::test]
async fn chain_30_a_refused_url_opens_the_breaker_and_recovers_within_a_probe_interval() {
    let (first, second) = (node().await, node().await);
    let pool = pool(&format!("{},{}", first.url(), second.url()));
    let provider = ready(&pool).await;
    first.stop().await;
    read_all(&provider, 0..100).await;
    testkit::until_async(BOUND, async || {
        let before = first.accepted();
        read_all(&provider, 100..110).await;
        first.accepted() == before
    })
    .await;
    first.start().await;
    testkit::until_async(BOUND, async || {
        let before = first.calls("eth_getBalance");
        read_all(&provider, 200..201).await;
        first.calls("eth_getBalance") > before
    })
    .await;
}

#[tokio::test]
async fn an_absent_node_fails_calls_at_once_and_is_picked_up_without_traffic() {
    let node = node().await;
    node.stop().await;
    let pool = pool(&node.url());
    let provider = pool.provider();
    let started = Instant::now();
    let error = read(&provider, 1).await.unwrap_err();
    assert!(matches!(error, ChainError::NotReachable { sent: false, .. }), "{error:?}");
    assert!(started.elapsed() < BOUND / 4);
    assert!(!pool.is_up());
    assert!(pool.health().reason.is_some_and(|reason| reason.contains("refused")));

    node.start().await;
    testkit::until(BOUND, || pool.is_up()).await;
    assert_eq!(node.calls("eth_getBalance"), 0);
    read_all(&provider, 0..10).await;

    node.stop().await;
    testkit::until(BOUND, || !pool.is_up()).await;
}

#[tokio::test]
async fn a_node_that_takes_connections_and_never_answers_is_down_and_comes_back() {
    let node = testkit::anvil().await;
    let config = ChainConfig { polling_interval: Duration::from_millis(500), ..config(&node.url()) };
    let pool = pool_with(config);
    let provider = ready(&pool).await;
    node.freeze();
    testkit::until(BOUND, || !pool.is_up()).await;
    node.thaw();
    testkit::until(BOUND, || pool.is_up()).await;
    provider.block_number().await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_resets_every_connection_is_left_for_good_until_it_answers() {
    let (bad, good) = (node().await, node().await);
    let pool = pool(&format!("{},{}", bad.url(), good.url()));
    let provider = ready(&pool).await;
    bad.set_accept(Accept::Reset);
    bad.end_all(End::Reset);
    read_all(&provider, 0..50).await;
    read_all(&provider, 50..100).await;
    assert!(pool.is_up());
    bad.set_accept(Accept::Serve);
    testkit::until_async(BOUND, async || {
        read_all(&provider, 100..101).await;
        bad.calls("eth_getBalance") > 0
    })
    .await;
}

#[tokio::test]
async fn a_nodes_own_error_is_no_outage() {
    let node = testkit::rpc_node(|method, params| match method {
        "eth_getBalance" => Err(RpcError::new(-32603, "internal error")),
        _ => honest(method, params),
    })
    .await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    for n in 0..10 {
        let error = read(&provider, n).await.unwrap_err();
        assert!(matches!(error, ChainError::RpcError { code: -32603, .. }), "{error:?}");
        assert!(!error.is_unavailable());
    }
    assert!(pool.is_up());
}
