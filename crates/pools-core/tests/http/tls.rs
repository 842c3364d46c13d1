//! Connections over TLS.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use pools_core::http::{HttpError, HttpPool, OpenError};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use testkit::{End, Reply};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, HandshakeKind, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use crate::support::{builder, get, ms, stale_retries, until_idle};

/// Speaks TLS in front of a plain server.
pub(crate) struct Front {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    resumed: Arc<AtomicU32>,
    accepting: JoinHandle<()>,
}

/// How a server ends a connection that its plain server has closed.
#[derive(Clone, Copy, PartialEq)]
enum Manners {
    /// With close_notify, as TLS wants it.
    Good,
    /// With the FIN alone, as many do.
    Bad,
}

impl Front {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn client(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        client(&self.certificate, protocols)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A server's side of TLS for `localhost`, and its certificate.
pub(crate) fn acceptor(
    change: impl FnOnce(&mut CertificateParams),
    protocols: &[&[u8]],
) -> (TlsAcceptor, CertificateDer<'static>) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), certificate)
}

/// The other side, which trusts this certificate only.
pub(crate) fn client(certificate: &CertificateDer<'static>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

pub(crate) async fn front(upstream: SocketAddr, change: impl FnOnce(&mut CertificateParams)) -> Front {
    front_with(Manners::Good, upstream, change).await
}

async fn front_with(
    manners: Manners,
    upstream: SocketAddr,
    change: impl FnOnce(&mut CertificateParams),
) -> Front {
    let (acceptor, certificate) = acceptor(change, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let resumed = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&resumed);
    #[expect(clippy::disallowed_methods, reason = "a server of the test, aborted with it")]
    let accepting = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
            connections.spawn(async move {
                let Ok(mut tls) = acceptor.accept(socket).await else { return };
                if tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                let mut plain = tokio::net::TcpStream::connect(upstream).await.unwrap();
                if manners == Manners::Bad {
                    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                        (tokio::io::split(tls), plain.split());
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                    }
                    return;
                }
                // Ends with either side; how it ends is the plain server's business.
                let _ended = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    Front { address, certificate, resumed, accepting }
}

/// A pool that trusts this certificate only.
fn trusting(front: &Front) -> HttpPool {
    builder(|_| {}).tls(front.client(&[])).connect_timeout(ms(2_000)).build()
}

fn url(name: &str, address: SocketAddr) -> String {
    format!("https://{name}:{}/", address.port())
}

/// The reason of a failed handshake, as an operator reads it.
async fn refusal(http: &HttpPool, url: &str) -> String {
    let error = get(http, url).await.unwrap_err();
    let HttpError::Open { cause: OpenError::Tls(cause), .. } = &error else { panic!("{error:?}") };
    until_idle(http, 0).await;
    cause.to_string()
}

#[tokio::test]
async fn http_36_a_trusted_server_is_used_over_one_connection_and_the_next_resumes() {
    let server = testkit::upstream(|request| match &*request.target {
        "/close" => Reply::ok("last").header("connection", "close"),
        _ => Reply::ok("a"),
    })
    .await;
    let front = front(server.addr(), |_| {}).await;
    let http = trusting(&front);
    let url = url("localhost", front.address);
    assert_eq!(get(&http, &url).await.unwrap(), "a");
    assert_eq!(get(&http, &format!("{url}close")).await.unwrap(), "last");
    assert_eq!(server.accepted(), 1);
    until_idle(&http, 0).await;
    assert_eq!(get(&http, &url).await.unwrap(), "a");
    assert_eq!((server.accepted(), front.resumed.load(Ordering::SeqCst)), (2, 1));
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_36_self_signed_wrong_name_and_expired_are_refused_with_the_reason() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let stranger = front(server.addr(), |_| {}).await;
    // The default trusts Mozilla's roots.
    let reason = refusal(&builder(|_| {}).build(), &url("localhost", stranger.address)).await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    let reason = refusal(&trusting(&stranger), &url("127.0.0.1", stranger.address)).await;
    assert!(reason.contains("not valid for name"), "{reason}");
    let old = front(server.addr(), |params| params.not_after = date_time_ymd(2001, 1, 1)).await;
    let reason = refusal(&trusting(&old), &url("localhost", old.address)).await;
    assert!(reason.contains("expired"), "{reason}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn http_36_a_stalled_handshake_ends_with_the_connect_time_out() {
    let silent = testkit::upstream(|_| Reply::ok("a")).await;
    silent.set_accept(testkit::Accept::Ignore);
    let http = builder(|_| {}).connect_timeout(ms(200)).build();
    let error = get(&http, &url("localhost", silent.addr())).await.unwrap_err();
    assert!(matches!(error, HttpError::Open { cause: OpenError::TimedOut { .. }, .. }), "{error:?}");
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_36_a_missing_close_notify_is_accepted_after_a_complete_body_and_only_then() {
    let server = testkit::upstream(|request| match &*request.target {
        "/length" => Reply::ok("all of it").then(End::Close),
        "/chunks" => Reply::new(200).chunks(["all ", "of it"]).then(End::Close),
        // Nobody can tell this from one that somebody else has cut.
        _ => Reply::ok("all of it").until_close(),
    })
    .await;
    for (manners, whole) in [(Manners::Good, true), (Manners::Bad, false)] {
        let front = front_with(manners, server.addr(), |_| {}).await;
        let http = trusting(&front);
        let url = url("localhost", front.address);
        let before = server.accepted();
        for path in ["length", "chunks"] {
            assert_eq!(get(&http, &format!("{url}{path}")).await.unwrap(), "all of it");
            until_idle(&http, 0).await;
        }
        match get(&http, &url).await {
            Ok(body) => assert!(whole && body == "all of it", "{body}"),
            Err(error) => assert!(!whole && matches!(error, HttpError::Truncated { .. }), "{error:?}"),
        }
        until_idle(&http, 0).await;
        assert_eq!((server.accepted() - before, stale_retries(&http)), (3, 0));
    }
}
