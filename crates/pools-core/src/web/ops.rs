//! Probes and metrics.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, web};
use serde_json::json;

use super::{Problem, ServiceConfig, limits::Limits, requests::Requests};
use crate::{
    metrics,
    registry::Registry,
    shutdown::{Lifecycle, Phase},
};

/// What the probes and the metrics look at.
#[derive(Debug)]
pub(super) struct Ops {
    pub(super) lifecycle: Lifecycle,
    pub(super) pools: Arc<Registry>,
    pub(super) requests: Requests,
    pub(super) config: ServiceConfig,
    pub(super) limits: Option<Limits>,
    pub(super) own_timeouts: Vec<(&'static str, Duration)>,
}

impl Ops {
    /// How long a request for the route with this pattern may take.
    pub(super) fn timeout(&self, pattern: &str) -> Duration {
        let own = self.own_timeouts.iter().find(|(route, _)| *route == pattern);
        own.map_or(self.config.request_timeout, |(_, timeout)| *timeout)
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/health/live").route(web::get().to(live)))
        .service(web::resource("/health/ready").route(web::get().to(ready)))
        .service(web::resource("/metrics").route(web::get().to(text)));
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "live" }))
}

async fn ready(ops: web::Data<Ops>) -> Result<HttpResponse, Problem> {
    let refuse =
        |code, detail: &str| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail.to_owned()));
    match ops.lifecycle.phase() {
        Phase::Starting => refuse("starting", "the service is starting"),
        Phase::Ready => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Phase::Draining => refuse("shutting_down", "the service is shutting down"),
    }
}

async fn text(ops: web::Data<Ops>) -> Result<HttpResponse, Problem> {
    let own = ops.requests.families(ops.lifecycle.requests());
    let text = metrics::render(&ops.pools, &own).map_err(|cause| {
        tracing::error!(%cause, "metrics cannot be rendered");
        Problem::internal()
    })?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
