//! Opens one connection, and tells bb8 about slots.

use std::{
    future::poll_fn,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bb8_postgres::{
    bb8::ManageConnection,
    tokio_postgres::{AsyncMessage, Client, Connection, Error, config::LoadBalanceHosts, error::Severity},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    conn::Conn,
    error::{OpenError, chain},
    link::Token,
    tls::Connector,
    url::Target,
    wire::Wire,
};

/// What bb8 queues: a place for a connection. Boxed, since bb8 moves its slots by value.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) conn: Option<Box<Conn>>,
}

/// bb8's manager of slots: making one never fails and never waits, so bb8 can neither hide a connect error nor
/// retry it.
#[derive(Debug)]
pub(super) struct Slots;

impl ManageConnection for Slots {
    type Connection = Slot;
    type Error = std::convert::Infallible;

    async fn connect(&self) -> Result<Slot, Self::Error> {
        Ok(Slot::default())
    }

    async fn is_valid(&self, _: &mut Slot) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Asked when a slot is put back: one without a live connection is thrown away.
    fn has_broken(&self, slot: &mut Slot) -> bool {
        slot.conn.as_ref().is_none_or(|conn| conn.is_dead())
    }
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection just opened, and the work that keeps it going.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) token: Token,
    pub(super) wire: Arc<Wire>,
    pub(super) driver: Driver,
}

/// Opens connections to one target.
#[derive(Debug)]
pub(super) struct Manager {
    target: Target,
}

impl Manager {
    pub(super) fn new(target: Target) -> Self {
        Self { target }
    }

    /// TCP, TLS and log-in, all of it by `deadline`. Attempts given up after the server may have made a process for
    /// them are counted in `cut_off`.
    pub(super) async fn open(
        &self,
        deadline: Instant,
        limit: Duration,
        cut_off: &AtomicU64,
    ) -> Result<Opened, OpenError> {
        let open = async {
            if self.target.sockets.is_empty() {
                self.open_tcp(deadline, cut_off).await
            } else {
                self.open_unix(cut_off).await
            }
        };
        match timeout_at(deadline, open).await {
            Ok(result) => result,
            Err(_) => Err(OpenError::TimedOut { after: limit }),
        }
    }

    /// Tries the hosts in order, each for its share of the time that is left.
    async fn open_tcp(&self, deadline: Instant, cut_off: &AtomicU64) -> Result<Opened, OpenError> {
        let mut result = None;
        let mut hosts: Vec<_> = self.target.hosts.iter().collect();
        if hosts.iter().any(|host| host.get_load_balance_hosts() == LoadBalanceHosts::Random) {
            fastrand::shuffle(&mut hosts);
        }
        let shares = (1..=hosts.len()).rev();
        for (host, left) in hosts.into_iter().zip(shares) {
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(1);
            let connector = self.target.connector.fresh();
            let mut attempt = Attempt { connector: &connector, cut_off, over: false };
            let ended = timeout(share, host.connect(connector.clone())).await;
            attempt.over = ended.is_ok();
            drop(attempt);
            match ended {
                Ok(Ok((client, connection))) => return Ok(opened(client, connection, connector, None)),
                Ok(Err(cause)) => result = Some(refused(cause)),
                Err(_) => result = Some(OpenError::TimedOut { after: share }),
            }
        }
        Err(result.expect("BUG: a target has a host"))
    }

    async fn open_unix(&self, cut_off: &AtomicU64) -> Result<Opened, OpenError> {
        let mut result = None;
        for ((directory, port), host) in self.target.sockets.iter().zip(&self.target.hosts) {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            let connector = self.target.connector.plain();
            let mut attempt = Attempt { connector: &connector, cut_off, over: false };
            let opening = match UnixStream::connect(&path).await {
                Ok(stream) => host.connect_raw(stream, connector.handshake("")).await.map_err(refused),
                Err(cause) => Err(OpenError::Socket { cause: Arc::new(cause) }),
            };
            attempt.over = true;
            drop(attempt);
            match opening {
                Ok((client, connection)) => return Ok(opened(client, connection, connector, Some(path))),
                Err(error) => result = Some(error),
            }
        }
        Err(result.expect("BUG: a Unix target has a socket"))
    }
}

/// One try to connect. Dropped before it is over, it is counted if it had reached the server.
struct Attempt<'a> {
    connector: &'a Connector,
    cut_off: &'a AtomicU64,
    over: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.over && self.connector.wire().is_reached() {
            self.cut_off.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn refused(cause: Error) -> OpenError {
    OpenError::Refused { cause: Arc::new(cause) }
}

fn opened<S, T>(
    client: Client,
    connection: Connection<S, T>,
    connector: Connector,
    socket: Option<PathBuf>,
) -> Opened
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wire = connector.wire();
    let token = Token { token: client.cancel_token(), connector, socket };
    let driver = Box::pin(drive(connection, Arc::clone(&wire)));
    Opened { client, token, wire, driver }
}

/// Moves bytes until the connection ends; what the server says on its own goes to the log. Where the connection
/// [gathers](Wire::gathers), what several callers send is collected: twice the throughput for 256 who share it. While callers
/// wait for connections, it has all of those write one after the other, which keeps the code of each step in the cache.
async fn drive<S, T>(mut connection: Connection<S, T>, wire: Arc<Wire>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut gathered = false;
    loop {
        let message = poll_fn(|cx| {
            gathered = !gathered && wire.gathers();
            if gathered {
                // Behind the tasks that are ready now. A task that sends is followed at once by the one that it
                // woke, which would write every statement on its own; so it writes what all of them have sent.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            connection.poll_message(cx)
        });
        match message.await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                let (code, message) = (notice.code().code(), notice.message());
                if notice.parsed_severity() == Some(Severity::Warning) {
                    tracing::warn!(pool = "postgres", code, message, "server warning");
                } else {
                    tracing::info!(pool = "postgres", code, message, "server notice");
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::warn!(pool = "postgres", error = chain(&error), "connection ended");
                return;
            }
            None => return,
        }
    }
}
