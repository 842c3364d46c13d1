//! The HTTP pool on a server that answers when it is told to.

use std::{sync::Arc, time::Duration};

use pools_core::{
    http::{HttpConfig, HttpError, HttpPool},
    pool::Pool,
};
use testkit::{End, Reply, Upstream};
use tokio::time::Instant;

use crate::harness::{Harness, LIMIT};

/// See the [module](self).
pub(crate) struct Http {
    pool: HttpPool,
    server: Upstream,
    wait: Duration,
}

/// A server whose answer takes as many milliseconds as the path says.
pub(crate) async fn patient_server() -> Upstream {
    testkit::upstream(|request| {
        let millis = request.target.trim_start_matches('/').parse().unwrap_or(0);
        Reply::ok("done").delay(Duration::from_millis(millis))
    })
    .await
}

impl Harness for Http {
    type Error = HttpError;

    const IDLE_FLOOR: u32 = 0;

    async fn start(wait: Duration) -> Self {
        let server = patient_server().await;
        let pool = HttpPool::new(HttpConfig {
            max_sockets: LIMIT,
            max_free_sockets: 2,
            keep_alive: Duration::from_secs(2),
            ..HttpConfig::default()
        });
        Self { pool, server, wait }
    }

    fn pool(&self) -> Arc<dyn Pool> {
        Arc::new(self.pool.clone())
    }

    async fn work(&self, hold: Duration) -> Result<(), HttpError> {
        let request = self.pool.get(&format!("{}/{}", self.server.url(), hold.as_millis()));
        request.deadline(Instant::now() + self.wait + hold).send().await?.bytes(1024).await.map(drop)
    }

    fn is_wait_timeout(error: &HttpError) -> bool {
        matches!(error, HttpError::Wait { .. })
    }

    fn is_closed(error: &HttpError) -> bool {
        matches!(error, HttpError::Closed { .. })
    }

    async fn server_count(&self) -> u32 {
        u32::try_from(self.server.open()).unwrap()
    }

    async fn kill_connections(&self) {
        self.server.end_all(End::Reset);
    }
}
