//! One way to connect for every TLS mode, so that every stream is an [`Observed`] one.
//!
//! The driver is told that TLS is required and begins at once (`Require`, `Direct`). What it takes for the
//! handshake is ours: ask the server (`SSLRequest`) if the mode wants TLS, wrap the stream or leave it raw, observe
//! it.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bb8_postgres::tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream as RustlsStream,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    },
};

use super::{
    binding::end_point,
    error::UrlFault,
    wire::{Observed, Wire},
};

/// `sslmode` of the URL, with libpq's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Never.
    Disable,
    /// If the server offers it; any certificate. libpq's default.
    Prefer,
    /// Always; any certificate, unless `sslrootcert` is given.
    Require,
    /// Always, signed by a trusted authority.
    VerifyCa,
    /// The same, and made out to the host's name.
    VerifyFull,
}

/// Makes the handshake of every connection of a pool.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    mode: Mode,
    config: Option<Arc<ClientConfig>>,
    /// The observer of the stream connected last: with several hosts, the one that was taken.
    wire: Arc<Mutex<Arc<Wire>>>,
}

impl Connector {
    pub(super) fn new(mode: Mode, roots: Option<&Path>) -> Result<Self, UrlFault> {
        let config = (mode != Mode::Disable).then(|| client_config(mode, roots)).transpose()?;
        Ok(Self { mode, config: config.map(Arc::new), wire: Arc::default() })
    }

    /// The same rules with an observer of its own, for one connect.
    pub(super) fn fresh(&self) -> Self {
        Self { wire: Arc::default(), ..self.clone() }
    }

    /// For a Unix socket, over which Postgres speaks no TLS.
    pub(super) fn plain(&self) -> Self {
        Self { mode: Mode::Disable, config: None, wire: Arc::default() }
    }

    /// The observer of the stream connected last.
    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.wire.lock())
    }

    pub(super) fn handshake(&self, host: &str) -> Handshake {
        let wire = Arc::<Wire>::default();
        *self.wire.lock() = Arc::clone(&wire);
        Handshake { mode: self.mode, config: self.config.clone(), host: host.to_owned(), wire }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Observed<MaybeTls<S>>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(self.handshake(host))
    }
}

/// One handshake to be made.
#[derive(Debug)]
pub(super) struct Handshake {
    mode: Mode,
    config: Option<Arc<ClientConfig>>,
    host: String,
    wire: Arc<Wire>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> TlsConnect<S> for Handshake {
    type Stream = Observed<MaybeTls<S>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(self, mut stream: S) -> Self::Future {
        self.wire.reach();
        Box::pin(async move {
            let Some(config) = self.config else {
                return Ok(Observed::new(MaybeTls::Raw(stream), self.wire));
            };
            // SSLRequest: length 8, code 80877103. The answer is one byte, `S` or `N`.
            stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
            match (stream.read_u8().await?, self.mode) {
                (b'S', _) => {}
                (_, Mode::Prefer) => return Ok(Observed::new(MaybeTls::Raw(stream), self.wire)),
                _ => return Err(io::Error::other("the server does not offer TLS")),
            }
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok(Observed::new(MaybeTls::Tls(Box::new(stream)), self.wire))
        })
    }
}

/// A stream with or without TLS.
#[derive(Debug)]
pub(super) enum MaybeTls<S> {
    Raw(S),
    Tls(Box<RustlsStream<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Observed<MaybeTls<S>> {
    fn channel_binding(&self) -> ChannelBinding {
        let MaybeTls::Tls(stream) = self.inner() else { return ChannelBinding::none() };
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(|chain| end_point(chain.first()?));
        certificate.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            MaybeTls::Raw($inner) => $call,
            MaybeTls::Tls($inner) => $call,
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

fn client_config(mode: Mode, roots: Option<&Path>) -> Result<ClientConfig, UrlFault> {
    let provider = Arc::new(ring::default_provider());
    let verifier = match (mode, roots) {
        // libpq checks the authority under `require` too when it is given one.
        (Mode::Prefer, _) | (Mode::Require, None) => None,
        (_, roots) => {
            let built = WebPkiServerVerifier::builder_with_provider(
                Arc::new(root_store(roots)?),
                Arc::clone(&provider),
            );
            Some(built.build().map_err(|_| UrlFault::RootCertificates)?)
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("BUG: ring supports the default versions");
    let verifier = Verifier { authority: verifier, any_name: mode != Mode::VerifyFull };
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn root_store(path: Option<&Path>) -> Result<RootCertStore, UrlFault> {
    let Some(path) = path else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|_| UrlFault::RootCertificates)? {
        let certificate = certificate.map_err(|_| UrlFault::RootCertificates)?;
        roots.add(certificate).map_err(|_| UrlFault::RootCertificates)?;
    }
    if roots.is_empty() { Err(UrlFault::RootCertificates) } else { Ok(roots) }
}

/// Checks as much of the server's certificate as the mode asks for. The handshake's own signature is always
/// checked.
#[derive(Debug)]
struct Verifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    any_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is looked at last, when everything else was good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
