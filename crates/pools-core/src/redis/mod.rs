//! The redis pool.
