//! Ops routes.
