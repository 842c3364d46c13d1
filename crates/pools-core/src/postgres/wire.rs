//! Reads the headers of what passes between driver and server, and so knows the *server's* state without a round
//! trip: is it inside a transaction, and how many answers are due?
//!
//! What still sits in the driver's own queue is not seen here; [`Conn`](super::conn::Conn) marks statements whose
//! future was dropped.
//!
//! Shutting the stream down reads it to its end. The server closes its side when its process is gone, so a
//! connection that was closed through here has left the server's own count, and a cancel request sent through
//! here has been delivered.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was seen of one connection. Written by its own task alone, unless said, and therefore without locking the bus.
#[derive(Debug, Default)]
pub(super) struct Wire {
    status: AtomicU8,
    due: AtomicI32,
    answers: AtomicU32,
    blocked: AtomicBool,
    /// Several callers share the connection. Written by those who have it, as is the next.
    pub(super) shared: AtomicBool,
    /// Callers wait for connections.
    pub(super) awaited: AtomicBool,
    copy: AtomicBool,
    reached: AtomicBool,
}

impl Wire {
    /// Somebody took the connection, be it only the kernel of the server's machine.
    pub(super) fn reach(&self) {
        self.reached.store(true, Ordering::Release);
    }

    pub(super) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    /// Whether the server said that it is outside any transaction, last time it was ready.
    pub(super) fn outside_transaction(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'I'
    }

    /// Whether answers are due: what was sent is not finished on the server.
    pub(super) fn busy(&self) -> bool {
        self.due.load(Ordering::Acquire) > 0
    }

    /// Whether the server ever asked for `COPY` data. Nobody sends any here, and the protocol is then out of step.
    pub(super) fn copied(&self) -> bool {
        self.copy.load(Ordering::Acquire)
    }

    /// Whether it is the server's turn: an answer is due, or what was sent is not taken.
    pub(super) fn waits_for_server(&self) -> bool {
        self.busy() || self.blocked.load(Ordering::Acquire)
    }

    /// How many statements were answered, modulo 2³².
    pub(super) fn answers(&self) -> u32 {
        self.answers.load(Ordering::Acquire)
    }

    /// Whether it pays to let others send before the next look at the stream. Who has the connection to himself sends
    /// nothing more while an answer is due.
    pub(super) fn gathers(&self) -> bool {
        self.shared.load(Ordering::Relaxed) || (self.awaited.load(Ordering::Relaxed) && !self.busy())
    }

    pub(super) fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
    }

    pub(super) fn sent(&self, kind: u8) {
        // One ReadyForQuery is due per start-up message (kind 0 here), Query, Sync and FunctionCall.
        if matches!(kind, 0 | b'Q' | b'S' | b'F') {
            self.due.store(self.due.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
    }

    pub(super) fn received(&self, kind: u8, first: u8) {
        match kind {
            b'Z' => {
                self.status.store(first, Ordering::Release);
                self.answers.store(self.answers.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
                self.due.store(self.due.load(Ordering::Relaxed) - 1, Ordering::Release);
            }
            b'G' => self.copy.store(true, Ordering::Release),
            _ => {}
        }
    }
}

/// Finds the messages in one direction of the stream: a type byte, four bytes of length (which count themselves),
/// a body.
#[derive(Debug, Default)]
struct Scanner {
    header: [u8; 5],
    have: usize,
    body: usize,
    first: bool,
}

impl Scanner {
    /// For the side that begins with the one message that has no type byte.
    fn untyped_first() -> Self {
        Self { have: 1, ..Self::default() }
    }

    fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            // Between two messages, most often: what is there whole needs not be put together.
            if self.have + self.body == 0
                && let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk()
                && let Some(rest_of_it) = (u32::from_be_bytes([a, b, c, d]) as usize).checked_sub(4)
                && let Some((body, rest)) = rest.split_at_checked(rest_of_it)
            {
                seen(kind, body.first().copied().unwrap_or_default());
                bytes = rest;
                continue;
            }
            if self.body > 0 {
                if std::mem::take(&mut self.first) {
                    seen(self.header[0], bytes[0]);
                }
                let skip = self.body.min(bytes.len());
                self.body -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            let take = (5 - self.have).min(bytes.len());
            self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == 5 {
                let [kind, length @ ..] = self.header;
                self.have = 0;
                self.body = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.first = self.body > 0;
                if self.body == 0 {
                    seen(kind, 0);
                }
            }
        }
    }
}

/// A stream whose messages are counted.
#[derive(Debug)]
pub(super) struct Observed<S> {
    inner: S,
    wire: Arc<Wire>,
    reads: Scanner,
    writes: Scanner,
    blocked: bool,
    shut: bool,
}

impl<S> Observed<S> {
    pub(super) fn new(inner: S, wire: Arc<Wire>) -> Self {
        let (reads, writes) = (Scanner::default(), Scanner::untyped_first());
        Self { inner, wire, reads, writes, blocked: false, shut: false }
    }

    pub(super) fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let wire = &this.wire;
        this.reads.feed(&buf.filled()[before..], |kind, first| wire.received(kind, first));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        if this.blocked != written.is_pending() {
            this.blocked = written.is_pending();
            this.wire.block(this.blocked);
        }
        let written = ready!(written)?;
        let wire = &this.wire;
        this.writes.feed(&buf[..written], |kind, _| wire.sent(kind));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.shut = true;
        }
        loop {
            let mut scratch = [0; 512];
            let mut rest = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => {}
                // The end, or an error such as a reset: either way the server's side is gone.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("BUG: a short body");
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let stream = [message(b'1', b""), message(b'D', b"a row with Z in it"), message(b'Z', b"T")].concat();
        for cut in 1..stream.len() {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            for part in stream.chunks(cut) {
                scanner.feed(part, |kind, first| seen.push((kind, first)));
            }
            assert_eq!(seen, [(b'1', 0), (b'D', b'a'), (b'Z', b'T')], "cut every {cut} bytes");
        }
    }

    #[tokio::test]
    async fn what_the_server_does_not_take_is_known_until_it_does() {
        let (ours, mut server) = tokio::io::duplex(8);
        let wire = Arc::<Wire>::default();
        let mut observed = Observed::new(ours, Arc::clone(&wire));
        let blocked = || wire.blocked.load(Ordering::Acquire);
        let mut writing = Box::pin(observed.write_all(&[0; 16]));
        assert!(futures_util::poll!(&mut writing).is_pending() && blocked());
        server.read_exact(&mut [0; 8]).await.unwrap();
        writing.await.unwrap();
        assert!(!blocked());
    }

    #[test]
    fn an_answer_is_due_from_the_sync_to_the_ready_message() {
        let wire = Wire::default();
        let mut writes = Scanner::untyped_first();
        writes.feed(&message(b'?', b"\0\x03\0\0user\0")[1..], |kind, _| wire.sent(kind));
        assert!(wire.busy(), "the start-up message is answered by ReadyForQuery");
        wire.received(b'Z', b'I');
        assert!(!wire.busy() && wire.outside_transaction());
        writes.feed(&[message(b'B', b"x"), message(b'S', b"")].concat(), |kind, _| wire.sent(kind));
        assert!(wire.busy());
        wire.received(b'Z', b'E');
        assert!(!wire.busy() && !wire.outside_transaction());
    }
}
