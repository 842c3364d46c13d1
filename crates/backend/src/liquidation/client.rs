//! The bot's transactions over the chain pool.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use pools_core::chain::{
    Address, Block, Call, ChainError, Function, PendingTx, Provider, Sender, Token, Transaction, U256,
};
use tokio::time::Instant;

/// Longest wait for a receipt; what is later is looked up by the next scan.
const MINED_WITHIN: Duration = Duration::from_secs(60);

static LIQUIDATE: LazyLock<Arc<Function>> =
    LazyLock::new(|| signature("function liquidate(uint256 loanId) payable"));
static BALANCE: LazyLock<Arc<Function>> =
    LazyLock::new(|| signature("function balanceOf(address owner) view returns (uint256)"));
static ALLOWANCE: LazyLock<Arc<Function>> =
    LazyLock::new(|| signature("function allowance(address owner, address spender) view returns (uint256)"));
static APPROVE: LazyLock<Arc<Function>> =
    LazyLock::new(|| signature("function approve(address spender, uint256 amount) returns (bool)"));

fn signature(text: &str) -> Arc<Function> {
    Arc::new(Function::parse(text).expect("BUG: a signature of our own"))
}

/// Why a loan could not be paid. Each is the reason shown beside the skipped loan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayError {
    /// Fund the liquidator.
    #[error("the liquidator has {has} of the {needs} base units needed")]
    Funds {
        /// Balance.
        has: U256,
        /// Debt.
        needs: U256,
    },
    /// The contract or the node refused.
    #[error("{step}: {cause}")]
    Chain {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        cause: ChainError,
    },
    /// Mined, but reverted: the state changed between the check and the block.
    #[error("{step}: the transaction was mined and reverted")]
    Reverted {
        /// What was tried.
        step: &'static str,
    },
    /// Sent, but no receipt yet.
    #[error("{step}: sent, not yet mined")]
    Unknown {
        /// What was tried.
        step: &'static str,
        /// Finds the receipt later.
        pending: Box<PendingTx>,
    },
}

/// One liquidator's account.
#[derive(Clone, Debug)]
pub struct LiquidatorClient {
    provider: Provider,
    sender: Sender,
    contract: Address,
}

impl LiquidatorClient {
    /// `sender` pays to `contract`.
    pub fn new(provider: Provider, sender: Sender, contract: Address) -> Self {
        Self { provider, sender, contract }
    }

    /// The account that pays.
    pub fn address(&self) -> Address {
        self.sender.address()
    }

    /// Liquidates an ETH loan by paying `debt` as value.
    ///
    /// # Errors
    /// See [`PayError`].
    pub async fn pay_eth(&self, loan: U256, debt: U256) -> Result<(), PayError> {
        self.send("liquidate", self.contract, &LIQUIDATE, vec![Token::Uint(loan)], debt).await
    }

    /// Liquidates an ERC-20 loan: checks the balance, approves exactly what is missing, then liquidates.
    ///
    /// # Errors
    /// See [`PayError`].
    pub async fn pay_erc20(&self, loan: U256, token: Address, debt: U256) -> Result<(), PayError> {
        let owner = Token::Address(self.address());
        let has = self.read("balanceOf", token, &BALANCE, vec![owner.clone()]).await?;
        if has < debt {
            return Err(PayError::Funds { has, needs: debt });
        }
        let spender = Token::Address(self.contract);
        let allowed = self.read("allowance", token, &ALLOWANCE, vec![owner, spender.clone()]).await?;
        if allowed < debt {
            let args = vec![spender, Token::Uint(debt)];
            self.send("approve", token, &APPROVE, args, U256::zero()).await?;
        }
        self.send("liquidate", self.contract, &LIQUIDATE, vec![Token::Uint(loan)], U256::zero()).await
    }

    /// Whether a transaction of unknown end has been mined meanwhile, and whether it succeeded.
    pub async fn settled(&self, pending: &PendingTx) -> Option<bool> {
        let deadline = Instant::now() + Duration::from_secs(1);
        pending.receipt(deadline).await.ok().map(|receipt| receipt.success)
    }

    async fn read(
        &self,
        step: &'static str,
        to: Address,
        function: &Arc<Function>,
        args: Vec<Token>,
    ) -> Result<U256, PayError> {
        let values = self.provider.call(&Call::new(to, function, args), Block::Latest).await;
        let values = values.map_err(|cause| PayError::Chain { step, cause })?;
        Ok(values.into_iter().next().and_then(Token::into_uint).unwrap_or_default())
    }

    async fn send(
        &self,
        step: &'static str,
        to: Address,
        function: &Arc<Function>,
        args: Vec<Token>,
        value: U256,
    ) -> Result<(), PayError> {
        let data = function.encode(&args).map_err(|cause| PayError::Chain { step, cause })?;
        let refused = |cause| PayError::Chain { step, cause };
        let pending = self.sender.send(Transaction { to, value, data, gas: None }).await.map_err(refused)?;
        match pending.receipt(Instant::now() + MINED_WITHIN).await {
            Ok(receipt) if receipt.success => Ok(()),
            Ok(_) => Err(PayError::Reverted { step }),
            Err(_) => Err(PayError::Unknown { step, pending: Box::new(pending) }),
        }
    }
}
