//! Why the model stays what it is.

use actix_web::http::StatusCode;
use pools_core::web::Problem;

use crate::{
    database::DatabaseError,
    risk::{TrainingError, service::NotReady},
};

/// What a route of this feature can fail with. Each variant is one thing that somebody does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetrainingError {
    /// Give the service a database.
    #[error("retraining needs Postgres: set DATABASE_URL")]
    NotConfigured,
    /// Wait for the other.
    #[error("another retraining or roll-back is under way")]
    UnderWay,
    /// Record how loans ended.
    #[error("no recorded loan has a known outcome yet")]
    NothingRecorded,
    /// Give it more memory, and raise the limit.
    #[error(
        "more than {limit} recorded loans have an outcome, which retraining has no memory for (RETRAIN_MAX_LOANS)"
    )]
    TooMany {
        /// `RETRAIN_MAX_LOANS`.
        limit: u32,
    },
    /// Look at the versions there are.
    #[error("there is no such version")]
    UnknownVersion,
    /// Come again in a second.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// Look at the recorded loans.
    #[error("the recorded loans cannot be learnt from")]
    Training(#[from] TrainingError),
    /// Look at the stored model: somebody has changed it.
    #[error("a stored model cannot be read")]
    Stored(#[from] serde_json::Error),
    /// Look at the database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<RetrainingError> for Problem {
    fn from(error: RetrainingError) -> Self {
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, error.to_string());
        match error {
            RetrainingError::NotConfigured => Self::not_configured(error.to_string()),
            RetrainingError::UnderWay => conflict("retraining_under_way"),
            RetrainingError::NothingRecorded => conflict("nothing_recorded"),
            RetrainingError::TooMany { .. } => conflict("too_many_rows"),
            RetrainingError::UnknownVersion => Self::not_found(error.to_string()).field("version"),
            RetrainingError::NotReady(cause) => cause.into(),
            RetrainingError::Database(cause) => cause.into(),
            RetrainingError::Training(_) | RetrainingError::Stored(_) => {
                tracing::error!(cause = &error as &dyn std::error::Error, "the model stays what it is");
                Self::internal()
            }
        }
    }
}
