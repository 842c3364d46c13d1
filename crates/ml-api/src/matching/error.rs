//! Why the book did not change, or could not be read.

use std::fmt;

use actix_web::http::StatusCode;
use pools_core::web::Problem;

use crate::database::DatabaseError;

/// Which side of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who borrows.
    Request,
    /// Who lends.
    Offer,
}

impl Side {
    /// The member that names one.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Request => "loanId",
            Self::Offer => "offerId",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "loan request",
            Self::Offer => "lending offer",
        })
    }
}

/// Why the book as it stands does not allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody put it there, or it was removed.
    #[error("there is no {0} with this id")]
    Unknown(Side),
    /// It has found its other side.
    #[error("the {0} with this id is matched already")]
    Matched(Side),
    /// Its 24 hours are over.
    #[error("the {0} with this id has expired")]
    Expired(Side),
    /// The two do not fit.
    #[error("{field}: {reason}")]
    Unfit {
        /// The term at fault.
        field: &'static str,
        /// What does not fit.
        reason: &'static str,
    },
    /// Another pair was matched under this id.
    #[error("another match has this matchId")]
    IdTaken,
}

/// What a route of this feature can fail with. Each variant is one thing that somebody does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatchingError {
    /// Give the service a database.
    #[error("the matching book needs Postgres: set DATABASE_URL")]
    NotConfigured,
    /// Look at the book again.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Look at the database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, refusal.to_string());
        match refusal {
            Refusal::Unknown(side) => Self::not_found(refusal.to_string()).field(side.field()),
            Refusal::Matched(side) => conflict("already_matched").field(side.field()),
            Refusal::Expired(side) => conflict("expired").field(side.field()),
            Refusal::Unfit { field, .. } => conflict("terms_do_not_fit").field(field),
            Refusal::IdTaken => conflict("match_id_taken").field("matchId"),
        }
    }
}

impl From<MatchingError> for Problem {
    fn from(error: MatchingError) -> Self {
        match error {
            MatchingError::NotConfigured => Self::not_configured(error.to_string()),
            MatchingError::Refused(refusal) => refusal.into(),
            MatchingError::Database(cause) => cause.into(),
        }
    }
}
