//! Opens, checks and closes one connection.
//!
//! ```text
//!  open ──► socket (TCP or TLS: keep-alive, no delay; Unix) ──► HELLO 3, AUTH, SELECT ──► CLIENT SETNAME, PING ──► Link
//!    └────────────── all of it within REDIS_CONNECT_TIMEOUT_MS ───────────────────────────────────────────────┘
//! ```
//!
//! The crate's own `Client` would spawn a driver that nobody waits for; here each driver is a task of the pool,
//! and [`Link::close`] returns when the socket is closed. **Cancel safety**: dropped at any point, `open` and
//! `Link` leave nothing open. **Not here**: retries.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo,
    aio::MultiplexedConnection,
    io::tcp::socket2::{SockRef, TcpKeepalive},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tokio_util::sync::CancellationToken;

use super::{
    RedisConfig,
    error::{BadUrl, Reason},
};
use crate::{admission::Permit, redact::ExposeSecret, tasks::Tasks};

/// What `CLIENT LIST` shows for every connection of the pool.
pub const CLIENT_NAME: &str = "pools-core";
/// Commands that wait for the driver; the crate's default of 50 makes callers queue in bursts.
const DRIVER_QUEUE: usize = 1_024;
/// Pushes (messages, invalidations) that wait for a lease to read them; later ones are dropped.
const PUSH_QUEUE: usize = 1_024;
/// A server at `maxclients` says so and hangs up; our login, sent meanwhile, makes the kernel discard those
/// words. So they are listened for once more, in silence, for this long.
const LISTEN_FOR: Duration = Duration::from_millis(200);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Sockets of one lane: those being opened in the upper half of the word, the open ones in the lower, so that every
/// look at both adds up.
#[derive(Debug, Default)]
pub(crate) struct Census(AtomicU64);

const OPENING: u64 = 1 << 32;

impl Census {
    /// Being opened, and open.
    pub(crate) fn get(&self) -> (u32, u32) {
        let word = self.0.load(Ordering::Relaxed);
        ((word >> 32) as u32, word as u32)
    }

    fn begin(self: &Arc<Self>) -> Arc<Counted> {
        self.0.fetch_add(OPENING, Ordering::Relaxed);
        Arc::new(Counted { census: Arc::clone(self), open: AtomicBool::new(false) })
    }
}

/// One socket of a [`Census`], until it is dropped.
#[derive(Debug)]
struct Counted {
    census: Arc<Census>,
    open: AtomicBool,
}

impl Counted {
    /// The log in is over: from now on the socket counts as open.
    fn opened(&self) {
        self.open.store(true, Ordering::Relaxed);
        self.census.0.fetch_sub(OPENING - 1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let one = if *self.open.get_mut() { 1 } else { OPENING };
        self.census.0.fetch_sub(one, Ordering::Relaxed);
    }
}

/// Makes connections to one server.
pub(crate) struct Manager {
    addr: ConnectionAddr,
    login: RedisConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
    keep_alive: Duration,
    connect_timeout: Duration,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Manager {
    pub(crate) fn new(config: &RedisConfig, tasks: Tasks, stop: CancellationToken) -> Result<Self, BadUrl> {
        let url = config.url.expose_secret();
        let info = redis::parse_redis_url(url).and_then(|url| url.into_connection_info().ok());
        let info = info.ok_or(BadUrl::Malformed)?;
        let tls = match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(BadUrl::Insecure),
            ConnectionAddr::TcpTls { .. } => Some(tls_config()),
            _ => None,
        };
        let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(Self {
            addr: info.addr().clone(),
            login,
            tls,
            keep_alive: config.keep_alive,
            connect_timeout: config.connect_timeout,
            tasks,
            stop,
        })
    }

    /// Makes one connection that has answered a PING. `census` counts it until its socket is closed, and it keeps
    /// `place` as long.
    pub(crate) async fn open(
        &self,
        census: &Arc<Census>,
        place: Option<Arc<Permit>>,
    ) -> Result<Link, Reason> {
        match timeout(self.connect_timeout, self.log_in(census.begin(), place)).await {
            Ok(Err(Reason::Lost)) => Err(self.overheard().await.unwrap_or(Reason::Lost)),
            Ok(result) => result,
            Err(_) => Err(Reason::ConnectTimeout(self.connect_timeout)),
        }
    }

    async fn log_in(&self, counted: Arc<Counted>, place: Option<Arc<Permit>>) -> Result<Link, Reason> {
        let reason = |error: redis::RedisError| Reason::of(&error, self.login.db());
        let stream = self.dial().await?;
        let (push, pushes) = mpsc::channel(PUSH_QUEUE);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(DRIVER_QUEUE)
            .set_push_sender(move |info: PushInfo| push.try_send(info));
        let connected = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (conn, driver) = connected.map_err(reason)?;
        let mut link = self.drive(conn, driver, pushes, Arc::clone(&counted), place);
        let mut hello = redis::pipe();
        hello.cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME).ignore().cmd("PING").ignore();
        hello.exec_async(&mut link.conn).await.map_err(reason)?;
        counted.opened();
        Ok(link)
    }

    fn drive(
        &self,
        conn: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
        pushes: mpsc::Receiver<PushInfo>,
        counted: Arc<Counted>,
        place: Option<Arc<Permit>>,
    ) -> Link {
        let (hang_up, hung_up) = oneshot::channel();
        let stopped = self.stop.clone().cancelled_owned();
        let task = self.tasks.spawn("redis connection", async move {
            // The socket belongs to `driver`, so it is closed when select! drops that; only then may another
            // connection have the place.
            let place = tokio::select! {
                () = driver => None,
                place = hung_up => place.ok(),
                () = stopped => None,
            };
            drop(counted);
            drop(place);
        });
        Link { conn, pushes, place, hang_up: Some(hang_up), task }
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, Reason> {
        match &self.addr {
            ConnectionAddr::Tcp(host, port) => Ok(Box::new(self.tcp(host, *port).await?)),
            ConnectionAddr::TcpTls { host, port, .. } => {
                let tls = self.tls.clone().expect("BUG: made together with a TLS address");
                let name = ServerName::try_from(host.clone()).map_err(|_| Reason::Tls)?;
                let socket = self.tcp(host, *port).await?;
                let stream = TlsConnector::from(tls).connect(name, socket).await;
                Ok(Box::new(stream.map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => Reason::Tls,
                    kind => kind.into(),
                })?))
            }
            ConnectionAddr::Unix(path) => {
                let socket = UnixStream::connect(path).await;
                Ok(Box::new(socket.map_err(|error| Reason::from(error.kind()))?))
            }
            _ => Err(Reason::NotRedis),
        }
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, Reason> {
        let connect = async {
            let socket = TcpStream::connect((host, port)).await?;
            socket.set_nodelay(true)?;
            let keep_alive =
                TcpKeepalive::new().with_time(self.keep_alive).with_interval(self.keep_alive / 3);
            SockRef::from(&socket).set_tcp_keepalive(&keep_alive.with_retries(3))?;
            Ok(socket)
        };
        connect.await.map_err(|error: io::Error| error.kind().into())
    }

    /// What the server says to somebody who says nothing.
    async fn overheard(&self) -> Option<Reason> {
        let ConnectionAddr::Tcp(host, port) = &self.addr else { return None };
        let mut words = Vec::new();
        let listen = async {
            let mut socket = self.tcp(host, *port).await.ok()?.take(256);
            socket.read_to_end(&mut words).await.ok()
        };
        timeout(LISTEN_FOR, listen).await.ok().flatten()?;
        words.starts_with(b"-ERR max number of clients").then_some(Reason::TooManyClients)
    }
}

fn tls_config() -> Arc<ClientConfig> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("BUG: ring supports the default versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// One open connection. Dropping it closes the socket soon; [`close`](Self::close) says when.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: MultiplexedConnection,
    pub(crate) pushes: mpsc::Receiver<PushInfo>,
    /// The place this connection takes; given back when the socket is closed, not before.
    pub(crate) place: Option<Arc<Permit>>,
    hang_up: Option<oneshot::Sender<Arc<Permit>>>,
    task: JoinHandle<Option<()>>,
}

impl Link {
    /// Whether the peer has not hung up.
    pub(crate) fn is_open(&self) -> bool {
        !self.task.is_finished()
    }

    /// Resolves when the socket is closed.
    ///
    /// # Cancel safety
    /// Safe; may be called again until it has resolved once.
    pub(crate) async fn ended(&mut self) {
        // Tasks catches panics, and an abort at shutdown is an end as well.
        let _ended = (&mut self.task).await;
    }

    /// Whether it answers within `limit`.
    pub(crate) async fn ping(&mut self, limit: Duration) -> bool {
        let mut ping = Cmd::new();
        ping.arg("PING");
        matches!(timeout(limit, ping.exec_async(&mut self.conn)).await, Ok(Ok(())))
    }

    /// Closes the socket and waits for that.
    pub(crate) async fn close(mut self) {
        drop(self.hang_up.take());
        self.ended().await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let (Some(hang_up), Some(place)) = (self.hang_up.take(), self.place.take()) {
            // Fails when the driver has ended: the socket is closed then, and the place free at once.
            let _sent = hang_up.send(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn redis_26_keep_alive_of_30_s_and_no_delay_are_set_on_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config =
            RedisConfig { url: format!("redis://127.0.0.1:{port}").into(), ..RedisConfig::default() };
        let manager = Manager::new(&config, Tasks::new(), CancellationToken::new()).unwrap();

        let socket = manager.tcp("127.0.0.1", port).await.unwrap();

        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(&socket).keepalive().unwrap());
        assert_eq!(SockRef::from(&socket).tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    }
}
