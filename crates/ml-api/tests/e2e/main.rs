//! The real binary on a real Postgres, asked over HTTP.

mod api;
mod database;
mod durability;
mod guard;
mod lifecycle;
mod loans;
mod matching;
mod order;
mod pool_stats;
mod predict;
mod refused_writes;
mod retraining;
mod small_disk;
mod training;
mod versions;
mod watching;
