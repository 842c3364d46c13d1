//! ml-api, port 3002: answers "will this loan default?" and remembers how loans ended.
//!
//! ```text
//!  environment ─► settings ─► startup ─┬─► risk: features ─► model ─► prediction     (needs nothing)
//!                                      ├─► loans: record, outcome, statistics ─┐
//!                                      ├─► watching: predictions, outcomes ────┤
//!                                      ├─► matching: requests, offers, matches ┴► database ─► Postgres pool
//!                                      └─► status: /health, /pool/stats
//! ```
//!
//! The crate is a library with a thin binary, so that tests and benchmarks reach every part without a socket.
//!
//! - [`risk`]: the model and everything it is judged by. Pure arithmetic but for its `service` and `routes`.
//! - [`loans`]: recorded loans. Its `store` is the only part that talks to the database.
//! - [`matching`]: the book of loan requests and lending offers, likewise.
//! - [`retraining`]: better models from recorded loans, the same in every replica.
//! - [`watching`]: what the model predicted beside what came true.
//! - [`database`]: the pool and its schema.
//! - [`status`]: what an operator asks.
//! - [`training`]: a model from a file, on the command line.
//! - [`settings`] and [`startup`]: from the environment to a running service; the only wiring.
//!
//! The model that a fresh service starts with is trained on data from [`risk::generator`], which is synthetic and
//! is called so wherever it shows.

pub mod database;
pub mod loans;
pub mod matching;
pub mod retraining;
pub mod risk;
pub mod settings;
pub mod startup;
pub mod status;
pub mod training;
pub mod watching;
