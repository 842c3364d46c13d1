//! Why a loan could not be recorded, found or counted.

use actix_web::http::StatusCode;
use pools_core::{
    postgres::{PgError, SqlState},
    web::Problem,
};

use super::{model::FieldError, store::StoreError};

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
    Store(#[from] StoreError),
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
            LoanError::Store(StoreError::NoSchema) => Self::unavailable(error.to_string()),
            LoanError::Store(StoreError::Postgres(cause)) => postgres(&cause),
        }
    }
}

fn postgres(cause: &PgError) -> Problem {
    if cause.is_busy() {
        return Problem::busy("all connections to Postgres are in use");
    }
    if cause.is_unavailable() {
        tracing::warn!(cause = cause.reason(), "a request needed Postgres, which is away");
        return Problem::unavailable("Postgres, which recording loans needs, is away");
    }
    // Class 22, data exception: the checks before let through what only the server can judge, such as 1e-99999.
    if cause.sqlstate().is_some_and(|state| state.code().starts_with("22")) {
        let detail = "Postgres cannot store a value of this loan";
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail);
    }
    tracing::error!(cause = cause.reason(), "a statement failed");
    if cause.sqlstate() == Some(&SqlState::QUERY_CANCELED) {
        return Problem::gateway_timeout("Postgres took longer than DB_STATEMENT_TIMEOUT");
    }
    Problem::internal()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::ResponseError;

    use super::*;

    fn answer(cause: PgError) -> (u16, Problem) {
        let problem = Problem::from(LoanError::Store(StoreError::Postgres(cause)));
        (problem.status_code().as_u16(), problem)
    }

    #[test]
    fn a_full_pool_is_503_with_the_time_to_come_again() {
        let waited = Duration::from_secs(30);
        let (status, problem) = answer(PgError::Exhausted { size: 10, overflow: 20, waited, longest: None });
        assert_eq!(status, 503);
        assert!(problem.to_string().starts_with("pool_busy"), "{problem}");
        assert!(problem.error_response().headers().contains_key("retry-after"));
    }

    #[test]
    fn a_server_that_is_away_is_503_and_says_no_more_than_that() {
        for cause in [PgError::Closed, PgError::Stalled { after: Duration::from_secs(1) }] {
            let (status, problem) = answer(cause);
            assert_eq!(status, 503);
            assert!(problem.to_string().starts_with("upstream_unavailable"), "{problem}");
        }
    }

    #[test]
    fn a_fault_of_ours_is_500_without_its_cause() {
        let (status, problem) = answer(PgError::Rows { expected: "one row", found: 2 });
        assert_eq!(status, 500);
        assert!(!problem.to_string().contains("row"), "{problem}");
    }
}
