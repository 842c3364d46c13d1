//! One suite for all four pools: one file per promise, run through one [`Harness`](harness::Harness) per pool.
#![allow(clippy::disallowed_methods, reason = "tests own their tasks")]

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
