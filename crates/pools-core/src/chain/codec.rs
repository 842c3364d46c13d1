//! Typed contract calls: the only file besides `signer.rs` that names ethers.
//!
//! Functions are written as people read them (`function loans(uint256) view returns (uint256 id, …)`) and parsed
//! once, when a service starts.

use std::sync::Arc;

use bytes::Bytes;
use ethers_core::{
    abi::{self, AbiParser, ParamType},
    utils::{hex, keccak256, to_checksum},
};
use serde::{Deserialize, Deserializer, de};

use super::error::ChainError;

/// An ABI value.
pub use ethers_core::abi::Token;
/// An account or contract, 20 bytes.
pub use ethers_core::types::Address;
/// A block or transaction hash, 32 bytes.
pub use ethers_core::types::H256 as Hash;
/// An unsigned number of 256 bits.
pub use ethers_core::types::U256;

/// A signature that Solidity would not accept: a mistake in our code.
#[derive(Debug, thiserror::Error)]
#[error("not a function signature: {signature}")]
pub struct BadSignature {
    signature: String,
    #[source]
    cause: abi::ParseError,
}

/// A contract function: its name, parameters and results.
#[derive(Clone, Debug, PartialEq)]
pub struct Function(abi::Function);

impl Function {
    /// Reads `function name(types) view returns (types names)`.
    ///
    /// ```
    /// use pools_core::chain::{Function, Token, U256};
    /// let price = Function::parse("function price(uint256 id) view returns (int256 answer, uint256 at)").unwrap();
    /// let data = price.encode(&[Token::Uint(U256::from(7))]).unwrap();
    /// assert_eq!(data.len(), 4 + 32);
    /// assert_eq!(price.outputs().collect::<Vec<_>>(), ["answer", "at"]);
    /// ```
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn parse(signature: &str) -> Result<Self, BadSignature> {
        let parsed = AbiParser::default().parse_function(signature);
        parsed.map(Self).map_err(|cause| BadSignature { signature: signature.to_owned(), cause })
    }

    /// Its name without parameters.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The names of its results, in order; empty where the signature gives none.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.0.outputs.iter().map(|output| output.name.as_str())
    }

    /// Selector and arguments: the data of a call or transaction.
    ///
    /// # Errors
    /// [`ChainError::Encode`] when the arguments do not fit the signature.
    pub fn encode(&self, arguments: &[Token]) -> Result<Bytes, ChainError> {
        let data = self.0.encode_input(arguments).map_err(|cause| ChainError::encode(self.name(), cause))?;
        Ok(data.into())
    }

    /// The results from what the node returned.
    ///
    /// # Errors
    /// [`ChainError::Decode`] when it is not what the signature says.
    pub fn decode(&self, returned: &[u8]) -> Result<Vec<Token>, ChainError> {
        self.0.decode_output(returned).map_err(|cause| ChainError::decode(self.name(), cause))
    }
}

/// One read of a contract.
#[derive(Clone, Debug)]
pub struct Call {
    /// The contract.
    pub to: Address,
    /// What is called.
    pub function: Arc<Function>,
    /// With what.
    pub args: Vec<Token>,
}

impl Call {
    /// A call of `function` at `to`.
    pub fn new(to: Address, function: &Arc<Function>, args: Vec<Token>) -> Self {
        Self { to, function: Arc::clone(function), args }
    }
}

/// ABI-encoded values without a selector, as appended to the creation code of a contract.
pub fn encode_values(values: &[Token]) -> Bytes {
    abi::encode(values).into()
}

/// An address in hex: all lower or all upper case, or with a right EIP-55 checksum.
pub fn parse_address(text: &str) -> Option<Address> {
    let digits = text.strip_prefix("0x")?;
    let mut bytes = [0; 20];
    hex::decode_to_slice(digits, &mut bytes).ok().filter(|()| digits.len() == 40)?;
    let address = Address::from(bytes);
    let letters = || digits.chars().filter(char::is_ascii_alphabetic);
    let plain = letters().all(|c| c.is_ascii_lowercase()) || letters().all(|c| c.is_ascii_uppercase());
    (plain || checksummed(address) == text).then_some(address)
}

/// An address with its EIP-55 checksum.
pub fn checksummed(address: Address) -> String {
    to_checksum(&address, None)
}

/// Bytes as `0x…`.
pub fn to_hex(bytes: &[u8]) -> String {
    hex::encode_prefixed(bytes)
}

/// `0x…` as bytes.
pub fn from_hex(text: &str) -> Option<Bytes> {
    hex::decode(text.strip_prefix("0x")?).ok().map(Into::into)
}

/// Keccak-256.
pub fn keccak(bytes: &[u8]) -> Hash {
    keccak256(bytes).into()
}

/// The address of the contract that `creator` deploys with `nonce`.
pub fn contract_address(creator: Address, nonce: u64) -> Address {
    ethers_core::utils::get_contract_address(creator, nonce)
}

/// What a revert says, for the two errors that Solidity itself throws.
pub(super) fn revert_reason(data: &[u8]) -> Option<String> {
    let (selector, rest) = data.split_at_checked(4)?;
    match selector {
        [0x08, 0xc3, 0x79, 0xa0] => abi::decode(&[ParamType::String], rest).ok()?.pop()?.into_string(),
        [0x4e, 0x48, 0x7b, 0x71] => {
            let code = abi::decode(&[ParamType::Uint(256)], rest).ok()?.pop()?.into_uint()?;
            Some(format!("panic {code:#x}"))
        }
        _ => None,
    }
}

/// A whole number as JSON-RPC writes it: `0x1b4`. Plain numbers are accepted too.
pub(super) fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(u64),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => {
            let digits = text.strip_prefix("0x").unwrap_or(&text);
            u64::from_str_radix(digits, 16).map_err(|_| de::Error::custom("not a quantity of 64 bits"))
        }
    }
}
