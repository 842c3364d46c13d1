//! Why ml-api could not be asked.

use actix_web::http::StatusCode;
use pools_core::{http::HttpError, web::Problem};

use crate::unanswered::unanswered;

/// One variant per thing an operator does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlError {
    /// The request got no answer.
    #[error("ml-api cannot be asked")]
    Http(#[source] HttpError),
    /// ml-api speaks JSON, errors included: look at what stands before it, or at `ML_SERVICE_URL`.
    #[error("something that is not ml-api has answered: {status}, and no JSON")]
    NotJson {
        /// The status of the answer.
        status: StatusCode,
    },
    /// ml-api's answer is broken JSON, or lacks what it should hold.
    #[error("ml-api's answer cannot be read")]
    Answer(#[source] serde_json::Error),
}

impl MlError {
    /// Whether there was no room to ask: that says nothing about ml-api.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Http(cause) if cause.is_busy())
    }
}

impl From<MlError> for Problem {
    fn from(error: MlError) -> Self {
        let detail = std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        match error {
            MlError::Http(cause) => unanswered(&cause, detail),
            MlError::NotJson { .. } | MlError::Answer(_) => Self::bad_gateway(detail),
        }
    }
}
