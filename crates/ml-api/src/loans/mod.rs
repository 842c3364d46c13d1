//! Recorded loans: what was known when each was granted, and how it ended.
//!
//! ```text
//!  JSON object ──model──► LoanRecord ──store──► one row in Postgres ◄── how it ended (update)
//!                                                 └─► statistics, counted by the server
//! ```
//!
//! # Cancel safety
//! Each route is one statement. A caller that goes away cannot leave half a loan behind; it does not learn whether
//! the statement was carried out, and may repeat it: recording and updating are idempotent.
//!
//! # What it does not do
//! It does not train: `retraining` reads the rows.

pub mod address;
pub mod model;
pub mod routes;
pub mod service;
pub mod store;

mod error;
mod storable;

pub use error::LoanError;
pub use model::{LoanId, LoanRecord, Outcome, OutcomeUpdate};
pub use service::LoanService;
