//! What an [`crate::Upstream`] answers: a right HTTP/1.1 response, and every way of getting it wrong.

use std::fmt::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// What happens to the connection after the bytes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next request is read, unless the client asked for `Connection: close`.
    KeepAlive,
    /// FIN, and the socket is gone.
    Close,
    /// RST.
    Reset,
    /// FIN, but the server goes on reading until the client closes.
    HalfClose,
    /// Nothing more is ever sent; the connection stays open until the client closes it.
    Hang,
    /// Nothing more is sent or read, as by a program that is stuck: the kernel's buffers fill up, nobody notices that the client
    /// closes, and the connection stays open until the server ends.
    Stop,
}

/// How the length of a body is told.
#[derive(Debug, Clone)]
enum Framing {
    ContentLength,
    Chunked {
        trailers: Vec<(String, String)>,
    },
    UntilClose,
    /// No head at all: the body is everything.
    Raw,
}

/// One answer, built up by what it shall do. Without more it is a well-formed one that keeps the connection.
#[derive(Debug, Clone)]
pub struct Reply {
    delay: Duration,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<Bytes>,
    framing: Framing,
    head_pause: Option<Duration>,
    body_pause: Duration,
    cut_at: Option<usize>,
    extra: Bytes,
    end: End,
}

/// A part of what goes over the wire, and the wait before it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) pause: Duration,
    pub(crate) bytes: Bytes,
}

impl Reply {
    /// A response with this status and no body.
    pub fn new(status: u16) -> Self {
        Self {
            delay: Duration::ZERO,
            status,
            headers: Vec::new(),
            body: Vec::new(),
            framing: Framing::ContentLength,
            head_pause: None,
            body_pause: Duration::ZERO,
            cut_at: None,
            extra: Bytes::new(),
            end: End::KeepAlive,
        }
    }

    /// 200 with this body.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(200).body(body)
    }

    /// 200 with this text as `application/json`.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::ok(body).header("content-type", "application/json")
    }

    /// These bytes and no others, HTTP or not.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { framing: Framing::Raw, ..Self::ok(bytes) }
    }

    /// No byte ever; the connection stays open.
    pub fn never() -> Self {
        Self::raw("").then(End::Hang)
    }

    /// The connection is closed or reset instead of an answer.
    pub fn none(end: End) -> Self {
        Self::raw("").then(end)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a header that is this many bytes long.
    pub fn huge_header(self, bytes: usize) -> Self {
        self.header("x-huge", &"h".repeat(bytes))
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = vec![body.into()];
        self
    }

    /// Sends the body as these chunks, with `Transfer-Encoding: chunked`.
    pub fn chunks<B: Into<Bytes>>(mut self, chunks: impl IntoIterator<Item = B>) -> Self {
        self.body = chunks.into_iter().map(Into::into).collect();
        self.framing = Framing::Chunked { trailers: Vec::new() };
        self
    }

    /// Adds a trailer behind the last chunk.
    ///
    /// # Panics
    /// When the body is not sent in chunks.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let Framing::Chunked { trailers } = &mut self.framing else { panic!("only chunks have trailers") };
        trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Tells no length: the body ends with the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self.then(End::Close)
    }

    /// Waits before the first byte.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits this long before every single byte of the head.
    pub fn slow_head(mut self, pause: Duration) -> Self {
        self.head_pause = Some(pause);
        self
    }

    /// Waits this long before every piece of the body; pieces are the chunks, or one.
    pub fn slow_body(mut self, pause: Duration) -> Self {
        self.body_pause = pause;
        self
    }

    /// Sends only the first `bytes` of what follows the head (chunk sizes count), then does `end`.
    pub fn cut_at(mut self, bytes: usize, end: End) -> Self {
        self.cut_at = Some(bytes);
        self.then(end)
    }

    /// Sends bytes that belong to no response after it, in the same segment.
    pub fn extra(mut self, bytes: impl Into<Bytes>) -> Self {
        self.extra = bytes.into();
        self
    }

    /// What happens to the connection afterwards.
    pub fn then(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// What goes over the wire; `head_only` is the answer to a HEAD request.
    pub(crate) fn parts(&self, head_only: bool) -> Vec<Part> {
        let mut parts = vec![Part { pause: self.delay, bytes: Bytes::new() }];
        let head = self.head();
        if let Some(pause) = self.head_pause {
            parts.extend((0..head.len()).map(|at| Part { pause, bytes: head.slice(at..=at) }));
        } else {
            parts.push(Part { pause: Duration::ZERO, bytes: head });
        }
        if !head_only {
            self.push_body(&mut parts);
        }
        join_unpaused(parts)
    }

    fn push_body(&self, parts: &mut Vec<Part>) {
        let mut left = self.cut_at.unwrap_or(usize::MAX);
        for piece in self.pieces() {
            let bytes = piece.slice(..piece.len().min(left));
            left -= bytes.len();
            parts.push(Part { pause: self.body_pause, bytes });
            if left == 0 {
                return;
            }
        }
        parts.push(Part { pause: Duration::ZERO, bytes: self.extra.clone() });
    }

    fn head(&self) -> Bytes {
        let length = match self.framing {
            Framing::Raw => return Bytes::new(),
            Framing::UntilClose => String::new(),
            Framing::Chunked { .. } => "transfer-encoding: chunked\r\n".to_owned(),
            // These statuses have no body, and must not tell a length.
            Framing::ContentLength if matches!(self.status, 100..=199 | 204 | 304) => String::new(),
            Framing::ContentLength => {
                format!("content-length: {}\r\n", self.body.iter().map(Bytes::len).sum::<usize>())
            }
        };
        let mut head = format!("HTTP/1.1 {} Scripted\r\n{length}", self.status);
        push_fields(&mut head, &self.headers);
        head.into()
    }

    /// The body as it is framed.
    fn pieces(&self) -> Vec<Bytes> {
        let Framing::Chunked { trailers } = &self.framing else { return self.body.clone() };
        let mut pieces: Vec<Bytes> = self.body.iter().map(chunk).collect();
        let mut last = "0\r\n".to_owned();
        push_fields(&mut last, trailers);
        pieces.push(last.into());
        pieces
    }
}

fn chunk(data: &Bytes) -> Bytes {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat().into()
}

/// Header or trailer lines and the empty line behind them.
fn push_fields(text: &mut String, fields: &[(String, String)]) {
    for (name, value) in fields {
        write!(text, "{name}: {value}\r\n").expect("BUG: a string takes any text");
    }
    text.push_str("\r\n");
}

/// Joins what is sent without a pause, so that a plain reply is one segment, as from a real server.
fn join_unpaused(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if part.pause.is_zero() => {
                let mut both = BytesMut::from(&last.bytes[..]);
                both.extend_from_slice(&part.bytes);
                last.bytes = both.freeze();
            }
            _ => joined.push(part),
        }
    }
    joined
}
