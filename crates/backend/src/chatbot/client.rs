//! Gemini over the HTTP pool. The key travels in its header only, never in a URL.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::CONTENT_TYPE;
use pools_core::{
    http::{HttpError, HttpPool, Policy, RequestBuilder, Response, Upstream},
    redact::{ExposeSecret, SecretString},
    resilience::deadline,
};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    answer::{self, Events, Fault},
    error::ChatError,
    model::is_model_name,
};
use crate::third_party::ThirdPartyError;

/// Gemini's name in errors.
pub(super) const GEMINI: &str = "Gemini";
/// It had not said a word when the request's time was up.
pub(super) const LATE: ThirdPartyError = ThirdPartyError::Late { upstream: GEMINI };
/// Longest whole answer: the most tokens that are asked for take some 50 kB.
const LIMIT: usize = 4 * 1024 * 1024;
/// Of an answer that is an error, so much is looked at.
const ERROR_LIMIT: usize = 64 * 1024;
pools_core::policy_settings! {
    /// What the calls to Gemini may take. An answer that is not streamed comes whole, so that the head's time-out is its own.
    pub struct GeminiPolicy in "Gemini: limits of its calls" for "GEMINI" with rate = limits();
}

fn limits() -> Policy {
    Policy {
        // A model that thinks takes its time before its first word. It cannot have all of the request's 30 s: a call is given up at their
        // end without a verdict, and the breaker counts only silence that lasts until here.
        head_timeout: Duration::from_secs(25),
        // The longest answers are read, not waited for.
        total_timeout: Duration::from_secs(300),
        // Each attempt costs quota, and an overload is seldom over within a second.
        max_retries: 1,
        // Not 429: its pause stands in the body, and is long.
        retry_statuses: &[502, 503, 504],
        ..Policy::default()
    }
}

/// A setting that is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeminiSetting {
    /// Correct `GEMINI_URL`.
    #[error("GEMINI_URL is not accepted")]
    Url(#[source] HttpError),
    /// Correct `GEMINI_MODEL`.
    #[error("GEMINI_MODEL: {0:?} is not a model's name")]
    Model(String),
}

/// Gemini as this service sees it.
#[derive(Clone, Debug)]
pub struct GeminiClient {
    gemini: Upstream,
    model: String,
    key: SecretString,
    /// For an answer that is streamed.
    stream_patience: Duration,
}

impl GeminiClient {
    /// `base` is `GEMINI_URL`.
    ///
    /// # Errors
    /// `base` is not a URL that the pool can use, or `model` nothing that can stand in a path.
    pub fn new(
        pool: HttpPool,
        base: &str,
        model: &str,
        key: SecretString,
        policy: Policy,
    ) -> Result<Self, GeminiSetting> {
        if !is_model_name(model) {
            return Err(GeminiSetting::Model(model.to_owned()));
        }
        let stream_patience = policy.total_timeout;
        let gemini = Upstream::new(pool, "gemini", base, policy).map_err(GeminiSetting::Url)?;
        Ok(Self { gemini, model: model.to_owned(), key, stream_patience })
    }

    /// The whole answer.
    ///
    /// # Errors
    /// Gemini gave none.
    pub async fn generate(&self, body: &Value) -> Result<Bytes, ThirdPartyError> {
        let sent = self.post("generateContent", body).send().await;
        let response = self.accepted(sent.map_err(unreached)?).await?;
        response.bytes(LIMIT).await.map_err(unreached)
    }

    /// The data of each event of a streamed answer, as they come.
    ///
    /// # Errors
    /// Gemini did not begin. What goes wrong later is an item of the stream, and its last.
    ///
    /// # Cancel safety
    /// Dropped, the stream closes its connection, and Gemini stops.
    pub async fn stream(
        &self,
        body: &Value,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, ChatError>> + use<>, ThirdPartyError> {
        let request = self.post("streamGenerateContent?alt=sse", body);
        // The stream goes on behind the head of our own answer, and so beyond the deadline for that.
        let sent = deadline::beyond(Instant::now() + self.stream_patience, request.send());
        let sent = deadline::in_time(sent).await.ok_or(LATE)?;
        let response = self.accepted(sent.map_err(unreached)?).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let why = "it is no stream of events";
            return Err(ThirdPartyError::Answer { upstream: GEMINI, why });
        }
        let state = (response, Events::default(), VecDeque::new());
        Ok(stream::try_unfold(state, |(mut response, mut events, mut ready)| async move {
            loop {
                if let Some(event) = ready.pop_front() {
                    return Ok(Some((event, (response, events, ready))));
                }
                let chunk = response.chunk().await.map_err(|cause| ChatError::Gemini(unreached(cause)))?;
                let Some(chunk) = chunk else { return Ok(None) };
                ready.extend(events.push(&chunk)?);
            }
        }))
    }

    /// Whether Gemini answers, takes the key and knows the model.
    ///
    /// # Errors
    /// It does not.
    pub async fn probe(&self) -> Result<(), ThirdPartyError> {
        let request = self.authorised(self.gemini.get(&format!("/v1beta/models/{}", self.model)));
        self.accepted(request.send().await.map_err(unreached)?).await.map(drop)
    }

    fn post(&self, method: &str, body: &Value) -> RequestBuilder {
        let request = self.gemini.post(&format!("/v1beta/models/{}:{method}", self.model));
        // The same question twice does no harm.
        self.authorised(request).json(body).idempotent(true)
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("x-goog-api-key", self.key.expose_secret())
    }

    async fn accepted(&self, response: Response) -> Result<Response, ThirdPartyError> {
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(response);
        }
        // The status tells enough when the body cannot be had.
        let body = response.bytes(ERROR_LIMIT).await.unwrap_or_default();
        Err(error(status, answer::fault(&body).unwrap_or_default()))
    }
}

/// What an error answer means, or an error in the middle of a stream.
pub(super) fn error(status: u16, fault: Fault) -> ThirdPartyError {
    let (upstream, retry_after) = (GEMINI, fault.retry_after);
    match status {
        _ if fault.is_key => ThirdPartyError::BadKey { upstream, setting: "GEMINI_API_KEY" },
        401 | 403 => ThirdPartyError::BadKey { upstream, setting: "GEMINI_API_KEY" },
        429 => ThirdPartyError::Quota { upstream, retry_after, passes: true },
        503 => ThirdPartyError::Overloaded { upstream, retry_after },
        _ => ThirdPartyError::Status { upstream, status, reason: fault.status },
    }
}

fn unreached(cause: HttpError) -> ThirdPartyError {
    ThirdPartyError::Http { upstream: GEMINI, cause }
}
