//! What Etherscan lists, with the fields that it documents: every value a text.

use serde_json::{Value, json};

/// The lists there are.
pub(super) const ACTIONS: [&str; 3] = ["txlist", "txlistinternal", "tokentx"];
/// Mainnet's first block, in Unix seconds, and the seconds between two: the block of a row follows from its time.
const GENESIS: u64 = 1_438_269_973;
const BLOCK_TIME: u64 = 12;

/// One row of one list on one chain. Without more it is a successful call of mainnet that carries nothing.
#[derive(Debug, Clone)]
pub struct Row {
    pub(super) action: &'static str,
    pub(super) chain: u64,
    from: String,
    to: String,
    at: u64,
    value: String,
    input: String,
    failed: bool,
    nonce: u64,
    gas: (u64, u64),
    /// What it creates, or the token that moves.
    contract: String,
    symbol: String,
}

impl Row {
    /// A transaction that `from` signed, at `at` in Unix seconds.
    pub fn transaction(from: &str, to: &str, at: u64) -> Self {
        Self {
            action: "txlist",
            chain: 1,
            from: from.to_ascii_lowercase(),
            to: to.to_ascii_lowercase(),
            at,
            value: "0".to_owned(),
            input: "0x".to_owned(),
            failed: false,
            nonce: 0,
            gas: (21_000, 0),
            contract: String::new(),
            symbol: String::new(),
        }
    }

    /// A transfer that a contract made within a transaction.
    pub fn internal(from: &str, to: &str, at: u64) -> Self {
        Self { action: "txlistinternal", input: String::new(), ..Self::transaction(from, to, at) }
    }

    /// A transfer of a token.
    pub fn token(contract: &str, symbol: &str, from: &str, to: &str, at: u64) -> Self {
        Self {
            action: "tokentx",
            contract: contract.to_ascii_lowercase(),
            symbol: symbol.to_owned(),
            ..Self::transaction(from, to, at)
        }
    }

    /// On another chain than mainnet.
    pub fn on(mut self, chain: u64) -> Self {
        self.chain = chain;
        self
    }

    /// What moves, in the base unit.
    pub fn value(mut self, units: impl ToString) -> Self {
        self.value = units.to_string();
        self
    }

    /// Calldata, as `0x…`.
    pub fn input(mut self, data: &str) -> Self {
        data.clone_into(&mut self.input);
        self
    }

    /// It was reverted.
    pub fn failed(mut self) -> Self {
        self.failed = true;
        self
    }

    /// How many its sender had signed before.
    pub fn nonce(mut self, nonce: u64) -> Self {
        self.nonce = nonce;
        self
    }

    /// Gas used, and its price in wei.
    pub fn gas(mut self, used: u64, price: u64) -> Self {
        self.gas = (used, price);
        self
    }

    /// It creates this contract and has no target.
    pub fn creates(mut self, contract: &str) -> Self {
        self.contract = contract.to_ascii_lowercase();
        self.to.clear();
        self
    }

    pub(super) fn block(&self) -> u64 {
        self.at.saturating_sub(GENESIS) / BLOCK_TIME
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn is_of(&self, address: &str) -> bool {
        self.from == address || self.to == address
    }

    pub(super) fn to_json(&self) -> Value {
        let block = self.block();
        let hash = |of: u64| format!("0x{of:064x}");
        let mut row = json!({
            "blockNumber": block.to_string(),
            "timeStamp": self.at.to_string(),
            "hash": hash(self.at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.nonce),
            "from": self.from,
            "to": self.to,
            "value": self.value,
            "contractAddress": self.contract,
            "gas": "3000000",
            "gasUsed": self.gas.0.to_string(),
        });
        let more = match self.action {
            "txlist" => json!({
                "blockHash": hash(block),
                "nonce": self.nonce.to_string(),
                "transactionIndex": "0",
                "gasPrice": self.gas.1.to_string(),
                "cumulativeGasUsed": self.gas.0.to_string(),
                "input": self.input,
                "methodId": self.input.get(..10).unwrap_or("0x"),
                "functionName": "",
                "isError": if self.failed { "1" } else { "0" },
                "txreceipt_status": if self.failed { "0" } else { "1" },
                "confirmations": "7",
            }),
            "txlistinternal" => json!({
                "input": self.input,
                "type": if self.contract.is_empty() { "call" } else { "create" },
                "traceId": "0",
                "isError": if self.failed { "1" } else { "0" },
                "errCode": if self.failed { "execution reverted" } else { "" },
            }),
            _ => json!({
                "blockHash": hash(block),
                "nonce": self.nonce.to_string(),
                "transactionIndex": "0",
                "gasPrice": self.gas.1.to_string(),
                "cumulativeGasUsed": self.gas.0.to_string(),
                "tokenName": format!("{} Token", self.symbol),
                "tokenSymbol": self.symbol,
                "tokenDecimal": "18",
                "input": "deprecated",
                "methodId": "0xa9059cbb",
                "functionName": "transfer(address to,uint256 value)",
                "confirmations": "7",
            }),
        };
        if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
            row.extend(more);
        }
        row
    }
}
