//! An HTTP/1.1 server on raw sockets that does what a script says, right or wrong, and counts.
//!
//! ```text
//! accept ──► idle ──request──► reading ──► script ──► answering ──KeepAlive──► idle
//!   │ Accept::Reset…     │ idle_close, close_idle()                  └──else──► closed
//!   └──► closed          └──► closed
//! ```
//!
//! Every request is handed to the script, which returns a [`Reply`]. Connections are tasks of the caller's
//! runtime, so delays follow the test's clock; they end with the [`Upstream`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::counts::{Counts, Open};
use crate::listening::Listening;
use crate::port::Port;
use crate::process::lock;
use crate::reply::{End, Reply};
use crate::request::Reader;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection it came on, from 1 in the order of acceptance.
    pub connection: u64,
    /// Which request of its connection it is, from 1.
    pub nth: u64,
    /// Which request of the server it is, from 1.
    pub number: u64,
    /// Where it came from.
    pub peer: SocketAddr,
    /// GET, POST, …
    pub method: String,
    /// The path with its query, as sent.
    pub target: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body, or nothing for a server that answers early.
    pub body: Bytes,
}

impl Request {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What happens to a new connection before any request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// It is served.
    Serve,
    /// It is closed at once.
    Close,
    /// It is reset at once.
    Reset,
    /// It is accepted and never read from.
    Ignore,
}

/// What a test may want different from the defaults.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// Closes a connection that is idle for so long; never by default.
    pub idle_close: Option<Duration>,
    /// Asks the script as soon as a head is there and answers before the body is read.
    pub answer_early: bool,
    /// Another loopback address, for a name that has several.
    pub host: Ipv4Addr,
    /// A port chosen by the test, to have the same one on several addresses.
    pub port: Option<u16>,
}

impl Default for UpstreamOptions {
    /// Serves on 127.0.0.1 and keeps connections for ever.
    fn default() -> Self {
        Self { idle_close: None, answer_early: false, host: Ipv4Addr::LOCALHOST, port: None }
    }
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// A scripted server, closed with all its connections when dropped.
#[derive(Debug)]
pub struct Upstream {
    addr: SocketAddr,
    _port: Option<Port>,
    shared: Arc<Shared>,
    listening: Listening,
}

struct Shared {
    script: Box<Script>,
    options: UpstreamOptions,
    counts: Arc<Counts>,
    requests: AtomicU64,
    received: Arc<AtomicU64>,
    in_flight: Arc<Counts>,
    seen: Mutex<Vec<Request>>,
    accept: Mutex<Accept>,
    /// Each change closes what is idle.
    close_idle: watch::Sender<u64>,
    /// Each change ends every connection in this way.
    end_all: watch::Sender<End>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).field("counts", &self.counts).finish()
    }
}

/// A server that answers every request as the script says.
pub async fn upstream(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Upstream {
    upstream_with(UpstreamOptions::default(), script).await
}

/// The same with options.
///
/// # Panics
/// When a port that the options name is taken.
pub async fn upstream_with(
    options: UpstreamOptions,
    script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Upstream {
    let reserved = options.port.is_none().then(Port::reserve);
    let port = options.port.or(reserved.as_ref().map(Port::number)).expect("BUG: one of the two is there");
    let addr = SocketAddr::from((options.host, port));
    let shared = Arc::new(Shared {
        script: Box::new(script),
        options,
        counts: Arc::default(),
        requests: AtomicU64::new(0),
        received: Arc::default(),
        in_flight: Arc::default(),
        seen: Mutex::default(),
        accept: Mutex::new(Accept::Serve),
        close_idle: watch::Sender::new(0),
        end_all: watch::Sender::new(End::KeepAlive),
    });
    let upstream = Upstream { addr, _port: reserved, shared, listening: Listening::default() };
    upstream.start().await;
    upstream
}

impl Upstream {
    /// `http://127.0.0.1:port`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.counts.accepted()
    }

    /// How many connections are open now, as the server sees it.
    pub fn open(&self) -> usize {
        self.shared.counts.open()
    }

    /// The most connections that were ever open at once.
    pub fn peak_open(&self) -> usize {
        self.shared.counts.peak_open()
    }

    /// How many requests arrived so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// How many bytes arrived so far, those of requests that are not complete yet included.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// How many requests are being answered now.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.open()
    }

    /// The most requests that were ever being answered at once.
    pub fn peak_in_flight(&self) -> usize {
        self.shared.in_flight.peak_open()
    }

    /// Every request so far, in the order of arrival.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// Changes what happens to connections from now on; those that are open stay as they are.
    pub fn set_accept(&self, accept: Accept) {
        *lock(&self.shared.accept) = accept;
    }

    /// Closes the connections that wait for a request.
    pub fn close_idle(&self) {
        self.shared.close_idle.send_modify(|round| *round += 1);
    }

    /// Ends every open connection, whatever it is doing: `Close` or `Reset`.
    pub fn end_all(&self, end: End) {
        self.shared.end_all.send_replace(end);
    }

    /// Stops listening and closes every connection: a new one is refused. Nothing when it is stopped.
    pub async fn stop(&self) {
        self.listening.stop().await;
        crate::until(Duration::from_secs(10), || self.open() == 0).await;
    }

    /// Listens again on the same port. Nothing when it does already.
    ///
    /// # Panics
    /// When the port was taken meanwhile.
    pub async fn start(&self) {
        let shared = Arc::clone(&self.shared);
        let serve = move |socket, peer| connection(socket, peer, Arc::clone(&shared));
        self.listening.start(self.addr, serve).await;
    }
}

async fn connection(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let (number, _open) = shared.counts.connection();
    let mut end_all = shared.end_all.subscribe();
    let accept = *lock(&shared.accept);
    // A slow head is slow byte by byte only if the kernel does not collect the bytes.
    if socket.set_nodelay(true).is_err() {
        return; // Reset by the client meanwhile.
    }
    let reader = Reader::new(socket, Arc::clone(&shared.received));
    let mut connection = Connection { reader, number, nth: 0, peer, answering: None, shared };
    let end = tokio::select! {
        end = connection.serve(accept) => end,
        Ok(()) = end_all.changed() => *end_all.borrow(),
    };
    connection.reader.finish(end).await;
}

struct Connection {
    reader: Reader,
    number: u64,
    nth: u64,
    peer: SocketAddr,
    /// Counts a request as in flight until its reply is out, or its connection gone.
    answering: Option<Open>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn serve(&mut self, accept: Accept) -> End {
        match accept {
            Accept::Close => return End::Close,
            Accept::Reset => return End::Reset,
            Accept::Ignore => return std::future::pending().await,
            Accept::Serve => {}
        }
        while self.is_wanted().await {
            match self.exchange().await {
                Ok(End::KeepAlive) => self.answering = None,
                Ok(end) => return self.reader.linger(end).await,
                Err(_gone) => return End::Close,
            }
        }
        End::Close
    }

    /// Waits for a request; false when the connection is to be closed first.
    async fn is_wanted(&mut self) -> bool {
        let idle_close = self.shared.options.idle_close;
        let idle = async {
            match idle_close {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
        };
        let mut close_idle = self.shared.close_idle.subscribe();
        tokio::select! {
            arrived = self.reader.fill() => matches!(arrived, Ok(1..)),
            () = idle => false,
            Ok(()) = close_idle.changed() => false,
        }
    }

    async fn exchange(&mut self) -> std::io::Result<End> {
        let early = self.shared.options.answer_early;
        let head = self.reader.head().await?;
        self.answering = Some(self.shared.in_flight.connection().1);
        let body = if early { Bytes::new() } else { self.reader.body(&head).await? };
        self.nth += 1;
        let request = Request {
            connection: self.number,
            nth: self.nth,
            number: self.shared.requests.fetch_add(1, Ordering::SeqCst) + 1,
            peer: self.peer,
            method: head.method.clone(),
            target: head.target.clone(),
            headers: head.headers.clone(),
            body,
        };
        lock(&self.shared.seen).push(request.clone());
        let reply = (self.shared.script)(&request);
        for part in reply.parts(request.method == "HEAD") {
            self.reader.pause(part.pause).await?;
            self.reader.socket().write_all(&part.bytes).await?;
        }
        let closing = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match reply.end() {
            End::KeepAlive if early => self.reader.body(&head).await.map(|_ignored| End::KeepAlive),
            End::KeepAlive if closing => Ok(End::Close),
            end => Ok(end),
        }
    }
}
