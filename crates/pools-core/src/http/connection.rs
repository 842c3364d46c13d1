//! One connection from its dial to its closed socket, and what callers hold of it.
//!
//! ```text
//!  task "http connection":  dial ──► handshake ──► drive hyper's Connection ──► drop it: socket closed ──► place freed
//!                            │ error                 until it ends, or until                              (also when the task
//!                            └──► open_failed        the first `Conn` is dropped                           panics or is cut)
//! ```
//!
//! The task holds the pool weakly: dropped with its last clone, the pool drops its idle [`Conn`]s, which ends their tasks. HTTP/2 is
//! driven by `multiplex.rs`.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Inner, PoolEffects, PoolState, multiplex,
    proxy::Forward,
    state::{Failure, Pooled, SlotId, Streams},
    target::Key,
    upload::Upload,
    wakes::{Driven, DriverHandle},
    wire::{Socket, Stream, Wire},
};

/// Longest head of an answer that is read. Servers send a few hundred bytes; browsers take up to 256 kB.
pub(super) const MAX_HEAD: u32 = 64 * 1024;

/// What the last exchange left to be done takes microseconds. A connection that needs longer is stuck with it, such as with the rest
/// of an upload that its server does not read.
const READY_TIME: Duration = Duration::from_secs(1);

/// What requests are handed to.
#[derive(Debug)]
pub(super) enum Send {
    Http1(http1::SendRequest<Upload>, Arc<DriverHandle>),
    Http2(http2::SendRequest<Upload>, Arc<Sharing>),
}

impl Send {
    /// Whether a request can be handed over: the last exchange may be complete for its caller a moment before hyper is ready for the
    /// next. `None` when that takes too long.
    pub(super) async fn ready(&mut self, timer: &mut Timer) -> Option<hyper::Result<()>> {
        let Self::Http1(send, _) = self else { return Some(Ok(())) };
        let mut latest = None;
        poll_fn(|cx| {
            if let Poll::Ready(ready) = send.poll_ready(cx) {
                return Poll::Ready(Some(ready));
            }
            let latest = *latest.get_or_insert_with(|| Instant::now() + READY_TIME);
            timer.poll(cx, latest).map(|()| None)
        })
        .await
    }
}

/// What the peer has said of how many requests it takes at once. Written by the task of the connection.
#[derive(Debug)]
pub(super) struct Sharing {
    limit: AtomicU32,
    settled: AtomicBool,
}

impl Sharing {
    /// One, until the peer has said how many.
    pub(super) fn new() -> Self {
        Self { limit: AtomicU32::new(1), settled: AtomicBool::new(false) }
    }

    pub(super) fn get(&self) -> Streams {
        Streams { limit: self.limit.load(Relaxed).max(1), settled: self.settled.load(Relaxed) }
    }

    pub(super) fn set(&self, streams: Streams) {
        self.limit.store(streams.limit, Relaxed);
        self.settled.store(streams.settled, Relaxed);
    }
}

/// An open connection. Dropping its first handle closes it, whatever it is doing; HTTP/1 has only that one.
#[derive(Debug)]
pub(super) struct Conn {
    slot: SlotId,
    pub(super) send: Send,
    pub(super) wire: Arc<Wire>,
    /// It leads to a proxy, which is told whole URLs.
    pub(super) forward: Option<Arc<Forward>>,
    /// When it came back last.
    pub(super) idle_since: Instant,
    /// It is not used beyond this age.
    pub(super) retires: Instant,
    /// How long the server said that it keeps idle connections.
    pub(super) hint: Option<Duration>,
    /// Wakes the user of the connection when something is late.
    pub(super) timer: Timer,
    /// Never used: its drop tells the task to end.
    _alive: Option<oneshot::Sender<Infallible>>,
}

impl Conn {
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.send, Send::Http2(..))
    }
}

impl Pooled for Box<Conn> {
    fn slot(&self) -> SlotId {
        self.slot
    }

    fn is_live(&self) -> bool {
        match &self.send {
            Send::Http1(send, _) => !send.is_closed(),
            Send::Http2(send, _) => !send.is_closed(),
        }
    }

    fn retires(&self) -> Instant {
        self.retires
    }

    fn streams(&self) -> Option<Streams> {
        match &self.send {
            Send::Http1(..) => None,
            Send::Http2(_, sharing) => Some(sharing.get()),
        }
    }

    fn share(&self) -> Self {
        let Send::Http2(send, sharing) = &self.send else {
            unreachable!("BUG: only a connection that has streams is shared")
        };
        Self::new(Conn {
            slot: self.slot,
            send: Send::Http2(send.clone(), Arc::clone(sharing)),
            wire: Arc::clone(&self.wire),
            forward: None,
            idle_since: self.idle_since,
            retires: self.retires,
            hint: self.hint,
            timer: Timer::default(),
            _alive: None,
        })
    }
}

/// One timer for all that can be late on a connection: to make one for each request costs more than the rest of the wait. It is left
/// alone while it runs out too early, and set again when it has.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready from `at` on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() == at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

/// The place of a connection, given free when its task ends, in whatever way.
pub(super) struct Occupied {
    pool: Weak<Inner>,
    slot: SlotId,
}

impl Occupied {
    /// Tells the pool what has become of the connection.
    pub(super) fn apply(&self, transition: impl FnOnce(&mut PoolState, SlotId, Instant, &mut PoolEffects)) {
        if let Some(pool) = self.pool.upgrade() {
            pool.apply(|state, now, fx| transition(state, self.slot, now, fx));
        }
    }

    /// Hands the open connection to the pool; the receiver ends when it is to be closed.
    pub(super) fn opened(
        &self,
        send: Send,
        wire: Arc<Wire>,
        forward: Option<Forward>,
    ) -> Option<oneshot::Receiver<Infallible>> {
        let pool = self.pool.upgrade()?;
        let (alive, ended) = oneshot::channel();
        let now = Instant::now();
        let retires = now + pool.lifetime();
        let slot = self.slot;
        let forward = forward.map(Arc::new);
        let conn = Box::new(Conn {
            slot,
            send,
            wire,
            forward,
            idle_since: now,
            retires,
            hint: None,
            // Made here, on the pool's runtime, which outlives those of the callers.
            timer: Timer(Some(Box::pin(sleep_until(retires)))),
            _alive: Some(alive),
        });
        let expires = pool.expiry(&conn, now);
        pool.apply(|state, now, fx| state.opened(conn, expires, now, fx));
        Some(ended)
    }

    pub(super) fn pool(&self) -> Option<Arc<Inner>> {
        self.pool.upgrade()
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.apply(|state, slot, now, fx| state.ended(slot, now, fx));
    }
}

/// The task of one connection.
pub(super) async fn run(pool: Weak<Inner>, slot: SlotId, key: Key) {
    // Declared first, so dropped last, after the socket, also when the task is aborted.
    let occupied = Occupied { pool, slot };
    let started = Instant::now();
    let Some(dialer) = occupied.pool().map(|pool| pool.dialer.clone()) else { return };
    let opened = dialer.open(&key).await;
    let Some(pool) = occupied.pool() else { return };
    pool.recorder.open_ended(opened.is_ok(), started.elapsed());
    let (stream, forward) = match opened {
        Ok(opened) => opened,
        Err(cause) => {
            tracing::debug!(host = %key, error = %cause, "no connection");
            return pool.apply(|state, now, fx| state.open_failed(slot, &Failure::Open(cause), now, fx));
        }
    };
    drop(pool);
    match stream.is_h2() {
        true => multiplex::drive(&occupied, stream).await,
        false => drive(&occupied, stream, forward).await,
    }
}

async fn drive(occupied: &Occupied, stream: Stream, forward: Option<Forward>) {
    let (socket, wire) = Socket::new(stream);
    let driver = Arc::new(DriverHandle::default());
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HEAD as usize);
    let handshake = builder.handshake(TokioIo::new(socket.driven_by(&driver))).await;
    // HTTP/1 has no handshake: hyper only allocates here.
    let Ok((send, connection)) = handshake else { return };
    let connection = Driven::new(connection, Arc::clone(&driver));
    let Some(ended) = occupied.opened(Send::Http1(send, driver), wire, forward) else { return };
    tokio::select! {
        biased;
        // Errors are told to the request under way; without one there is nobody to tell.
        result = connection => if let Err(error) = result {
            tracing::trace!(%error, "idle connection ended");
        },
        _ = ended => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_not_ready_for_a_request_is_waited_for_a_second_and_no_longer() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let (send, mut connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let mut send = Send::Http1(send, Arc::default());
        let started = Instant::now();
        // Nobody drives it.
        assert!(send.ready(&mut Timer::default()).await.is_none());
        assert_eq!(started.elapsed(), READY_TIME);

        let driven = poll_fn(|cx| {
            assert!(Pin::new(&mut connection).poll(cx).is_pending());
            Poll::Ready(())
        });
        driven.await;
        assert!(matches!(send.ready(&mut Timer::default()).await, Some(Ok(()))));
        assert_eq!(started.elapsed(), READY_TIME);
    }
}
