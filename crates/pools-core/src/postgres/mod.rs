//! The postgres pool.
