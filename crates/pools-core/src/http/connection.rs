//! One connection from its dial to its closed socket, and what callers hold of it.
//!
//! ```text
//!  task "http connection":  dial ──► handshake ──► drive hyper's Connection ──► drop it: socket closed ──► place freed
//!                            │ error                 until it ends, or until                              (also when the task
//!                            └──► open_failed        the `Conn` is dropped                                 panics or is cut)
//! ```
//!
//! The task holds the pool weakly: dropped with its last clone, the pool drops its idle [`Conn`]s, which ends their tasks.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Inner,
    error::Failure,
    state::{Pooled, SlotId},
    target::Key,
    upload::Upload,
    wire::{Socket, Stream, Wire},
};

/// Longest head of an answer that is read. Servers send a few hundred bytes; browsers take up to 256 kB.
const MAX_HEAD: usize = 64 * 1024;

/// An open connection. Dropping it closes it, whatever it is doing.
#[derive(Debug)]
pub(super) struct Conn {
    slot: SlotId,
    pub(super) send: SendRequest<Upload>,
    pub(super) wire: Arc<Wire>,
    /// When it came back last.
    pub(super) idle_since: Instant,
    /// It is not used beyond this age.
    pub(super) retires: Instant,
    /// How long the server said that it keeps idle connections.
    pub(super) hint: Option<Duration>,
    /// Never used: its drop tells the task to end.
    _alive: oneshot::Sender<std::convert::Infallible>,
}

impl Pooled for Conn {
    fn slot(&self) -> SlotId {
        self.slot
    }

    fn is_live(&self) -> bool {
        !self.send.is_closed()
    }
}

/// Gives the place of a connection free when its task ends, in whatever way.
struct Occupied {
    pool: Weak<Inner>,
    slot: SlotId,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.apply(|state, now| state.ended(self.slot, now));
        }
    }
}

/// The task of one connection.
pub(super) async fn run(pool: Weak<Inner>, slot: SlotId, key: Key) {
    // Declared first, so dropped last, after the socket, also when the task is aborted.
    let occupied = Occupied { pool, slot };
    let started = Instant::now();
    let Some(dialer) = occupied.pool.upgrade().map(|pool| pool.dialer.clone()) else { return };
    let opened = dialer.open(&key).await;
    let Some(pool) = occupied.pool.upgrade() else { return };
    pool.recorder.open_ended(opened.is_ok(), started.elapsed());
    let stream = match opened {
        Ok(stream) => stream,
        Err(cause) => {
            tracing::debug!(host = %key, error = %cause, "no connection");
            return pool.apply(|state, now| state.open_failed(slot, &Failure::Open(cause), now));
        }
    };
    drop(pool);
    drive(&occupied, stream).await;
}

async fn drive(occupied: &Occupied, stream: Stream) {
    let (socket, wire) = Socket::new(stream);
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HEAD);
    let handshake = builder.handshake(TokioIo::new(socket)).await;
    // HTTP/1 has no handshake: hyper only allocates here.
    let Ok((send, connection)) = handshake else { return };
    let (alive, ended) = oneshot::channel();
    {
        let Some(pool) = occupied.pool.upgrade() else { return };
        let now = Instant::now();
        let retires = now + pool.lifetime();
        let slot = occupied.slot;
        let conn = Conn { slot, send, wire, idle_since: now, retires, hint: None, _alive: alive };
        let expires = pool.expiry(&conn, now);
        pool.apply(|state, now| state.opened(conn, expires, now));
    }
    tokio::select! {
        // Errors are told to the request under way; without one there is nobody to tell.
        result = connection => if let Err(error) = result {
            tracing::trace!(%error, "idle connection ended");
        },
        _ = ended => {}
    }
}
