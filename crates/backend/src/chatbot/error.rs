//! Why a question got no answer.

use actix_web::http::StatusCode;
use pools_core::web::Problem;

use super::{answer::Unusable, client::GEMINI, model::Invalid};
use crate::third_party::ThirdPartyError;

/// One variant per thing somebody does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// `GEMINI_API_KEY` is missing.
    #[error("GEMINI_API_KEY is not set")]
    NotConfigured,
    /// The caller's request is at fault.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Google's rules forbid the question or the answer: ask differently.
    #[error("Gemini does not answer this: {reason}")]
    Blocked {
        /// Google's word for it.
        reason: String,
    },
    /// Gemini failed.
    #[error(transparent)]
    Gemini(ThirdPartyError),
}

impl From<Unusable> for ChatError {
    fn from(unusable: Unusable) -> Self {
        Self::Gemini(ThirdPartyError::Answer { upstream: GEMINI, why: unusable.why() })
    }
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        let detail = error.to_string();
        match error {
            ChatError::NotConfigured => Self::not_configured(detail),
            ChatError::Invalid(Invalid { field, .. }) => Self::invalid_field(field, detail),
            ChatError::Blocked { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "content_blocked", detail)
            }
            ChatError::Gemini(cause) => cause.problem(),
        }
    }
}
