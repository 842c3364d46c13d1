//! reqwest: one client for all, as its documentation asks for.

use reqwest::Url;
use tokio_rustls::rustls::ClientConfig;

use super::{Answer, Client};
use crate::Fault;

#[derive(Clone)]
pub(super) struct Reqwest {
    client: reqwest::Client,
    url: Url,
}

impl Reqwest {
    pub(super) fn new(url: &str, tls: ClientConfig) -> Result<Self, Fault> {
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
        Ok(Self { client, url: url.parse()? })
    }
}

impl Client for Reqwest {
    async fn get(&self) -> Result<Answer, Fault> {
        let response = self.client.get(self.url.clone()).send().await?;
        Ok((response.status().as_u16(), response.bytes().await?))
    }
}
