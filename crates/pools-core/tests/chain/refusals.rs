//! Nodes that accept less than they are offered, or less often.

use std::time::Duration;

use pools_core::chain::ChainError;
use serde_json::json;
use testkit::{Fault, Refusal, Reply, RpcError};
use tokio::time::Instant;

use crate::support::*;

/// The largest POST, and how many were larger than `limit`.
fn refused(node: &testkit::RpcNode, limit: usize) -> usize {
    posts(node).iter().filter(|post| post.entries.len() > limit).count()
}

async fn is_learnt(limit: usize, refusal: Refusal) {
    let node = node().await;
    node.misbehave(move |_| Fault::RefusedOver { limit, refusal: refusal.clone() });
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    read_all(&provider, 0..100).await;
    let first = refused(&node, limit);
    assert!(first > 0, "the node was never offered too much");
    read_all(&provider, 100..200).await;
    assert_eq!(refused(&node, limit), first, "the second burst was refused again");
}

#[tokio::test]
async fn chain_07_a_batch_refused_by_one_error_object_is_split_and_the_limit_kept() {
    is_learnt(10, Refusal::ErrorObject(RpcError::new(-32600, "batch too large"))).await;
}

#[tokio::test]
async fn chain_07_a_batch_refused_by_400_is_split_and_the_limit_kept() {
    is_learnt(10, Refusal::Status(400)).await;
}

#[tokio::test]
async fn chain_07_a_batch_refused_by_405_is_split_and_the_limit_kept() {
    is_learnt(10, Refusal::Status(405)).await;
}

#[tokio::test]
async fn chain_07_a_batch_refused_entry_by_entry_is_split_and_the_limit_kept() {
    is_learnt(10, Refusal::EveryEntry(RpcError::new(-32000, "batch limit exceeded"))).await;
}

#[tokio::test]
async fn chain_08_a_hundred_calls_pass_a_cap_of_two() {
    is_learnt(2, Refusal::Status(400)).await;
}

#[tokio::test]
async fn chain_08_a_node_without_batches_gets_none_after_the_first_burst() {
    is_learnt(1, Refusal::ErrorObject(RpcError::new(-32600, "invalid request"))).await;
}

#[tokio::test]
async fn one_call_the_node_cannot_stand_does_not_end_batching() {
    let node = node().await;
    node.misbehave(calls(|post| {
        let poisoned = post.entries.iter().any(|entry| entry.params[0] == 37);
        if poisoned { Fault::Answer(Reply::new(400).body("bad request")) } else { Fault::None }
    }));
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let answers = futures_util::future::join_all((0..100).map(|n| read(&provider, n))).await;
    for (n, answer) in (0..).zip(answers) {
        match answer {
            Err(ChainError::Status { status: 400, .. }) => assert_eq!(n, 37),
            answer => assert_eq!(answer.ok(), Some(n)),
        }
    }
    let before = posts(&node).len();
    read_all(&provider, 100..200).await;
    assert!(posts(&node).len() - before <= 3, "a good batch was cut up for another call's fault");
}

#[tokio::test]
async fn chain_09_413_halves_the_batch_and_one_oversized_call_is_a_typed_error() {
    let node = testkit::upstream(|request| {
        if request.body.len() > 2_000 {
            return Reply::new(413).body("too large");
        }
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let one = |call: &serde_json::Value| {
            let result =
                if call["method"] == "eth_chainId" { json!(CHAIN) } else { call["params"][0].clone() };
            json!({"jsonrpc": "2.0", "id": call["id"], "result": result})
        };
        let answer = match &body {
            serde_json::Value::Array(calls) => calls.iter().map(one).collect(),
            call => one(call),
        };
        Reply::json(answer.to_string())
    })
    .await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    read_all(&provider, 0..100).await;
    let before = node.seen();
    assert!(before.iter().any(|request| request.body.len() > 2_000));
    read_all(&provider, 100..200).await;
    assert!(node.seen()[before.len()..].iter().all(|request| request.body.len() <= 2_000));
    let error = provider.request::<String>("eth_getBalance", ("x".repeat(3_000),)).await.unwrap_err();
    assert!(matches!(error, ChainError::TooLarge { .. }), "{error:?}");
    assert!(pool.is_up());
}

#[tokio::test]
async fn chain_09_an_answer_over_the_byte_cap_is_asked_for_in_halves() {
    // Four of them are more than is read at most, two are not.
    let text = "x".repeat(9 << 20);
    let node = testkit::rpc_node({
        let text = text.clone();
        move |method, params| match method {
            "eth_getLogs" => Ok(json!(text)),
            _ => honest(method, params),
        }
    })
    .await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let reads = (0..4).map(|n| provider.request::<String>("eth_getLogs", (n,)));
    for answer in futures_util::future::join_all(reads).await {
        assert!(answer.unwrap() == text);
    }
    let posts = node.posts();
    let reads = posts.iter().filter(|post| post.entries[0].method == "eth_getLogs");
    assert_eq!(reads.map(|post| post.entries.len()).collect::<Vec<_>>(), [4, 2, 2]);
    assert!(pool.is_up());
}

async fn pauses(retry_after: impl Fn() -> Fault + Send + 'static) {
    let (node, other) = (node().await, node().await);
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    let mut first = true;
    node.misbehave(calls(move |_| if std::mem::take(&mut first) { retry_after() } else { Fault::None }));
    let before = node.requests();
    let waiting = tokio::spawn({
        let provider = provider.clone();
        async move { read(&provider, 1).await }
    });
    testkit::until(Duration::from_secs(5), || node.requests() == before + 1).await;
    let limited = Instant::now();
    let impatient = provider.within(Duration::from_millis(100));
    testkit::until(Duration::from_secs(5), || {
        let samples = pool.snapshot().samples;
        samples.iter().any(|sample| sample.labels.contains(&("event", "slow_down")) && sample.value > 0.0)
    })
    .await;
    let error = read(&impatient, 2).await.expect_err("it cannot wait");
    assert!(matches!(error, ChainError::RateLimited { .. }), "{error:?}");
    assert!(limited.elapsed() < Duration::from_millis(900), "the error came late");
    // Others go on meanwhile.
    read_all(&pool.provider_for(&other.url()).expect("a URL"), 0..10).await;
    assert_eq!(node.requests(), before + 1, "sent before Retry-After had passed");
    assert_eq!(waiting.await.expect("no panic").ok(), Some(1));
    assert!(limited.elapsed() >= Duration::from_millis(900));
    assert!(pool.is_up(), "a node that is busy was taken for one that is down");
}

#[tokio::test]
async fn chain_10_429_pauses_the_whole_url_for_retry_after_in_seconds() {
    pauses(|| Fault::TooManyRequests { retry_after: Some(1) }).await;
}

#[tokio::test]
async fn chain_10_429_pauses_the_whole_url_until_retry_after_as_a_date() {
    pauses(|| {
        let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(1));
        Fault::Answer(Reply::new(429).header("retry-after", &date))
    })
    .await;
}
