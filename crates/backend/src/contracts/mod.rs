//! The lending contract, read through the chain pool and cached in Redis.

pub mod borrower;
pub mod client;
pub mod error;
pub mod model;
pub mod routes;
pub mod service;
