//! ml-api, port 3002: answers "will this loan default?" and remembers how loans ended.
//!
//! The crate is a library with a thin binary, so that tests and benchmarks reach every part without a socket.
//!
//! - [`risk`]: the model and everything it is judged by. Pure arithmetic: no runtime, no pool, no clock.
//!
//! The model that a fresh service starts with is trained on data from [`risk::generator`], which is synthetic and
//! is called so wherever it shows.

pub mod risk;
