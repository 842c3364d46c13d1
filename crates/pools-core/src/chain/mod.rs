//! The chain pool.
