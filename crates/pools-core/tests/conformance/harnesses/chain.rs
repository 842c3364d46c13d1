//! The chain pool on a node that answers when it is told to. A place is a POST in flight, so each call gets a POST
//! of its own here; batching has tests of its own.

use std::{sync::Arc, time::Duration};

use pools_core::{
    chain::{ChainConfig, ChainError, ChainPool, Provider},
    http::{HttpConfig, HttpPool},
    pool::Pool,
};
use testkit::{End, Reply, Upstream};

use crate::harness::{BOUND, Harness};

/// See the [module](self).
pub(crate) struct Chain {
    pool: ChainPool,
    provider: Provider,
    http: HttpPool,
    server: Upstream,
    wait: Duration,
}

impl Harness for Chain {
    type Error = ChainError;

    /// The probe for the chain id, which goes beside the calls.
    const BESIDE: u32 = 1;

    const IDLE_FLOOR: u32 = 0;

    /// The HTTP pool below has them.
    const CONNECTS: bool = false;

    async fn start(wait: Duration) -> Self {
        let server = testkit::upstream(answer).await;
        let http = HttpPool::new(HttpConfig { keep_alive: Duration::from_secs(1), ..HttpConfig::default() });
        let config = ChainConfig {
            url: server.url().into(),
            batch_max_count: 1,
            polling_interval: Duration::from_secs(600),
            ..ChainConfig::default()
        };
        let pool = ChainPool::new(config, http.clone());
        let provider = pool.provider();
        testkit::until(BOUND, || pool.is_up()).await;
        Self { pool, provider, http, server, wait }
    }

    fn pool(&self) -> Arc<dyn Pool> {
        Arc::new(self.pool.clone())
    }

    async fn work(&self, hold: Duration) -> Result<(), ChainError> {
        // A number of its own keeps the call from sharing another's answer.
        let params = (hold.as_millis() as u64, fastrand::u64(..));
        let provider = self.provider.within(self.wait + hold);
        provider.request::<bool>("eth_call", params).await.map(drop)
    }

    fn is_wait_timeout(error: &ChainError) -> bool {
        matches!(error, ChainError::Deadline { .. })
    }

    fn is_closed(error: &ChainError) -> bool {
        matches!(error, ChainError::Closed)
    }

    async fn server_count(&self) -> u32 {
        u32::try_from(self.server.in_flight()).unwrap()
    }

    async fn kill_connections(&self) {
        testkit::until(BOUND, || self.http.snapshot().in_use() == 0).await;
        self.server.end_all(End::Reset);
    }
}

fn answer(request: &testkit::Request) -> Reply {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let call = if body.is_array() { &body[0] } else { &body };
    let millis = call["params"][0].as_u64().unwrap_or(0);
    let result = if call["method"] == "eth_chainId" { "\"0x7a69\"" } else { "true" };
    let reply = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", call["id"]);
    let reply = if body.is_array() { format!("[{reply}]") } else { reply };
    Reply::json(reply).delay(Duration::from_millis(millis))
}
