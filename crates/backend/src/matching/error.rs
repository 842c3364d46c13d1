//! Why the book was not read, or did not change.

use crate::ml::{client::Answer, error::MlError};

/// One variant per thing that somebody does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatchingError {
    /// Look at ml-api.
    #[error(transparent)]
    Ml(#[from] MlError),
    /// ml-api says no, in its own words: an order that was matched already, or no database.
    #[error("ml-api answered {}", .0.status)]
    Refused(Box<Answer>),
}
