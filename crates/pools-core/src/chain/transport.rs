//! One POST through the HTTP pool, and what its answer says before any id is looked at.

use std::{sync::Arc, time::SystemTime};

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use bytes::Bytes;
use tokio::time::{Duration, Instant};
use url::Url;

use super::{
    codec::quantity,
    entry::Secrets,
    error::ChainError,
    reply::{Fault, Parsed, Reply, parse},
    state::{Outcome, Post, ProbeOutcome},
};
use crate::{
    http::{HttpError, HttpPool},
    redact,
};

/// Longest answer that is read; 100 blocks with all their transactions fit.
const MAX_ANSWER: usize = 32 << 20;
/// Bytes of a body that an error repeats.
const EXCERPT: usize = 200;
/// Longest that a probe may take: a node is down when it cannot name its chain within this.
const PROBE: Duration = Duration::from_secs(2);

/// Sends to one endpoint.
pub(super) struct Transport {
    http: HttpPool,
    /// Without credentials, which travel as a header.
    url: String,
    pub(super) name: Arc<str>,
    pub(super) secrets: Secrets,
    authorization: Option<HeaderValue>,
}

impl Transport {
    pub(super) fn new(http: HttpPool, url: &Url) -> Self {
        let mut bare = url.clone();
        let name = redact::printed(url).into();
        let authorization = basic(url);
        // Refused for URLs without a host only, and http URLs have one.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        bare.set_fragment(None);
        Self { http, url: bare.into(), name, secrets: Secrets::of(url), authorization }
    }

    /// Sends a batch.
    pub(super) async fn post(&self, post: &mut Post) -> Outcome {
        let count = post.slots.len();
        let body = Bytes::from(std::mem::take(&mut post.body));
        match self.exchange(body, post.deadline, post.reads_only).await {
            Ok((status, headers, body)) => self.judge(status, &headers, &body, post.first_id, count),
            Err(HttpError::TooLarge { .. }) => Outcome::Overlong,
            Err(cause) => self.failed(cause),
        }
    }

    /// Asks for the chain id.
    pub(super) async fn probe(&self) -> ProbeOutcome {
        let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":0,"method":"eth_chainId","params":[]}"#);
        let outcome = match self.exchange(body, Instant::now() + PROBE, true).await {
            Ok((status, headers, body)) => self.judge(status, &headers, &body, 0, 1),
            Err(cause) => self.failed(cause),
        };
        match outcome {
            Outcome::Limited { retry_after } => ProbeOutcome::Limited(retry_after),
            Outcome::Failed { error, .. } | Outcome::Refused { error, .. } => ProbeOutcome::Failed(error),
            Outcome::Overlong => ProbeOutcome::Failed(self.bad("a chain id of megabytes")),
            Outcome::Replies { mut replies, .. } => match replies.pop() {
                Some(Reply::Result(text)) => quantity(&mut serde_json::Deserializer::from_slice(&text))
                    .map_or_else(|_| ProbeOutcome::Failed(self.bad("not a chain id")), ProbeOutcome::ChainId),
                Some(Reply::Error(fault)) if fault.is_slow_down() => {
                    ProbeOutcome::Limited(Some(fault.slow_down(1)))
                }
                Some(Reply::Error(fault)) => ProbeOutcome::Failed(self.rpc_error(&fault)),
                _ => ProbeOutcome::Failed(self.bad("no chain id")),
            },
        }
    }

    async fn exchange(
        &self,
        body: Bytes,
        deadline: Instant,
        idempotent: bool,
    ) -> Result<(StatusCode, HeaderMap, Bytes), HttpError> {
        let json = HeaderValue::from_static("application/json");
        let mut request = self.http.post(&self.url).header(header::CONTENT_TYPE, json);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let response = request.body(body).deadline(deadline).idempotent(idempotent).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok((status, headers, response.bytes(MAX_ANSWER).await?))
    }

    fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
        first: u64,
        count: usize,
    ) -> Outcome {
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Outcome::Limited { retry_after: retry_after(headers) };
        }
        // Some nodes put a right JSON-RPC error under a 4xx or 500.
        let parsed = parse(body, first, count);
        match (status.as_u16(), parsed) {
            (200..=299, Parsed::Garbage) => Outcome::Failed { error: self.bad("not JSON-RPC"), sent: true },
            (200..=299, Parsed::Whole(fault)) if fault.is_slow_down() => {
                Outcome::Limited { retry_after: Some(fault.slow_down(1)) }
            }
            (413, _) if count == 1 => Outcome::Refused { bytes: true, error: self.too_large() },
            (413, _) => Outcome::Refused { bytes: true, error: self.status(status, body) },
            (200..=299 | 400 | 405, Parsed::Whole(fault)) => {
                Outcome::Refused { bytes: false, error: self.rpc_error(&fault) }
            }
            (200..=299, Parsed::Replies { ref replies, .. })
                if let Some(fault) = refused_one_by_one(replies) =>
            {
                Outcome::Refused { bytes: false, error: self.rpc_error(fault) }
            }
            (200..=499, Parsed::Replies { replies, strays }) => Outcome::Replies { replies, strays },
            (500..=599, Parsed::Replies { replies, strays })
                if replies.iter().any(|reply| *reply != Reply::Missing) =>
            {
                Outcome::Replies { replies, strays }
            }
            (400 | 405, _) => Outcome::Refused { bytes: false, error: self.status(status, body) },
            _ => Outcome::Failed { error: self.status(status, body), sent: true },
        }
    }

    fn failed(&self, cause: HttpError) -> Outcome {
        let unsent = cause.is_connect()
            || cause.is_busy()
            || matches!(cause, HttpError::Url { .. } | HttpError::Request { .. } | HttpError::Closed { .. });
        let error =
            ChainError::NotReachable { url: Arc::clone(&self.name), sent: !unsent, cause: Arc::new(cause) };
        Outcome::Failed { error, sent: !unsent }
    }

    fn status(&self, status: StatusCode, body: &Bytes) -> ChainError {
        // Scrubbed before it is cut: a key cut in two would no longer be recognised.
        let text = self.secrets.scrub(&String::from_utf8_lossy(body));
        let excerpt = text[..text.floor_char_boundary(EXCERPT)].into();
        ChainError::Status { url: Arc::clone(&self.name), status: status.as_u16(), excerpt }
    }

    fn rpc_error(&self, fault: &Fault) -> ChainError {
        let message = self.secrets.scrub(&fault.message).into();
        ChainError::RpcError { url: Arc::clone(&self.name), code: fault.code, message }
    }

    fn bad(&self, what: &'static str) -> ChainError {
        ChainError::BadReply { url: Arc::clone(&self.name), what }
    }

    fn too_large(&self) -> ChainError {
        ChainError::TooLarge { url: Arc::clone(&self.name), what: "the call" }
    }
}

/// Some nodes refuse a batch by giving every call the same error about batches.
fn refused_one_by_one(replies: &[Reply]) -> Option<&Fault> {
    let [Reply::Error(fault), rest @ ..] = replies else { return None };
    let about_batches = fault.message.to_ascii_lowercase().contains("batch");
    let all_alike = rest.iter().all(|reply| matches!(reply, Reply::Error(other) if other == fault));
    (!rest.is_empty() && about_batches && all_alike).then_some(fault)
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date has whole seconds: one more makes sure that it has passed there too.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(1))
}

/// RFC 7617 credentials from the URL's user and password.
fn basic(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<_>>();
    let credentials =
        [plain(url.username()), b":".to_vec(), plain(url.password().unwrap_or_default())].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(credentials))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_url_travel_as_a_header() {
        let header =
            |url: &str| basic(&Url::parse(url).unwrap()).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("http://Aladdin:open%20sesame@a/").unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(header("http://ab:c@a/").unwrap(), "Basic YWI6Yw==");
        assert_eq!(header("http://a/"), None);
    }
}
