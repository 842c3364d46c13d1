//! The help desk: questions answered by Gemini through the HTTP pool.
//!
//! * `model.rs` knows what may be asked and how: turns, limits, instructions; `answer.rs` what comes back: pieces, reasons to
//!   stop, structured answers; both are pure. `client.rs` speaks to Gemini, `service.rs` decides, `routes.rs` speaks HTTP and
//!   server-sent events.
//! * Nothing is remembered: the browser sends the conversation with each question.
//!
//! **Cancel**: a browser that goes away drops its request or its stream, and with it the connection on which Gemini still talks.
//! **Time-out**: a whole answer within a minute, a streamed one within five with no silence longer than `HTTP_TIMEOUT_MS`.
//! **Panic**: the request fails, nothing is shared. **Shutdown**: a streamed answer counts as a request until its last byte.

pub mod answer;
pub mod client;
pub mod error;
pub mod model;
pub mod routes;
pub mod service;
