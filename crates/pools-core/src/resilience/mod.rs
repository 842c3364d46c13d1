//! Small state machines that the pools share. None of them reads a clock or spawns: time comes in as an
//! argument, so all of them can be tested without waiting.

mod backoff;
mod breaker;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState};
