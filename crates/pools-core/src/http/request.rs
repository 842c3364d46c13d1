//! Building a request, and sending it: wait, send, head; again on a fresh connection when the old one was stale.

use std::{
    panic::Location,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response as Head, Uri, Version,
    header::{
        ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RANGE, TRANSFER_ENCODING, USER_AGENT,
    },
};
use bytes::Bytes;
use futures_util::Stream;
use hyper::{body::Incoming, client::conn::TrySendError};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    HttpPool,
    decoding::ACCEPTED,
    error::{At, HttpError, is_stale},
    lease::{Lease, Order},
    multipart::Form,
    policy::Policy,
    response::Response,
    state::Ask,
    target::Target,
    upload::{Content, Progress, SourceError, Upload},
    upstream::{self, Passage},
};
use crate::{resilience::deadline, stats::CloseReason};

/// Some servers refuse requests without one.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pools-core/", env!("CARGO_PKG_VERSION")));

/// A request being built. Nothing happens before [`send`](Self::send); what was wrong is told there.
#[must_use = "nothing is sent before `send`"]
#[derive(Debug)]
pub struct RequestBuilder {
    pool: HttpPool,
    site: &'static Location<'static>,
    method: Method,
    target: Result<Target, HttpError>,
    headers: HeaderMap,
    body: Content,
    deadline: Option<Instant>,
    wait_timeout: Option<Duration>,
    head_timeout: Option<Duration>,
    idempotent: Option<bool>,
    retry: bool,
    decode: bool,
    upstream: Option<Arc<upstream::Shared>>,
}

impl RequestBuilder {
    pub(super) fn new(pool: HttpPool, site: &'static Location<'static>, method: Method, url: &str) -> Self {
        Self {
            pool,
            site,
            method,
            target: Target::parse(url),
            headers: HeaderMap::new(),
            body: Content::Whole(Bytes::new()),
            deadline: None,
            wait_timeout: None,
            head_timeout: None,
            idempotent: None,
            retry: true,
            decode: true,
            upstream: None,
        }
    }

    /// Sends it by the rules of an upstream.
    pub(super) fn through(self, upstream: Arc<upstream::Shared>) -> Self {
        Self { upstream: Some(upstream), ..self }
    }

    /// Takes over what its upstream allows; what was asked for stays when it is less. Returns the deadline of the whole.
    pub(super) fn limit(&mut self, policy: &Policy, latest: Instant) -> Instant {
        let deadline = self.deadline.map_or(latest, |deadline| deadline.min(latest));
        self.deadline = Some(deadline);
        self.wait_timeout = Some(policy.wait_timeout);
        self.head_timeout.get_or_insert(policy.head_timeout);
        deadline
    }

    /// Whether it may be sent a second time.
    pub(super) fn may_go_again(&self) -> bool {
        self.retry && self.may_repeat() && self.body.is_whole()
    }

    /// Adds a header. What frames the message or concerns the connection only (`Content-Length`, `Transfer-Encoding`,
    /// `Connection`) is the pool's business and not sent.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<::http::Error>>,
        V: TryInto<HeaderValue, Error: Into<::http::Error>>,
    {
        let name = name.try_into().map_err(Into::into);
        match name.and_then(|name| Ok((name, value.try_into().map_err(Into::into)?))) {
            Ok((name, _)) if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&name) => {}
            Ok((name, value)) => drop(self.headers.append(name, value)),
            Err(cause) => self.refuse("header", Arc::new(cause)),
        }
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Content::Whole(body.into());
        self
    }

    /// Sets a body that is read while it is sent: `length` bytes exactly, one item of the stream in memory at a time.
    /// Once an item was taken, the request is never sent again, idempotent or not.
    ///
    /// The answer can be streamed as well: [`Response`] is a `Stream`.
    pub fn stream(
        mut self,
        length: u64,
        body: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static,
    ) -> Self {
        self.body = Content::streamed(length, body);
        self
    }

    /// Sets the body and `Content-Type: multipart/form-data`. With a file in it, it is a [`stream`](Self::stream).
    pub fn multipart(mut self, form: Form) -> Self {
        match form.finish() {
            Ok((kind, body)) => {
                self.headers.insert(CONTENT_TYPE, kind);
                self.body = body;
            }
            Err(cause) => self.refuse("body", Arc::new(cause)),
        }
        self
    }

    /// Sets the body and `Content-Type: application/json`.
    pub fn json(mut self, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => {
                self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                self.body = Content::Whole(body.into());
            }
            Err(cause) => self.refuse("body", Arc::new(cause)),
        }
        self
    }

    /// The whole request, its body included, ends by then, or earlier when the incoming request that the task works for
    /// must ([`deadline`]). Without either, only silence ends it (`HTTP_TIMEOUT_MS`), and the wait
    /// for a connection takes no longer than that.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        self
    }

    /// How long the server may take from the end of the upload to the end of the head, however steadily its bytes
    /// trickle in.
    pub fn head_timeout(mut self, head_timeout: Duration) -> Self {
        self.head_timeout = Some(head_timeout);
        self
    }

    /// Whether the request may reach the server twice, when its method (`GET`, `PUT`, …) or an `Idempotency-Key`
    /// does not say so: a read-only POST, for instance.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// Never sends it a second time.
    pub fn no_retry(mut self) -> Self {
        self.retry = false;
        self
    }

    /// Asks for no compression, and gives out the body as it comes. Without this, the pool says what it can decode and
    /// decodes it, unless the request has an `Accept-Encoding` or a `Range` of its own.
    pub fn undecoded(mut self) -> Self {
        self.decode = false;
        self
    }

    fn refuse(&mut self, what: &'static str, cause: Arc<dyn std::error::Error + Send + Sync>) {
        if self.target.is_ok() {
            self.target = Err(HttpError::Request { what, cause });
        }
    }

    /// Sends it, by the rules of its [`Upstream`](super::Upstream) if it came from one, and waits for the head of the answer.
    ///
    /// # Errors
    /// [`HttpError`], one variant per phase. An answer with status 4xx or 5xx is not an error.
    ///
    /// # Cancel safety
    /// Dropped while waiting, the caller leaves the queue. Dropped after the request was sent, its connection is
    /// closed and its place is free.
    pub async fn send(mut self) -> Result<Response, HttpError> {
        self.deadline = deadline::earliest(self.deadline);
        match self.upstream.clone() {
            Some(upstream) => upstream.run(self).await,
            None => self.attempt(&mut Passage::default(), 1).await,
        }
    }

    /// Sends it once, and once more when the connection was stale. `first` is the number of the attempt.
    pub(super) async fn attempt(&self, passage: &mut Passage, first: u32) -> Result<Response, HttpError> {
        let target = self.target.clone()?;
        let may_repeat = self.may_go_again() && !passage.has_turn();
        let refused = |cause| HttpError::Request { what: "body", cause: Arc::new(cause) };
        self.body.check_if_empty().await.map_err(refused)?;
        let wait =
            self.wait_timeout.map_or(self.pool.0.config.timeout, |wait| wait.min(self.pool.0.config.timeout));
        let patience = Instant::now() + wait;
        let patience = self.deadline.map_or(patience, |deadline| deadline.min(patience));
        let mut ask = Ask::Any;
        let mut attempt = first;
        loop {
            let order = Order { key: &target.key, ask, attempt, deadline: patience, site: self.site };
            let mut lease = self.pool.0.acquire(&order).await?;
            lease.place = passage.place();
            passage.sent();
            let at = At { host: target.key.shared_name(), attempt, reused: lease.reused };
            match self.exchange(lease, &target, &at).await {
                Ok(response) => return Ok(response),
                Err(Failed::NotSent) => ask = ask.max(Ask::Again),
                Err(Failed::Stale(_)) if may_repeat && attempt == first && self.body.is_whole() => {
                    self.count_stale_retry();
                    ask = Ask::Fresh;
                    attempt += 1;
                }
                Err(Failed::Stale(error) | Failed::Other(error)) => return Err(error),
            }
        }
    }

    pub(super) fn count_stale_retry(&self) {
        self.pool.0.stale_retries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Whether it does no harm if the server sees it twice.
    fn may_repeat(&self) -> bool {
        let by_key = || self.headers.contains_key("idempotency-key");
        self.idempotent.unwrap_or_else(|| self.method.is_idempotent() || by_key())
    }

    async fn exchange(&self, mut lease: Lease, target: &Target, at: &At) -> Result<Response, Failed> {
        let reused = lease.reused;
        // The last exchange may be complete for its caller a moment before hyper is ready for the next.
        if let Err(cause) = lease.conn().send.ready().await {
            lease.close(CloseReason::Peer);
            let closed = HttpError::Truncated { at: at.clone(), cause: Arc::new(cause) };
            return Err(if reused { Failed::NotSent } else { Failed::Other(closed) });
        }
        let wire = Arc::clone(&lease.conn().wire);
        let (read_before, written_before) = (wire.read(), wire.written());
        let mut sent = pin!(lease.conn().send.try_send_request(self.message(target)));
        lease.begin();
        let upload = Progress::new(wire, written_before, &self.body);
        let head = match self.head(sent.as_mut(), &upload, at).await {
            Ok(head) => head,
            Err(HeadError::TimedOut(error)) => return Err(Failed::Other(error)),
            Err(HeadError::Hyper(mut error)) => {
                let unsent = error.take_message().is_some();
                let untouched = unsent || upload.wire.read() == read_before;
                let cause = error.into_error();
                if self.pool.0.state.lock().is_cut() {
                    return Err(Failed::Other(HttpError::Closed { host: Arc::clone(&at.host) }));
                }
                if let Some(cause) = upload.failure() {
                    lease.close(CloseReason::Unfinished);
                    return Err(Failed::Other(HttpError::Upload { at: at.clone(), cause }));
                }
                if reused && untouched && is_stale(&cause) {
                    lease.stale(&target.key);
                    let stale = HttpError::Stale { at: at.clone(), cause: Arc::new(cause) };
                    return Err(if unsent { Failed::NotSent } else { Failed::Stale(stale) });
                }
                lease.close(CloseReason::Broken);
                return Err(Failed::Other(HttpError::broken(at.clone(), cause)));
            }
        };
        Response::new(head, lease, at.clone(), upload, self.deadline, self.decodes()).map_err(Failed::Other)
    }

    /// Whether the pool chooses how the body is encoded. A range counts bytes of one encoding, the server's choice.
    fn decodes(&self) -> bool {
        self.decode && !self.headers.contains_key(ACCEPT_ENCODING) && !self.headers.contains_key(RANGE)
    }

    fn message(&self, target: &Target) -> Request<Upload> {
        let mut message = Request::new(self.body.upload());
        *message.method_mut() = self.method.clone();
        *message.version_mut() = Version::HTTP_11;
        *message.uri_mut() = Uri::from(target.path.clone());
        let headers = message.headers_mut();
        headers.reserve(self.headers.len() + 4);
        headers.insert(HOST, target.host_header.clone());
        headers.insert(USER_AGENT, AGENT);
        if self.decodes() {
            headers.insert(ACCEPT_ENCODING, ACCEPTED);
        }
        if self.body.is_nothing() && [Method::POST, Method::PUT, Method::PATCH].contains(&self.method) {
            // hyper leaves it out, and some servers answer 411 then.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        for (name, value) in &self.headers {
            if *name == HOST || *name == USER_AGENT {
                headers.insert(name, value.clone());
            } else {
                headers.append(name, value.clone());
            }
        }
        message
    }

    /// Waits for the head, as long as the three limits allow.
    async fn head<F>(
        &self,
        mut sent: Pin<&mut F>,
        upload: &Progress,
        at: &At,
    ) -> Result<Head<Incoming>, HeadError>
    where
        F: Future<Output = Result<Head<Incoming>, TrySendError<Request<Upload>>>>,
    {
        let silence = self.pool.0.config.timeout;
        let began = Instant::now();
        let mut next = began + self.head_timeout.map_or(silence, |limit| limit.min(silence));
        next = self.deadline.map_or(next, |deadline| deadline.min(next));
        let mut timer = pin!(sleep_until(next));
        loop {
            tokio::select! {
                biased;
                answered = sent.as_mut() => return answered.map_err(|error| HeadError::Hyper(Box::new(error))),
                () = timer.as_mut() => {}
            }
            let now = Instant::now();
            // While an upload moves, the head is not late.
            let moved_at = upload.wire.moved_at().max(began);
            let asked_at = if upload.is_done() { upload.wire.written_at().max(began) } else { now };
            let head_ends = self.head_timeout.map(|limit| asked_at + limit);
            let ends = [Some(moved_at + silence), head_ends].into_iter().flatten().min().unwrap_or(now);
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                return Err(HeadError::TimedOut(HttpError::Deadline { at: at.clone(), phase: "head" }));
            }
            if ends <= now {
                return Err(HeadError::TimedOut(HttpError::Head { at: at.clone(), after: now - began }));
            }
            timer.as_mut().reset(self.deadline.map_or(ends, |deadline| deadline.min(ends)));
        }
    }
}

/// Why an exchange failed, as the retry sees it.
enum Failed {
    /// The server cannot have seen it, and the connection was not new.
    NotSent,
    /// The server closed an idle connection meanwhile; it may have seen the request.
    Stale(HttpError),
    Other(HttpError),
}

enum HeadError {
    TimedOut(HttpError),
    Hyper(Box<TrySendError<Request<Upload>>>),
}
