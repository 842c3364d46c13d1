//! Our pool: exclusive leases and the pipelined lane.

use std::time::Duration;

use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgPool},
};
use tokio::time::Instant;

use super::{Account, FIND, OVERFLOW, SIZE, Store};
use crate::Fault;

/// With the guide's numbers; checks are skipped for connections used within `bypass`.
pub(super) fn config(url: &str, bypass: Duration) -> PgConfig {
    PgConfig {
        url: Some(url.into()),
        size: SIZE,
        overflow: OVERFLOW,
        pre_ping: true,
        pre_ping_idle: bypass,
        ..PgConfig::default()
    }
}

pub(super) async fn close(pool: &PgPool) {
    drop(pool.drain(Instant::now() + Duration::from_secs(5)).await);
}

/// A lease for each look-up.
#[derive(Clone)]
pub(super) struct Exclusive(PgPool);

impl Exclusive {
    pub(super) fn open(url: &str, bypass: Duration) -> Result<Self, Fault> {
        Ok(Self(PgPool::open(config(url, bypass))?))
    }
}

impl Store for Exclusive {
    async fn find(&self, id: i32) -> Result<Account, Fault> {
        let row = self.0.acquire().await?.query_one(FIND, &[&id]).await?;
        Ok(Account { balance: row.get(0), owner: row.get(1) })
    }

    async fn close(self) {
        close(&self.0).await;
    }
}

/// Shared connections.
#[derive(Clone)]
pub(super) struct Pipelined(PgPool);

impl Pipelined {
    pub(super) fn open(url: &str, bypass: Duration) -> Result<Self, Fault> {
        Ok(Self(PgPool::open(config(url, bypass))?))
    }
}

impl Store for Pipelined {
    async fn find(&self, id: i32) -> Result<Account, Fault> {
        let row = self.0.lane().query_one(FIND, &[&id]).await?;
        Ok(Account { balance: row.get(0), owner: row.get(1) })
    }

    async fn close(self) {
        close(&self.0).await;
    }
}
