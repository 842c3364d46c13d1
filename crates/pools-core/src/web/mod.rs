//! What both services serve alike: problem answers, request ids, probes, metrics, the admin token, the listener
//! with its orderly end, and the health check of their container images.
//!
//! ```text
//!  accept ─► trace (request id, client address, span, counters, access log, security and CORS headers)
//!              └► guard (preflight, shedding, rate limit, deadline; every error answer becomes problem+json, panics included)
//!                   └► the service's routes
//! ```
//!
//! **Shutdown**: the request counter that [`serve`](serve()) waits for is released when the last byte of the answer was
//! made, so a streamed answer counts until its end. **Not here**: any route that knows a feature.

mod address;
mod admin;
mod config;
mod cors;
mod guard;
mod healthcheck;
mod json;
mod limits;
mod middleware;
mod ops;
mod problem;
mod refuse;
mod requests;
mod serve;
mod windows;

pub use admin::{AdminToken, authorise};
pub use config::{LimitConfig, ServiceConfig};
pub use healthcheck::{healthcheck, healthcheck_command, is_healthcheck};
pub use json::JsonBody;
pub use limits::Limits;
pub use problem::Problem;
pub use refuse::refuse;
pub use serve::{QUIET, Service, serve};
pub use windows::Allowance;
