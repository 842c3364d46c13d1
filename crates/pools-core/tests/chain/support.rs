//! A pool on a fake node whose reads give back their own argument.

use std::time::Duration;

use pools_core::{
    chain::{ChainConfig, ChainError, ChainPool, Provider},
    config::http::HttpConfig,
    http::HttpPool,
    redact::SecretString,
};
use serde_json::{Value, json};
use testkit::{Fault, Post, RpcError, RpcNode};

pub(crate) const CHAIN: &str = "0x7a69";

/// `eth_getBalance(n)` is `n`.
pub(crate) async fn node() -> RpcNode {
    testkit::rpc_node(honest).await
}

pub(crate) fn honest(method: &str, params: &Value) -> Result<Value, RpcError> {
    match method {
        "eth_chainId" => Ok(json!(CHAIN)),
        "eth_blockNumber" => Ok(json!("0x10")),
        "eth_getBalance" => Ok(params[0].clone()),
        "eth_getTransactionReceipt" | "eth_getTransactionByHash" => Ok(Value::Null),
        _ => Err(RpcError::new(-32601, "no such method")),
    }
}

pub(crate) fn config(url: &str) -> ChainConfig {
    ChainConfig { url: SecretString::from(url), ..ChainConfig::default() }
}

pub(crate) fn pool(url: &str) -> ChainPool {
    pool_with(config(url))
}

pub(crate) fn pool_with(config: ChainConfig) -> ChainPool {
    ChainPool::new(config, HttpPool::new(HttpConfig::default()))
}

/// A provider that has already seen its node, so that POSTs can be counted from here.
pub(crate) async fn ready(pool: &ChainPool) -> Provider {
    testkit::until(Duration::from_secs(10), || pool.is_up()).await;
    pool.provider()
}

/// Asks for `n` and expects `n`.
pub(crate) async fn read(provider: &Provider, n: u64) -> Result<u64, ChainError> {
    provider.request("eth_getBalance", (n,)).await
}

/// Reads `range`, all at once, and expects every caller to get its own value.
pub(crate) async fn read_all(provider: &Provider, range: std::ops::Range<u64>) {
    let reads = range.clone().map(|n| read(provider, n));
    for (n, answer) in range.zip(futures_util::future::join_all(reads).await) {
        assert_eq!(answer.unwrap_or_else(|error| panic!("{n}: {error:?}")), n, "another's value");
    }
}

/// POSTs that are no probes.
pub(crate) fn posts(node: &RpcNode) -> Vec<Post> {
    let mut posts = node.posts();
    posts.retain(|post| post.entries[0].method != "eth_chainId");
    posts
}

/// The fault for every POST that is no probe.
pub(crate) fn calls(
    mut plan: impl FnMut(&Post) -> Fault + Send + 'static,
) -> impl FnMut(&Post) -> Fault + Send {
    move |post| if post.entries[0].method == "eth_chainId" { Fault::None } else { plan(post) }
}

/// The fault for the first POST of more than one call.
pub(crate) fn first_batch(fault: Fault) -> impl FnMut(&Post) -> Fault + Send {
    let mut fault = Some(fault);
    move |post| if post.is_batch { fault.take().unwrap_or(Fault::None) } else { Fault::None }
}

/// The right answers of a POST to [`honest`], to be spoilt.
pub(crate) fn answers(post: &Post) -> Vec<Value> {
    let answer =
        |entry: &testkit::Entry| json!({"jsonrpc": "2.0", "id": entry.id, "result": entry.params[0]});
    post.entries.iter().map(answer).collect()
}

/// An answer of these elements.
pub(crate) fn answer(answers: Vec<Value>) -> Fault {
    Fault::Answer(testkit::Reply::json(Value::from(answers).to_string()))
}

/// The error, everything it was caused by, and its debug form: all that a log could show.
pub(crate) fn everything(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error:?} {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause} {cause:?}");
        next = cause.source();
    }
    text
}
