//! backend, port 3001: what the lending platform's front end talks to.
//!
//! One folder per feature: `model.rs` is pure, `client.rs` is the only file that names a pool, `service.rs` decides,
//! `routes.rs` speaks HTTP. Data flows one way: settings → pools → clients → services → routes; [`startup`] is the
//! only wiring.

pub mod address;
pub mod analytics;
pub mod chatbot;
pub mod contracts;
pub mod credit_score;
pub mod health;
pub mod ipfs;
pub mod liquidation;
pub mod matching;
pub mod ml;
pub mod pools;
pub mod settings;
pub mod startup;
pub mod third_party;
pub mod unanswered;
pub mod wallet;
