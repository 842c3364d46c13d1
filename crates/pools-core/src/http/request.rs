//! Building a request.

use std::{fmt, panic::Location, sync::Arc, time::Duration};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    HttpPool,
    error::HttpError,
    multipart::Form,
    policy::Policy,
    response::Response,
    target::Target,
    upload::{Content, SourceError},
    upstream::{self, Passage},
};
use crate::resilience::{deadline, outgoing};

/// A request being built. Nothing happens before [`send`](Self::send); what was wrong is told there.
#[must_use = "nothing is sent before `send`"]
#[derive(Debug)]
pub struct RequestBuilder(pub(super) Box<Outgoing>);

/// On the heap, since it is handed on from call to call and into the future that sends it.
pub(super) struct Outgoing {
    pub(super) pool: HttpPool,
    pub(super) site: &'static Location<'static>,
    pub(super) method: Method,
    pub(super) target: Result<Target, HttpError>,
    pub(super) headers: HeaderMap,
    pub(super) body: Content,
    pub(super) deadline: Option<Instant>,
    pub(super) wait_timeout: Option<Duration>,
    pub(super) head_timeout: Option<Duration>,
    pub(super) idempotent: Option<bool>,
    pub(super) retry: bool,
    pub(super) decode: bool,
    pub(super) redirects: u32,
    pub(super) upstream: Option<Arc<upstream::Shared>>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold keys.
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl RequestBuilder {
    pub(super) fn new(pool: HttpPool, site: &'static Location<'static>, method: Method, url: &str) -> Self {
        Self(Box::new(Outgoing {
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
            redirects: 0,
            upstream: None,
        }))
    }

    /// Sends it by the rules of an upstream.
    pub(super) fn through(mut self, upstream: Arc<upstream::Shared>) -> Self {
        self.0.upstream = Some(upstream);
        self
    }

    /// Takes over what its upstream allows; what was asked for stays when it is less. Returns the deadline of the whole.
    pub(super) fn limit(&mut self, policy: &Policy, latest: Instant) -> Instant {
        let deadline = self.0.deadline.map_or(latest, |deadline| deadline.min(latest));
        self.0.deadline = Some(deadline);
        self.0.wait_timeout = Some(policy.wait_timeout);
        self.0.head_timeout.get_or_insert(policy.head_timeout);
        deadline
    }

    /// Whether it may be sent a second time.
    pub(super) fn may_go_again(&self) -> bool {
        self.0.retry && self.may_repeat() && self.0.body.is_whole()
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
            Ok((name, value)) => drop(self.0.headers.append(name, value)),
            Err(cause) => self.refuse("header", Arc::new(cause)),
        }
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.0.body = Content::Whole(body.into());
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
        self.0.body = Content::streamed(length, body);
        self
    }

    /// Sets the body and `Content-Type: multipart/form-data`. With a file in it, it is a [`stream`](Self::stream).
    pub fn multipart(mut self, form: Form) -> Self {
        match form.finish() {
            Ok((kind, body)) => {
                self.0.headers.insert(CONTENT_TYPE, kind);
                self.0.body = body;
            }
            Err(cause) => self.refuse("body", Arc::new(cause)),
        }
        self
    }

    /// Sets the body and `Content-Type: application/json`.
    pub fn json(mut self, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => {
                self.0.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                self.0.body = Content::Whole(body.into());
            }
            Err(cause) => self.refuse("body", Arc::new(cause)),
        }
        self
    }

    /// The whole request, its body included, ends by then, or earlier when the incoming request that the task works for
    /// must ([`deadline`]). Without either, only silence ends it (`HTTP_TIMEOUT_MS`), and the wait
    /// for a connection takes no longer than that.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.0.deadline = Some(self.0.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        self
    }

    /// How long the server may take from the end of the upload to the end of the head, however steadily its bytes
    /// trickle in.
    pub fn head_timeout(mut self, head_timeout: Duration) -> Self {
        self.0.head_timeout = Some(head_timeout);
        self
    }

    /// Whether the request may reach the server twice, when its method (`GET`, `PUT`, …) or an `Idempotency-Key`
    /// does not say so: a read-only POST, for instance.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.0.idempotent = Some(idempotent);
        self
    }

    /// Never sends it a second time.
    pub fn no_retry(mut self) -> Self {
        self.0.retry = false;
        self
    }

    /// Asks for no compression, and gives out the body as it comes. Without this, the pool says what it can decode and
    /// decodes it, unless the request has an `Accept-Encoding` or a `Range` of its own.
    pub fn undecoded(mut self) -> Self {
        self.0.decode = false;
        self
    }

    /// Follows up to so many redirects; without this, a redirect is an answer like any other. `301`, `302` and `303` turn a
    /// POST into a GET, `307` and `308` send the same again, for which its body must be all there. To another scheme, host or
    /// port, no header that may hold a credential goes along, and the rules of an upstream do not apply.
    pub fn follow_redirects(mut self, limit: u32) -> Self {
        self.0.redirects = limit;
        self
    }

    /// Whether it does no harm if the server sees it twice.
    fn may_repeat(&self) -> bool {
        let by_key = || self.0.headers.contains_key("idempotency-key");
        self.0.idempotent.unwrap_or_else(|| self.0.method.is_idempotent() || by_key())
    }

    fn refuse(&mut self, what: &'static str, cause: Arc<dyn std::error::Error + Send + Sync>) {
        if self.0.target.is_ok() {
            self.0.target = Err(HttpError::Request { what, cause });
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
        outgoing::begin().await;
        self.0.deadline = deadline::earliest(self.0.deadline);
        if self.0.redirects > 0 { Box::pin(self.follow()).await } else { self.once().await }
    }

    /// Sends it, and follows no redirect.
    pub(super) async fn once(&mut self) -> Result<Response, HttpError> {
        match self.0.upstream.clone() {
            Some(upstream) => upstream.run(self).await,
            None => self.attempt(&mut Passage::default(), 1, Instant::now()).await,
        }
    }
}
