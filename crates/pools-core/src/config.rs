//! The knobs of all four pools. They are compiled whatever the features, so that every service knows every
//! variable and can refuse a misspelt one.

#[path = "chain/config.rs"]
pub mod chain;
#[path = "http/config.rs"]
pub mod http;
#[path = "postgres/config.rs"]
pub mod postgres;
#[path = "redis/config.rs"]
pub mod redis;

use crate::settings::Section;

/// Every setting of the four pools.
pub fn sections() -> Vec<Section> {
    vec![
        http::HttpConfig::section(),
        chain::ChainConfig::section(),
        redis::RedisConfig::section(),
        postgres::PgConfig::section(),
    ]
}
