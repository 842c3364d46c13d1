//! The http pool.
