//! One exchange: wait for a connection, send, head; again on a fresh connection when the old one was stale.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
};

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response as Head, Uri, Version,
    header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, RANGE, USER_AGENT},
    uri::{Authority, Parts, Scheme},
};
use futures_util::future::Either;
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::time::Instant;

use super::{
    connection::{Send, Timer},
    error::{At, HttpError, is_stale},
    lease::{Lease, Order},
    multiplex::{self, Broken},
    proxy::Forward,
    request::RequestBuilder,
    response::Response,
    state::Ask,
    target::Target,
    upload::{Progress, Upload},
    upstream::Passage,
};
use crate::stats::CloseReason;

/// How often a request is sent again that a server refuses to look at, before the caller is told.
const MAX_REFUSALS: u32 = 3;

impl RequestBuilder {
    /// Sends it once, and once more when the connection was stale. `first` is the number of the attempt.
    pub(super) async fn attempt(
        &self,
        passage: &mut Passage,
        first: u32,
        mut now: Instant,
    ) -> Result<Response, HttpError> {
        let target = self.0.target.as_ref().map_err(HttpError::clone)?;
        let may_repeat = self.may_go_again() && !passage.has_turn();
        let refused = |cause| HttpError::Request { what: "body", cause: Arc::new(cause) };
        self.0.body.check_if_empty().await.map_err(refused)?;
        let wait = self
            .0
            .wait_timeout
            .map_or(self.0.pool.0.config.timeout, |wait| wait.min(self.0.pool.0.config.timeout));
        let patience = now + wait;
        let patience = self.0.deadline.map_or(patience, |deadline| deadline.min(patience));
        let mut ask = Ask::Any;
        let mut attempt = first;
        let mut refusals = 0;
        loop {
            let order = Order { key: &target.key, ask, attempt, deadline: patience, site: self.0.site };
            let mut lease = self.0.pool.0.acquire(&order, now).await?;
            lease.place = passage.place();
            passage.sent();
            let at = At { host: target.key.shared_name(), attempt, reused: lease.reused };
            match self.exchange(lease, target, at).await {
                Ok(response) => return Ok(response),
                Err(Failed::NotSent) => ask = ask.max(Ask::Again),
                Err(Failed::Stale(_)) if may_repeat && attempt == first && self.0.body.is_whole() => {
                    self.count_stale_retry();
                    ask = Ask::Fresh;
                    attempt += 1;
                }
                // The server says that it has done nothing.
                Err(Failed::Refused(_))
                    if self.0.retry && refusals < MAX_REFUSALS && self.0.body.is_whole() =>
                {
                    refusals += 1;
                    ask = ask.max(Ask::Again);
                    attempt += 1;
                }
                Err(Failed::Stale(error) | Failed::Refused(error) | Failed::Other(error)) => {
                    return Err(error);
                }
            }
            now = Instant::now();
        }
    }

    pub(super) fn count_stale_retry(&self) {
        self.0.pool.0.stale_retries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    async fn exchange(&self, mut lease: Lease, target: &Target, at: At) -> Result<Response, Failed> {
        let reused = lease.reused;
        let conn = lease.conn();
        match conn.send.ready(&mut conn.timer).await {
            Some(Ok(())) => {}
            Some(Err(cause)) => {
                lease.close(CloseReason::Peer);
                let closed = HttpError::Truncated { at, cause: Arc::new(cause) };
                return Err(if reused { Failed::NotSent } else { Failed::Other(closed) });
            }
            None => {
                lease.close(CloseReason::Unfinished);
                return Err(Failed::NotSent);
            }
        }
        let upload = match lease.conn().is_shared() {
            true => Progress::shared(&self.0.body),
            false => Progress::alone(Arc::clone(&lease.conn().wire), &self.0.body),
        };
        let read_before = upload.wire.read();
        let forward = lease.conn().forward.clone();
        let mut sent = pin!(match &mut lease.conn().send {
            Send::Http1(send, _) =>
                Either::Left(send.try_send_request(self.message(target, forward.as_deref()))),
            Send::Http2(send, _) => Either::Right(send.try_send_request(self.multiplexed(target, &upload))),
        });
        lease.begin();
        let began = lease.began();
        let head = match self.head(sent.as_mut(), &mut lease.conn().timer, &upload, &at, began).await {
            Ok(head) => head,
            Err(HeadError::TimedOut(error)) => return Err(Failed::Other(error)),
            Err(HeadError::Hyper(mut error)) => {
                let unsent = error.take_message().is_some();
                let untouched = unsent || upload.wire.read() == read_before;
                let cause = error.into_error();
                if self.0.pool.0.state.lock().is_cut() {
                    return Err(Failed::Other(HttpError::Closed { host: at.host }));
                }
                if let Some(cause) = upload.failure() {
                    lease.close(CloseReason::Unfinished);
                    return Err(Failed::Other(HttpError::Upload { at, cause }));
                }
                if lease.conn().is_shared() {
                    return Err(broken_among_others(lease, at, unsent, cause));
                }
                if reused && untouched && is_stale(&cause) {
                    lease.stale(&target.key);
                    let stale = HttpError::Stale { at, cause: Arc::new(cause) };
                    return Err(if unsent { Failed::NotSent } else { Failed::Stale(stale) });
                }
                lease.close(CloseReason::Broken);
                return Err(Failed::Other(HttpError::broken(at, Arc::new(cause))));
            }
        };
        Response::new(head, lease, at, upload, self.0.deadline, self.decodes()).map_err(Failed::Other)
    }

    /// Whether the pool chooses how the body is encoded. A range counts bytes of one encoding, the server's choice.
    fn decodes(&self) -> bool {
        self.0.decode && !self.0.headers.contains_key(ACCEPT_ENCODING) && !self.0.headers.contains_key(RANGE)
    }

    fn message(&self, target: &Target, forward: Option<&Forward>) -> Request<Upload> {
        let mut message = Request::new(self.0.body.upload());
        *message.method_mut() = self.0.method.clone();
        *message.version_mut() = Version::HTTP_11;
        *message.uri_mut() = match forward {
            None => Uri::from(target.path.clone()),
            Some(_) => whole_uri(target, Scheme::HTTP, None),
        };
        let headers = message.headers_mut();
        *headers = HeaderMap::clone(&target.headers);
        if let Some(credentials) = forward.and_then(|forward| forward.authorization.clone()) {
            headers.insert(PROXY_AUTHORIZATION, credentials);
        }
        if !self.decodes() {
            headers.remove(ACCEPT_ENCODING);
        }
        if self.0.body.is_nothing() && [Method::POST, Method::PUT, Method::PATCH].contains(&self.0.method) {
            // hyper leaves it out, and some servers answer 411 then.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        for (name, value) in &self.0.headers {
            if *name == HOST || *name == USER_AGENT {
                headers.insert(name, value.clone());
            } else {
                headers.append(name, value.clone());
            }
        }
        message
    }

    /// The same in HTTP/2's form, where the host is no header.
    fn multiplexed(&self, target: &Target, upload: &Progress) -> Request<Upload> {
        let mut message = self.message(target, None);
        message.body_mut().told_to(Arc::clone(&upload.wire));
        *message.version_mut() = Version::HTTP_2;
        let host = message.headers_mut().remove(HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        *message.uri_mut() = whole_uri(target, Scheme::HTTPS, authority);
        message
    }

    /// Waits for the head, as long as the three limits allow.
    async fn head<F>(
        &self,
        mut sent: Pin<&mut F>,
        timer: &mut Timer,
        upload: &Progress,
        at: &At,
        began: Instant,
    ) -> Result<Head<Incoming>, HeadError>
    where
        F: Future<Output = Result<Head<Incoming>, TrySendError<Request<Upload>>>>,
    {
        let silence = self.0.pool.0.config.timeout;
        let mut next = began + self.0.head_timeout.map_or(silence, |limit| limit.min(silence));
        next = self.0.deadline.map_or(next, |deadline| deadline.min(next));
        poll_fn(|cx| {
            if let Poll::Ready(answered) = sent.as_mut().poll(cx) {
                return Poll::Ready(answered.map_err(|error| HeadError::Hyper(Box::new(error))));
            }
            loop {
                ready!(timer.poll(cx, next));
                next = match self.head_is_due(upload, at, began) {
                    Ok(due) => due,
                    Err(late) => return Poll::Ready(Err(HeadError::TimedOut(late))),
                };
            }
        })
        .await
    }

    /// By when it must have come, if it is not late already.
    fn head_is_due(&self, upload: &Progress, at: &At, began: Instant) -> Result<Instant, HttpError> {
        let now = Instant::now();
        // While an upload moves, the head is not late.
        let moved_at = upload.wire.moved_at().max(began);
        let asked_at = if upload.is_done() { upload.wire.written_at().max(began) } else { now };
        let head_ends = self.0.head_timeout.map(|limit| asked_at + limit);
        let silence_ends = moved_at + self.0.pool.0.config.timeout;
        let ends = head_ends.map_or(silence_ends, |head_ends| head_ends.min(silence_ends));
        match self.0.deadline {
            Some(deadline) if deadline <= now => Err(HttpError::Deadline { at: at.clone(), phase: "head" }),
            _ if ends <= now => Err(HttpError::Head { at: at.clone(), after: now - began }),
            deadline => Ok(deadline.map_or(ends, |deadline| deadline.min(ends))),
        }
    }
}

fn whole_uri(target: &Target, scheme: Scheme, authority: Option<Authority>) -> Uri {
    let mut uri = Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = authority.or_else(|| Authority::try_from(target.key.name()).ok());
    uri.path_and_query = Some(target.path.clone());
    Uri::from_parts(uri).expect("BUG: the parts of a URL that was parsed")
}

/// What a failed request means on a connection that others use as well.
fn broken_among_others(lease: Lease, at: At, unsent: bool, cause: hyper::Error) -> Failed {
    let reused = lease.reused;
    let cause = Arc::new(cause);
    match multiplex::broken(&cause) {
        Broken::Refused => Failed::Refused(HttpError::Refused { at, cause }),
        Broken::GoneAway => {
            lease.retire(CloseReason::NotReusable);
            Failed::Refused(HttpError::Refused { at, cause })
        }
        Broken::Stream => Failed::Other(HttpError::Reset { at, cause }),
        Broken::Connection => {
            lease.retire(CloseReason::Broken);
            match reused {
                true if unsent => Failed::NotSent,
                true => Failed::Stale(HttpError::Stale { at, cause }),
                false => Failed::Other(HttpError::broken(at, cause)),
            }
        }
    }
}

/// Why an exchange failed, as the retry sees it.
enum Failed {
    /// The server cannot have seen it, and the connection was not new.
    NotSent,
    /// The server closed an idle connection meanwhile; it may have seen the request.
    Stale(HttpError),
    /// The server has seen it and not looked at it.
    Refused(HttpError),
    Other(HttpError),
}

enum HeadError {
    TimedOut(HttpError),
    Hyper(Box<TrySendError<Request<Upload>>>),
}
