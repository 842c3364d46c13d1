//! One call on its way: queued, sent, sent again, answered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::{error::ChainError, reply::Fault};

/// What a caller gets: the JSON text of the result.
pub(super) type Answer = Result<Bytes, ChainError>;

/// Whether a call may be sent again and shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing: identical ones share one entry, failed ones are sent again.
    Read,
    /// May change something: sent again only when it surely did not reach the node.
    Write,
}

/// Methods that change nothing. Anything else is treated as a write.
const READS: [&str; 24] = [
    "eth_accounts",
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getCode",
    "eth_getLogs",
    "eth_getProof",
    "eth_getStorageAt",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
    "eth_syncing",
    "net_listening",
    "net_version",
    "web3_clientVersion",
];

impl Kind {
    pub(super) fn of(method: &str) -> Self {
        if READS.contains(&method) { Self::Read } else { Self::Write }
    }
}

/// A call with everybody who waits for it.
#[derive(Debug)]
pub(super) struct Entry {
    /// `"method":"…","params":…`: identical text is the identical call.
    pub(super) text: Arc<str>,
    pub(super) kind: Kind,
    pub(super) waiters: Vec<oneshot::Sender<Answer>>,
    pub(super) queued: Instant,
    /// The latest of its waiters' deadlines.
    pub(super) deadline: Instant,
    /// Longest that one attempt may take.
    pub(super) attempt: Duration,
    /// See [`State::changed`](super::state::State).
    pub(super) epoch: u64,
    /// POSTs it was part of, without those that were refused as a whole or limited.
    pub(super) attempts: u32,
    /// Times that this call alone was told to slow down.
    pub(super) slowed: u32,
}

impl Entry {
    /// Whether anybody still waits.
    pub(super) fn is_wanted(&mut self) -> bool {
        self.waiters.retain(|waiter| !waiter.is_closed());
        !self.waiters.is_empty()
    }
}

/// What an error object means for the call that got it.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The caller's to know.
    Final(ChainError),
    /// This call came too fast.
    SlowDown(ChainError),
    /// Another node may know better.
    Elsewhere(ChainError),
}

/// JSON-RPC codes by which nodes refuse for rate: EIP-1474's "limit exceeded", and 429 by those who repeat HTTP's.
const SLOW_DOWN: [i64; 2] = [-32005, 429];
/// What nodes say when they lack a block or its state.
const NO_BLOCK: [&str; 6] = [
    "header not found",
    "block not found",
    "unknown block",
    "missing trie node",
    "blockoutofrange",
    "block out of range",
];

impl Fault {
    pub(super) fn is_slow_down(&self) -> bool {
        SLOW_DOWN.contains(&self.code)
    }

    pub(super) fn meaning(&self, url: &Arc<str>, secrets: &Secrets) -> Meaning {
        let url = Arc::clone(url);
        let lower = self.message.to_ascii_lowercase();
        if self.is_slow_down() {
            return Meaning::SlowDown(ChainError::RateLimited { url, retry_after: self.slow_down(1) });
        }
        if self.code == 3 || lower.contains("revert") {
            let data = self.revert_data();
            let reason = super::codec::revert_reason(&data).map(Arc::from);
            return Meaning::Final(ChainError::Reverted { data, reason });
        }
        let message: Arc<str> = secrets.scrub(&self.message).into();
        if NO_BLOCK.iter().any(|words| lower.contains(words)) {
            return Meaning::Elsewhere(ChainError::BlockUnavailable { url, message });
        }
        Meaning::Final(ChainError::RpcError { url, code: self.code, message })
    }

    /// How long the `n`-th time to wait, from 1: what the node asks for (Infura's `data.rate.backoff_seconds`), else
    /// a quarter of a second, doubled each time.
    pub(super) fn slow_down(&self, n: u32) -> Duration {
        let data = self.data.as_deref().and_then(|data| serde_json::from_str::<serde_json::Value>(data).ok());
        let asked = data.and_then(|data| data.pointer("/rate/backoff_seconds")?.as_f64());
        let asked = asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        asked.unwrap_or_else(|| Duration::from_millis(250) * 2_u32.saturating_pow(n.saturating_sub(1).min(5)))
    }

    /// `data` is `"0x…"` with most nodes, `{"data":"0x…"}` with some, `"Reverted 0x…"` with old ones.
    fn revert_data(&self) -> Bytes {
        let data = self.data.as_deref().and_then(|data| serde_json::from_str::<serde_json::Value>(data).ok());
        let text = data.as_ref().and_then(|data| data.as_str().or_else(|| data.get("data")?.as_str()));
        text.and_then(|text| super::codec::from_hex(text.trim_start_matches("Reverted "))).unwrap_or_default()
    }
}

/// The parts of an RPC URL that no text may show. Nodes and proxies repeat the URL in their error texts.
#[derive(Clone, Default)]
pub(super) struct Secrets(Arc<[String]>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// User, password, path segments and query values. Parts under six characters (`v3`, `rpc`) are no keys.
    pub(super) fn of(url: &url::Url) -> Self {
        let user = [Some(url.username()), url.password()].into_iter().flatten().map(str::to_owned);
        let path = url.path_segments().into_iter().flatten().map(str::to_owned);
        let query = url.query_pairs().flat_map(|(key, value)| [key.into_owned(), value.into_owned()]);
        let whole = [url.query().unwrap_or_default().to_owned(), url.path().to_owned()];
        let mut parts: Vec<_> =
            user.chain(path).chain(query).chain(whole).filter(|part| part.len() >= 6).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        Self(parts.into())
    }

    pub(super) fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "..."))
    }
}
