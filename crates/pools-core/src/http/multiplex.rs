//! HTTP/2: one connection, many requests.
//!
//! The task of the connection polls everything that hyper makes of it: the connection itself, and one future for each request under way. So the
//! task owns the socket as with HTTP/1, and nothing of it is left when the task has ended.
//!
//! **Limits.** The pool counts the requests and hands out no more than the server allows ([`SETTINGS_MAX_CONCURRENT_STREAMS`]) and we
//! want ([`Multiplex::max_streams`]). Before the server's SETTINGS have come it is one: requests sent on trust would be refused. So
//! nothing ever waits inside hyper, where it would be lost with the connection, and nobody could tell whether it was sent.
//!
//! **The end.** After GOAWAY the connection takes no new request, and those under way finish. A peer that does not answer a PING, sent
//! while requests are under way and nothing else arrives, is dead: the connection closes and its requests fail.
//!
//! [`SETTINGS_MAX_CONCURRENT_STREAMS`]: https://www.rfc-editor.org/rfc/rfc9113#SETTINGS_MAX_CONCURRENT_STREAMS

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, oneshot};

use super::{
    connection::{MAX_HEAD, Occupied, Send, Sharing},
    state::Streams,
    upload::Upload,
    wire::{Socket, Stream},
};

/// What one request may have under way in our buffers, per direction; more does not move an upload along, and makes it look
/// further along than it is.
const SEND_BUFFER: usize = 64 * 1024;

/// What hyper says before the server's SETTINGS: no server can say that much. The pool sends one request until then.
const UNSETTLED: usize = usize::MAX - 1;

/// How HTTP/2 connections are used.
#[derive(Clone, Debug)]
pub(super) struct Multiplex {
    /// Most requests at once on one connection, whatever the server allows.
    pub(super) max_streams: u32,
    /// A PING is sent after so long without a frame, while requests are under way.
    pub(super) ping_after: Duration,
    /// And waited for so long.
    pub(super) ping_timeout: Duration,
}

impl Default for Multiplex {
    fn default() -> Self {
        Self {
            // What servers allow (RFC 9113 recommends no less); more on one connection share one congestion window.
            max_streams: 100,
            // Long enough not to be taken for an attack, short enough to find a dead path before most deadlines.
            ping_after: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// Hands hyper's futures to the task of the connection.
#[derive(Clone)]
struct Mine(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl<F: Future<Output = ()> + std::marker::Send + 'static> Executor<F> for Mine {
    fn execute(&self, future: F) {
        // The task that would poll it has ended: so has its connection.
        drop(self.0.send(Box::pin(future)));
    }
}

type Connection = http2::Connection<TokioIo<Socket>, Upload, Mine>;

/// Everything that hyper makes of one connection.
struct Task<'a> {
    occupied: &'a Occupied,
    /// Takes requests, until the server takes no more.
    connection: Option<Connection>,
    made: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    sharing: Arc<Sharing>,
    max_streams: u32,
}

impl Task<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Poll::Ready(Some(future)) = self.made.poll_recv(cx) {
                self.running.push(future);
            }
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => continue,
                // Nothing runs: the socket is closed.
                Poll::Ready(None) if self.connection.is_none() => return Poll::Ready(()),
                Poll::Ready(None) | Poll::Pending => {}
            }
            self.publish();
            let Some(connection) = &mut self.connection else { return Poll::Pending };
            if let Poll::Ready(result) = Pin::new(connection).poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "HTTP/2 connection ended");
                }
                self.connection = None;
                self.occupied.apply(|state, slot, now, fx| state.retire(slot, now, fx));
                continue;
            }
            // A request just taken has made a future, which was not polled yet.
            match self.made.poll_recv(cx) {
                Poll::Ready(Some(future)) => self.running.push(future),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Tells the pool how many requests the server takes, when that has changed.
    fn publish(&mut self) {
        let Some(connection) = &self.connection else { return };
        let allowed = connection.current_max_send_streams();
        if allowed == UNSETTLED {
            return;
        }
        let limit = u32::try_from(allowed).unwrap_or(u32::MAX).clamp(1, self.max_streams);
        let streams = Streams { limit, settled: true };
        if self.sharing.get() != streams {
            self.sharing.set(streams);
            self.occupied.apply(|state, slot, now, fx| state.settled(slot, streams, now, fx));
        }
    }
}

/// What a failed request means for it and for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The server has not looked at it (REFUSED_STREAM): any request may be sent again.
    Refused,
    /// The same, since the server is leaving (GOAWAY with the number of an earlier request).
    GoneAway,
    /// This request alone failed.
    Stream,
    /// The connection is gone, and whether the server has seen the request is not known.
    Connection,
}

/// What hyper's error is about.
pub(super) fn broken(error: &hyper::Error) -> Broken {
    match h2_error(error) {
        Some(h2) if h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            Broken::Refused
        }
        Some(h2) if h2.is_remote() && h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR) => {
            Broken::GoneAway
        }
        Some(h2) if h2.is_reset() => Broken::Stream,
        _ => Broken::Connection,
    }
}

/// h2's error inside hyper's.
pub(super) fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Makes the handshake, and drives the connection until it ends or nobody wants it any more.
pub(super) async fn drive(occupied: &Occupied, stream: Stream) {
    let Some(options) = occupied.pool().map(|pool| pool.multiplex.clone()) else { return };
    let (socket, wire) = Socket::new(stream);
    let (mine, made) = mpsc::unbounded_channel();
    let mut builder = http2::Builder::new(Mine(mine));
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(UNSETTLED)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(options.ping_after)
        .keep_alive_timeout(options.ping_timeout);
    let Ok((send, connection)) = builder.handshake(TokioIo::new(socket)).await else { return };
    let sharing = Arc::new(Sharing::new());
    let Some(ended) = occupied.opened(Send::Http2(send, Arc::clone(&sharing)), wire, None) else { return };
    let mut task = Task {
        occupied,
        connection: Some(connection),
        made,
        running: FuturesUnordered::new(),
        sharing,
        max_streams: options.max_streams,
    };
    tokio::select! {
        () = std::future::poll_fn(|cx| task.poll(cx)) => {}
        () = gone(ended) => {}
    }
}

async fn gone(ended: oneshot::Receiver<Infallible>) {
    drop(ended.await);
}
