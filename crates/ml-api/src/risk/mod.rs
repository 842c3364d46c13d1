//! The probability that a loan defaults, and what is derived from it.
//!
//! ```text
//!  JSON object ──features──► [f64; 22] ──model──► probability ──category──► Prediction
//!                               ▲   │
//!  seed ──generator──► Example ─┘   └─ split ──► train 80 % ─► Model::fit
//!                                            └─► held out 20 % ─► metrics
//! ```
//!
//! Everything but [`service`] and [`routes`] is a pure function of its arguments: no `async`, no clock, no I/O, no
//! global state. The only randomness comes from a seed that the caller names, and gives the same rows on every platform.
//!
//! # Limits
//! Training keeps the standardised rows in memory: 192 bytes for each, beside the caller's 184.
//!
//! # What it does not do
//! It does not read files or databases, does not decide when to retrain, and does not know who asks.

pub mod batch;
pub mod calibration;
pub mod category;
pub mod drift;
pub mod features;
pub mod generator;
pub mod metrics;
pub mod model;
pub mod routes;
pub mod service;
pub mod sources;
pub mod split;
pub mod trained;

mod error;
mod parts;
mod random;
mod scaler;
mod solver;

pub use category::{Prediction, RiskCategory, heuristic};
pub use features::{Example, FEATURE_COUNT, Feature, FeatureRow, Features, RowError, RowInput};
pub use metrics::Metrics;
pub use model::{FitError, Model, TrainingData};
pub use sources::{RowSources, Sources};
pub use split::{Split, stratified};
pub use trained::{Trained, TrainingError};
