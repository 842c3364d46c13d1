//! The backend and what stands around it, each part optional.

use std::{path::PathBuf, time::Duration};

use pools_core::{
    config::http::HttpConfig,
    http::{HttpPool, RequestBuilder},
};
use serde_json::Value;
use testkit::{AnvilOptions, Service, devchain::Deployment};

/// Hang guard of every wait.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// The admin token of every backend under test.
pub(crate) const ADMIN: &str = "test-admin-token";

/// The published key of anvil's account 9, which the development chain funds.
pub(crate) const LIQUIDATOR_KEY: &str = "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6";

/// One answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Header lookup.
    pub(crate) headers: http::HeaderMap,
    /// Body as JSON; null when it is none.
    pub(crate) body: Value,
    /// Body as text.
    pub(crate) text: String,
}

/// A running backend.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The process.
    pub(crate) process: Service,
    /// Where it listens.
    pub(crate) port: u16,
    http: HttpPool,
}

/// A port on which nothing listens, as a URL.
pub(crate) fn nowhere(scheme: &str) -> String {
    format!("{scheme}://127.0.0.1:{}", testkit::free_port())
}

/// A program of this workspace, built beside the backend.
pub(crate) fn program(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_backend")).with_file_name(name)
}

impl Backend {
    /// Starts it with these variables beside `PORT`, `ADMIN_TOKEN`, `RATE_LIMIT=off` and whatever is missing of the three servers,
    /// which then point nowhere. Returns once it is ready.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let backend = Self::launch(variables);
        testkit::until_async(BOUND, async || {
            backend.get("/health/ready").await.is_some_and(|a| a.status == 200)
        })
        .await;
        backend
    }

    /// Starts it and returns at once.
    pub(crate) fn launch(variables: &[(&str, &str)]) -> Self {
        let port = testkit::free_port();
        let (port_text, redis, rpc, ml) =
            (port.to_string(), nowhere("redis"), nowhere("http"), nowhere("http"));
        let mut all = vec![
            ("PORT", port_text.as_str()),
            ("ADMIN_TOKEN", ADMIN),
            ("REDIS_URL", &redis),
            ("RPC_URL", &rpc),
            ("ML_SERVICE_URL", &ml),
            // Most tests ask more often than a person would.
            ("RATE_LIMIT", "off"),
        ];
        all.retain(|(name, _)| variables.iter().all(|(given, _)| given != name));
        all.extend_from_slice(variables);
        let process = testkit::service(env!("CARGO_BIN_EXE_backend"), &[], &all);
        let http = HttpPool::new(HttpConfig { max_sockets: 200, ..HttpConfig::default() });
        Self { process, port, http }
    }

    /// A request to be completed and sent.
    pub(crate) fn request(&self, method: http::Method, path: &str) -> RequestBuilder {
        self.http.request(method, &format!("http://127.0.0.1:{}{path}", self.port)).no_retry()
    }

    /// Sends a request and reads its answer; `None` when there was none.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = String::from_utf8(response.bytes(64 << 20).await.ok()?.to_vec()).ok()?;
        Some(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text })
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        self.send(self.request(http::Method::GET, path)).await
    }

    /// `GET path`, which must be answered.
    pub(crate) async fn must_get(&self, path: &str) -> Answer {
        self.get(path).await.unwrap_or_else(|| panic!("GET {path} got no answer"))
    }

    /// `POST path` with a JSON body, which must be answered.
    pub(crate) async fn must_post(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(http::Method::POST, path).json(body);
        self.send(request).await.unwrap_or_else(|| panic!("POST {path} got no answer"))
    }

    /// `POST path` with the admin token.
    pub(crate) async fn must_command(&self, path: &str) -> Answer {
        let request = self.request(http::Method::POST, path);
        let request = request.header("authorization", &format!("Bearer {ADMIN}"));
        self.send(request).await.unwrap_or_else(|| panic!("POST {path} got no answer"))
    }

    /// The state of one of the services in `/health`.
    pub(crate) async fn health_of(&self, service: &str) -> String {
        let answer = self.must_get("/health").await;
        assert_eq!(answer.status, 200);
        answer.body["services"][service].as_str().unwrap_or_default().to_owned()
    }
}

/// A development chain whose clock ends at the present.
pub(crate) async fn seeded_chain() -> (testkit::Anvil, Deployment) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let anvil =
        testkit::anvil_with(AnvilOptions { timestamp: Some(now - 7_200), ..AnvilOptions::default() }).await;
    let deployment = testkit::devchain::deploy(&anvil.url()).await.unwrap();
    (anvil, deployment)
}
