//! The chain as the plan sees it: calls from unlocked accounts, one after the other, each mined before the next.

use std::sync::Arc;

use pools_core::chain::{Address, Block, Call, ChainError, Function, Hash, Provider, Token, U256, to_hex};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::DevchainError;

/// Left to itself, anvil's estimate can fall short (see the README of the contract).
const GAS: u64 = 5_000_000;
/// How long a call may take to be mined.
const MINED: Duration = Duration::from_secs(60);

/// A node with its unlocked accounts.
pub(super) struct Ledger {
    provider: Provider,
    pub(super) accounts: Vec<Address>,
}

impl Ledger {
    pub(super) async fn open(provider: Provider) -> Result<Self, DevchainError> {
        let accounts: Vec<Address> =
            provider.request("eth_accounts", ()).await.map_err(|cause| failed("eth_accounts", cause))?;
        if accounts.len() < 10 {
            return Err(DevchainError::Bad { what: format!("node: {} accounts, not ten", accounts.len()) });
        }
        Ok(Self { provider, accounts })
    }

    /// Puts a contract on the chain.
    pub(super) async fn create(&self, doing: &str, code: String) -> Result<(), DevchainError> {
        self.transact(doing, json!({"from": self.accounts[0], "data": code})).await
    }

    /// Calls a contract from one of the accounts.
    pub(super) async fn call(
        &self,
        from: usize,
        to: Address,
        signature: &str,
        args: Vec<Token>,
        value: U256,
    ) -> Result<(), DevchainError> {
        let function = function(signature);
        let doing = format!("a{from} {}", function.name());
        let data = function.encode(&args).map_err(|cause| failed(&doing, cause))?;
        let data = to_hex(&data);
        self.transact(&doing, json!({"from": self.accounts[from], "to": to, "data": data, "value": value}))
            .await
    }

    /// Sends ETH from account 0.
    pub(super) async fn pay(&self, to: Address, value: U256) -> Result<(), DevchainError> {
        self.transact("a0 pays", json!({"from": self.accounts[0], "to": to, "value": value})).await
    }

    /// Reads a number or address from a contract.
    pub(super) async fn read(
        &self,
        to: Address,
        signature: &str,
        args: Vec<Token>,
    ) -> Result<Token, DevchainError> {
        let call = Call::new(to, &Arc::new(function(signature)), args);
        let results = self.provider.call(&call, Block::Latest).await;
        let result = results.map_err(|cause| failed(call.function.name(), cause))?.pop();
        result.ok_or_else(|| DevchainError::Bad { what: format!("signature {signature}: no result") })
    }

    /// A method of the node itself, such as `evm_mine`.
    pub(super) async fn node(&self, method: &str, params: Value) -> Result<Value, DevchainError> {
        self.provider.request(method, params).await.map_err(|cause| failed(method, cause))
    }

    pub(super) async fn has_code(&self, at: Address) -> Result<bool, DevchainError> {
        Ok(self.node("eth_getCode", json!([at, "latest"])).await? != "0x")
    }

    pub(super) async fn balance(&self, of: Address) -> Result<U256, DevchainError> {
        self.provider.balance(of, Block::Latest).await.map_err(|cause| failed("eth_getBalance", cause))
    }

    pub(super) async fn block_number(&self) -> Result<u64, DevchainError> {
        self.provider.block_number().await.map_err(|cause| failed("eth_blockNumber", cause))
    }

    /// How many transactions account 0 has sent.
    pub(super) async fn sent_by_owner(&self) -> Result<u64, DevchainError> {
        let count: U256 = self
            .provider
            .request("eth_getTransactionCount", (self.accounts[0], "pending"))
            .await
            .map_err(|cause| failed("eth_getTransactionCount", cause))?;
        Ok(count.as_u64())
    }

    async fn transact(&self, doing: &str, mut transaction: Value) -> Result<(), DevchainError> {
        transaction["gas"] = json!(U256::from(GAS));
        let hash: Hash = self
            .provider
            .request("eth_sendTransaction", [transaction])
            .await
            .map_err(|cause| failed(doing, cause))?;
        let give_up = Instant::now() + MINED;
        loop {
            let receipt: Option<Value> = self
                .provider
                .request("eth_getTransactionReceipt", [hash])
                .await
                .map_err(|cause| failed(doing, cause))?;
            match receipt {
                Some(receipt) if receipt["status"] == "0x1" => return Ok(()),
                None if Instant::now() < give_up => sleep(Duration::from_millis(20)).await,
                _ => return Err(DevchainError::Failed { doing: doing.to_owned() }),
            }
        }
    }
}

fn failed(doing: &str, cause: ChainError) -> DevchainError {
    DevchainError::Chain { doing: doing.to_owned(), cause }
}

fn function(signature: &str) -> Function {
    Function::parse(signature).expect("BUG: the plan's signatures are right")
}
