//! The wallet: a private key that signs transactions and shows itself to nobody.

use bytes::Bytes;
use ethers_core::types::{
    Eip1559TransactionRequest, NameOrAddress, TransactionRequest, transaction::eip2718::TypedTransaction,
};
use ethers_signers::{LocalWallet, Signer as _};

use super::{
    codec::{Address, Hash, U256, keccak},
    error::ChainError,
};
use crate::redact::{ExposeSecret, SecretString};

/// What a transaction pays for its gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fees {
    /// Chains without a base fee.
    Legacy { price: U256 },
    /// EIP-1559.
    Dynamic { most: U256, tip: U256 },
}

/// Everything that is signed.
#[derive(Clone, Debug)]
pub(super) struct Unsigned {
    pub(super) chain_id: u64,
    pub(super) nonce: u64,
    pub(super) to: Address,
    pub(super) value: U256,
    pub(super) data: Bytes,
    pub(super) gas: u64,
    pub(super) fees: Fees,
}

/// A signed transaction. Sending these bytes twice makes one transaction.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) bytes: Bytes,
    pub(super) hash: Hash,
}

/// A private key.
#[derive(Clone)]
pub(super) struct Signer(LocalWallet);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.address()).finish()
    }
}

impl Signer {
    pub(super) fn parse(key: &SecretString) -> Result<Self, ChainError> {
        let text = key.expose_secret().trim();
        // The parser's own error may repeat parts of what it was given.
        text.trim_start_matches("0x").parse().map(Self).map_err(|_| ChainError::BadKey)
    }

    pub(super) fn address(&self) -> Address {
        self.0.address()
    }

    /// Signs. Costs some tenths of a millisecond of CPU.
    pub(super) fn sign(&self, unsigned: Unsigned) -> Result<Signed, ChainError> {
        let Unsigned { chain_id, nonce, to, value, data, gas, fees } = unsigned;
        let to = NameOrAddress::Address(to);
        let transaction: TypedTransaction = match fees {
            Fees::Legacy { price } => TransactionRequest::pay(to, value)
                .gas_price(price)
                .gas(gas)
                .data(data.to_vec())
                .nonce(nonce)
                .chain_id(chain_id)
                .into(),
            Fees::Dynamic { most, tip } => Eip1559TransactionRequest::new()
                .to(to)
                .value(value)
                .max_fee_per_gas(most)
                .max_priority_fee_per_gas(tip)
                .gas(gas)
                .data(data.to_vec())
                .nonce(nonce)
                .chain_id(chain_id)
                .into(),
        };
        let signature = self.0.sign_transaction_sync(&transaction);
        let signature = signature.map_err(|cause| ChainError::encode("signature", cause))?;
        let bytes = transaction.rlp_signed(&signature).0;
        Ok(Signed { hash: keccak(&bytes), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_27_a_bad_key_is_not_repeated() {
        let error = Signer::parse(&SecretString::from("0xdeadbeefsecret")).expect_err("no key");
        assert!(!format!("{error} {error:?}").contains("deadbeef"));
        // anvil's published first key and account.
        let key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80\n";
        let signer = Signer::parse(&SecretString::from(key)).expect("a key");
        assert_eq!(format!("{signer:?}"), "Signer(0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266)");
    }
}
