//! The scan, at most once per `ANALYTICS_TTL`.

use std::time::Duration;

use pools_core::{
    cache::{Cache, CacheKey, Cached, Namespace, Policy},
    chain::U256,
};

use super::model::{Market, Sums, Tally, Worth};
use crate::contracts::{
    client::{ContractClient, Head},
    error::ContractError,
};

const MARKET: Namespace = Namespace::new("market", 1);

/// Looks at all loans together. Clones share everything.
#[derive(Clone, Debug)]
pub struct AnalyticsService {
    contract: Option<ContractClient>,
    cache: Cache,
    ttl: Duration,
}

impl AnalyticsService {
    /// `contract` is `None` without `LOANVERSE_CONTRACT_ADDRESS`; `ttl` is `ANALYTICS_TTL`.
    pub fn new(contract: Option<ContractClient>, cache: Cache, ttl: Duration) -> Self {
        Self { contract, cache, ttl }
    }

    /// The market at the newest block, or at that of the last scan.
    ///
    /// # Errors
    /// See [`ContractError`].
    pub async fn market(&self) -> Result<Cached<Market>, ContractError> {
        let contract = self.contract.clone().ok_or(ContractError::NotConfigured)?;
        let key = CacheKey::new(MARKET).address(format!("{:?}", contract.address()));
        let load = async move { scan(&contract).await };
        Ok(self.cache.get_or_load(&key, &Policy::new(self.ttl), load).await?)
    }
}

async fn scan(contract: &ContractClient) -> Result<Market, ContractError> {
    let head = contract.head().await?;
    let next = contract.next_loan_id(head).await?;
    let loans: Vec<_> = contract.loans(1..next, head).await.into_iter().collect::<Result<_, _>>()?;
    let tally = Tally::of(&loans);
    let (volume, collateral) =
        tokio::join!(worth(contract, &tally.volume, head), worth(contract, &tally.collateral, head));
    Ok(tally.market(head.number, &volume?, &collateral?))
}

/// What the sums are worth. A price that the contract refuses is told; a node that fails is an error.
async fn worth(contract: &ContractClient, sums: &Sums, head: Head) -> Result<Vec<Worth>, ContractError> {
    let sums: Vec<(U256, U256)> = sums.iter().map(|(token, amount)| (*token, *amount)).collect();
    let worth = contract.worth(&sums, head).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(sums.into_iter().map(|(token, _)| token).zip(worth).collect())
}
