//! A better model from recorded loans, never a worse one, and the same in every replica.
//!
//! ```text
//!  starting data + recorded loans with an outcome ─► candidate ─► log loss on the held-out rows not worse? ─► in use
//!                                                                                         └ no: forgotten
//!  model_in_use ──look, every second──► each replica's RiskService
//! ```
//!
//! **One at a time.** A retraining is one transaction that holds an advisory lock from its first statement: a second
//! one, in whichever replica, is refused. The new version and its being in use are committed together; a crash, a
//! panic or a caller that goes away before that leaves everything as it was, and the lock ends with the transaction.
//!
//! **The same rows.** Each class gives every fifth of its loans to the held-out rows, decided when a retraining first
//! sees the loan and kept; those of the starting data never change. Present and new model are judged by the same ones.
//!
//! Predictions go on meanwhile: training runs on a thread of its own, and the swap is one pointer.
//!
//! # Limits
//! `RETRAIN_MAX_LOANS` recorded loans, 500 bytes each while it runs; whoever has hundreds of thousands may have to raise `REQUEST_TIMEOUT`,
//! which ends a retraining as it ends every request.

pub mod routes;
pub mod service;
pub mod store;

mod error;

pub use error::RetrainingError;
pub use service::RetrainingService;
