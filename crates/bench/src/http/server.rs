//! The servers that all subjects ask: a process of its own, on a core of its own.
//!
//! ```text
//!  plain, tls   keep-alive, the same small answer to every request
//!  far, far_tls a proxy in front of these, 20 ms of round trip away
//!  fin, rst     close a connection that was idle for 0 to 20 ms, by FIN or by RST
//!  h2           HTTP/2 over TLS; counts the connections it accepts
//! ```
//!
//! It tells its ports when it is asked, and ends when its input does.

use std::{
    convert::Infallible,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{Response, body::Bytes, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    select,
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
    try_join,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use crate::Fault;

/// As short as the answers of the upstreams that are asked most.
pub(super) const BODY: &str = r#"{"status":"1","message":"OK","result":"1000000000000000000"}"#;
/// The whole of it.
pub(super) const ANSWER: &str = concat!(
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n",
    r#"{"status":"1","message":"OK","result":"1000000000000000000"}"#
);

/// From here to a server on the same continent.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// The closing servers are patient for at most this long.
const MOST_IDLE_MICROS: u64 = 20_000;

/// Where everything is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) tls: u16,
    pub(super) far: u16,
    pub(super) far_tls: u16,
    pub(super) fin: u16,
    pub(super) rst: u16,
    pub(super) h2: u16,
    /// The certificate of the authority, as PEM.
    pub(super) ca: String,
}

/// Connections accepted over HTTP/2 since the last question.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) accepted: u64,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Fin,
    Rst,
}

/// Serves until the input ends.
pub(super) fn run() -> Result<(), Fault> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<(), Fault> {
    let mut servers = JoinSet::new();
    let (acceptor, multiplexing, ca) = identity()?;
    let accepted = Arc::new(AtomicU64::new(0));
    let plain = listen(&mut servers, answer).await?;
    let tls = listen(&mut servers, move |stream| over_tls(acceptor.clone(), stream)).await?;
    let far = listen(&mut servers, move |stream| delay(stream, plain)).await?;
    let far_tls = listen(&mut servers, move |stream| delay(stream, tls)).await?;
    let fin = listen(&mut servers, |stream| answer_and_close(stream, End::Fin)).await?;
    let rst = listen(&mut servers, |stream| answer_and_close(stream, End::Rst)).await?;
    let count = Arc::clone(&accepted);
    let h2 = listen(&mut servers, move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        over_h2(multiplexing.clone(), stream)
    })
    .await?;
    let port = |address: SocketAddr| address.port();
    let (plain, tls, far, far_tls) = (port(plain), port(tls), port(far), port(far_tls));
    let ports = Ports { plain, tls, far, far_tls, fin: port(fin), rst: port(rst), h2: port(h2), ca };
    spawn_blocking(move || tell(&ports, &accepted)).await?
}

fn tell(ports: &Ports, accepted: &AtomicU64) -> Result<(), Fault> {
    for line in io::stdin().lines() {
        let answer = match line?.as_str() {
            r#"{"do":"accepted"}"# => json!(Accepted { accepted: accepted.swap(0, Ordering::Relaxed) }),
            _ => json!(ports),
        };
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

/// Serves each connection in a task of its own.
async fn listen<F, Fut>(servers: &mut JoinSet<()>, serve: F) -> io::Result<SocketAddr>
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    servers.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted && stream.set_nodelay(true).is_ok() {
                        connections.spawn(serve(stream));
                    }
                }
                // However it ended: that is what clients make of it.
                _ = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    });
    Ok(address)
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut buffer, mut matched) = (vec![0; 16 * 1024], 0);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        for _ in 0..heads_ended(&buffer[..read], &mut matched) {
            stream.write_all(ANSWER.as_bytes()).await?;
        }
    }
}

async fn over_tls(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    answer(acceptor.accept(stream).await?).await
}

async fn over_h2(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let stream = TokioIo::new(acceptor.accept(stream).await?);
    let reply = service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY.as_bytes()))))
    });
    http2::Builder::new(TokioExecutor::new()).serve_connection(stream, reply).await.map_err(io::Error::other)
}

/// Answers, and closes when nothing comes for a while that differs from answer to answer.
async fn answer_and_close(mut stream: TcpStream, end: End) -> io::Result<()> {
    let (mut buffer, mut matched, mut answered) = (vec![0; 16 * 1024], 0, false);
    loop {
        let read = if answered {
            match timeout(patience(), stream.read(&mut buffer)).await {
                Ok(read) => read?,
                Err(_) => break,
            }
        } else {
            stream.read(&mut buffer).await?
        };
        if read == 0 {
            return Ok(());
        }
        for _ in 0..heads_ended(&buffer[..read], &mut matched) {
            stream.write_all(ANSWER.as_bytes()).await?;
            answered = true;
        }
    }
    match end {
        End::Fin => Ok(()),
        End::Rst => stream.set_zero_linger(),
    }
}

fn patience() -> Duration {
    static TURN: AtomicU64 = AtomicU64::new(1);
    // Fibonacci hashing: evenly spread, and the same in every run.
    let mixed = TURN.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Duration::from_micros(mixed % (MOST_IDLE_MICROS + 1))
}

/// How many requests without a body end in these bytes; `matched` is how much of a head's end came before them.
fn heads_ended(bytes: &[u8], matched: &mut usize) -> usize {
    const END: &[u8] = b"\r\n\r\n";
    let mut ended = 0;
    for byte in bytes {
        *matched = if *byte == END[*matched] { *matched + 1 } else { usize::from(*byte == END[0]) };
        if *matched == END.len() {
            (*matched, ended) = (0, ended + 1);
        }
    }
    ended
}

/// Passes everything on, late.
async fn delay(near: TcpStream, target: SocketAddr) -> io::Result<()> {
    // The kernel has answered the client's SYN at once: its round trip is made up for before the first byte.
    sleep(ROUND_TRIP).await;
    let far = TcpStream::connect(target).await?;
    far.set_nodelay(true)?;
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    try_join!(pass_on(from_near, to_far), pass_on(from_far, to_near)).map(drop)
}

async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            let due = Instant::now() + ROUND_TRIP / 2;
            if read == 0 || sender.send((due, buffer[..read].to_vec())).is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    try_join!(read, write).map(drop)
}

/// Acceptors for HTTP/1.1 and for HTTP/2, and the authority that signed for them.
fn identity() -> Result<(TlsAcceptor, TlsAcceptor, String), Fault> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "bench");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let config = |protocol: &str| -> Result<TlsAcceptor, Fault> {
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    };
    Ok((config("http/1.1")?, config("h2")?, authority.pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        assert!(ANSWER.ends_with(BODY));
        assert!(ANSWER.contains(&format!("Content-Length: {}\r\n\r\n", BODY.len())));
    }

    #[test]
    fn heads_are_counted_across_reads() {
        let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        for cut in 0..requests.len() {
            let (mut matched, (first, second)) = (0, requests.split_at(cut));
            let ended = [first, second].map(|part| heads_ended(part.as_bytes(), &mut matched));
            assert_eq!((ended.iter().sum::<usize>(), matched), (2, 0), "cut at {cut}");
        }
    }
}
