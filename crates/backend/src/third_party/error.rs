//! Why a third party gave no answer that can be used, and what our caller is told.

use std::time::Duration;

use actix_web::http::StatusCode;
use pools_core::{http::HttpError, web::Problem};

use crate::unanswered::unanswered;

/// After an overload: short, since it mostly passes in seconds.
const SOON: Duration = Duration::from_secs(5);

/// One variant per thing an operator does. `upstream` is its name, such as `Pinata`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThirdPartyError {
    /// It was not reached, or broke off: look at the network and at its status page.
    #[error("{upstream} cannot be asked")]
    Http {
        /// Its name.
        upstream: &'static str,
        /// Why.
        #[source]
        cause: HttpError,
    },
    /// It had not begun to answer when the request's time was up: look at its status page.
    #[error("{upstream} has not begun to answer in time")]
    Late {
        /// Its name.
        upstream: &'static str,
    },
    /// It refuses the key: correct the setting.
    #[error("{upstream} refuses the key in {setting}")]
    BadKey {
        /// Its name.
        upstream: &'static str,
        /// The variable.
        setting: &'static str,
    },
    /// Too many calls in too short a time: lower the rate.
    #[error("{upstream} allows no more calls at present")]
    RateLimited {
        /// Its name.
        upstream: &'static str,
        /// When it will again, if it said so.
        retry_after: Option<Duration>,
    },
    /// What the account may use in a day or altogether is used up: look at the plan.
    #[error("the quota with {upstream} is used up")]
    Quota {
        /// Its name.
        upstream: &'static str,
        /// When there is more, if it said so.
        retry_after: Option<Duration>,
        /// Whether waiting helps at all.
        passes: bool,
    },
    /// It has too much to do.
    #[error("{upstream} is overloaded")]
    Overloaded {
        /// Its name.
        upstream: &'static str,
        /// When to come again, if it said so.
        retry_after: Option<Duration>,
    },
    /// It answered with an error that none of the above explains.
    #[error("{upstream} answered {status}{}", reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Status {
        /// Its name.
        upstream: &'static str,
        /// The status.
        status: u16,
        /// Its own word for the error, if it is one.
        reason: Option<String>,
    },
    /// It answered something else than it documents.
    #[error("{upstream}'s answer cannot be used: {why}")]
    Answer {
        /// Its name.
        upstream: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl ThirdPartyError {
    /// Whether the upstream works in spite of the error: `None` when the error says nothing about it.
    pub fn says_up(&self) -> Option<bool> {
        match self {
            Self::RateLimited { .. } | Self::Quota { .. } => Some(true),
            Self::Http { cause, .. } if cause.is_busy() => None,
            Self::Http { cause: HttpError::Upload { .. } | HttpError::Closed { .. }, .. } => None,
            _ => Some(false),
        }
    }

    /// The error with its cause, free of secrets.
    pub fn detail(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }

    /// What our caller is told. The codes are stable.
    pub fn problem(&self) -> Problem {
        let detail = self.detail();
        let with = |problem: Problem, after: Option<Duration>| {
            after.map_or(problem.clone(), |after| problem.retry_after(after.max(Duration::from_secs(1))))
        };
        match self {
            Self::Http { cause, .. } => unanswered(cause, detail),
            Self::BadKey { .. } => Problem::new(StatusCode::BAD_GATEWAY, "upstream_bad_key", detail),
            Self::RateLimited { retry_after, .. } => with(
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "upstream_rate_limited", detail),
                *retry_after,
            ),
            Self::Quota { retry_after, passes, .. } => {
                let status =
                    if *passes { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::SERVICE_UNAVAILABLE };
                with(Problem::new(status, "upstream_quota_exceeded", detail), *retry_after)
            }
            Self::Overloaded { retry_after, .. } => {
                with(Problem::unavailable(detail), Some(retry_after.unwrap_or(SOON)))
            }
            Self::Late { .. } | Self::Status { status: 504, .. } => Problem::gateway_timeout(detail),
            Self::Status { .. } | Self::Answer { .. } => Problem::bad_gateway(detail),
        }
    }
}
