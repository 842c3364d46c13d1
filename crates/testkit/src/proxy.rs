//! A TCP proxy in front of a real server that loses, delays or cuts what passes; and an address where
//! connecting hangs.
//!
//! ```text
//! client ──► reading ──(when due)──► writing ──► server      and the same the other way
//!                         ▲ BlackHole holds everything here, FIN included
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::counts::Counts;
use crate::listening::Listening;
use crate::port::Port;
use crate::process::blocking;

/// What the proxy does with bytes and with new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes at once.
    Pass,
    /// Everything passes, later: `up` towards the server, `down` towards the client.
    Delay {
        /// How long a byte takes to the server.
        up: Duration,
        /// How long a byte takes to the client.
        down: Duration,
    },
    /// Nothing passes in either direction, as behind a broken link: new connections are accepted and
    /// silent, no close gets through. What was held passes when the mode changes.
    BlackHole,
    /// New connections are reset; those that are open go on. See also [`Proxy::reset_all`].
    ResetNew,
}

/// A running proxy, closed with all its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    target: u16,
    listening: Listening,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    /// Each change resets every connection.
    reset_all: watch::Sender<u64>,
    counts: Arc<Counts>,
}

/// A proxy to this loopback port, passing everything.
pub async fn proxy(target: u16) -> Proxy {
    let shared = Shared {
        mode: watch::Sender::new(Mode::Pass),
        reset_all: watch::Sender::new(0),
        counts: Arc::default(),
    };
    let (port, listening) = (Port::reserve(), Listening::default());
    let proxy = Proxy { port, target, listening, shared: Arc::new(shared) };
    proxy.start().await;
    proxy
}

impl Proxy {
    /// The loopback port it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A URL of the target, leading through the proxy instead.
    ///
    /// # Panics
    /// When the URL does not name the target.
    pub fn through(&self, url: &str) -> String {
        let (target, own) = (format!("127.0.0.1:{}", self.target), format!("127.0.0.1:{}", self.port()));
        assert!(url.contains(&target), "not a URL of {target}");
        url.replace(&target, &own)
    }

    /// Changes what happens from now on, also to connections that are open.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Resets every open connection, on both sides.
    pub fn reset_all(&self) {
        self.shared.reset_all.send_modify(|round| *round += 1);
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.counts.accepted()
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.shared.counts.open()
    }

    /// The most connections that were ever open at once.
    pub fn peak_open(&self) -> usize {
        self.shared.counts.peak_open()
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
        let (shared, target) = (Arc::clone(&self.shared), self.target);
        let serve = move |socket, _peer| connection(socket, target, Arc::clone(&shared));
        self.listening.start(self.port.addr(), serve).await;
    }
}

async fn connection(mut client: TcpStream, target: u16, shared: Arc<Shared>) {
    let (_number, _open) = shared.counts.connection();
    let mut reset_all = shared.reset_all.subscribe();
    let mut mode = shared.mode.subscribe();
    let mut server = None;
    let pass = async {
        wait_out_black_hole(&mut mode).await;
        if *mode.borrow() == Mode::ResetNew {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let server = server.insert(TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?);
        pass_both_ways(&mut client, server, &mode).await
    };
    let orderly = tokio::select! {
        passed = pass => passed.is_ok(),
        Ok(()) = reset_all.changed() => false,
    };
    if !orderly {
        // A socket that cannot be told is closed already.
        for socket in [Some(client), server].into_iter().flatten() {
            let _ = socket.set_zero_linger();
        }
    }
}

async fn wait_out_black_hole(mode: &mut watch::Receiver<Mode>) {
    // The sender lives as long as the connection: both are the proxy's.
    let _ = mode.wait_for(|mode| *mode != Mode::BlackHole).await;
}

async fn pass_both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    mode: &watch::Receiver<Mode>,
) -> io::Result<()> {
    // Delays are the proxy's to make, not the kernel's.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let up = pass(client_read, server_write, mode.clone(), |mode| match mode {
        Mode::Delay { up, .. } => up,
        _ => Duration::ZERO,
    });
    let down = pass(server_read, client_write, mode.clone(), |mode| match mode {
        Mode::Delay { down, .. } => down,
        _ => Duration::ZERO,
    });
    tokio::try_join!(up, down).map(|_both| ())
}

/// One direction. Reading and writing are apart, so that a delay is added once and not per piece.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    delay: impl Fn(Mode) -> Duration,
) -> io::Result<()> {
    let (queue, mut due) = mpsc::channel::<(Instant, Bytes)>(64);
    let current = mode.clone();
    let reading = async move {
        loop {
            let mut piece = vec![0; 16 * 1024];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            let at = Instant::now() + delay(*current.borrow());
            // An empty piece is the FIN, which takes as long as a byte does.
            if queue.send((at, piece.into())).await.is_err() || length == 0 {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at).await;
            wait_out_black_hole(&mut mode).await;
            match piece.len() {
                0 => to.shutdown().await?,
                _ => to.write_all(&piece).await?,
            }
        }
        Ok(())
    };
    tokio::try_join!(reading, writing).map(|_both: ((), ())| ())
}

/// An address that answers no connection attempt: a listener whose backlog is full.
#[derive(Debug)]
pub struct BlackHole {
    port: Port,
    _listener: TcpListener,
    _fillers: Vec<std::net::TcpStream>,
}

impl BlackHole {
    /// The loopback port; connecting to it hangs.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }
}

/// Makes an address where connecting hangs, as behind a firewall that drops packets.
///
/// # Panics
/// When the system's backlog cannot be filled.
pub async fn black_hole() -> BlackHole {
    let port = Port::reserve();
    let socket = TcpSocket::new_v4().expect("the system has no socket left");
    // Connections of the port's former owner may linger in TIME_WAIT.
    socket.set_reuseaddr(true).expect("the system lets a port be used again");
    socket.bind(port.addr()).expect("BUG: the port is reserved");
    let listener = socket.listen(0).expect("BUG: the port is reserved");
    let addr = port.addr();
    let fillers = blocking(move || fill(addr)).await;
    BlackHole { port, _listener: listener, _fillers: fillers }
}

/// Connects until nothing more is let in, twice in a row: once could be a busy machine.
fn fill(addr: SocketAddr) -> Vec<std::net::TcpStream> {
    let mut fillers = Vec::new();
    let mut refused = 0;
    while refused < 2 {
        match std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(40)) {
            Ok(filler) => fillers.push(filler),
            Err(_) => refused += 1,
        }
        assert!(fillers.len() < 64, "the backlog takes more than it was told to");
    }
    fillers
}
