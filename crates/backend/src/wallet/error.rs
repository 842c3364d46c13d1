//! Why nothing is known of a wallet.

use std::sync::Arc;

use pools_core::{cache::LoadError, chain::ChainError, web::Problem};

use super::model::Holdings;
use crate::third_party::ThirdPartyError;

/// One variant per thing an operator does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// Nothing that could be asked is configured.
    #[error(
        "nothing can be known of a wallet: neither ETHERSCAN_API_KEY nor LOANVERSE_CONTRACT_ADDRESS is set"
    )]
    NotConfigured,
    /// Everything that could be asked failed.
    #[error("nothing can be known of the wallet at present: {reasons}")]
    NoSource {
        /// Why, part by part.
        reasons: String,
    },
}

impl From<&WalletError> for Problem {
    fn from(error: &WalletError) -> Self {
        match error {
            WalletError::NotConfigured => Self::not_configured(error.to_string()),
            WalletError::NoSource { .. } => Self::unavailable(error.to_string()),
        }
    }
}

impl From<WalletError> for Problem {
    fn from(error: WalletError) -> Self {
        Self::from(&error)
    }
}

/// Why a list is not there, or not to be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// Etherscan failed.
    #[error(transparent)]
    Etherscan(ThirdPartyError),
    /// The node should have confirmed what is held, and failed: good for one answer.
    #[error("the chain cannot be read: {cause}")]
    Unconfirmed {
        /// By the transfers.
        holdings: Holdings,
        /// Why.
        #[source]
        cause: ChainError,
    },
    /// A load panicked; the panic is in the log.
    #[error("reading Etherscan's list panicked")]
    Panicked,
    /// It took longer than the request may.
    #[error("Etherscan's list did not come in time")]
    Late,
}

impl ListError {
    /// Its text with its cause's.
    pub(super) fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            if !text.ends_with(&cause.to_string()) {
                text = format!("{text}: {cause}");
            }
            next = cause.source();
        }
        text
    }
}

/// What those who waited for a load together share.
pub(super) fn shared(error: LoadError<ListError>) -> Arc<ListError> {
    match error {
        LoadError::Failed(cause) => cause,
        _ => Arc::new(ListError::Panicked),
    }
}
