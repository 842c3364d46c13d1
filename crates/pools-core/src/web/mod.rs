//! What both services serve alike: problem answers, request ids, probes, metrics, the admin token, the listener
//! with its orderly end, and the health check of their container images.
//!
//! ```text
//!  accept ─► trace (request id, span, counters, access log)
//!              └► problems (every error answer becomes problem+json, panics included)
//!                   └► the service's routes
//! ```
//!
//! **Shutdown**: the request counter that [`serve`](serve()) waits for is released when the last byte of the answer was
//! made, so a streamed answer counts until its end. **Not here**: any route that knows a feature.

mod admin;
mod config;
mod healthcheck;
mod json;
mod middleware;
mod ops;
mod problem;
mod refuse;
mod requests;
mod serve;

pub use admin::{AdminToken, authorise};
pub use config::ServiceConfig;
pub use healthcheck::{healthcheck, healthcheck_command, is_healthcheck};
pub use json::JsonBody;
pub use problem::Problem;
pub use refuse::refuse;
pub use serve::{QUIET, Service, serve};
