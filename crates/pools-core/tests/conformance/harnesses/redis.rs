//! The Redis pool's dedicated connections on a real Redis.

use std::{sync::Arc, time::Duration};

use pools_core::{
    pool::Pool,
    redis::{Options, RedisConfig, RedisError, RedisPool, cmd},
};

use crate::harness::{BOUND, Harness, LIMIT};

/// See the [module](self).
pub(crate) struct Redis {
    pool: RedisPool,
    server: testkit::Redis,
}

impl Harness for Redis {
    type Error = RedisError;

    /// The shared lane.
    const BESIDE: u32 = 1;

    /// Dedicated connections stay: there are few, and opening one costs a login.
    const IDLE_FLOOR: u32 = LIMIT + 1;

    async fn start(wait: Duration) -> Self {
        let server = testkit::redis().await;
        let config = RedisConfig { url: server.url().into(), ..RedisConfig::default() };
        let options = Options { dedicated: LIMIT, queue: 1_000, wait, ..Options::default() };
        let pool = RedisPool::open_with(config, options).unwrap();
        testkit::until(BOUND, || pool.is_up()).await;
        Self { pool, server }
    }

    fn pool(&self) -> Arc<dyn Pool> {
        Arc::new(self.pool.clone())
    }

    async fn work(&self, hold: Duration) -> Result<(), RedisError> {
        let mut lease = self.pool.acquire().await?;
        let mut pause = cmd("BLPOP");
        // BLPOP takes 0 for "for ever".
        pause.arg("nothing").arg(hold.as_secs_f64().max(0.001));
        lease.run_for::<Option<(String, String)>>(&pause, hold + BOUND).await.map(drop)
    }

    fn is_wait_timeout(error: &RedisError) -> bool {
        matches!(error, RedisError::Exhausted { .. })
    }

    fn is_closed(error: &RedisError) -> bool {
        matches!(error, RedisError::Closed)
    }

    async fn server_count(&self) -> u32 {
        u32::try_from(self.server.clients("pools-core").await.len()).unwrap()
    }

    async fn kill_connections(&self) {
        let before = self.pool.stats().connects;
        self.server.kill_clients().await;
        // A command cannot be taken back from a connection whose end has not been read yet, so that is waited for:
        // the idle ones are gone, and the shared one is another.
        testkit::until(BOUND, || {
            let stats = self.pool.stats();
            stats.connections.idle == 0 && stats.connects > before && stats.connected
        })
        .await;
    }

    fn in_use(&self) -> u32 {
        let targets = self.snapshot().targets;
        targets.iter().find(|target| target.name == "dedicated").map_or(0, |target| target.in_use)
    }
}
