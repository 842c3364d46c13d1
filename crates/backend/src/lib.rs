//! backend, port 3001: what the lending platform's front end talks to.
//!
//! One folder per feature: `model.rs` is pure, `client.rs` is the only file that names a pool, `service.rs` decides,
//! `routes.rs` speaks HTTP. Data flows one way: settings → pools → clients → services → routes; [`startup`] is the
//! only wiring.

pub mod contracts;
pub mod health;
pub mod liquidation;
pub mod ml;
pub mod pools;
pub mod settings;
pub mod startup;
