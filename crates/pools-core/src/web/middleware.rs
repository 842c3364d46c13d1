//! The two layers around every route.

use std::panic::AssertUnwindSafe;

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
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
    let span = tracing::info_span!(
        "request", request_id = %id, method = %request.method(), path = request.path()
    );
    let started = Instant::now();
    let work = telemetry::with_request_id(id.clone(), problems(request, next));
    let mut response = work.instrument(span.clone()).await;

    let took = started.elapsed();
    let status = response.status().as_u16();
    let route = response.request().match_pattern().unwrap_or_else(|| "unmatched".to_owned());
    ops.requests.answered(&route, method_label(response.request().method()), status, took);
    span.in_scope(|| tracing::info!(status, took_ms = took.as_secs_f64() * 1_000.0, "answered"));

    let headers = response.headers_mut();
    if let Ok(value) = header::HeaderValue::from_str(&id.to_string()) {
        headers.insert(header::HeaderName::from_static(REQUEST_ID), value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, header::HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, header::HeaderValue::from_static("no-referrer"));
    if ops.lifecycle.phase() == Phase::Draining {
        response.response_mut().head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    Ok(response.map_body(|_, body| BoxBody::new(Counted { body, _guard: guard })))
}

/// Turns every error answer into problem+json, whoever made it, and a panic into a 500.
async fn problems(request: ServiceRequest, next: Next<BoxBody>) -> ServiceResponse<BoxBody> {
    let kept = request.request().clone();
    let result = AssertUnwindSafe(next.call(request)).catch_unwind().await;
    match result {
        Ok(Ok(response)) if response.status().as_u16() < 400 => response,
        Ok(Ok(response)) => {
            let is_problem = response
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"));
            let problem = response.response().error().and_then(|error| error.as_error::<Problem>()).cloned();
            match problem {
                None if is_problem => response,
                problem => replace(response, problem),
            }
        }
        Ok(Err(error)) => {
            let problem = error.as_error::<Problem>().cloned();
            let status = error.as_response_error().status_code();
            answer(kept, &problem.unwrap_or_else(|| Problem::from_status(status)))
        }
        Err(_) => {
            tracing::error!("a handler panicked");
            answer(kept, &Problem::internal())
        }
    }
}

/// Keeps the headers of a bare error answer, such as `Allow`, and gives it a body.
fn replace(response: ServiceResponse<BoxBody>, problem: Option<Problem>) -> ServiceResponse<BoxBody> {
    let problem = problem.unwrap_or_else(|| Problem::from_status(response.status()));
    let (request, bare) = response.into_parts();
    let mut full = problem.response(request.path());
    for (name, value) in bare.headers() {
        if !full.headers().contains_key(name) {
            full.headers_mut().append(name.clone(), value.clone());
        }
    }
    ServiceResponse::new(request, full)
}

fn answer(request: HttpRequest, problem: &Problem) -> ServiceResponse<BoxBody> {
    let response: HttpResponse = problem.response(request.path());
    ServiceResponse::new(request, response)
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
