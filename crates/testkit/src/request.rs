//! Reading requests from a raw socket, just enough HTTP/1.1 to serve any client.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::reply::End;

/// The first line and the headers.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Some(Self { method, target, headers: headers.collect() })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A socket and what was read from it but not used yet.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: TcpStream,
    buffer: BytesMut,
    /// Bytes of all connections so far.
    received: Arc<AtomicU64>,
}

impl Reader {
    pub(crate) fn new(socket: TcpStream, received: Arc<AtomicU64>) -> Self {
        Self { socket, buffer: BytesMut::new(), received }
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// How much is there to use, after a read if there was nothing; 0 is the client's FIN.
    ///
    /// # Cancel safety
    /// Nothing read is lost.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty() { self.read().await } else { Ok(self.buffer.len()) }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let read = self.socket.read_buf(&mut self.buffer).await?;
        self.received.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read)
    }

    async fn need(&mut self) -> io::Result<()> {
        match self.read().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Everything up to and including `end`.
    async fn take_through(&mut self, end: &[u8]) -> io::Result<Bytes> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(self.buffer.split_to(at + end.len()).freeze());
            }
            self.need().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Bytes> {
        while self.buffer.len() < length {
            self.need().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        let bytes = self.take_through(b"\r\n\r\n").await?;
        Head::parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The whole body, asked for with `100 Continue` where the client waits for that.
    pub(crate) async fn body(&mut self, head: &Head) -> io::Result<Bytes> {
        if head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if head.header("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
            return self.chunked().await;
        }
        let length = head.header("content-length").map_or(Ok(0), str::parse);
        self.take(length.map_err(|_| io::ErrorKind::InvalidData)?).await
    }

    async fn chunked(&mut self) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let line = String::from_utf8_lossy(&self.take_through(b"\r\n").await?).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&self.take(size).await?);
            self.take(2).await?.advance(2);
        }
        // Trailers, down to the empty line.
        while self.take_through(b"\r\n").await?.len() > 2 {}
        Ok(body.freeze())
    }

    /// Waits, but no longer than the client stays: an error when it has closed its side.
    pub(crate) async fn pause(&mut self, pause: Duration) -> io::Result<()> {
        if pause.is_zero() {
            return Ok(());
        }
        let mut byte = [0];
        let gone = async {
            // With something unread in front, a FIN cannot be seen; then only the pause counts.
            if matches!(self.socket.peek(&mut byte).await, Ok(1..)) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = gone => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// What has to happen while the connection stays open; the answer is how to end it then.
    pub(crate) async fn linger(&mut self, end: End) -> End {
        if end == End::HalfClose && self.socket.shutdown().await.is_err() {
            return End::Close; // The client was quicker.
        }
        match end {
            End::HalfClose | End::Hang => self.discard().await,
            End::Stop => std::future::pending().await,
            End::KeepAlive | End::Close | End::Reset => {}
        }
        end
    }

    /// Ends the connection: with RST if that is asked for, else with FIN.
    pub(crate) async fn finish(mut self, end: End) {
        // What fails here fails because the client was quicker to end the connection.
        if end == End::Reset {
            let _ = self.socket.set_zero_linger();
            return;
        }
        // The kernel sends RST instead of FIN when something is left unread.
        while matches!(self.socket.try_read_buf(&mut self.buffer), Ok(1..)) {}
        let _ = self.socket.shutdown().await;
    }

    /// Reads until the client closes.
    async fn discard(&mut self) {
        while matches!(self.read().await, Ok(1..)) {
            self.buffer.clear();
        }
    }
}
