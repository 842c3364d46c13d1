//! sqlx as it comes: it tests before acquire, and prepares what it is given.

use sqlx::postgres::{PgPool, PgPoolOptions};

use super::{Account, CONNECTIONS, FIND, Store};
use crate::Fault;

#[derive(Clone)]
pub(super) struct Sqlx(PgPool);

impl Sqlx {
    pub(super) async fn open(url: &str) -> Result<Self, Fault> {
        Ok(Self(PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?))
    }
}

impl Store for Sqlx {
    async fn find(&self, id: i32) -> Result<Account, Fault> {
        let (balance, owner) = sqlx::query_as(FIND).bind(id).fetch_one(&self.0).await?;
        Ok(Account { balance, owner })
    }

    async fn close(self) {
        self.0.close().await;
    }
}
