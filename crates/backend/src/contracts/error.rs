//! Why the contract could not be read.

use std::sync::Arc;

use pools_core::{cache::LoadError, chain::ChainError, web::Problem};

/// One variant per thing an operator does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// `LOANVERSE_CONTRACT_ADDRESS` is not set.
    #[error("LOANVERSE_CONTRACT_ADDRESS is not set")]
    NotConfigured,
    /// No loan has this id.
    #[error("there is no loan {0}")]
    NoSuchLoan(u64),
    /// The node answered something that is not the contract's: look at the address.
    #[error("the contract's answer to {0} cannot be read: is LOANVERSE_CONTRACT_ADDRESS a lending contract?")]
    NotTheContract(&'static str),
    /// The node failed.
    #[error("the chain cannot be read")]
    Chain(#[source] ChainError),
    /// A read through the cache failed; those who asked together share the cause.
    #[error(transparent)]
    Load(Arc<ContractError>),
    /// A read through the cache panicked; the panic is in the log.
    #[error("reading the chain panicked")]
    Panicked,
}

impl ContractError {
    /// Whether the operator has named no contract.
    pub fn is_not_configured(&self) -> bool {
        match self {
            Self::NotConfigured => true,
            Self::Load(cause) => cause.is_not_configured(),
            _ => false,
        }
    }

    /// Its text with that of the node.
    pub fn reason(&self) -> String {
        match self {
            Self::Chain(cause) => format!("{self}: {cause}"),
            Self::Load(cause) => cause.reason(),
            _ => self.to_string(),
        }
    }
}

impl From<LoadError<ContractError>> for ContractError {
    fn from(error: LoadError<ContractError>) -> Self {
        match error {
            LoadError::Failed(cause) => Self::Load(cause),
            _ => Self::Panicked,
        }
    }
}

impl From<ContractError> for Problem {
    fn from(error: ContractError) -> Self {
        problem(&error)
    }
}

fn problem(error: &ContractError) -> Problem {
    match error {
        ContractError::NotConfigured => Problem::not_configured(error.to_string()),
        ContractError::NoSuchLoan(_) => Problem::not_found(error.to_string()),
        ContractError::NotTheContract(_) => Problem::bad_gateway(error.to_string()),
        ContractError::Chain(cause) => chain_problem(cause, error.reason()),
        ContractError::Load(cause) => problem(cause),
        ContractError::Panicked => Problem::internal(),
    }
}

fn chain_problem(cause: &ChainError, detail: String) -> Problem {
    if cause.is_unavailable() { Problem::unavailable(detail) } else { Problem::bad_gateway(detail) }
}
