//! deadpool with deadpool-postgres and its statement cache.

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::NoTls;

use super::{Account, CONNECTIONS, FIND, Store};
use crate::Fault;

#[derive(Clone)]
pub(super) struct Deadpool(Pool);

impl Deadpool {
    pub(super) fn open(url: &str, recycling_method: RecyclingMethod) -> Result<Self, Fault> {
        let manager = Manager::from_config(url.parse()?, NoTls, ManagerConfig { recycling_method });
        Ok(Self(Pool::builder(manager).max_size(CONNECTIONS as usize).build()?))
    }
}

impl Store for Deadpool {
    async fn find(&self, id: i32) -> Result<Account, Fault> {
        let client = self.0.get().await?;
        let find = client.prepare_cached(FIND).await?;
        let row = client.query_one(&find, &[&id]).await?;
        Ok(Account { balance: row.get(0), owner: row.get(1) })
    }

    async fn close(self) {
        self.0.close();
    }
}
