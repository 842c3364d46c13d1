//! The Postgres pool on a real Postgres.

use std::{sync::Arc, time::Duration};

use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgError, PgPool},
};

use crate::harness::{Harness, LIMIT};

/// See the [module](self).
pub(crate) struct Postgres {
    pool: PgPool,
    server: testkit::Postgres,
}

impl Harness for Postgres {
    type Error = PgError;

    /// `DB_POOL_SIZE`: QueuePool keeps them.
    const IDLE_FLOOR: u32 = 2;

    async fn start(wait: Duration) -> Self {
        let server = testkit::postgres().await;
        let pool = PgPool::open(PgConfig {
            url: Some(server.url().into()),
            size: 2,
            overflow: LIMIT - 2,
            timeout: wait,
            pipeline_connections: 0,
            ..PgConfig::default()
        });
        Self { pool: pool.unwrap(), server }
    }

    fn pool(&self) -> Arc<dyn Pool> {
        Arc::new(self.pool.clone())
    }

    async fn work(&self, hold: Duration) -> Result<(), PgError> {
        let lease = self.pool.acquire().await?;
        lease.query("SELECT pg_sleep($1)", &[&hold.as_secs_f64()]).await.map(drop)
    }

    fn is_wait_timeout(error: &PgError) -> bool {
        matches!(error, PgError::Exhausted { .. })
    }

    fn is_closed(error: &PgError) -> bool {
        matches!(error, PgError::Closed)
    }

    async fn server_count(&self) -> u32 {
        let count =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend'";
        self.server.admin_query(count).await[0][0].parse().unwrap()
    }

    async fn kill_connections(&self) {
        self.server.kill_backends().await;
    }
}
