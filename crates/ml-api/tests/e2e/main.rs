//! The real binary on a real Postgres, asked over HTTP.

mod api;
mod database;
mod lifecycle;
mod loans;
mod pool_stats;
mod predict;
