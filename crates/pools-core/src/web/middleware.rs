//! The layer around every route: ids, access log, counters, headers. Between it and the routes stands `guard.rs`.

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{Method, header},
    middleware::Next,
    web,
};
use tokio::time::Instant;
use tracing::Instrument;

use super::{address, cors, guard, ops::Ops};
use crate::{
    shutdown::{Phase, RequestGuard},
    telemetry::{self, RequestId},
};

#[cfg(test)]
mod tests;

/// Header that carries the request id both ways.
const REQUEST_ID: &str = "x-request-id";

/// Gives the request its id, its span and its place in the counters; logs and counts the answer, and gives it the
/// headers that every answer has.
pub(super) async fn trace(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let ops = request.app_data::<web::Data<Ops>>().expect("BUG: serve adds Ops").clone();
    let guard = ops.lifecycle.request();
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = given.and_then(RequestId::parse).unwrap_or_else(RequestId::random);
    let peer = request.peer_addr().map(|peer| peer.ip());
    let client = address::client(peer, request.headers(), &ops.config.trusted_proxies);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let span = tracing::info_span!(
        "request", request_id = %id, method = %request.method(), path = request.path(),
        client = client.map(tracing::field::display)
    );
    let line = Line {
        ops: &ops,
        span: span.clone(),
        route: request.match_pattern(),
        method: method_label(request.method()),
        // Asked every few seconds by machines: their lines would bury everybody else's.
        is_probe: request.path().starts_with("/health") || request.path() == "/metrics",
        started: Instant::now(),
        status: GONE,
    };
    let work = telemetry::with_request_id(id.clone(), guard::answer(&ops, client, request, next));
    let (request, mut response) = work.instrument(span).await;
    line.answered(response.status().as_u16());

    let headers = response.headers_mut();
    if let Ok(value) = header::HeaderValue::from_str(&id.to_string()) {
        headers.insert(header::HeaderName::from_static(REQUEST_ID), value);
    }
    for (name, value) in SECURITY {
        // A page knows better what it needs.
        if !headers.contains_key(&name) {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
    }
    cors::tell(origin.as_ref(), &ops.config.cors_origins, headers);
    if ops.lifecycle.phase() == Phase::Draining {
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    let response = response.map_body(|_, body| BoxBody::new(Counted { body, _guard: guard }));
    match request {
        Some(request) => Ok(ServiceResponse::new(request, response)),
        None => Err(InternalError::from_response("the request is gone", response).into()),
    }
}

/// Answers are data for programs: no browser has a reason to sniff, frame, run or load anything in them.
const SECURITY: [(header::HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    // Ignored on plain HTTP, as it must be; behind TLS it keeps a browser from ever going back.
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The status in logs and counters of a request whose client went away: nginx's number.
const GONE: u16 = 499;

/// The line of a request in the access log, and its place in the counters. Dropped before there was an answer, it tells that the
/// client went away.
struct Line<'a> {
    ops: &'a Ops,
    span: tracing::Span,
    route: Option<String>,
    method: &'static str,
    is_probe: bool,
    started: Instant,
    status: u16,
}

impl Line<'_> {
    fn answered(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let (status, took) = (self.status, self.started.elapsed());
        self.ops.requests.answered(self.route.as_deref().unwrap_or("unmatched"), self.method, status, took);
        let took_ms = took.as_secs_f64() * 1_000.0;
        let word = if status == GONE { "the client went away" } else { "answered" };
        self.span.in_scope(|| match self.is_probe {
            true => tracing::debug!(status, took_ms, "{word}"),
            false => tracing::info!(status, took_ms, "{word}"),
        });
    }
}

/// A method of our routes, or `other`: a caller may invent methods, and each would be a time series.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A body whose request counts until its last byte.
struct Counted {
    body: BoxBody,
    _guard: RequestGuard,
}

impl MessageBody for Counted {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<web::Bytes, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_next(context)
    }
}
