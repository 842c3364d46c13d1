//! Watching the model: what it predicted beside what came true, and how far what it is asked has moved.
//!
//! ```text
//!  /data/record ──predicted, predicted_by──► loans ◄──outcome, outcome_at── /data/update
//!                                              │ the latest 10,000 of both, every 5 s and when asked
//!                                              ▼
//!  /model/metrics, /metrics ◄── Live: AUC, log loss, Brier score, calibration, by version
//!                           ◄── Drift: index of each feature ◄── every row that is predicted ([`risk::drift`])
//! ```
//!
//! **A prediction is tied to its loan when that is recorded**: the model in use says what it thinks of the recorded
//! features, and that stays with the row, whatever model comes later. It is never one of a model that may have been
//! trained on the loan. So the live measures are in Postgres: they are the same in every replica and outlast a restart.
//!
//! **The drift** is that of a replica: what it was asked lately, through `/predict`, `/predict/batch` and
//! `/data/record`. After a start or another model it begins with the latest recorded loans.
//!
//! # Limits
//! [`store::LATEST`] judged predictions, 21 bytes each while they are read, and a window of counts. No request waits for
//! any of it but `/model/metrics`, and that no longer than [`service::PATIENCE`]: then it shows the last picture and its age.
//!
//! [`risk::drift`]: crate::risk::drift

pub mod model;
pub mod routes;
pub mod service;
pub mod store;

pub use service::WatchService;
