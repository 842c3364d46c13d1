//! hyper's connection, one per task, and nothing of a pool: what a client on hyper cannot do with less.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Uri,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{Answer, Client};
use crate::Fault;

#[derive(Clone)]
pub(super) struct Bare(Arc<Inner>);

struct Inner {
    uri: Uri,
    tls: Option<TlsConnector>,
    /// Locked by the request under way.
    connection: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

impl Bare {
    pub(super) fn new(url: &str, mut tls: ClientConfig) -> Result<Self, Fault> {
        let uri: Uri = url.parse()?;
        tls.alpn_protocols.clear();
        let tls = (uri.scheme_str() == Some("https")).then(|| TlsConnector::from(Arc::new(tls)));
        Ok(Self(Arc::new(Inner { uri, tls, connection: Mutex::default() })))
    }
}

impl Inner {
    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, Fault> {
        let authority = self.uri.authority().ok_or("no host")?;
        let stream = TcpStream::connect(authority.as_str()).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => over(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(authority.host().to_owned())?;
                over(tls.connect(name, stream).await?).await
            }
        }
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Empty<Bytes>>, Fault> {
    let (send, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(send)
}

impl Client for Bare {
    fn for_task(&self) -> Self {
        let Inner { uri, tls, .. } = &*self.0;
        Self(Arc::new(Inner { uri: uri.clone(), tls: tls.clone(), connection: Mutex::default() }))
    }

    async fn get(&self) -> Result<Answer, Fault> {
        let mut connection = self.0.connection.lock().await;
        let send = match &mut *connection {
            Some(send) => send,
            none => none.insert(self.0.connect().await?),
        };
        send.ready().await?;
        let host = self.0.uri.authority().ok_or("no host")?.as_str();
        let request = Request::get(self.0.uri.path()).header(HOST, host).body(Empty::new())?;
        let (head, body) = send.send_request(request).await?.into_parts();
        Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
    }
}
