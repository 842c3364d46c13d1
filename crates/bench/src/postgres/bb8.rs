//! bb8 with bb8-postgres.

use std::time::Duration;

use bb8_postgres::{
    PostgresConnectionManager,
    bb8::{ManageConnection, Pool, QueueStrategy},
};
use tokio_postgres::{Client, Error, NoTls, Statement};

use super::{Account, CONNECTIONS, FIND, Store};
use crate::Fault;

/// What bb8-postgres makes of a URL.
pub(super) fn manager(url: &str) -> Result<PostgresConnectionManager<NoTls>, Fault> {
    Ok(PostgresConnectionManager::new_from_stringlike(url, NoTls)?)
}

/// bb8-postgres' manager, with the statement prepared on each connection: it has no cache of its own.
pub(super) struct Preparing(PostgresConnectionManager<NoTls>);

pub(super) struct Prepared {
    client: Client,
    find: Statement,
}

impl ManageConnection for Preparing {
    type Connection = Prepared;
    type Error = Error;

    async fn connect(&self) -> Result<Prepared, Error> {
        let client = self.0.connect().await?;
        let find = client.prepare(FIND).await?;
        Ok(Prepared { client, find })
    }

    async fn is_valid(&self, conn: &mut Prepared) -> Result<(), Error> {
        self.0.is_valid(&mut conn.client).await
    }

    fn has_broken(&self, conn: &mut Prepared) -> bool {
        self.0.has_broken(&mut conn.client)
    }
}

#[derive(Clone)]
pub(super) struct Bb8(Pool<Preparing>);

impl Bb8 {
    /// As it comes: tests on checkout, oldest first.
    pub(super) async fn open(url: &str) -> Result<Self, Fault> {
        let builder = Pool::builder().max_size(CONNECTIONS).connection_timeout(Duration::from_secs(30));
        Ok(Self(builder.build(Preparing(manager(url)?)).await?))
    }

    /// Tuned for speed: no test, latest first.
    pub(super) async fn open_unchecked(url: &str) -> Result<Self, Fault> {
        let builder = Pool::builder().max_size(CONNECTIONS).connection_timeout(Duration::from_secs(30));
        let builder = builder.test_on_check_out(false).queue_strategy(QueueStrategy::Lifo);
        Ok(Self(builder.build(Preparing(manager(url)?)).await?))
    }
}

impl Store for Bb8 {
    async fn find(&self, id: i32) -> Result<Account, Fault> {
        let conn = self.0.get().await?;
        let row = conn.client.query_one(&conn.find, &[&id]).await?;
        Ok(Account { balance: row.get(0), owner: row.get(1) })
    }

    async fn close(self) {}
}
