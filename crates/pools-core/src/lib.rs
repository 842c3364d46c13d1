//! Four connection pools with one discipline: HTTP, JSON-RPC nodes, Redis and Postgres.
//!
//! Whatever the kind, a caller gets the same promises — bounded, fair, prompt, clean, self-healing, degrading,
//! observable, drained — and an operator can ask the same questions: how many connections, how many in use, who
//! waits, who holds one and since when, what was closed and why.
//!
//! Modules in reading order: [`pool`] and [`stats`] are the vocabulary; [`admission`], [`holders`], [`tasks`] and
//! [`resilience`] are the parts that pools are made of; [`mod@settings`], [`health`], [`metrics`], [`telemetry`],
//! [`shutdown`] and [`redact`] are what a service needs around them; then the pools themselves.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests own their tasks"))]

pub mod admission;
pub mod config;
pub mod health;
pub mod holders;
pub mod metrics;
pub mod pool;
pub mod redact;
pub mod registry;
pub mod resilience;
pub mod settings;
pub mod shutdown;
pub mod stats;
pub mod tasks;
pub mod telemetry;

#[cfg(feature = "redis")]
pub mod cache;
#[cfg(feature = "chain")]
pub mod chain;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "web")]
pub mod web;

/// Keeps the examples of the README compiling.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../../../README.md")]
pub struct ReadmeExamples;
