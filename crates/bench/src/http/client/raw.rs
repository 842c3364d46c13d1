//! No pool at all: a connection per task, the request and the answer as bytes. What nobody can do with less.

use std::{net::SocketAddr, sync::Arc};

use hyper::{Uri, body::Bytes};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{
    super::server::{ANSWER, BODY},
    Answer, Client,
};
use crate::Fault;

#[derive(Clone)]
pub(super) struct Raw(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    request: Bytes,
    tls: Option<TlsConnector>,
    /// Taken by the request under way.
    stream: Mutex<Option<Wire>>,
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

enum Wire {
    Plain(TcpStream),
    Tls(Box<dyn Both>),
}

impl Raw {
    pub(super) fn new(url: &str, mut tls: ClientConfig) -> Result<Self, Fault> {
        let url: Uri = url.parse()?;
        let authority = url.authority().ok_or("no host")?;
        let (address, request) =
            (authority.as_str().parse()?, format!("GET / HTTP/1.1\r\nhost: {authority}\r\n\r\n"));
        tls.alpn_protocols.clear();
        let tls = (url.scheme_str() == Some("https")).then(|| TlsConnector::from(Arc::new(tls)));
        Ok(Self(Arc::new(Inner { address, request: request.into(), tls, stream: Mutex::default() })))
    }
}

impl Inner {
    async fn connect(&self) -> Result<Wire, Fault> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Wire::Plain(stream)),
            Some(tls) => {
                let name = ServerName::from(self.address.ip());
                Ok(Wire::Tls(Box::new(tls.connect(name, stream).await?)))
            }
        }
    }
}

impl Client for Raw {
    fn for_task(&self) -> Self {
        let Inner { address, request, tls, .. } = &*self.0;
        let (request, tls) = (request.clone(), tls.clone());
        Self(Arc::new(Inner { address: *address, request, tls, stream: Mutex::default() }))
    }

    async fn get(&self) -> Result<Answer, Fault> {
        let kept = self.0.stream.lock().take();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.0.connect().await?,
        };
        match &mut stream {
            Wire::Plain(stream) => exchange(stream, &self.0.request).await?,
            Wire::Tls(stream) => exchange(stream, &self.0.request).await?,
        }
        *self.0.stream.lock() = Some(stream);
        Ok((200, Bytes::from_static(BODY.as_bytes())))
    }
}

/// It knows what must come.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> Result<(), Fault> {
    let (mut buffer, mut filled) = ([0; ANSWER.len()], 0);
    stream.write_all(request).await?;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err("closed".into()),
            read => filled += read,
        }
    }
    if buffer == ANSWER.as_bytes() { Ok(()) } else { Err("another answer".into()) }
}
