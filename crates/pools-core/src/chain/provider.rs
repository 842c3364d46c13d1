//! A provider: one chain behind one URL or list of URLs, shared by everybody who asks for it.
//!
//! Callers put calls into the provider's state and wait for their answer; its driver task does the rest. **Cancel**: a
//! caller that goes away leaves its call; a POST that is out is not disturbed. **Panic** of the driver: callers get
//! [`ChainError::Closed`], and it is counted. **Shutdown**: see [`ChainPool`](super::ChainPool).

use std::{future::Future, panic::Location, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::{
    codec::{Address, Call, Hash, Token, U256, from_hex, quantity, to_hex},
    driver::Inner,
    entry::{Answer, Kind},
    error::ChainError,
    state::NewCall,
};
use crate::{
    resilience::{deadline, outgoing},
    stats::Outcome as Ended,
};

/// Longest that a call takes, with every retry.
const TOTAL: Duration = Duration::from_secs(30);
/// Longest that one attempt takes.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Calls of a scan that are queued at once.
const SCAN_WINDOW: usize = 10_000;

/// Which block a read is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The newest that the node knows.
    Latest,
    /// This one.
    Number(u64),
}

impl Serialize for Block {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Latest => serializer.serialize_str("latest"),
            Self::Number(number) => serializer.collect_str(&format_args!("{number:#x}")),
        }
    }
}

/// What is used of a block's header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Height.
    #[serde(deserialize_with = "quantity")]
    pub number: u64,
    /// Hash.
    pub hash: Hash,
    /// Hash of the block before.
    pub parent_hash: Hash,
    /// Seconds since 1970, as the block says.
    #[serde(deserialize_with = "quantity")]
    pub timestamp: u64,
    /// Price of gas before tips; absent on chains before London.
    pub base_fee_per_gas: Option<U256>,
}

/// Keeps a provider in use.
#[derive(Debug)]
pub(super) struct Handle(pub(super) Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        *self.0.last_used.lock() = Instant::now();
    }
}

/// A shared provider. Clones are cheap; while one is alive, the provider is in use.
///
/// # Cancel safety
/// Every method may be dropped at any point: a call still queued is not sent, one that is sent stays in its batch.
#[derive(Clone, Debug)]
pub struct Provider {
    pub(super) handle: Arc<Handle>,
    total: Duration,
}

impl Provider {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        Self { handle, total: TOTAL }
    }

    /// The same provider with a shorter time for each call: `total` in all, half of it for one attempt, so that
    /// another endpoint has time to answer. Never longer than 30 s and 10 s.
    pub fn within(&self, total: Duration) -> Self {
        Self { handle: Arc::clone(&self.handle), total: total.min(TOTAL) }
    }

    /// Its endpoints as printed, the preferred first.
    pub fn endpoints(&self) -> Vec<String> {
        self.inner().transports.iter().map(|transport| transport.name.to_string()).collect()
    }

    /// Whether an endpoint answered last time.
    pub fn is_up(&self) -> bool {
        self.inner().state.lock().health().is_some_and(|health| health.is_ok())
    }

    /// Calls one method. `T` is `Option<…>` where the node may answer `null`.
    ///
    /// # Errors
    /// [`ChainError`]; no later than 30 s from now, or than [`within`](Self::within) says.
    #[track_caller]
    pub fn request<T: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> impl Future<Output = Result<T, ChainError>> + Send {
        let (text, site) = (call_text(method, &params), Location::caller());
        async move {
            let text = self.call_all(vec![text?], Kind::of(method), method, site).await.pop();
            let text = text.expect("BUG: one answer for one call")?;
            serde_json::from_slice(&text).map_err(|cause| ChainError::decode(method, cause))
        }
    }

    /// Reads from a contract.
    ///
    /// # Errors
    /// [`ChainError`]; [`ChainError::Reverted`] when the contract refused.
    #[track_caller]
    pub fn call(
        &self,
        call: &Call,
        block: Block,
    ) -> impl Future<Output = Result<Vec<Token>, ChainError>> + Send {
        let (text, site) = (eth_call(call, block), Location::caller());
        async move {
            let text = self.call_all(vec![text?], Kind::Read, "eth_call", site).await.pop();
            returned(call, text.expect("BUG: one answer for one call")?)
        }
    }

    /// Many reads of one block, in as few POSTs as the endpoint accepts, each with its own result. With
    /// [`Block::Latest`] the newest block is looked up first and all reads are pinned to it.
    #[track_caller]
    pub fn read_many(
        &self,
        calls: Vec<Call>,
        block: Block,
    ) -> impl Future<Output = Vec<Result<Vec<Token>, ChainError>>> + Send {
        let site = Location::caller();
        async move {
            let block = match block {
                Block::Latest => self.block_number().await.map(Block::Number),
                number @ Block::Number(_) => Ok(number),
            };
            let block = match block {
                Ok(block) => block,
                Err(error) => return vec![Err(error); calls.len()],
            };
            let mut results = Vec::with_capacity(calls.len());
            for window in calls.chunks(SCAN_WINDOW) {
                results.extend(self.read_window(window, block, site).await);
            }
            results
        }
    }

    async fn read_window(
        &self,
        calls: &[Call],
        block: Block,
        site: &'static Location<'static>,
    ) -> Vec<Result<Vec<Token>, ChainError>> {
        let texts: Vec<_> = calls.iter().map(|call| eth_call(call, block)).collect();
        let sendable = texts.iter().filter_map(|text| text.as_ref().ok().cloned()).collect();
        let mut answers = self.call_all(sendable, Kind::Read, "eth_call", site).await.into_iter();
        let answer = |(call, text): (&Call, Result<Arc<str>, ChainError>)| {
            text?;
            returned(call, answers.next().expect("BUG: one answer for each call")?)
        };
        calls.iter().zip(texts).map(answer).collect()
    }

    /// The newest block's number.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn block_number(&self) -> Result<u64, ChainError> {
        let number: U256 = self.request("eth_blockNumber", ()).await?;
        u64::try_from(number).map_err(|cause| ChainError::decode("eth_blockNumber", cause))
    }

    /// The chain's id. Asked of the node once only.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn chain_id(&self) -> Result<u64, ChainError> {
        let known = self.inner().state.lock().chain_id;
        if let Some(id) = known {
            return Ok(id);
        }
        let id: U256 = self.request("eth_chainId", ()).await?;
        u64::try_from(id).map_err(|cause| ChainError::decode("eth_chainId", cause))
    }

    /// The newest block.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn head(&self) -> Result<Header, ChainError> {
        self.request("eth_getBlockByNumber", (Block::Latest, false)).await
    }

    /// The block of that number; `None` if there is none yet.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn header(&self, number: u64) -> Result<Option<Header>, ChainError> {
        self.request("eth_getBlockByNumber", (Block::Number(number), false)).await
    }

    /// An account's money, in wei.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn balance(&self, account: Address, block: Block) -> Result<U256, ChainError> {
        self.request("eth_getBalance", (account, block)).await
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.handle.0
    }

    pub(super) fn total(&self) -> Duration {
        self.total
    }

    /// The next moment of a beat that all users of the provider share, so that what they ask for then shares a POST.
    pub(super) fn next_beat(&self, period: Duration) -> Instant {
        let created = self.inner().created;
        let beats = created.elapsed().as_nanos() / period.as_nanos();
        created + period.saturating_mul(u32::try_from(beats + 1).unwrap_or(u32::MAX))
    }

    /// Queues the calls together and waits for every answer.
    async fn call_all(
        &self,
        texts: Vec<Arc<str>>,
        kind: Kind,
        method: &str,
        site: &'static Location<'static>,
    ) -> Vec<Answer> {
        outgoing::begin().await;
        let inner = self.inner();
        let _holder = inner.shared.holders.enter(site);
        let started = Instant::now();
        let total = deadline::current()
            .map_or(self.total, |by| self.total.min(by.saturating_duration_since(started)));
        let (deadline, attempt) = (started + total, ATTEMPT.min(total / 2));
        let queued: Vec<_> = {
            let mut state = inner.state.lock();
            let calls = texts.into_iter().map(|text| NewCall { text, kind, deadline, attempt });
            calls.map(|call| state.submit(call, started)).collect()
        };
        if queued.iter().flatten().any(|(_, wake)| *wake) {
            inner.wake.notify_one();
        }
        let mut answers = Vec::with_capacity(queued.len());
        for queued in queued {
            let answer = match queued {
                Ok((answer, _)) => timeout_at(deadline, answer).await,
                Err(refused) => Ok(Ok(Err(refused))),
            };
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(ChainError::Closed),
                Err(_) => Err(ChainError::Deadline { method: method.into(), waited: started.elapsed() }),
            };
            inner.shared.recorder.acquires.add(ended_as(&answer));
            answers.push(answer);
        }
        inner.shared.recorder.usage.record(started.elapsed());
        answers
    }
}

fn ended_as(answer: &Answer) -> Ended {
    match answer {
        Err(ChainError::QueueFull { .. }) => Ended::QueueFull,
        Err(ChainError::Deadline { .. }) => Ended::Timeout,
        Err(ChainError::Closed | ChainError::RateLimited { .. }) => Ended::Refused,
        Err(error) if error.is_unavailable() => Ended::OpenFailed,
        // A revert or a node's own error is an answer.
        Ok(_) | Err(_) => Ended::Ok,
    }
}

/// A call as it stands in a POST, but for its id. Identical text is the identical call.
fn call_text(method: &str, params: &impl Serialize) -> Result<Arc<str>, ChainError> {
    let failed = |cause| ChainError::encode(method, cause);
    let name = serde_json::to_string(method).map_err(failed)?;
    let params = serde_json::to_string(params).map_err(failed)?;
    // `()` stands for no parameters.
    let params = if params == "null" { "[]" } else { &params };
    Ok(format!("\"method\":{name},\"params\":{params}").into())
}

fn eth_call(call: &Call, block: Block) -> Result<Arc<str>, ChainError> {
    #[derive(Serialize)]
    struct Message {
        to: Address,
        data: String,
    }
    let data = to_hex(&call.function.encode(&call.args)?);
    call_text("eth_call", &(Message { to: call.to, data }, block))
}

fn returned(call: &Call, text: Bytes) -> Result<Vec<Token>, ChainError> {
    let hex: &str = serde_json::from_slice(&text).map_err(|cause| ChainError::decode("eth_call", cause))?;
    let data = from_hex(hex).ok_or_else(|| ChainError::decode("eth_call", "not hex"))?;
    if data.is_empty() && call.function.outputs().next().is_some() {
        return Err(ChainError::NoContract { address: call.to });
    }
    call.function.decode(&data)
}
