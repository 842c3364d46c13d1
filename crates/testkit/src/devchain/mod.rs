//! The development contract on a development chain: deployed and filled with loans, call by call as
//! `deploy/anvil/seed.md` says.
//!
//! States of a chain: empty ──[`deploy`]──► seeded, where another [`deploy`] changes nothing. One on which a seeding broke
//! off is neither, and is refused: it has to be started afresh, since ids and addresses depend on the order of calls.
//! The only chain id accepted is 31337, where everybody knows every key.

mod ledger;
mod plan;

use pools_core::{
    chain::{ChainConfig, ChainError, ChainPool, Provider, checksummed},
    http::{HttpConfig, HttpPool},
    pool::Pool,
    redact::SecretString,
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use ledger::Ledger;

/// The chain id of anvil, and of nothing that holds money.
const CHAIN_ID: u64 = 31337;

/// Why the chain could not be seeded.
#[derive(Debug)]
pub enum DevchainError {
    /// The node did not answer, or refused a call.
    Chain {
        /// What was being done.
        doing: String,
        /// Why it failed.
        cause: ChainError,
    },
    /// Not the development chain: nothing was sent.
    NotDevelopment {
        /// Its id.
        chain_id: u64,
    },
    /// Account 0 has sent transactions, but the plan was not carried out to its end.
    HalfSeeded {
        /// How many it has sent.
        sent: u64,
    },
    /// A call of the plan was mined without success, or not within a minute.
    Failed {
        /// The call.
        doing: String,
    },
    /// The artefacts or the address given are not what they should be.
    Bad {
        /// Which.
        what: String,
    },
}

impl std::fmt::Display for DevchainError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chain { doing, .. } => write!(f, "{doing}: the node said no"),
            Self::NotDevelopment { chain_id } => {
                write!(f, "chain {chain_id} is not the development chain {CHAIN_ID}: nothing was sent")
            }
            Self::HalfSeeded { sent } => write!(
                f,
                "account 0 has sent {sent} transactions, but the chain is not seeded: start a new chain"
            ),
            Self::Failed { doing } => write!(f, "{doing}: not mined with success"),
            Self::Bad { what } => write!(f, "bad {what}"),
        }
    }
}

impl std::error::Error for DevchainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Chain { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// What a loan of the plan is an example of, once the seeding is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Paid back early.
    Repaid,
    /// Liquidated while seeding.
    Defaulted,
    /// Not funded in time.
    FundingFailed,
    /// Cancelled by its borrower.
    Cancelled,
    /// Still looking for lenders.
    Requested,
    /// Funded, not due, well covered: nobody may touch it.
    Healthy,
    /// Past its due date: to be liquidated.
    Overdue,
    /// Covered too thinly: to be liquidated.
    UnderCollateralised,
    /// Past its due date, but its collateral's price is stale: to be left alone.
    StalePrice,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Repaid => "repaid",
            Self::Defaulted => "defaulted",
            Self::FundingFailed => "funding_failed",
            Self::Cancelled => "cancelled",
            Self::Requested => "requested",
            Self::Healthy => "healthy",
            Self::Overdue => "overdue",
            Self::UnderCollateralised => "under_collateralised",
            Self::StalePrice => "stale_price",
        }
    }
}

/// A token of the plan, by its number in the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeededToken {
    /// Its number.
    pub id: u64,
    /// Its symbol.
    pub symbol: &'static str,
    /// Its contract; `None` for ETH.
    pub address: Option<String>,
    /// Its price feed.
    pub feed: String,
}

/// What is on the chain. Addresses carry their checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The lending contract.
    pub contract: String,
    /// ETH, tUSD, tGOV, tOLD.
    pub tokens: Vec<SeededToken>,
    /// Every loan's id and role, by id.
    pub loans: Vec<(u64, Role)>,
    /// The newest block when this was read.
    pub block_number: u64,
}

impl Deployment {
    /// The ids of the loans of a role.
    pub fn with_role(&self, role: Role) -> Vec<u64> {
        self.loans.iter().filter(|(_, of)| *of == role).map(|(id, _)| *id).collect()
    }

    /// The loans that a liquidator has to liquidate in its first scan, in order.
    pub fn to_liquidate(&self) -> Vec<u64> {
        let due = |role: Role| matches!(role, Role::Overdue | Role::UnderCollateralised);
        self.loans.iter().filter(|(_, role)| due(*role)).map(|(id, _)| *id).collect()
    }

    /// As `devchain` prints it.
    pub fn to_json(&self) -> Value {
        let loans: Vec<_> =
            self.loans.iter().map(|(id, role)| json!({"id": id, "role": role.as_str()})).collect();
        let tokens: Vec<_> = self
            .tokens
            .iter()
            .map(|token| {
                json!({"id": token.id, "symbol": token.symbol, "address": token.address, "priceFeed": token.feed})
            })
            .collect();
        json!({
            "contract": self.contract, "blockNumber": self.block_number, "tokens": tokens, "loans": loans
        })
    }
}

/// Deploys and seeds, unless that was done already.
///
/// # Errors
/// [`DevchainError`]; then the chain may be half seeded.
///
/// # Cancel safety
/// Dropped half-way, the chain is half seeded and must be started afresh.
pub async fn deploy(rpc_url: &str) -> Result<Deployment, DevchainError> {
    deploy_for(rpc_url, None, |_| {}).await
}

/// [`deploy`], which also gives ETH and tUSD to `liquidator` if it has none, and tells of its progress.
///
/// # Errors
/// As [`deploy`].
pub async fn deploy_for(
    rpc_url: &str,
    liquidator: Option<&str>,
    progress: impl Fn(&str) + Send,
) -> Result<Deployment, DevchainError> {
    let http = HttpPool::new(HttpConfig::default());
    let config = ChainConfig { url: SecretString::from(rpc_url), ..ChainConfig::default() };
    let pool = ChainPool::new(config, http.clone());
    let seeded = seed(pool.provider(), liquidator, &progress).await;
    let soon = Instant::now() + Duration::from_secs(1);
    pool.drain(soon).await;
    http.drain(soon).await;
    seeded
}

async fn seed(
    provider: Provider,
    liquidator: Option<&str>,
    progress: &(impl Fn(&str) + Send),
) -> Result<Deployment, DevchainError> {
    let failed = |cause| DevchainError::Chain { doing: "looking at the chain".to_owned(), cause };
    let chain_id = provider.chain_id().await.map_err(failed)?;
    if chain_id != CHAIN_ID {
        return Err(DevchainError::NotDevelopment { chain_id });
    }
    let ledger = Ledger::open(provider).await?;
    let contracts = plan::Contracts::of(&ledger);
    if plan::is_carried_out(&ledger, &contracts).await? {
        progress("the contract is deployed and seeded already");
    } else {
        match ledger.sent_by_owner().await? {
            0 => plan::carry_out(&ledger, &contracts, progress).await?,
            sent => return Err(DevchainError::HalfSeeded { sent }),
        }
    }
    if let Some(liquidator) = liquidator {
        plan::equip(&ledger, &contracts, liquidator, progress).await?;
    }
    let block_number = ledger.block_number().await?;
    Ok(Deployment {
        contract: checksummed(contracts.loanverse),
        tokens: contracts.tokens(),
        loans: plan::ROLES.to_vec(),
        block_number,
    })
}
