//! Risk predictions, asked of ml-api through the HTTP pool.

pub mod client;
pub mod error;
pub mod monitor;
pub mod routes;
