//! ml-api over the HTTP pool.

use std::time::Duration;

use actix_web::{http::StatusCode, web::Bytes};
use http::Method;
use pools_core::http::HttpPool;
use tokio::time::Instant;

use super::error::MlError;

/// Longest time for one question: a prediction takes microseconds, a restart of ml-api a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest answer: a batch of 50,000 predictions.
const LIMIT: usize = 16 * 1024 * 1024;

/// What ml-api said, to be passed on or read.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its media type.
    pub content_type: String,
    /// Its body.
    pub body: Bytes,
}

/// ml-api as this service sees it.
#[derive(Clone, Debug)]
pub struct MlClient {
    http: HttpPool,
    base: String,
}

impl MlClient {
    /// `base` is `ML_SERVICE_URL`.
    pub fn new(http: HttpPool, base: &str) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned() }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn get(&self, path: &str) -> Result<Answer, MlError> {
        let request = self.http.get(&format!("{}{path}", self.base));
        Self::answer(request.deadline(Instant::now() + PATIENCE).send().await).await
    }

    /// `POST path` with a JSON body, passed on as it came.
    ///
    /// # Errors
    /// No answer came.
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Answer, MlError> {
        let request = self.http.post(&format!("{}{path}", self.base));
        let request = request.header("content-type", "application/json").body(body);
        Self::answer(request.deadline(Instant::now() + PATIENCE).send().await).await
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// No answer came.
    pub async fn put(&self, path: &str, body: Bytes) -> Result<Answer, MlError> {
        let request = self.http.request(Method::PUT, &format!("{}{path}", self.base));
        let request = request.header("content-type", "application/json").body(body);
        Self::answer(request.deadline(Instant::now() + PATIENCE).send().await).await
    }

    /// Whether ml-api runs, asked within `patience`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn probe(&self, patience: Duration) -> Result<StatusCode, MlError> {
        let request = self.http.get(&format!("{}/health/live", self.base));
        let answer = Self::answer(request.deadline(Instant::now() + patience).send().await).await?;
        Ok(answer.status)
    }

    async fn answer(
        response: Result<pools_core::http::Response, pools_core::http::HttpError>,
    ) -> Result<Answer, MlError> {
        let response = response.map_err(MlError::Http)?;
        let status = StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("application/json").to_owned();
        let body = response.bytes(LIMIT).await.map_err(MlError::Http)?;
        Ok(Answer { status, content_type, body })
    }
}
