//! Why ml-api could not be asked.

use std::time::Duration;

use pools_core::{http::HttpError, web::Problem};

/// One variant per thing an operator does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlError {
    /// The request got no answer.
    #[error("ml-api cannot be asked")]
    Http(#[source] HttpError),
    /// ml-api answered something that is not JSON.
    #[error("ml-api's answer cannot be read")]
    Answer(#[source] serde_json::Error),
}

impl From<MlError> for Problem {
    fn from(error: MlError) -> Self {
        let detail = std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        match error {
            MlError::Http(cause) if cause.is_busy() => Self::busy(detail),
            MlError::Http(cause) if cause.is_open_breaker() => {
                let soon = cause.retry_after().unwrap_or_default().max(Duration::from_secs(1));
                Self::unavailable(detail).retry_after(soon)
            }
            MlError::Http(cause) if cause.is_connect() => Self::unavailable(detail),
            MlError::Http(cause) if cause.is_timeout() => Self::gateway_timeout(detail),
            MlError::Http(_) | MlError::Answer(_) => Self::bad_gateway(detail),
        }
    }
}
