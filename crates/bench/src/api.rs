//! A client for the services that are measured.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::Fault;

/// Asks one service; connections are kept and used again. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    authority: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Api {
    pub(crate) fn on(port: u16) -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        // Sooner than gunicorn, which closes what was idle for 2 s, perhaps under the next request.
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_millis(500));
        let client = client.build(HttpConnector::new());
        Self { authority: format!("127.0.0.1:{port}"), client }
    }

    /// Status and body.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<(u16, Bytes), Fault> {
        let request = Request::post(format!("http://{}{path}", self.authority));
        let request = request.header("content-type", "application/json").body(Full::new(body.into()))?;
        let (head, body) = self.client.request(request).await?.into_parts();
        Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
    }

    /// The body of a 200; anything else is a fault.
    pub(crate) async fn expect(&self, path: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        match self.post(path, body).await? {
            (200, body) => Ok(body),
            (status, body) => Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&body)).into()),
        }
    }
}
