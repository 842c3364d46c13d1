//! Sending transactions: one owner of the nonces per signer and chain.
//!
//! ```text
//!  send ─ estimate, fees ─► nonce ─► sign ─► broadcast ──accepted──► PendingTx ──► receipt
//!                             ▲                 │ nonce used by others: the next one
//!                             ├─── free again ──┤ rejected: the error; a gap left behind is filled
//!                             │                 └ in doubt: looked up by hash, the same bytes sent again
//!  owner: next nonce, freed nonces                   └ deadline: Unresolved; goes on in the background
//! ```
//!
//! **Cancel.** From the nonce on, the work is a task of the pool: a caller that goes away leaves no gap, and its
//! transaction may still be sent. **Shutdown**: the pool waits for these tasks. A transaction that nobody could
//! resolve is logged with its hash. **Not here**: fee bumps of stuck transactions, several processes with one key.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    codec::{Address, Hash, U256, to_hex},
    error::ChainError,
    provider::Provider,
    receipt::PendingTx,
    signer::{Fees, Signed, Signer, Unsigned},
};
use crate::{redact::SecretString, resilience::Backoff, tasks::Tasks};

/// How often a transaction is given another nonce because the chain says that its own is used.
const RENUMBERED: u32 = 5;
/// How long a freed nonce waits for the next transaction before it is filled.
const GAP: Duration = Duration::from_millis(100);
/// Tip where the node does not suggest one.
const TIP: u64 = 1_000_000_000;
/// Gas of a plain payment.
const PAYMENT: u64 = 21_000;
/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The account or contract.
    pub to: Address,
    /// Wei.
    pub value: U256,
    /// Call data; empty for a payment.
    pub data: Bytes,
    /// Most gas; `None` lets the node estimate, and adds a quarter.
    pub gas: Option<u64>,
}

/// The owners of a pool.
pub(super) struct Senders {
    tasks: Tasks,
    stop: CancellationToken,
    owners: Mutex<HashMap<(Address, usize), Weak<Owner>>>,
}

impl Senders {
    pub(super) fn new(tasks: Tasks, stop: CancellationToken) -> Self {
        Self { tasks, stop, owners: Mutex::default() }
    }

    pub(super) fn get(&self, key: &SecretString, provider: Provider) -> Result<Sender, ChainError> {
        let signer = Signer::parse(key)?;
        // An owner keeps its provider, so the address cannot belong to another while the owner lives.
        let place = (signer.address(), Arc::as_ptr(provider.inner()) as usize);
        let mut owners = self.owners.lock();
        owners.retain(|_, owner| owner.strong_count() > 0);
        if let Some(owner) = owners.get(&place).and_then(Weak::upgrade) {
            return Ok(Sender(owner));
        }
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        let owner = Arc::new(Owner { signer, provider, tasks, stop, nonces: tokio::sync::Mutex::default() });
        owners.insert(place, Arc::downgrade(&owner));
        Ok(Sender(owner))
    }
}

#[derive(Debug, Default)]
struct Nonces {
    next: Option<u64>,
    /// Below `next`, and surely not used.
    free: BTreeSet<u64>,
    /// Transactions between their nonce and the node's answer.
    under_way: u32,
    /// The last one accepted.
    last: Option<Hash>,
}

pub(super) struct Owner {
    signer: Signer,
    pub(super) provider: Provider,
    tasks: Tasks,
    stop: CancellationToken,
    // Held across the look at the chain that sets the first nonce: everybody needs its outcome.
    nonces: tokio::sync::Mutex<Nonces>,
}

/// Sends the transactions of one account. Clones, and other senders for the same key and provider, share its nonces.
#[derive(Clone)]
pub struct Sender(Arc<Owner>);

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// What the node made of signed bytes.
enum Fate {
    Accepted,
    /// Another transaction has this nonce.
    NonceUsed(ChainError),
    /// It will never be mined.
    Rejected(ChainError),
    /// Nobody could say before the deadline.
    InDoubt,
}

impl Sender {
    /// The account.
    pub fn address(&self) -> Address {
        self.0.signer.address()
    }

    /// Signs and sends, with the next nonce.
    ///
    /// # Errors
    /// [`ChainError::Reverted`] when the estimate already fails (no nonce is used); [`ChainError::Unresolved`] when the
    /// node's answer was lost: the transaction may be mined yet.
    ///
    /// # Cancel safety
    /// Dropped while gas is estimated, nothing happens; later, the transaction may be sent all the same.
    pub async fn send(&self, transaction: Transaction) -> Result<PendingTx, ChainError> {
        let owner = Arc::clone(&self.0);
        let unsigned = owner.prepare(transaction).await?;
        let deadline = Instant::now() + owner.provider.total();
        let sending = Arc::clone(&owner).submit(unsigned, deadline);
        let sent = owner.tasks.spawn("chain transaction", sending).await;
        sent.ok().flatten().unwrap_or(Err(ChainError::Closed))
    }
}

impl Owner {
    async fn prepare(&self, transaction: Transaction) -> Result<Unsigned, ChainError> {
        let Transaction { to, value, data, gas } = transaction;
        let estimate = async {
            let Some(gas) = gas else {
                let message =
                    json!({"from": self.signer.address(), "to": to, "value": value, "data": to_hex(&data)});
                let gas: U256 = self.provider.request("eth_estimateGas", [message]).await?;
                let gas = u64::try_from(gas).map_err(|cause| ChainError::decode("eth_estimateGas", cause))?;
                // The state may differ when it is mined; a storage refund a second later is enough to run dry.
                return Ok(gas.saturating_add(gas / 4));
            };
            Ok(gas)
        };
        let (gas, fees, chain_id) = tokio::try_join!(estimate, self.fees(), self.provider.chain_id())?;
        Ok(Unsigned { chain_id, nonce: 0, to, value, data, gas, fees })
    }

    async fn fees(&self) -> Result<Fees, ChainError> {
        let head = self.provider.head().await?;
        let Some(base) = head.base_fee_per_gas else {
            return Ok(Fees::Legacy { price: self.provider.request("eth_gasPrice", ()).await? });
        };
        let tip = match self.provider.request("eth_maxPriorityFeePerGas", ()).await {
            Ok(tip) => tip,
            Err(ChainError::RpcError { .. }) => U256::from(TIP),
            Err(error) => return Err(error),
        };
        // Twice the base fee holds through six full blocks, each an eighth dearer.
        Ok(Fees::Dynamic { most: base * 2 + tip, tip })
    }

    async fn submit(
        self: Arc<Self>,
        mut unsigned: Unsigned,
        deadline: Instant,
    ) -> Result<PendingTx, ChainError> {
        let mut renumbered = 0;
        loop {
            let nonce = self.take_nonce().await?;
            unsigned.nonce = nonce;
            let (signer, to_sign) = (self.signer.clone(), unsigned.clone());
            let signed = tokio::task::spawn_blocking(move || signer.sign(to_sign)).await;
            let signed = match signed.unwrap_or(Err(ChainError::Closed)) {
                Ok(signed) => signed,
                Err(error) => return Err(self.give_back(nonce, &unsigned, error).await),
            };
            match self.broadcast(&signed, deadline).await {
                Fate::Accepted => {
                    self.landed(Some(signed.hash)).await;
                    return Ok(PendingTx { hash: signed.hash, nonce, owner: self });
                }
                Fate::NonceUsed(error) => {
                    self.landed(None).await;
                    renumbered += 1;
                    if renumbered > RENUMBERED {
                        return Err(error);
                    }
                    self.look_up_nonce().await?;
                }
                Fate::Rejected(error) => return Err(self.give_back(nonce, &unsigned, error).await),
                Fate::InDoubt => {
                    self.landed(None).await;
                    let hash = signed.hash;
                    tracing::warn!(?hash, nonce, "transaction in doubt, sent again until it is known");
                    self.tasks.spawn("chain transaction in doubt", Arc::clone(&self).pursue(signed));
                    return Err(ChainError::Unresolved { hash });
                }
            }
        }
    }

    /// The lowest nonce that is free. When nothing is under way, the chain is asked first: the key may have been used
    /// elsewhere, or a development chain begun anew.
    async fn take_nonce(&self) -> Result<u64, ChainError> {
        let mut nonces = self.nonces.lock().await;
        if nonces.under_way == 0 {
            let count = self.count("pending").await?;
            let next = nonces.next.unwrap_or(count);
            let forgotten = count < next && !self.is_known(nonces.last).await?;
            if count > next || forgotten || nonces.next.is_none() {
                nonces.next = Some(count);
            }
            let next = nonces.next;
            nonces.free.retain(|free| *free >= count && Some(*free) < next);
        }
        nonces.under_way += 1;
        if let Some(free) = nonces.free.pop_first() {
            return Ok(free);
        }
        let next = nonces.next.expect("BUG: set above, or by whoever is under way");
        nonces.next = Some(next + 1);
        Ok(next)
    }

    /// The chain says that a nonce of ours is used: skip to what it says.
    async fn look_up_nonce(&self) -> Result<(), ChainError> {
        let count = self.count("pending").await?;
        let mut nonces = self.nonces.lock().await;
        nonces.next = nonces.next.map(|next| next.max(count));
        nonces.free.retain(|free| *free >= count);
        Ok(())
    }

    async fn landed(&self, hash: Option<Hash>) {
        let mut nonces = self.nonces.lock().await;
        nonces.under_way -= 1;
        nonces.last = hash.or(nonces.last);
    }

    /// A nonce that was surely not used goes to the next transaction. If later ones are out already and no next one
    /// comes, they would wait for ever: an empty payment to ourselves fills the gap.
    async fn give_back(self: &Arc<Self>, nonce: u64, unsigned: &Unsigned, error: ChainError) -> ChainError {
        let mut nonces = self.nonces.lock().await;
        nonces.under_way -= 1;
        nonces.free.insert(nonce);
        while let Some(last) =
            nonces.next.and_then(|next| next.checked_sub(1)).filter(|at| nonces.free.contains(at))
        {
            nonces.free.remove(&last);
            nonces.next = Some(last);
        }
        if nonces.free.contains(&nonce) {
            let filler = Unsigned {
                nonce,
                to: self.signer.address(),
                value: U256::zero(),
                data: Bytes::new(),
                gas: PAYMENT,
                ..unsigned.clone()
            };
            self.tasks.spawn("chain nonce gap", Arc::clone(self).fill(filler));
        }
        error
    }

    async fn fill(self: Arc<Self>, filler: Unsigned) {
        sleep(GAP).await;
        let nonce = filler.nonce;
        if !self.nonces.lock().await.free.remove(&nonce) {
            return;
        }
        let signer = self.signer.clone();
        let Ok(Ok(signed)) = tokio::task::spawn_blocking(move || signer.sign(filler)).await else { return };
        match self.broadcast(&signed, Instant::now() + self.provider.total()).await {
            Fate::Accepted => tracing::info!(nonce, "a rejected transaction's nonce was filled"),
            Fate::NonceUsed(_) => {}
            Fate::Rejected(error) => {
                tracing::warn!(nonce, %error, "a rejected transaction's nonce is still free");
                self.nonces.lock().await.free.insert(nonce);
            }
            Fate::InDoubt => self.pursue(signed).await,
        }
    }

    async fn broadcast(&self, signed: &Signed, deadline: Instant) -> Fate {
        let raw = to_hex(&signed.bytes);
        let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut in_doubt = false;
        loop {
            let fate = match self.provider.request::<Value>("eth_sendRawTransaction", [&raw]).await {
                Ok(_) => return Fate::Accepted,
                Err(error) => verdict(error),
            };
            match fate {
                Some(Fate::Accepted) => return Fate::Accepted,
                // A refusal after a doubtful attempt may only mean that the first one worked.
                Some(fate) if !in_doubt => return fate,
                Some(fate) => match self.is_known(Some(signed.hash)).await {
                    Ok(true) => return Fate::Accepted,
                    Ok(false) => return fate,
                    Err(_) => {}
                },
                None => {
                    in_doubt = true;
                    if self.is_known(Some(signed.hash)).await.unwrap_or(false) {
                        return Fate::Accepted;
                    }
                }
            }
            let next = Instant::now() + pauses.fail();
            if next >= deadline || self.stop.run_until_cancelled(sleep_until(next)).await.is_none() {
                return Fate::InDoubt;
            }
        }
    }

    /// Sends the bytes of a transaction in doubt until the chain knows it or has moved past its nonce.
    async fn pursue(self: Arc<Self>, signed: Signed) {
        while !self.stop.is_cancelled() {
            match self.broadcast(&signed, Instant::now() + self.provider.total()).await {
                Fate::Accepted => {
                    return tracing::info!(hash = ?signed.hash, "transaction in doubt has arrived");
                }
                Fate::NonceUsed(error) | Fate::Rejected(error) => {
                    return tracing::warn!(hash = ?signed.hash, %error, "transaction in doubt is lost");
                }
                Fate::InDoubt => {}
            }
            self.stop.run_until_cancelled(sleep(Duration::from_secs(1))).await;
        }
        tracing::warn!(hash = ?signed.hash, "closed before the transaction in doubt was resolved");
    }

    pub(super) async fn count(&self, block: &str) -> Result<u64, ChainError> {
        let count: U256 =
            self.provider.request("eth_getTransactionCount", (self.signer.address(), block)).await?;
        u64::try_from(count).map_err(|cause| ChainError::decode("eth_getTransactionCount", cause))
    }

    async fn is_known(&self, hash: Option<Hash>) -> Result<bool, ChainError> {
        let Some(hash) = hash else { return Ok(false) };
        let found: Option<Value> = self.provider.request("eth_getTransactionByHash", [hash]).await?;
        Ok(found.is_some())
    }
}

/// What an error of `eth_sendRawTransaction` says about the transaction; `None` when it may have arrived.
fn verdict(error: ChainError) -> Option<Fate> {
    let says = |words: &[&str]| {
        let ChainError::RpcError { message, .. } = &error else { return false };
        let message = message.to_ascii_lowercase();
        words.iter().any(|words| message.contains(words))
    };
    match &error {
        _ if says(&["already known", "already imported", "known transaction"]) => Some(Fate::Accepted),
        _ if says(&["nonce too low", "replacement transaction underpriced", "nonce is too low"]) => {
            Some(Fate::NonceUsed(error))
        }
        ChainError::RpcError { .. }
        | ChainError::Reverted { .. }
        | ChainError::RateLimited { .. }
        | ChainError::TooLarge { .. }
        | ChainError::WrongChain { .. }
        | ChainError::QueueFull { .. }
        | ChainError::BadUrl { .. }
        // Not even queued; what is cut while it is out gets another error.
        | ChainError::Closed
        | ChainError::Status { status: 400..=499, .. }
        | ChainError::NotReachable { sent: false, .. } => Some(Fate::Rejected(error)),
        _ => None,
    }
}
