//! The service under test and a client for it.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, header::HeaderMap};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;
use testkit::Service;

/// A hang guard: a start takes a tenth of a second, an outage is noticed within one.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// The program with nothing but these variables.
pub(crate) fn program(variables: &[(&str, &str)]) -> Service {
    testkit::service(env!("CARGO_BIN_EXE_ml-api"), &[], variables)
}

/// A running ml-api.
pub(crate) struct Api {
    pub(crate) service: Service,
    pub(crate) port: u16,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Status, `code` and `field` of a problem, after checking that it is one.
    pub(crate) fn problem(&self) -> (u16, String, Option<String>) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let body = self.json();
        for member in ["type", "title", "status", "detail", "instance", "code", "request_id", "error"] {
            assert!(!body[member].is_null(), "{member} is missing: {body}");
        }
        let text = |member: &str| body[member].as_str().map(str::to_owned);
        (self.status, text("code").expect("checked above"), text("field"))
    }
}

impl Api {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let port = testkit::free_port();
        let text = port.to_string();
        let variables: Vec<_> = variables.iter().copied().chain([("ML_PORT", text.as_str())]).collect();
        let service = program(&variables);
        service.wait_for_line(BOUND, "listening").await;
        let mut client = Client::builder(TokioExecutor::new());
        // The service closes an idle connection after 5 s, perhaps in the moment in which it is used again.
        client.pool_idle_timeout(Duration::from_secs(2)).pool_timer(TokioTimer::new());
        Self { service, port, client: client.build_http() }
    }

    /// Waits until it says that it is ready; it listens before that.
    pub(crate) async fn until_ready(&self) {
        testkit::until_async(BOUND, async || self.get("/health/ready").await.status == StatusCode::OK).await;
    }

    /// Starts it and waits until model and, if there is one, database are there.
    pub(crate) async fn start_healthy(variables: &[(&str, &str)]) -> Self {
        let api = Self::start(variables).await;
        api.until_healthy().await;
        api
    }

    #[track_caller]
    pub(crate) fn until_healthy(&self) -> impl Future<Output = ()> {
        testkit::until_async(BOUND, async || self.get("/health").await.json()["status"] == "healthy")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request =
            Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.port));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("the test names a valid request");
        let response = self.client.request(request).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the answer is whole").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("the answer is text");
        Answer { status: head.status.as_u16(), headers: head.headers, text }
    }
}

/// Most memory that a process has ever had in use, in bytes.
pub(crate) fn peak_memory(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells");
    let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kilobytes.expect("a number of kB") * 1024
}

pub(crate) const OK: u16 = StatusCode::OK.as_u16();
