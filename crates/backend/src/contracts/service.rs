//! Loans as the API shows them, read once per block.
//!
//! A block's state never changes, so an answer is cached under the number of the block it was read at and can
//! never be stale within its key: a new block is a new key. The head itself is asked for at most once a second.
//! With Redis away the in-process level of the cache goes on alone.

use std::time::Duration;

use pools_core::{
    cache::{Cache, CacheKey, Cached, Namespace, Policy},
    chain::Address,
};
use serde_json::Value;

use super::{
    borrower::Borrower,
    client::{ContractClient, Head},
    error::ContractError,
    model::Loan,
};

/// How old the head may be: well under the shortest block time of the networks in use.
const HEAD_TTL: Duration = Duration::from_secs(1);

const HEAD: Namespace = Namespace::new("head", 1);
const LOAN: Namespace = Namespace::new("loan", 1);
const ACTIVE: Namespace = Namespace::new("active_loans", 1);
const BORROWER: Namespace = Namespace::new("borrower", 1);
const TOKENS: Namespace = Namespace::new("tokens", 1);

/// Loans by id and the open requests.
#[derive(Clone, Debug)]
pub struct ContractService {
    contract: Option<ContractClient>,
    cache: Cache,
    ttl: Duration,
}

impl ContractService {
    /// `contract` is `None` without `LOANVERSE_CONTRACT_ADDRESS`; `ttl` is `ANALYTICS_TTL`.
    pub fn new(contract: Option<ContractClient>, cache: Cache, ttl: Duration) -> Self {
        Self { contract, cache, ttl }
    }

    /// Whether a contract was named.
    pub fn is_configured(&self) -> bool {
        self.contract.is_some()
    }

    /// One loan.
    ///
    /// # Errors
    /// See [`ContractError`].
    pub async fn loan(&self, id: u64) -> Result<Cached<Value>, ContractError> {
        let (contract, head) = self.at_head().await?;
        let key = key(LOAN, &contract, head).part(id);
        let load = async move {
            if id == 0 || id >= contract.next_loan_id(head).await? {
                return Err(ContractError::NoSuchLoan(id));
            }
            let mut loans = read_loans(&contract, vec![id], head).await?;
            loans.pop().ok_or(ContractError::NoSuchLoan(id))
        };
        Ok(self.cache.get_or_load(&key, &Policy::new(self.ttl), load).await?)
    }

    /// Every open request.
    ///
    /// # Errors
    /// See [`ContractError`].
    pub async fn active(&self) -> Result<Cached<Vec<Value>>, ContractError> {
        let (contract, head) = self.at_head().await?;
        let key = key(ACTIVE, &contract, head);
        let load = async move {
            let ids = contract.active_requests(head).await?;
            read_loans(&contract, ids, head).await
        };
        Ok(self.cache.get_or_load(&key, &Policy::new(self.ttl), load).await?)
    }

    /// One borrower, who may have no loans.
    ///
    /// # Errors
    /// See [`ContractError`].
    pub async fn borrower(&self, address: Address) -> Result<Cached<Borrower>, ContractError> {
        let (contract, head) = self.at_head().await?;
        let key = key(BORROWER, &contract, head).address(format!("{address:?}"));
        let load = async move {
            let (record, next) =
                tokio::try_join!(contract.credit_record(address, head), contract.next_loan_id(head))?;
            let ids = contract.loans_of(address, next.saturating_sub(1), head).await?;
            let loans = loans(&contract, ids, head).await?;
            let shown = show(&contract, &loans, head).await;
            Ok(Borrower::new(address, contract.address(), &record, &loans, &shown))
        };
        Ok(self.cache.get_or_load(&key, &Policy::new(self.ttl), load).await?)
    }

    /// Every token that the contract knows.
    ///
    /// # Errors
    /// See [`ContractError`].
    pub async fn tokens(&self) -> Result<Cached<Vec<Value>>, ContractError> {
        let (contract, head) = self.at_head().await?;
        let key = key(TOKENS, &contract, head);
        let load = async move {
            let next = contract.next_token_id(head).await?;
            let tokens = contract.tokens(0..next, head).await;
            tokens.into_iter().map(|token| Ok(token?.to_json())).collect()
        };
        Ok(self.cache.get_or_load(&key, &Policy::new(self.ttl), load).await?)
    }

    async fn at_head(&self) -> Result<(ContractClient, Head), ContractError> {
        let contract = self.contract.clone().ok_or(ContractError::NotConfigured)?;
        let key = CacheKey::new(HEAD).address(format!("{:?}", contract.address()));
        let asked = contract.clone();
        let load = async move { asked.head().await };
        let head = self.cache.get_or_load(&key, &Policy::new(HEAD_TTL), load).await?;
        Ok((contract, head.value))
    }
}

fn key(namespace: Namespace, contract: &ContractClient, head: Head) -> CacheKey {
    CacheKey::new(namespace).address(format!("{:?}", contract.address())).part(head.number)
}

async fn read_loans(
    contract: &ContractClient,
    ids: Vec<u64>,
    head: Head,
) -> Result<Vec<Value>, ContractError> {
    let loans = loans(contract, ids, head).await?;
    Ok(show(contract, &loans, head).await)
}

async fn loans(contract: &ContractClient, ids: Vec<u64>, head: Head) -> Result<Vec<Loan>, ContractError> {
    contract.loans(ids, head).await.into_iter().collect()
}

async fn show(contract: &ContractClient, loans: &[Loan], head: Head) -> Vec<Value> {
    let values = contract.usd_values(&loans.iter().collect::<Vec<_>>(), head).await;
    let pairs = loans.iter().zip(&values);
    pairs
        .map(|(loan, values)| loan.to_json(head.timestamp, values.as_ref().map_err(String::as_str)))
        .collect()
}
