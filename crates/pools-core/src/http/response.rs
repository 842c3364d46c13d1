//! An answer whose body may still be coming. The connection is free when the body has ended.
//!
//! Dropped early, a small rest is read in the background so that the connection can be used again: at most
//! [`DRAIN_BYTES`] within [`DRAIN_TIME`]. A big or slow rest closes the connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{HeaderMap, Response as Head, StatusCode, Version, response::Parts};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use hyper::body::{Body, Frame, Incoming};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{
    connection::Send,
    decoding::Decoder,
    error::{At, HttpError},
    head::Said,
    lease::Lease,
    upload::Progress,
};
use crate::stats::CloseReason;

/// A rest that costs less to read than a new connection to open; Go's transport takes 256 kB, a window of TCP is 64 kB.
const DRAIN_BYTES: u64 = 64 * 1024;
/// A slow rest would block its place for longer than a new connection takes.
const DRAIN_TIME: Duration = Duration::from_millis(50);

/// An answer. Its body is read whole ([`bytes`](Self::bytes), [`json`](Self::json)) or piece by piece: by
/// [`chunk`](Self::chunk), or as a `futures` `Stream` of `Result<Bytes, HttpError>`, which is what a service that passes an
/// answer on hands to its own framework. A reader that stops reading stops the server: nothing is collected.
///
/// # Cancel safety
/// Dropped before its body has ended, a small rest is read in the background, else the connection is closed. Its
/// place is free in either case.
#[derive(Debug)]
pub struct Response(Box<Answer>);

/// On the heap, since it is handed on through several futures, each of which would have a copy of its own.
#[derive(Debug)]
struct Answer {
    head: Parts,
    trailers: Option<HeaderMap>,
    at: At,
    deadline: Option<Instant>,
    silence: Duration,
    /// By when the next piece must come, while somebody waits for it.
    late: Option<Instant>,
    /// Gone when the body has ended or failed.
    coming: Option<Coming>,
    decoder: Option<Decoder>,
}

/// A body that has not ended, and the connection that brings it.
#[derive(Debug)]
struct Coming {
    body: Incoming,
    lease: Lease,
    upload: Progress,
    reusable: bool,
}

impl Coming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Send::Http1(_, driver) = &self.lease.conn_ref().send else {
            return Pin::new(&mut self.body).poll_frame(cx);
        };
        let (polled, woken) = driver.hush(|| Pin::new(&mut self.body).poll_frame(cx));
        // To send the next piece, if there is one.
        if woken && !self.body.is_end_stream() {
            driver.poll_again();
        }
        polled
    }

    /// The body has ended.
    fn finish(self) {
        if !self.reusable {
            self.lease.close(CloseReason::NotReusable);
        } else if self.upload.is_done() {
            self.lease.finish();
        } else {
            // The server answered without reading all of it: the next request would queue behind the rest.
            self.lease.retire(CloseReason::Unfinished);
        }
    }

    /// Nobody wants the rest.
    fn abandon(self) {
        let pool = Arc::clone(self.lease.pool());
        if let Some(worth_reading) = self.if_small() {
            pool.spawn("http drain", worth_reading.drain());
        }
    }

    /// Closes the connection if the rest is not worth reading.
    fn if_small(self) -> Option<Self> {
        if !self.upload.is_done() {
            self.lease.retire(CloseReason::Unfinished);
            return None;
        }
        // Of a shared connection, only this answer is cut short.
        let large = self.body.size_hint().lower() > DRAIN_BYTES || self.lease.conn_ref().is_shared();
        if !self.reusable || large {
            self.lease.close(CloseReason::Unfinished);
            return None;
        }
        Some(self)
    }

    async fn drain(mut self) {
        // Cut short, the lease is dropped in the middle of its exchange, which closes the connection.
        if timeout(DRAIN_TIME, self.is_soon_over()).await == Ok(true) {
            self.finish();
        }
    }

    /// Whether the end is reached within the limit.
    async fn is_soon_over(&mut self) -> bool {
        let mut bytes = 0;
        loop {
            match std::future::poll_fn(|cx| self.poll_frame(cx)).await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len) as u64,
            }
            if bytes > DRAIN_BYTES {
                return false;
            }
        }
    }
}

impl Response {
    pub(super) fn new(
        head: Head<Incoming>,
        mut lease: Lease,
        at: At,
        upload: Progress,
        deadline: Option<Instant>,
        decode: bool,
    ) -> Result<Self, HttpError> {
        let (mut head, body) = head.into_parts();
        let says = Said::by(&head.headers);
        if says.length && says.transfer_encoding {
            // Two readers would see two different bodies: request smuggling's twin.
            lease.close(CloseReason::Broken);
            let why = "both Content-Length and Transfer-Encoding";
            return Err(HttpError::Protocol { at, why, cause: None });
        }
        // Without either, only the end of the connection ends the body.
        let has_end = says.transfer_encoding || body.size_hint().exact().is_some();
        let reusable = head.version == Version::HTTP_2 || (has_end && says.keeps_alive(&head));
        let conn = lease.conn();
        conn.hint = says.hint.or(conn.hint);
        let silence = lease.pool().config.timeout;
        let coming = Some(Coming { body, lease, upload, reusable });
        let decoder = if decode && says.encoding { Decoder::of(&mut head.headers) } else { None };
        let answer = Answer { head, trailers: None, at, deadline, silence, late: None, coming, decoder };
        let mut answer = Box::new(answer);
        answer.end_if_complete();
        Ok(Self(answer))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.head.status
    }

    /// The version of HTTP that it came in.
    pub fn version(&self) -> Version {
        self.0.head.version
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.head.headers
    }

    /// What came behind the last chunk; nothing before the body has been read to its end.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.trailers.as_ref()
    }

    /// Where it came from, and over what kind of connection.
    pub fn at(&self) -> &At {
        &self.0.at
    }

    /// The next piece of the body, decoded; `None` after the last.
    ///
    /// # Errors
    /// The body stalls, breaks off, cannot be decoded, or the deadline passes. The connection is closed then.
    ///
    /// # Cancel safety
    /// Nothing that came is lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        std::future::poll_fn(|cx| self.0.poll_chunk(cx)).await
    }

    /// The whole body, decoded, if it is not longer than `limit`.
    ///
    /// # Errors
    /// [`HttpError::TooLarge`] as soon as that is known, and those of [`chunk`](Self::chunk).
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, HttpError> {
        let coming = self.0.coming.as_ref().filter(|_| self.0.decoder.is_none());
        let announced = coming.map_or(0, |coming| coming.body.size_hint().lower());
        if announced > limit as u64 {
            return Err(self.0.too_large(limit));
        }
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else {
            return if first.len() > limit { Err(self.0.too_large(limit)) } else { Ok(first) };
        };
        let mut all = BytesMut::with_capacity(first.len() + second.len());
        all.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if all.len() + chunk.len() > limit {
                return Err(self.0.too_large(limit));
            }
            all.extend_from_slice(&chunk);
            next = self.chunk().await?;
        }
        Ok(all.freeze())
    }

    /// The whole body as JSON, if it is not longer than `limit`.
    ///
    /// # Errors
    /// [`HttpError::Json`], and those of [`bytes`](Self::bytes).
    pub async fn json<T: DeserializeOwned>(self, limit: usize) -> Result<T, HttpError> {
        let at = self.0.at.clone();
        let body = self.bytes(limit).await?;
        serde_json::from_slice(&body).map_err(|cause| HttpError::Json { at, cause: Arc::new(cause) })
    }

    /// Frees the connection before the caller goes on, where dropping would do it in the background.
    pub(super) async fn discard(mut self) {
        if let Some(small) = self.0.coming.take().and_then(Coming::if_small) {
            small.drain().await;
        }
    }
}

impl Answer {
    fn too_large(&self, limit: usize) -> HttpError {
        HttpError::TooLarge { at: self.at.clone(), limit }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, HttpError>> {
        loop {
            match self.decoder.as_mut().map_or(Ok(None), Decoder::next) {
                Ok(Some(decoded)) => return Poll::Ready(Ok(Some(decoded))),
                Ok(None) => {}
                Err(cause) => return Poll::Ready(Err(self.undecodable(cause))),
            }
            let piece = ready!(self.poll_wire(cx))?;
            match (&mut self.decoder, piece) {
                (Some(decoder), Some(piece)) => decoder.push(piece),
                (Some(decoder), None) => {
                    let complete = decoder.finish();
                    return Poll::Ready(complete.map(|()| None).map_err(|cause| self.undecodable(cause)));
                }
                (None, piece) => return Poll::Ready(Ok(piece)),
            }
        }
    }

    fn undecodable(&mut self, cause: std::io::Error) -> HttpError {
        let coding = self.decoder.take().map_or("", |decoder| decoder.coding());
        let error = HttpError::Encoding { at: self.at.clone(), coding, cause: Arc::new(cause) };
        self.fail(CloseReason::Unfinished, error)
    }

    /// The next piece as it came over the wire.
    fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, HttpError>> {
        while let Some(coming) = &mut self.coming {
            let Poll::Ready(frame) = coming.poll_frame(cx) else {
                let late = ready!(self.poll_late(cx));
                return Poll::Ready(Err(self.fail(CloseReason::Unfinished, late)));
            };
            self.late = None;
            match frame {
                None => self.coming.take().into_iter().for_each(Coming::finish),
                Some(Ok(frame)) => {
                    self.end_if_complete();
                    match frame.into_data() {
                        Ok(data) => return Poll::Ready(Ok(Some(data))),
                        Err(frame) => self.trailers = Frame::into_trailers(frame).ok(),
                    }
                }
                Some(Err(cause)) => {
                    let at = self.at.clone();
                    let error = match coming.upload.failure() {
                        _ if coming.lease.pool().state.lock().is_cut() => HttpError::Closed { host: at.host },
                        Some(cause) => HttpError::Upload { at, cause },
                        None => HttpError::broken(at, Arc::new(cause)),
                    };
                    return Poll::Ready(Err(self.fail(CloseReason::Broken, error)));
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Ready when the next piece is too late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<HttpError> {
        let Some(coming) = &mut self.coming else { return Poll::Pending };
        let late = *self.late.get_or_insert_with(|| {
            let idle = Instant::now() + self.silence;
            self.deadline.map_or(idle, |deadline| deadline.min(idle))
        });
        ready!(coming.lease.conn().timer.poll(cx, late));
        let at = self.at.clone();
        Poll::Ready(match self.deadline {
            Some(deadline) if deadline <= Instant::now() => HttpError::Deadline { at, phase: "body" },
            _ => HttpError::BodyIdle { at, after: self.silence },
        })
    }

    fn fail(&mut self, reason: CloseReason, error: HttpError) -> HttpError {
        if let Some(coming) = self.coming.take() {
            coming.lease.close(reason);
        }
        error
    }

    /// With a known length, the end is known with the last byte: no need to ask for one more piece.
    fn end_if_complete(&mut self) {
        if let Some(coming) = self.coming.take_if(|coming| coming.body.is_end_stream()) {
            coming.finish();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(coming) = self.coming.take() {
            coming.abandon();
        }
    }
}

impl Stream for Response {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_chunk(cx).map(Result::transpose)
    }
}
