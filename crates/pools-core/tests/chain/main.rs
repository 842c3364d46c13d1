//! Behaviours of the chain pool against real servers.

#![allow(clippy::disallowed_methods, reason = "tests own their tasks")]

mod batching;
mod failover;
mod providers;
mod refusals;
mod replies;
mod sending;
mod support;
