//! Why a loan could not be recorded, found or counted.

use pools_core::web::Problem;

use super::model::FieldError;
use crate::database::DatabaseError;

/// What a route of this feature can fail with. Each variant is one thing that somebody does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoanError {
    /// Give the service a database.
    #[error("recording loans needs Postgres: set DATABASE_URL")]
    NotConfigured,
    /// Record the loan first.
    #[error("no loan was recorded under this loan_id")]
    Unknown,
    /// Look at the database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        match error.field() {
            Some(field) => Self::invalid_field(field, error.to_string()),
            None => Self::bad_request(error.to_string()),
        }
    }
}

impl From<LoanError> for Problem {
    fn from(error: LoanError) -> Self {
        match error {
            LoanError::NotConfigured => Self::not_configured(error.to_string()),
            LoanError::Unknown => Self::not_found(error.to_string()).field("loan_id"),
            LoanError::Database(cause) => cause.into(),
        }
    }
}
