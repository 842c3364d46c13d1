//! ml-api over the HTTP pool, within the limits of [`MlPolicy`].
//!
//! Its answers are passed on, whatever they say: none is repeated, and none counts as a failure (503 is what it says without a
//! database, and it predicts all the same). What the breaker counts is that no answer came.
//!
//! Predictions need nothing but ml-api itself, everything else may wait for its database: so these are two upstreams, each with
//! a breaker of its own, and what waits for the database takes no more than half of the places.

use std::time::Duration;

use actix_web::{http::StatusCode, web::Bytes};
use http::{HeaderMap, Method};
use pools_core::{
    http::{BreakerPolicy, HttpError, HttpPool, Policy, RequestBuilder, Response, Upstream},
    telemetry,
};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::error::MlError;

/// Largest answer: a batch of 50,000 predictions.
const LIMIT: usize = 16 * 1024 * 1024;
/// What ml-api's headers say to whoever asked: when to come again, and how to be let in.
const PASSED_ON: [&str; 2] = ["retry-after", "www-authenticate"];

pools_core::policy_settings! {
    /// What the calls to ml-api may take.
    pub struct MlPolicy in "ml-api: limits of its calls" for "ML_API" with rate = limits();
}

fn limits() -> Policy {
    // What a request may take.
    let patience = Duration::from_secs(30);
    Policy {
        // Its host's share of the pool: ml-api is ours, and has a queue of its own.
        max_in_flight: 50,
        max_queue: 1_000,
        wait_timeout: patience,
        // A prediction takes microseconds, a restart of ml-api a second. Well before the end of the request, at which a call is given
        // up without a verdict: the breaker counts only silence that lasts until here.
        head_timeout: Duration::from_secs(10),
        total_timeout: patience,
        max_retries: 0,
        retry_statuses: &[],
        breaker: Some(BreakerPolicy {
            pause: Duration::from_secs(1),
            statuses: &[],
            ..BreakerPolicy::default()
        }),
        ..Policy::default()
    }
}

/// What ml-api said, to be passed on or read.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its media type.
    pub content_type: String,
    /// What else of its head concerns the caller.
    pub headers: Vec<(&'static str, String)>,
    /// Its body: JSON.
    pub body: Bytes,
}

/// ml-api as this service sees it.
#[derive(Clone, Debug)]
pub struct MlClient {
    predictions: Upstream,
    data: Upstream,
    /// For probes, which must see it return while its breaker is open.
    http: HttpPool,
    health: String,
}

impl MlClient {
    /// `base` is `ML_SERVICE_URL`.
    ///
    /// # Errors
    /// `base` is not a URL that the pool can use.
    pub fn new(http: HttpPool, base: &str, policy: Policy) -> Result<Self, HttpError> {
        let health = format!("{}/health/live", base.trim_end_matches('/'));
        let half = Policy { max_in_flight: (policy.max_in_flight / 2).max(1), ..policy.clone() };
        let predictions = Upstream::new(http.clone(), "ml_api", base, policy)?;
        let data = Upstream::new(http.clone(), "ml_api_data", base, half)?;
        Ok(Self { predictions, data, http, health })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn get(&self, path: &str) -> Result<Answer, MlError> {
        Self::answer(self.upstream(path).get(path)).await
    }

    /// `POST path` with a JSON body, passed on as it came.
    ///
    /// # Errors
    /// No answer came.
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Answer, MlError> {
        Self::answer(Self::with_json(self.upstream(path).post(path), body)).await
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// No answer came.
    pub async fn put(&self, path: &str, body: Bytes) -> Result<Answer, MlError> {
        Self::answer(Self::with_json(self.upstream(path).request(Method::PUT, path), body)).await
    }

    /// Whether ml-api runs, asked within `patience`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn probe(&self, patience: Duration) -> Result<StatusCode, MlError> {
        let request = self.http.get(&self.health).deadline(Instant::now() + patience);
        let response = request.send().await.map_err(MlError::Http)?;
        let status = status(&response);
        response.bytes(LIMIT).await.map_err(MlError::Http)?;
        Ok(status)
    }

    fn upstream(&self, path: &str) -> &Upstream {
        if path.starts_with("/predict") { &self.predictions } else { &self.data }
    }

    fn with_json(request: RequestBuilder, body: Bytes) -> RequestBuilder {
        request.header("content-type", "application/json").body(body)
    }

    async fn answer(mut request: RequestBuilder) -> Result<Answer, MlError> {
        if let Some(id) = telemetry::request_id() {
            // It stands in ml-api's problems, which our caller gets, and in its log.
            request = request.header("x-request-id", id.to_string());
        }
        let response = request.send().await.map_err(MlError::Http)?;
        let status = status(&response);
        let header = |name| text(response.headers(), name);
        let content_type = header("content-type").unwrap_or_else(|| "application/json".to_owned());
        if !is_json(&content_type) {
            return Err(MlError::NotJson { status });
        }
        let headers = PASSED_ON.into_iter().filter_map(|name| Some((name, header(name)?))).collect();
        let body = response.bytes(LIMIT).await.map_err(MlError::Http)?;
        serde_json::from_slice::<IgnoredAny>(&body).map_err(MlError::Answer)?;
        Ok(Answer { status, content_type, headers, body })
    }
}

fn status(response: &Response) -> StatusCode {
    StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}
