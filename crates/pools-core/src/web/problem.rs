//! Error answers after RFC 9457.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde_json::json;

use crate::telemetry;

/// An error answer: `type, title, status, detail, instance` of RFC 9457, and beside them `code` (stable,
/// snake_case), `request_id`, `field` where one is at fault, and `error`, the short text that front ends show.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    retry_after: Option<Duration>,
    comes_first: bool,
}

impl Problem {
    /// `detail` says what is wrong and what to do, without secrets.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, retry_after: None, comes_first: false }
    }

    /// 400: the request itself cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 422: the body is well-formed, but one of its fields breaks a rule.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail).field(field)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 503: a key or an address that this feature needs was not given.
    pub fn not_configured(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_not_configured", detail)
    }

    /// 503: a server that this feature needs is away.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", detail)
    }

    /// 503 with `Retry-After`: a pool has no place left.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "pool_busy", detail).retry_after(Duration::from_secs(1))
    }

    /// 429.
    pub(super) fn rate_limited(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
    }

    /// 503 with `Retry-After`: the service has enough to do.
    pub(super) fn overloaded() -> Self {
        let detail = "the service is working on as many requests as it can";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(Duration::from_secs(1))
    }

    /// 504: the request took longer than `REQUEST_TIMEOUT`.
    pub(super) fn out_of_time() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "request_timeout", "the answer was not complete in time")
    }

    /// 502: an upstream failed.
    pub fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "upstream_failed", detail)
    }

    /// 504: an upstream was too slow.
    pub fn gateway_timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", detail)
    }

    /// 500: our fault. The log has the cause; the caller gets the request id.
    pub fn internal() -> Self {
        Self::from_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What a status alone says.
    pub fn from_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => ("not_found", "there is no such route"),
            StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "the route does not know this method"),
            StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "the body is larger than allowed"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported_media_type", "the media type is not accepted")
            }
            StatusCode::INTERNAL_SERVER_ERROR => ("internal", "a fault of the service; quote the request id"),
            status if status.is_client_error() => ("bad_request", "the request cannot be understood"),
            _ => ("unavailable", "the service cannot answer"),
        };
        Self::new(status, code, detail)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Is told even to a caller over its rate limit: what is wrong with the request alone.
    pub(super) fn comes_first(self) -> Self {
        Self { comes_first: true, ..self }
    }

    /// Whether an answer is such a problem.
    pub(super) fn is_told_first(answer: &HttpResponse) -> bool {
        answer.extensions().get::<ComesFirst>().is_some()
    }

    /// The JSON of the answer for the request of the current task, whose path is `instance`: for an error that is told
    /// in the middle of an answer.
    pub fn body(&self, instance: &str) -> serde_json::Value {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "request_id": telemetry::request_id().map(|id| id.to_string()),
            "error": self.detail,
        });
        if let Some(field) = &self.field {
            body["field"] = json!(field);
        }
        body
    }

    /// The answer for the request of the current task, whose path is `instance`.
    pub(super) fn response(&self, instance: &str) -> HttpResponse {
        let body = self.body(instance);
        let is_its_own_fault = self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS;
        let mut response = HttpResponse::build(self.status);
        if let Some(pause) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, pause.as_secs_f64().ceil().to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        let mut response = response.content_type("application/problem+json").body(body.to_string());
        if self.comes_first || is_its_own_fault {
            response.extensions_mut().insert(ComesFirst);
        }
        response
    }
}

/// Marks the answer of a problem that is told even to a caller over its rate limit.
struct ComesFirst;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.response("")
    }
}
