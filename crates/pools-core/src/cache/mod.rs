//! The cache pool.
