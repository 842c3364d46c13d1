//! The four pools under test.

mod chain;
mod http;
mod postgres;
mod redis;

pub(crate) use chain::Chain;
pub(crate) use http::Http;
pub(crate) use postgres::Postgres;
pub(crate) use redis::Redis;
