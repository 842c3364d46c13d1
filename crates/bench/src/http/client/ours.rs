//! Ours.

use std::sync::Arc;

use pools_core::http::{HttpConfig, HttpPool, HttpPoolBuilder, Policy, Response, Upstream};
use tokio_rustls::rustls::ClientConfig;

use super::{Answer, Client};
use crate::Fault;

/// More than any answer here.
const LARGEST: usize = 64 * 1024;

#[derive(Clone, Copy)]
pub(super) enum Retry {
    /// As it comes.
    Stale,
    /// Shows what the retry is for.
    Never,
}

/// The pool at its defaults.
#[derive(Clone)]
pub(super) struct Ours {
    pool: HttpPool,
    url: Arc<str>,
    retry: Retry,
}

/// An upstream with a policy: bulkhead, deadlines, retry budget and breaker.
#[derive(Clone)]
pub(super) struct Upstreamed(Upstream);

/// A pool per request, which is none.
#[derive(Clone)]
pub(super) struct Unpooled {
    tls: Arc<ClientConfig>,
    url: Arc<str>,
}

fn pool(tls: Arc<ClientConfig>) -> HttpPoolBuilder {
    HttpPool::builder(HttpConfig::default()).tls(tls)
}

async fn read(response: Response) -> Result<Answer, Fault> {
    let status = response.status().as_u16();
    Ok((status, response.bytes(LARGEST).await?))
}

impl Ours {
    pub(super) fn new(url: String, tls: ClientConfig, retry: Retry) -> Self {
        Self { pool: pool(Arc::new(tls)).build(), url: url.into(), retry }
    }
}

impl Client for Ours {
    async fn get(&self) -> Result<Answer, Fault> {
        let request = self.pool.get(&self.url);
        let request = match self.retry {
            Retry::Stale => request,
            Retry::Never => request.no_retry(),
        };
        read(request.send().await?).await
    }
}

impl Upstreamed {
    pub(super) fn new(url: &str, tls: ClientConfig) -> Result<Self, Fault> {
        // As much as the pool itself lets through, so that both do the same work.
        let policy = Policy { max_in_flight: 50, max_queue: 1_000, ..Policy::default() };
        Ok(Self(Upstream::new(pool(Arc::new(tls)).build(), "bench", url, policy)?))
    }
}

impl Client for Upstreamed {
    async fn get(&self) -> Result<Answer, Fault> {
        read(self.0.get("/").send().await?).await
    }
}

impl Unpooled {
    pub(super) fn new(url: String, tls: ClientConfig) -> Self {
        Self { tls: Arc::new(tls), url: url.into() }
    }
}

impl Client for Unpooled {
    async fn get(&self) -> Result<Answer, Fault> {
        read(pool(Arc::clone(&self.tls)).build().get(&self.url).send().await?).await
    }
}
