//! Pinata over the HTTP pool: the V3 files API with a JWT, else the legacy pinning API with two keys. Each knows only what was
//! pinned through it, so one configuration uses one of them for everything.

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::{Stream, stream};
use http::Method;
use pools_core::{
    http::{
        HttpError, HttpPool, Policy, RequestBuilder, Response, SourceError, Upstream, multipart::boundary,
    },
    redact::{ExposeSecret, SecretString},
    settings::{count, millis},
};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    answers::{Fault, LegacyReceipt, LegacyRow, LegacyRows, V3, V3File, V3Files},
    model::{ContentId, Envelope, FilePart, FileRecord},
};
use crate::third_party::ThirdPartyError;

/// Pinata's name in errors.
const PINATA: &str = "Pinata";
/// Answers are short; a list for one content id has a few entries.
const LIMIT: usize = 1024 * 1024;
/// Of an answer that is an error, so much is looked at.
const ERROR_LIMIT: usize = 64 * 1024;
pools_core::policy_settings! {
    /// What the calls to Pinata may take; for uploads see also `PINATA_UPLOAD_…`.
    pub struct PinataPolicy in "Pinata: limits of its calls" for "PINATA" with rate = limits();
}

fn limits() -> Policy {
    // Lists and removals take it well under a second.
    Policy { total_timeout: Duration::from_secs(15), ..Policy::default() }
}

pools_core::settings! {
    /// What uploads to Pinata may take, where that is not [`PinataPolicy`]. Their bytes are gone once sent: none is sent again.
    pub struct UploadConfig in "Pinata: limits of uploads" {
        /// Most uploads at once. They take nothing from the other calls.
        pub max_in_flight: u32 = count("PINATA_UPLOAD_MAX_IN_FLIGHT", "uploads", 20, 1..=10_000);
        /// Longest time from the end of an upload to the answer's head: to store what has arrived.
        pub head_timeout: Duration = millis("PINATA_UPLOAD_HEAD_TIMEOUT_MS", 60_000, 1..=3_600_000);
        /// Longest time for everything: 10 MiB over a slow line of 0.3 Mbit/s. The two ends have time-outs for silence of their own. It takes
        /// the place of `REQUEST_TIMEOUT` on the upload's route.
        pub total_timeout: Duration = millis("PINATA_UPLOAD_TOTAL_TIMEOUT_MS", 300_000, 1..=3_600_000);
    }
}

/// How the account is proved, and with that which API is used.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// V3.
    Jwt(SecretString),
    /// Legacy.
    Keys {
        /// `PINATA_API_KEY`
        key: SecretString,
        /// `PINATA_SECRET_KEY`
        secret: SecretString,
    },
}

/// Pinata as this service sees it.
#[derive(Clone, Debug)]
pub struct PinataClient {
    api: Upstream,
    uploads: Upstream,
    credentials: Credentials,
}

/// Two settings of which the wrong one has to be named.
#[derive(Debug, thiserror::Error)]
#[error("{variable} is not accepted")]
pub struct BadUrl {
    /// Its name.
    pub variable: &'static str,
    /// Why.
    #[source]
    pub cause: HttpError,
}

/// Where the pieces of a document go in. Dropped before [`finish`](Self::finish), it ends the upload unfinished.
#[derive(Debug)]
pub struct UploadSink {
    sender: mpsc::Sender<Part>,
    envelope: Envelope,
}

#[derive(Debug)]
enum Part {
    Piece(Bytes),
    /// Told apart from a sink that was dropped: a document cut short must not look whole.
    End,
}

#[derive(Debug, thiserror::Error)]
#[error("the document ended too early")]
struct Cut;

impl UploadSink {
    /// Waits until Pinata wants more. False when the upload has ended already; its answer says why.
    pub async fn push(&self, piece: Bytes) -> bool {
        self.sender.send(Part::Piece(piece)).await.is_ok()
    }

    /// All `bytes` of the document were pushed.
    pub async fn finish(self, bytes: u64) -> bool {
        for piece in self.envelope.after(bytes) {
            if self.sender.send(Part::Piece(piece)).await.is_err() {
                return false;
            }
        }
        self.sender.send(Part::End).await.is_ok()
    }
}

impl PinataClient {
    /// `api` is `PINATA_URL`, `uploads` is `PINATA_UPLOAD_URL`, used by V3 only.
    ///
    /// # Errors
    /// One of them is not a URL that the pool can use.
    pub fn new(
        pool: &HttpPool,
        (api, uploads): (&str, &str),
        credentials: Credentials,
        policy: Policy,
        upload: &UploadConfig,
    ) -> Result<Self, BadUrl> {
        let (variable, uploads) = match credentials {
            Credentials::Jwt(_) => ("PINATA_UPLOAD_URL", uploads),
            Credentials::Keys { .. } => ("PINATA_URL", api),
        };
        let upload_policy = Policy {
            max_in_flight: upload.max_in_flight,
            head_timeout: upload.head_timeout,
            total_timeout: upload.total_timeout,
            max_retries: 0,
            ..policy.clone()
        };
        let bad = |variable| move |cause| BadUrl { variable, cause };
        let api = Upstream::new(pool.clone(), "pinata", api, policy).map_err(bad("PINATA_URL"))?;
        // One account: Pinata counts uploads and all other calls together.
        let uploads = api.beside("pinata_upload", uploads, upload_policy).map_err(bad(variable))?;
        Ok(Self { api, uploads, credentials })
    }

    /// Begins to pin a file: what goes into the sink is sent as soon as Pinata takes it, one piece at a time.
    pub fn pin(
        &self,
        file: FilePart<'_>,
    ) -> (UploadSink, impl Future<Output = Result<String, ThirdPartyError>> + use<>) {
        let boundary = boundary();
        let (path, envelope) = match self.credentials {
            Credentials::Jwt(_) => {
                let fields = [("network", "public"), ("name", file.name)];
                ("/v3/files", Envelope::new(&boundary, &fields, file, ("keyvalues", "{}")))
            }
            Credentials::Keys { .. } => {
                let fields = [("pinataOptions", r#"{"cidVersion":0}"#)];
                let name = serde_json::json!({ "name": file.name }).to_string();
                let last = ("pinataMetadata", name.as_str());
                ("/pinning/pinFileToIPFS", Envelope::new(&boundary, &fields, file, last))
            }
        };
        let (sender, receiver) = mpsc::channel(1);
        let body = pieces(envelope.before(), receiver);
        let request = self
            .authorised(self.uploads.post(path))
            .header("content-type", format!("multipart/form-data; boundary={boundary}"))
            .stream(envelope.length(), body);
        let (v3, setting) = (self.is_v3(), self.setting());
        let answer = async move {
            let body = accepted(request.send().await.map_err(unreached)?, setting).await?;
            let cid = if v3 {
                read::<V3<V3File>>(&body)?.data.cid
            } else {
                read::<LegacyReceipt>(&body)?.ipfs_hash
            };
            // It becomes part of a URL that our caller follows.
            let is_plain = !cid.is_empty() && cid.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if is_plain { Ok(cid) } else { Err(unusable("its content id is none")) }
        };
        (UploadSink { sender, envelope }, answer)
    }

    /// What this account has pinned under an id, the newest first.
    ///
    /// # Errors
    /// Pinata gave no usable answer.
    pub async fn find(&self, cid: &ContentId) -> Result<Vec<FileRecord>, ThirdPartyError> {
        let cid = cid.as_str();
        let path = match self.is_v3() {
            true => format!("/v3/files/public?cid={cid}"),
            false => format!("/data/pinList?hashContains={cid}&status=pinned"),
        };
        let body = self.ask(self.api.get(&path)).await?;
        if self.is_v3() {
            let files = read::<V3<V3Files>>(&body)?.data.files.unwrap_or_default();
            return Ok(files.into_iter().filter(|file| file.cid == cid).map(FileRecord::from).collect());
        }
        let rows = read::<LegacyRows>(&body)?.rows;
        // `hashContains` finds parts of ids as well.
        let is_it = |row: &LegacyRow| row.ipfs_pin_hash.as_deref().is_none_or(|hash| hash == cid);
        let pinned = rows.into_iter().filter(|row| row.date_unpinned.is_none() && is_it(row));
        Ok(pinned.map(FileRecord::from).collect())
    }

    /// Removes what this account has pinned under an id; false when there was nothing.
    ///
    /// # Errors
    /// Pinata gave no usable answer. Some of several files may be removed then.
    pub async fn unpin(&self, cid: &ContentId) -> Result<bool, ThirdPartyError> {
        if !self.is_v3() {
            return self.unpin_by_cid(cid).await;
        }
        let files = self.find(cid).await?;
        for file in &files {
            let id = file.id.as_deref().filter(|id| is_id(id)).ok_or(unusable("a file's id is none"))?;
            match self.remove(&format!("/v3/files/public/{id}")).await {
                // Somebody else was quicker.
                Ok(()) | Err(ThirdPartyError::Status { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!files.is_empty())
    }

    async fn unpin_by_cid(&self, cid: &ContentId) -> Result<bool, ThirdPartyError> {
        match self.remove(&format!("/pinning/unpin/{}", cid.as_str())).await {
            Ok(()) => Ok(true),
            Err(ThirdPartyError::Status { status: 404, .. }) => Ok(false),
            Err(ThirdPartyError::Status { reason: Some(reason), .. })
                if reason == "CURRENT_USER_HAS_NOT_PINNED_CID" =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether Pinata answers and takes the key.
    ///
    /// # Errors
    /// It does not.
    pub async fn probe(&self) -> Result<(), ThirdPartyError> {
        self.ask(self.api.get("/data/testAuthentication")).await.map(drop)
    }

    async fn remove(&self, path: &str) -> Result<(), ThirdPartyError> {
        // A second attempt would be told that nothing is there.
        self.ask(self.api.request(Method::DELETE, path).no_retry()).await.map(drop)
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Bytes, ThirdPartyError> {
        accepted(self.authorised(request).send().await.map_err(unreached)?, self.setting()).await
    }

    fn is_v3(&self) -> bool {
        matches!(self.credentials, Credentials::Jwt(_))
    }

    fn setting(&self) -> &'static str {
        if self.is_v3() { "PINATA_JWT" } else { "PINATA_API_KEY or PINATA_SECRET_KEY" }
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials {
            Credentials::Jwt(jwt) => {
                request.header("authorization", format!("Bearer {}", jwt.expose_secret()))
            }
            Credentials::Keys { key, secret } => request
                .header("pinata_api_key", key.expose_secret())
                .header("pinata_secret_api_key", secret.expose_secret()),
        }
    }
}

/// The body of an upload: it ends well only behind [`Part::End`].
fn pieces(
    before: Bytes,
    receiver: mpsc::Receiver<Part>,
) -> impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static {
    stream::unfold((Some(before), Some(receiver)), |(before, receiver)| async move {
        if let Some(before) = before {
            return Some((Ok(before), (None, receiver)));
        }
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Part::Piece(piece)) => Some((Ok(piece), (None, Some(receiver)))),
            Some(Part::End) => None,
            None => Some((Err(Cut.into()), (None, None))),
        }
    })
}

fn unreached(cause: HttpError) -> ThirdPartyError {
    ThirdPartyError::Http { upstream: PINATA, cause }
}

fn unusable(why: &'static str) -> ThirdPartyError {
    ThirdPartyError::Answer { upstream: PINATA, why }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ThirdPartyError> {
    serde_json::from_slice(body).map_err(|_| unusable("it is not the JSON that Pinata documents"))
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The body of a good answer, or what a bad one means.
async fn accepted(response: Response, setting: &'static str) -> Result<Bytes, ThirdPartyError> {
    let status = response.status().as_u16();
    if (200..300).contains(&status) {
        return response.bytes(LIMIT).await.map_err(unreached);
    }
    let retry_after = pause(&response);
    // The status tells enough when the body cannot be had.
    let body = response.bytes(ERROR_LIMIT).await.unwrap_or_default();
    let fault = serde_json::from_slice::<Fault>(&body).map(|fault| fault.error).unwrap_or_default();
    // Its words, not its sentences: those may hold anything.
    let is_word = |word: &String| word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let reason = fault.reason.filter(is_word);
    let over_plan =
        reason.as_deref() == Some("ACCOUNT_BLOCKED") || fault.message.is_some_and(|m| m.contains("limit"));
    Err(match status {
        402 => ThirdPartyError::Quota { upstream: PINATA, retry_after: None, passes: false },
        403 if over_plan => ThirdPartyError::Quota { upstream: PINATA, retry_after: None, passes: false },
        401 | 403 => ThirdPartyError::BadKey { upstream: PINATA, setting },
        429 => ThirdPartyError::RateLimited { upstream: PINATA, retry_after },
        503 => ThirdPartyError::Overloaded { upstream: PINATA, retry_after },
        _ => ThirdPartyError::Status { upstream: PINATA, status, reason },
    })
}

/// `Retry-After` in seconds, or the moment in `X-RateLimit-Reset`.
fn pause(response: &Response) -> Option<Duration> {
    let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
    let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
    let reset = || number("x-ratelimit-reset").map(|moment| moment.saturating_sub(now));
    number("retry-after").or_else(reset).map(Duration::from_secs)
}
