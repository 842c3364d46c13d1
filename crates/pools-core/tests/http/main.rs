//! Behaviours of the HTTP pool against real servers. The numbers are those of its list of behaviours; each test looks at the
//! result, at the connections that the server counted, and at the stats afterwards.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod body;
mod breaker;
mod decoding;
mod dns;
mod drain;
mod frames;
mod framing;
mod multiplex;
mod open;
mod policy;
mod proxy;
mod queue;
mod rate;
mod redirect;
mod reuse;
mod stale;
mod stats;
mod support;
mod time;
mod tls;
mod unix;
mod upload;
