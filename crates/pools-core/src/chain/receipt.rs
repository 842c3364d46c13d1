//! Waiting for a transaction to be mined, or to be out of the running.
//!
//! All waiters look at the head on one beat, in one shared read; each asks for its own receipt only when a block is new,
//! and what they ask then shares a POST. No task, no timer beside the waiter's own.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    codec::{Hash, U256, quantity},
    error::ChainError,
    sender::Owner,
};

/// The beat in a waiter's first second: development chains mine at once.
const BEAT: Duration = Duration::from_millis(50);
/// The beat after that.
const SLOW_BEAT: Duration = Duration::from_millis(250);
/// A receipt is asked for without a new block too, for nodes that show it later than the block; and a transaction counts
/// as replaced only when its receipt was missing for so long after its nonce was used.
const LATE_RECEIPT: Duration = Duration::from_secs(2);

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub hash: Hash,
    /// Whether it did what it was to do; if not, it only cost gas.
    pub success: bool,
    /// The block that holds it.
    pub block: u64,
    /// Gas used.
    pub gas_used: u64,
}

/// A transaction that the node has accepted.
#[derive(Clone)]
pub struct PendingTx {
    pub(super) hash: Hash,
    pub(super) nonce: u64,
    pub(super) owner: Arc<Owner>,
}

impl std::fmt::Debug for PendingTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingTx")
            .field("hash", &self.hash)
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

impl PendingTx {
    /// Its hash.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Its nonce.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Waits until it is mined. Look at [`Receipt::success`]: mined does not mean done.
    ///
    /// # Errors
    /// [`ChainError::Deadline`] when it is not mined by then (it may be later), [`ChainError::Replaced`]; a node that is
    /// away for a while is waited for.
    pub async fn receipt(&self, deadline: Instant) -> Result<Receipt, ChainError> {
        let started = Instant::now();
        let mut watch = Watch { head: None, asked: started, gone_since: None };
        loop {
            match timeout_at(deadline, self.look(&mut watch)).await {
                Ok(Ok(Some(receipt))) => return Ok(receipt),
                Ok(Err(error)) if !error.is_unavailable() || matches!(error, ChainError::Closed) => {
                    return Err(error);
                }
                Ok(_) => {}
                Err(_) => break,
            }
            let beat = if started.elapsed() < Duration::from_secs(1) { BEAT } else { SLOW_BEAT };
            let next = self.owner.provider.next_beat(beat);
            if next >= deadline {
                sleep_until(deadline).await;
                break;
            }
            sleep_until(next).await;
        }
        let waited = started.elapsed();
        Err(ChainError::Deadline { method: "eth_getTransactionReceipt".into(), waited })
    }

    async fn look(&self, watch: &mut Watch) -> Result<Option<Receipt>, ChainError> {
        // All waiters share this one read; only a new block makes them ask for their own receipt.
        let head = self.owner.provider.block_number().await?;
        let pause = if watch.gone_since.is_some() { SLOW_BEAT } else { LATE_RECEIPT };
        if watch.head == Some(head) && watch.asked.elapsed() < pause {
            return Ok(None);
        }
        (watch.head, watch.asked) = (Some(head), Instant::now());
        if let Some(receipt) = self.ask().await? {
            return Ok(Some(receipt));
        }
        if self.owner.count("latest").await? <= self.nonce {
            return Ok(None);
        }
        // Its nonce is used: by another, or by itself on a node that shows the receipt later than the count.
        let gone_since = *watch.gone_since.get_or_insert_with(Instant::now);
        if gone_since.elapsed() < LATE_RECEIPT {
            return Ok(None);
        }
        let (hash, nonce) = (self.hash, self.nonce);
        Err(ChainError::Replaced { hash, nonce })
    }

    async fn ask(&self) -> Result<Option<Receipt>, ChainError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            #[serde(deserialize_with = "quantity")]
            block_number: u64,
            #[serde(deserialize_with = "quantity")]
            gas_used: u64,
            // Absent before Byzantium, when a mined transaction could not be told from a failed one.
            status: Option<U256>,
        }
        let raw: Option<Raw> = self.owner.provider.request("eth_getTransactionReceipt", [self.hash]).await?;
        Ok(raw.map(|raw| Receipt {
            hash: self.hash,
            success: raw.status.is_none_or(|status| !status.is_zero()),
            block: raw.block_number,
            gas_used: raw.gas_used,
        }))
    }
}

/// What a receipt's waiter saw last.
struct Watch {
    /// Since when its nonce was used without a receipt.
    gone_since: Option<Instant>,
    head: Option<u64>,
    asked: Instant,
}
