//! What a node knows of an account, through the chain pool.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use pools_core::chain::{Address, Block, Call, ChainError, Function, Provider, Token, U256};

static BALANCE_OF: LazyLock<Arc<Function>> = LazyLock::new(|| {
    let signature = "function balanceOf(address owner) view returns (uint256)";
    Arc::new(Function::parse(signature).expect("BUG: a signature of our own"))
});

/// A node that takes longer is as good as away: the transfers tell as well.
const PATIENCE: Duration = Duration::from_secs(5);
/// A chain's id is known after the first contact; before it, an answer must not wait long for a node that is away.
const CHAIN_PATIENCE: Duration = Duration::from_secs(2);

/// An account as the node has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Transactions that it signed.
    pub signed: u64,
    /// Wei.
    pub balance: U256,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodeClient(Provider);

impl NodeClient {
    /// The nodes behind `provider`.
    pub fn new(provider: Provider) -> Self {
        Self(provider)
    }

    /// Which chain it serves; `None` as long as it never said so.
    pub async fn chain_id(&self) -> Option<u64> {
        // Why it did not is the chain pool's to tell, in its health and log.
        self.0.within(CHAIN_PATIENCE).chain_id().await.ok()
    }

    /// An account as it stands now; both questions share a POST.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn account(&self, address: Address) -> Result<Account, ChainError> {
        let node = self.0.within(PATIENCE);
        let signed = node.request::<U256>("eth_getTransactionCount", (address, Block::Latest));
        let (signed, balance) = tokio::try_join!(signed, node.balance(address, Block::Latest))?;
        Ok(Account { signed: u64::try_from(signed).unwrap_or(u64::MAX), balance })
    }

    /// Whether an account holds each of these tokens, at one block. Of a contract that refuses to tell it holds none;
    /// `None` where there is no contract.
    ///
    /// # Errors
    /// [`ChainError`], when the chain as such failed.
    pub async fn holds(&self, owner: Address, tokens: &[Address]) -> Result<Vec<Option<bool>>, ChainError> {
        let calls = tokens.iter().map(|token| Call::new(*token, &BALANCE_OF, vec![Token::Address(owner)]));
        let answers = self.0.within(PATIENCE).read_many(calls.collect(), Block::Latest).await;
        let some = |values: Vec<Token>| {
            let balance = values.into_iter().next().and_then(Token::into_uint);
            balance.is_some_and(|balance| !balance.is_zero())
        };
        let holds = answers.into_iter().map(|answer| match answer {
            Ok(values) => Ok(Some(some(values))),
            Err(ChainError::NoContract { .. }) => Ok(None),
            Err(cause) if cause.is_unavailable() => Err(cause),
            Err(_refused) => Ok(Some(false)),
        });
        holds.collect()
    }
}
