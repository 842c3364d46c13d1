//! What the pools share against an other side that fails, is slow, or counts calls.
//!
//! The state machines read no clock and spawn nothing: time comes in as an argument, so all of them can be tested without
//! waiting. [`RateGate`] waits; [`deadline`] and [`outgoing`] are what a task inherits from its request.

mod backoff;
mod breaker;
mod budget;
pub mod deadline;
pub mod outgoing;
mod rate;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState};
pub use budget::RetryBudget;
pub use rate::{Late, Rate, RateGate, Turn};
