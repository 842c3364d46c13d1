//! What stands between a request and its handler: shedding, the rate limit, the deadline; and what makes every outcome an answer.
//!
//! ```text
//!  preflight? ─► enough to do: 503 ─► over the limit? ──no──► handler within its deadline ─► answer
//!                                        └yes─► handler up to its first outgoing call ─► what is wrong with the request, else 429
//! ```
//!
//! The order of checks puts everything about the request itself before the rate limit: path, method, media type, size, syntax, fields,
//! authorisation. Only the handler knows these; so one over the limit runs until it would do something outside of the process
//! ([`outgoing`]), and its answer counts if it is one of these refusals.
//!
//! **Deadline**: handlers and their calls get a little less than `REQUEST_TIMEOUT`, or than their route's own time, so that one that divides
//! its time among many parts can still answer; what is not answered at the end of it is dropped and answered 504. **Cancel**: when the client goes
//! away, actix drops all of this, and with it every call that is under way.

use std::{net::IpAddr, panic::AssertUnwindSafe, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, body::BoxBody, dev::ServiceRequest, http::header, middleware::Next,
};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Problem, cors, limits::is_exempt, ops::Ops, windows::Standing};
use crate::resilience::{deadline, outgoing};

/// What is kept back of a request's time for making its answer, at most.
const TO_ANSWER: Duration = Duration::from_millis(500);

/// A request that has been answered. It does not come back from a handler that was dropped or panicked, nor from an error
/// that was no answer; and no copy of it may be kept meanwhile, since actix routes only what it owns alone.
pub(super) type Answered = (Option<HttpRequest>, HttpResponse);

/// Answers the request, whatever happens.
pub(super) async fn answer(
    ops: &Ops,
    client: Option<IpAddr>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Answered {
    let path = request.path().to_owned();
    if let Some(answer) = cors::preflight(request.method(), request.headers(), &ops.config.cors_origins) {
        return (Some(request.into_parts().0), answer);
    }
    let pattern = request.match_pattern();
    let pattern = pattern.as_deref().unwrap_or("unmatched");
    if ops.lifecycle.requests() > ops.config.max_requests && !is_exempt(pattern) && pattern != "/health" {
        ops.requests.shed();
        return (Some(request.into_parts().0), Problem::overloaded().response(&path));
    }
    let standing = ops.limits.as_ref().and_then(|limits| limits.hit(pattern, client, Instant::now()));
    let limit = ops.timeout(pattern);
    let (request, mut answer) = match standing {
        Some(standing) if standing.over => held_back(limit, standing, request, next, &path).await,
        _ => in_time(limit, request, next, &path).await,
    };
    if let Some(standing) = standing {
        standing.tell(answer.headers_mut());
    }
    (request, answer)
}

/// What is wrong with the request, if something is; else that it comes too soon.
async fn held_back(
    limit: Duration,
    standing: Standing,
    request: ServiceRequest,
    next: Next<BoxBody>,
    path: &str,
) -> Answered {
    let work = in_time(limit, request, next, path);
    let reached = outgoing::up_to_first_call(work).await;
    let (request, answer) = reached.map_or((None, None), |(request, answer)| (request, Some(answer)));
    let answer = answer.filter(Problem::is_told_first).unwrap_or_else(|| standing.problem().response(path));
    (request, answer)
}

/// The handler's answer, or 504. Every error answer becomes problem+json, whoever made it, and a panic a 500.
async fn in_time(limit: Duration, request: ServiceRequest, next: Next<BoxBody>, path: &str) -> Answered {
    let work = AssertUnwindSafe(next.call(request)).catch_unwind();
    match deadline::within(Instant::now() + limit, TO_ANSWER, work).await {
        Some(Ok(Ok(response))) => {
            let (request, response) = response.into_parts();
            (Some(request), problem_of(response, path))
        }
        Some(Ok(Err(error))) => {
            let problem = error.as_error::<Problem>().cloned();
            let status = error.as_response_error().status_code();
            (None, problem.unwrap_or_else(|| Problem::from_status(status)).response(path))
        }
        Some(Err(_)) => {
            tracing::error!("a handler panicked");
            (None, Problem::internal().response(path))
        }
        None => {
            tracing::warn!(?limit, "the request was cut: it took too long");
            (None, Problem::out_of_time().response(path))
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
