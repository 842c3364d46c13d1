//! A socket as hyper sees it, and what the pool must know of it: how much was written and read, and when.
//!
//! A server that refuses an upload answers, closes and resets. The write then fails while the answer waits in our receive
//! buffer; hyper would give up without reading it. So a reset seen while writing is kept back: hyper goes on
//! reading, and finds the answer, or the same reset.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use super::wakes::{DriverHandle, Readiness};

/// Instants do not fit into an atomic; nanoseconds since this one do.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What has passed over a connection. Written by its task, read by whoever uses it.
#[derive(Debug, Default)]
pub(super) struct Wire {
    read: AtomicU64,
    written: AtomicU64,
    written_at: AtomicU64,
    moved_at: AtomicU64,
}

impl Wire {
    /// Bytes received.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Bytes that the kernel took.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// When the kernel last took a byte.
    pub(super) fn written_at(&self) -> Instant {
        *EPOCH + Duration::from_nanos(self.written_at.load(Relaxed))
    }

    /// When a byte moved last, in either direction.
    pub(super) fn moved_at(&self) -> Instant {
        *EPOCH + Duration::from_nanos(self.moved_at.load(Relaxed))
    }

    fn did_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Relaxed);
        self.moved_at.store(nanos(), Relaxed);
    }

    pub(super) fn did_write(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
        let now = nanos();
        self.written_at.store(now, Relaxed);
        self.moved_at.store(now, Relaxed);
    }
}

fn nanos() -> u64 {
    let since = Instant::now().saturating_duration_since(*EPOCH);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What a connection goes over.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Stream {
    /// One virtual call a read or write, which is nothing beside its system call.
    fn io(&mut self) -> Pin<&mut dyn Io> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream),
            Self::Unix(stream) => Pin::new(stream),
        }
    }

    /// Whether the handshake has agreed on HTTP/2.
    pub(super) fn is_h2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

/// A stream that keeps its [`Wire`] up to date.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    wire: Arc<Wire>,
    readiness: Option<Readiness>,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> (Self, Arc<Wire>) {
        let wire = Arc::new(Wire::default());
        (Self { stream, wire: Arc::clone(&wire), readiness: None }, wire)
    }

    /// Only the task behind this driver reads.
    pub(super) fn driven_by(self, driver: &Arc<DriverHandle>) -> Self {
        Self { readiness: Some(Readiness::new(Arc::clone(driver))), ..self }
    }

    fn wrote(&self, result: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match result {
            Ok(bytes) => {
                self.wire.did_write(bytes);
                Ok(bytes)
            }
            // Not counted as written: the connection will not be taken for one that is free to use.
            Err(error) if is_lost(&error) => Ok(offered),
            Err(error) => Err(error),
        }
    }
}

fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = match &mut this.readiness {
            Some(readiness) => readiness.poll(|cx| this.stream.io().poll_read(cx, buf)),
            None => this.stream.io().poll_read(cx, buf),
        };
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            this.wire.did_read(bytes);
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = this.stream.io().poll_write(cx, bytes);
        result.map(|result| this.wrote(result, bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [slice] = slices {
            // Most requests are a head alone, which costs the kernel less this way.
            return self.poll_write(cx, slice);
        }
        let this = self.get_mut();
        let result = this.stream.io().poll_write_vectored(cx, slices);
        result.map(|result| this.wrote(result, slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.get_mut().stream.io().poll_flush(cx);
        result.map(|result| result.or_else(|error| if is_lost(&error) { Ok(()) } else { Err(error) }))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.io().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn http_21_a_reset_met_while_writing_is_kept_back_until_the_answer_was_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"413").await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        let (mut socket, wire) = Socket::new(Stream::Plain(client));
        let refused = async {
            loop {
                let before = wire.written();
                assert_eq!(socket.write(b"upload").await.unwrap(), 6);
                if wire.written() == before {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), refused).await.expect("the reset never came");
        let mut answer = [0; 3];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"413");
        // Then the end: hyper sees that there is no more.
        assert!(!matches!(socket.read(&mut answer).await, Ok(1..)));
    }
}
