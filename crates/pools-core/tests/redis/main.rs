//! Behaviours of the Redis pool and the cache against real servers.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests own their tasks and may fail")]

mod cache;
mod cache_flight;
mod deadline;
mod outage;
mod pool;
mod refused;
mod support;
