//! Behaviours of the Postgres pool against real servers. Each test is named after the numbered behaviour it shows.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests own their tasks and may fail")]

mod bounds;
mod clean;
mod control;
mod deadline;
mod drain;
mod heal;
mod lane;
mod laws;
mod logs;
mod migrate;
mod opening;
mod pgbouncer;
mod product;
mod reset;
mod session;
mod tls;

use std::time::Duration;

use pools_core::{
    health::HealthState,
    pool::Pool,
    postgres::{PgConfig, PgPool},
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The defaults, for this URL.
fn at(url: &str) -> PgConfig {
    PgConfig { url: Some(url.into()), ..PgConfig::default() }
}

/// `size` connections and no more.
fn exactly(size: u32, server: &testkit::Postgres) -> PgConfig {
    PgConfig { size, overflow: 0, ..at(&server.url()) }
}

fn open(config: PgConfig) -> PgPool {
    PgPool::open(config).expect("testkit's URLs are good")
}

/// The server process behind the next lease.
async fn backend_pid(pool: &PgPool) -> i32 {
    let lease = pool.acquire().await.unwrap();
    lease.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Waits until the pool has found its server, with the one connection that takes.
async fn ready(pool: &PgPool) {
    testkit::until(secs(20), || pool.health().state == HealthState::Up).await;
    settled(pool).await;
}

/// Waits until no lease is out and nothing is being opened, cleaned or closed.
async fn settled(pool: &PgPool) {
    settled_with(pool, 0).await;
}

/// Waits until `out` leases are out and nothing is being opened, cleaned or closed.
async fn settled_with(pool: &PgPool, out: u32) {
    testkit::until(secs(20), || {
        let snapshot = pool.snapshot();
        snapshot.in_use() == out && snapshot.opening() == 0
    })
    .await;
}
