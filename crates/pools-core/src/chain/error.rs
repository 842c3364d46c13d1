//! Why a call to the chain failed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::codec::{Address, Hash};
use crate::http::HttpError;

/// Why a call failed. Each variant is one thing an operator does. Cheap to clone, since callers that share one
/// read share its error; holds printed URLs only, never a key.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No answer came: look at the node or the network.
    #[error("{url}: the node cannot be reached")]
    NotReachable {
        /// The endpoint as printed.
        url: Arc<str>,
        /// Whether the request may have reached the node.
        sent: bool,
        /// What went wrong below.
        #[source]
        cause: Arc<HttpError>,
    },
    /// The node, or a proxy before it, answered with an HTTP status that is no answer.
    #[error("{url}: HTTP status {status}: {excerpt}")]
    Status {
        /// The endpoint as printed.
        url: Arc<str>,
        /// The status.
        status: u16,
        /// At most 200 bytes of the body.
        excerpt: Arc<str>,
    },
    /// The endpoint allows no more calls before that: slow down, or buy more.
    #[error("{url}: rate limited for another {retry_after:?}")]
    RateLimited {
        /// The endpoint as printed.
        url: Arc<str>,
        /// When to come back.
        retry_after: Duration,
    },
    /// The contract refused the call.
    #[error("execution reverted{}", reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Reverted {
        /// What the contract returned: the ABI-encoded error.
        data: Bytes,
        /// `Error(string)` and `Panic(uint256)` as text.
        reason: Option<Arc<str>>,
    },
    /// The node answered with an error of its own.
    #[error("{url}: error {code}: {message}")]
    RpcError {
        /// The endpoint as printed.
        url: Arc<str>,
        /// JSON-RPC error code.
        code: i64,
        /// The node's words.
        message: Arc<str>,
    },
    /// The node does not know that block or its state (yet, or any more).
    #[error("{url}: block not available: {message}")]
    BlockUnavailable {
        /// The endpoint as printed.
        url: Arc<str>,
        /// The node's words.
        message: Arc<str>,
    },
    /// The answer was not JSON-RPC, or this call's part of it was missing or contradictory.
    #[error("{url}: unusable answer: {what}")]
    BadReply {
        /// The endpoint as printed.
        url: Arc<str>,
        /// What was wrong with it.
        what: &'static str,
    },
    /// This one call, or its answer, is larger than the endpoint or we accept.
    #[error("{url}: {what} is too large")]
    TooLarge {
        /// The endpoint as printed.
        url: Arc<str>,
        /// The request or the answer.
        what: &'static str,
    },
    /// The endpoint serves another chain: mend `RPC_URL`.
    #[error("{url}: serves chain {found}, not {expected}")]
    WrongChain {
        /// The endpoint as printed.
        url: Arc<str>,
        /// The chain of the endpoints preferred to it, or of its own first answer.
        expected: u64,
        /// What it says now.
        found: u64,
    },
    /// The deadline passed while the call was queued or sent.
    #[error("{method}: no answer within {waited:?}")]
    Deadline {
        /// JSON-RPC method.
        method: Arc<str>,
        /// How long the caller waited.
        waited: Duration,
    },
    /// Too many calls wait already.
    #[error("{waiting} calls wait already, the queue holds no more")]
    QueueFull {
        /// Calls in the queue.
        waiting: usize,
    },
    /// The pool was closed.
    #[error("closed")]
    Closed,
    /// A result did not have the expected type or ABI.
    #[error("{what}: the result cannot be decoded")]
    Decode {
        /// Method or contract function.
        what: Arc<str>,
        /// Why.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Parameters could not be encoded: a fault of the caller.
    #[error("{what}: the parameters cannot be encoded")]
    Encode {
        /// Method or contract function.
        what: Arc<str>,
        /// Why.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// There is no contract at that address.
    #[error("no contract at {address:?}")]
    NoContract {
        /// Where it was looked for.
        address: Address,
    },
    /// Not an http or https URL, or a list with such an element.
    #[error("not an http:// or https:// URL: {printed}")]
    BadUrl {
        /// As far as it may be shown.
        printed: String,
    },
    /// Not a private key of 32 bytes in hex. What was given is not repeated.
    #[error("not a private key (64 hex digits)")]
    BadKey,
    /// A transaction was sent, and nobody could say within the deadline whether it arrived. It is still being
    /// sent again in the background; ask for its hash later.
    #[error("transaction {hash:?}: not known whether it arrived")]
    Unresolved {
        /// The transaction.
        hash: Hash,
    },
    /// Another transaction with the same nonce was mined in its place.
    #[error("transaction {hash:?} was replaced: nonce {nonce} was used by another")]
    Replaced {
        /// The transaction that will never be mined.
        hash: Hash,
        /// Its nonce.
        nonce: u64,
    },
}

impl ChainError {
    /// Whether the chain as such is away (as opposed to refusing this call), so that a service answers 503.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::NotReachable { .. }
            | Self::Status { .. }
            | Self::RateLimited { .. }
            | Self::BadReply { .. }
            | Self::WrongChain { .. }
            | Self::Deadline { .. }
            | Self::QueueFull { .. }
            | Self::Closed
            | Self::BadUrl { .. } => true,
            Self::Reverted { .. }
            | Self::RpcError { .. }
            | Self::BlockUnavailable { .. }
            | Self::TooLarge { .. }
            | Self::Decode { .. }
            | Self::Encode { .. }
            | Self::NoContract { .. }
            | Self::BadKey
            | Self::Unresolved { .. }
            | Self::Replaced { .. } => false,
        }
    }

    pub(super) fn decode(what: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Decode { what: what.into(), cause: Arc::from(cause.into()) }
    }

    pub(super) fn encode(what: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Encode { what: what.into(), cause: Arc::from(cause.into()) }
    }
}
