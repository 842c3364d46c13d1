//! What the caller is told when there is no prediction.

use actix_web::http::StatusCode;
use pools_core::web::Problem;

use super::{RowError, service::NotReady};

impl From<RowError> for Problem {
    fn from(error: RowError) -> Self {
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", error.to_string());
        match error.field() {
            Some(field) => problem.field(field),
            None => problem,
        }
    }
}

impl From<NotReady> for Problem {
    fn from(error: NotReady) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "model_not_ready", error.to_string())
            .retry_after(std::time::Duration::from_secs(1))
    }
}
