//! The two layers around every route.

use std::panic::AssertUnwindSafe;

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{Method, header},
    middleware::Next,
    web,
};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::{Problem, ops::Ops};
use crate::{
    shutdown::{Phase, RequestGuard},
    telemetry::{self, RequestId},
};

#[cfg(test)]
mod tests;

/// Header that carries the request id both ways.
const REQUEST_ID: &str = "x-request-id";

/// Gives the request its id, its span and its place in the counters; logs and counts the answer.
pub(super) async fn trace(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let ops = request.app_data::<web::Data<Ops>>().expect("BUG: serve adds Ops").clone();
    let guard = ops.lifecycle.request();
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = given.and_then(RequestId::parse).unwrap_or_else(RequestId::random);
    let method = method_label(request.method());
    let route = request.match_pattern();
    let span = tracing::info_span!(
        "request", request_id = %id, method = %request.method(), path = request.path()
    );
    // Asked every few seconds by machines: their lines would bury everybody else's.
    let is_probe = request.path().starts_with("/health") || request.path() == "/metrics";
    let started = Instant::now();
    let work = telemetry::with_request_id(id.clone(), problems(request, next));
    let (request, mut response) = work.instrument(span.clone()).await;

    let took = started.elapsed();
    let status = response.status().as_u16();
    ops.requests.answered(route.as_deref().unwrap_or("unmatched"), method, status, took);
    let took_ms = took.as_secs_f64() * 1_000.0;
    span.in_scope(|| match is_probe {
        true => tracing::debug!(status, took_ms, "answered"),
        false => tracing::info!(status, took_ms, "answered"),
    });

    let headers = response.headers_mut();
    if let Ok(value) = header::HeaderValue::from_str(&id.to_string()) {
        headers.insert(header::HeaderName::from_static(REQUEST_ID), value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, header::HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, header::HeaderValue::from_static("no-referrer"));
    if ops.lifecycle.phase() == Phase::Draining {
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    let response = response.map_body(|_, body| BoxBody::new(Counted { body, _guard: guard }));
    match request {
        Some(request) => Ok(ServiceResponse::new(request, response)),
        None => Err(InternalError::from_response("the request is gone", response).into()),
    }
}

/// Turns every error answer into problem+json, whoever made it, and a panic into a 500. The request does not
/// come back from a panic, nor from an error that was no answer; and no copy of it may be kept meanwhile, since
/// actix routes only what it owns alone.
async fn problems(request: ServiceRequest, next: Next<BoxBody>) -> (Option<HttpRequest>, HttpResponse) {
    let path = request.path().to_owned();
    let result = AssertUnwindSafe(next.call(request)).catch_unwind().await;
    match result {
        Ok(Ok(response)) => {
            let (request, response) = response.into_parts();
            (Some(request), problem_of(response, &path))
        }
        Ok(Err(error)) => {
            let problem = error.as_error::<Problem>().cloned();
            let status = error.as_response_error().status_code();
            (None, problem.unwrap_or_else(|| Problem::from_status(status)).response(&path))
        }
        Err(_) => {
            tracing::error!("a handler panicked");
            (None, Problem::internal().response(&path))
        }
    }
}

/// Keeps the headers of a bare error answer, such as `Allow`, and gives it a body.
fn problem_of(response: HttpResponse, path: &str) -> HttpResponse {
    let problem = response.error().and_then(|error| error.as_error::<Problem>()).cloned();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"));
    if response.status().as_u16() < 400 || (problem.is_none() && is_problem) {
        return response;
    }
    let mut full = problem.unwrap_or_else(|| Problem::from_status(response.status())).response(path);
    for (name, value) in response.headers() {
        if !full.headers().contains_key(name) {
            full.headers_mut().append(name.clone(), value.clone());
        }
    }
    full
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
