//! Behaviours of the Redis pool and the cache against real servers.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests own their tasks, and a failed one may panic")]




mod pool;

mod support;
