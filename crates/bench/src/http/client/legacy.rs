//! hyper-util's client at its defaults, with hyper-rustls over TLS.

use http_body_util::{BodyExt, Empty};
use hyper::{Uri, body::Bytes};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client as Legacies,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use tokio_rustls::rustls::ClientConfig;

use super::{Answer, Client};
use crate::Fault;

#[derive(Clone)]
pub(super) struct Legacy<C> {
    client: Legacies<C, Empty<Bytes>>,
    uri: Uri,
}

impl Legacy<HttpConnector> {
    pub(super) fn plain(url: &str) -> Result<Self, Fault> {
        let client = Legacies::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, uri: url.parse()? })
    }
}

pub(super) fn over_tls(
    url: &str,
    mut tls: ClientConfig,
) -> Result<Legacy<HttpsConnector<HttpConnector>>, Fault> {
    // The connector sets its own.
    tls.alpn_protocols.clear();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions().build();
    let client = Legacies::builder(TokioExecutor::new()).build(connector);
    Ok(Legacy { client, uri: url.parse()? })
}

impl<C: Connect + Clone + Send + Sync + 'static> Client for Legacy<C> {
    async fn get(&self) -> Result<Answer, Fault> {
        let (head, body) = self.client.get(self.uri.clone()).await?.into_parts();
        Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
    }
}
