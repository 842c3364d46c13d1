//! One suite for all four pools: one file per promise, run through one [`Harness`](harness::Harness) per pool.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests own their tasks, and a panic is a failure"
)]

mod broken;
mod cancel;
mod capacity;
mod drain;
mod expiry;
mod fairness;
mod harness;
mod harnesses;
mod stats;
mod timeout;
