//! An HTTP/2 server made of raw frames, that does what a test says and counts.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use pools_core::http::HttpPoolBuilder;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{rustls::pki_types::CertificateDer, server::TlsStream};

use crate::{
    support::builder,
    tls::{acceptor, client},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
pub(crate) const REFUSED: u32 = 7;
pub(crate) const INTERNAL: u32 = 2;

/// A request, known by its numbers only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Which connection, from 1.
    pub(crate) connection: u64,
    /// Odd numbers, from 1.
    pub(crate) stream: u32,
    /// Which request of the server, from 1.
    pub(crate) number: u64,
}

/// What the server does about a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// 200 and this body, after a while.
    Answer(Duration, &'static str),
    /// The same for every request that is open on the connection.
    AnswerAll(&'static str),
    /// 200, some of the body, and no end.
    Begin(&'static str),
    Reset(u32),
    /// Leaves with this number as the last that it looked at, answers those up to it after a while, and closes then.
    GoAway {
        last: u32,
        answer: Option<Duration>,
    },
    /// Nothing.
    Hold,
    /// The connection is closed.
    Close,
}

#[derive(Debug)]
pub(crate) struct Options {
    /// `None` says nothing, which allows any number.
    pub(crate) limit: Option<u32>,
    /// How late the server's SETTINGS are.
    pub(crate) settings_after: Duration,
    pub(crate) answers_pings: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { limit: Some(100), settings_after: Duration::ZERO, answers_pings: true }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: AtomicU64,
    pub(crate) open: AtomicUsize,
    pub(crate) requests: AtomicU64,
    /// The most that were open on one connection.
    pub(crate) peak: AtomicUsize,
    /// Those that came beyond the limit; each is refused.
    pub(crate) excess: AtomicU64,
    pub(crate) uploaded: AtomicU64,
    pub(crate) resets: AtomicU64,
}

type Script = Arc<dyn Fn(Seen) -> Act + Send + Sync>;

pub(crate) struct H2Server {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    pub(crate) counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl H2Server {
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    /// A pool that trusts it and offers HTTP/2.
    pub(crate) fn pool(&self, max_sockets: u32) -> HttpPoolBuilder {
        let tls = client(&self.certificate, &[b"h2", b"http/1.1"]);
        builder(|config| config.max_sockets = max_sockets).tls(tls)
    }

    pub(crate) fn seen(&self) -> (u64, u64) {
        (self.counts.accepted.load(SeqCst), self.counts.requests.load(SeqCst))
    }
}

pub(crate) async fn h2_server(
    options: Options,
    script: impl Fn(Seen) -> Act + Send + Sync + 'static,
) -> H2Server {
    let (acceptor, certificate) = acceptor(|_| {}, &[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::<Counts>::default();
    let (script, options): (Script, _) = (Arc::new(script), Arc::new(options));
    let shared = Arc::clone(&counts);
    #[expect(clippy::disallowed_methods, reason = "a server of the test, aborted with it")]
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
            let (options, counts) = (Arc::clone(&options), Arc::clone(&shared));
            connections.spawn(async move {
                let connection = counts.accepted.fetch_add(1, SeqCst) + 1;
                counts.open.fetch_add(1, SeqCst);
                let gone = Arc::clone(&counts);
                if let Ok(tls) = acceptor.accept(socket).await {
                    let served = Connection {
                        connection,
                        counts,
                        script,
                        options,
                        open: BTreeSet::new(),
                        leaving: false,
                        last: 0,
                    };
                    // An error is the client's end of the connection.
                    let _ended = served.serve(tls).await;
                }
                gone.open.fetch_sub(1, SeqCst);
            });
        }
    });
    H2Server { address, certificate, counts, accepting }
}

struct Connection {
    connection: u64,
    counts: Arc<Counts>,
    script: Script,
    options: Arc<Options>,
    open: BTreeSet<u32>,
    leaving: bool,
    last: u32,
}

type Tls = TlsStream<TcpStream>;

impl Connection {
    async fn serve(mut self, tls: Tls) -> std::io::Result<()> {
        let (mut read, mut write) = tokio::io::split(tls);
        let mut preface = [0; 24];
        read.read_exact(&mut preface).await?;
        let (later, mut answers) = mpsc::unbounded_channel::<(u32, &'static str)>();
        let mut timers = JoinSet::new();
        let settings = self
            .options
            .limit
            .map_or(Vec::new(), |limit| [&3_u16.to_be_bytes()[..], &limit.to_be_bytes()[..]].concat());
        if self.options.settings_after.is_zero() {
            frame(&mut write, SETTINGS, 0, 0, &settings).await?;
        } else {
            let (later, after) = (later.clone(), self.options.settings_after);
            timers.spawn(async move {
                tokio::time::sleep(after).await;
                let _gone = later.send((0, ""));
            });
        }
        // Reading a frame cannot be cut short, so a task of its own does it.
        let (arrived, mut frames) = mpsc::unbounded_channel();
        timers.spawn(async move {
            while let Ok(frame) = read_frame(&mut read).await {
                if arrived.send(frame).is_err() {
                    return;
                }
            }
        });
        loop {
            tokio::select! {
                Some((stream, body)) = answers.recv() => match stream {
                    0 => frame(&mut write, SETTINGS, 0, 0, &settings).await?,
                    _ if self.open.remove(&stream) => {
                        frame(&mut write, HEADERS, END_HEADERS, stream, &[0x88]).await?;
                        frame(&mut write, DATA, END_STREAM, stream, body.as_bytes()).await?;
                    }
                    _ => {}
                },
                arrived = frames.recv() => match arrived {
                    Some((kind, flags, stream, payload)) => {
                        let act = self.arrived(&mut write, kind, flags, stream, &payload).await?;
                        self.act(&mut write, act, stream, &later, &mut timers).await?;
                    }
                    None => return Ok(()),
                },
            }
            if self.leaving && !self.open.iter().any(|stream| *stream <= self.last) {
                write.shutdown().await?;
                return Ok(());
            }
        }
    }

    async fn arrived(
        &mut self,
        write: &mut (impl AsyncWrite + Unpin),
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<Option<Act>> {
        match kind {
            SETTINGS if flags & ACK == 0 => frame(write, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 && self.options.answers_pings => {
                frame(write, PING, ACK, 0, payload).await?
            }
            RST_STREAM => {
                self.counts.resets.fetch_add(1, SeqCst);
                self.open.remove(&stream);
            }
            DATA => {
                self.counts.uploaded.fetch_add(payload.len() as u64, SeqCst);
                let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
                if !payload.is_empty() {
                    frame(write, WINDOW_UPDATE, 0, 0, &length).await?;
                    frame(write, WINDOW_UPDATE, 0, stream, &length).await?;
                }
                if flags & END_STREAM != 0 {
                    return Ok(Some(self.ask(stream)));
                }
            }
            HEADERS => {
                if self.options.limit.is_some_and(|limit| self.open.len() >= limit as usize) {
                    self.counts.excess.fetch_add(1, SeqCst);
                    frame(write, RST_STREAM, 0, stream, &REFUSED.to_be_bytes()).await?;
                    return Ok(None);
                }
                self.open.insert(stream);
                self.counts.peak.fetch_max(self.open.len(), SeqCst);
                if flags & END_STREAM != 0 {
                    return Ok(Some(self.ask(stream)));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn ask(&self, stream: u32) -> Act {
        let number = self.counts.requests.fetch_add(1, SeqCst) + 1;
        (self.script)(Seen { connection: self.connection, stream, number })
    }

    async fn act(
        &mut self,
        write: &mut (impl AsyncWrite + Unpin),
        act: Option<Act>,
        stream: u32,
        later: &mpsc::UnboundedSender<(u32, &'static str)>,
        timers: &mut JoinSet<()>,
    ) -> std::io::Result<()> {
        let mut answer = |stream, after, body| {
            let later = later.clone();
            timers.spawn(async move {
                tokio::time::sleep(after).await;
                let _gone = later.send((stream, body));
            });
        };
        match act {
            None | Some(Act::Hold) => {}
            Some(Act::Answer(after, body)) => answer(stream, after, body),
            Some(Act::AnswerAll(body)) => {
                self.open.iter().for_each(|stream| answer(*stream, Duration::ZERO, body));
            }
            Some(Act::Begin(body)) => {
                frame(write, HEADERS, END_HEADERS, stream, &[0x88]).await?;
                frame(write, DATA, 0, stream, body.as_bytes()).await?;
            }
            Some(Act::Reset(code)) => {
                self.open.remove(&stream);
                frame(write, RST_STREAM, 0, stream, &code.to_be_bytes()).await?;
            }
            Some(Act::GoAway { last, answer: after }) => {
                (self.leaving, self.last) = (true, last);
                let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
                frame(write, GOAWAY, 0, 0, &payload).await?;
                match after {
                    Some(after) => self.open.iter().for_each(|stream| answer(*stream, after, "late")),
                    None => self.open.clear(),
                }
            }
            Some(Act::Close) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
        Ok(())
    }
}

async fn frame(
    write: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    write.write_all(&[&head, payload].concat()).await?;
    write.flush().await
}

async fn read_frame(read: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let mut payload = vec![0; length as usize];
    read.read_exact(&mut payload).await?;
    Ok((head[3], head[4], stream, payload))
}
