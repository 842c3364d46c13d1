//! What a request sends: bytes that are there, or a stream that is read while it is sent.
//!
//! A stream says its length beforehand, so that the server is told an exact `Content-Length`. Its last piece is kept back until
//! the stream has ended: a stream that turns out longer is never taken for a whole body. Memory holds one item of the stream and
//! what hyper and the kernel buffer. Once an item was taken, the request cannot be sent again.
//!
//! **Owner.** hyper's connection task reads the stream; the request keeps a handle to it, for what became of it. Cancelled, the
//! stream is dropped with the connection. A stream that panics ends the connection.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::wire::Wire;

/// A body is handed to hyper in pieces of this size, so that a slow upload is seen to move.
const PIECE: usize = 64 * 1024;

/// Why a source of a body could not go on.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// Why a streamed body could not be sent to its end. The connection is closed then.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The caller's stream failed.
    #[error("the source of the body failed")]
    Source(#[source] Arc<dyn Error + Send + Sync>),
    /// The stream ended before the declared length.
    #[error("the body ended after {got} of the declared {declared} bytes")]
    Short {
        /// What was declared.
        declared: u64,
        /// What came.
        got: u64,
    },
    /// The stream did not end at the declared length.
    #[error("the body is longer than the declared {declared} bytes")]
    Long {
        /// What was declared.
        declared: u64,
    },
}

/// The body of a request that was not sent yet.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Whole(Bytes),
    Streamed(Arc<Streamed>),
}

impl Content {
    pub(super) fn streamed(
        length: u64,
        items: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static,
    ) -> Self {
        let source = Source {
            items: items.boxed(),
            declared: length,
            left: length,
            ready: Bytes::new(),
            taken: false,
            ended: false,
            failed: None,
        };
        Self::Streamed(Arc::new(Streamed { length, source: Mutex::new(source) }))
    }

    fn length(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Streamed(streamed) => streamed.length,
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.length() == 0
    }

    /// Whether it can be sent from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streamed(streamed) => !streamed.source.lock().taken,
        }
    }

    fn stream(&self) -> Option<&Arc<Streamed>> {
        match self {
            Self::Whole(_) => None,
            Self::Streamed(streamed) => Some(streamed),
        }
    }

    /// hyper does not read a body whose length is nothing, so it is looked at here.
    pub(super) async fn check_if_empty(&self) -> Result<(), UploadError> {
        let Some(streamed) = self.stream().filter(|streamed| streamed.length == 0) else { return Ok(()) };
        match std::future::poll_fn(|cx| streamed.source.lock().poll_piece(cx)).await {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn upload(&self) -> Upload {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Upload(None),
            _ => Upload(Some(Box::new(Rest { content: self.clone(), moved: None }))),
        }
    }
}

/// A body that is read while it is sent.
pub(super) struct Streamed {
    length: u64,
    source: Mutex<Source>,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("length", &self.length).finish_non_exhaustive()
    }
}

struct Source {
    items: BoxStream<'static, Result<Bytes, SourceError>>,
    declared: u64,
    /// What hyper has not been given yet.
    left: u64,
    /// What the stream gave and hyper was not given yet.
    ready: Bytes,
    taken: bool,
    ended: bool,
    failed: Option<UploadError>,
}

impl Source {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadError>>> {
        loop {
            let piece = self.ready.len().min(PIECE);
            if piece > 0 && (self.ended || (piece as u64) < self.left) {
                self.left -= piece as u64;
                return Poll::Ready(Some(Ok(self.ready.split_to(piece))));
            }
            if self.ended || self.failed.is_some() {
                return Poll::Ready(None);
            }
            self.taken = true;
            match ready!(self.items.as_mut().poll_next(cx)) {
                Some(Ok(item)) if (self.ready.len() + item.len()) as u64 > self.left => {
                    return self.fail(UploadError::Long { declared: self.declared });
                }
                // Something ready is all that is left: then only an empty item is no error.
                Some(Ok(item)) if self.ready.is_empty() => self.ready = item,
                Some(Ok(_)) => {}
                Some(Err(cause)) => return self.fail(UploadError::Source(Arc::from(cause))),
                None if (self.ready.len() as u64) < self.left => {
                    let got = self.declared - self.left;
                    return self.fail(UploadError::Short { declared: self.declared, got });
                }
                None => {
                    self.ended = true;
                    self.items = stream::empty().boxed();
                }
            }
        }
    }

    fn fail(&mut self, error: UploadError) -> Poll<Option<Result<Bytes, UploadError>>> {
        self.failed = Some(error.clone());
        self.items = stream::empty().boxed();
        Poll::Ready(Some(Err(error)))
    }
}

/// A request body as hyper reads it. One pointer, since hyper moves it along with the request some twenty times.
#[derive(Debug)]
pub(super) struct Upload(Option<Box<Rest>>);

#[derive(Debug)]
struct Rest {
    content: Content,
    moved: Option<Arc<Wire>>,
}

impl Upload {
    /// Where no socket is the request's own, what is handed over is what has moved.
    pub(super) fn told_to(&mut self, moved: Arc<Wire>) {
        if let Some(rest) = &mut self.0 {
            rest.moved = Some(moved);
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(rest) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let piece = match &mut rest.content {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(bytes.split_to(bytes.len().min(PIECE)))),
            Content::Streamed(streamed) => ready!(streamed.source.lock().poll_piece(cx)),
        };
        if let (Some(Ok(piece)), Some(moved)) = (&piece, &rest.moved) {
            moved.did_write(piece.len());
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|rest| match &rest.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Streamed(streamed) => {
                let source = streamed.source.lock();
                source.ended && source.left == 0
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |rest| match &rest.content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Streamed(streamed) => streamed.source.lock().left,
        }))
    }
}

/// How far an upload has come.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) wire: Arc<Wire>,
    written_before: u64,
    needed: u64,
    streamed: Option<Arc<Streamed>>,
}

impl Progress {
    /// On a connection of its own.
    pub(super) fn alone(wire: Arc<Wire>, content: &Content) -> Self {
        let written_before = wire.written();
        // The head comes on top of the body, so this is late rather than early.
        let needed = content.length() + 1;
        Self { wire, written_before, needed, streamed: content.stream().cloned() }
    }

    /// On a connection with others: what was handed over counts, of which little waits in our buffers.
    pub(super) fn shared(content: &Content) -> Self {
        let streamed = content.stream().cloned();
        Self { wire: Arc::default(), written_before: 0, needed: content.length(), streamed }
    }

    /// Whether the kernel has all of it.
    pub(super) fn is_done(&self) -> bool {
        self.wire.written() - self.written_before >= self.needed
    }

    /// Why the body could not be sent, if it was the body.
    pub(super) fn failure(&self) -> Option<UploadError> {
        self.streamed.as_ref().and_then(|streamed| streamed.source.lock().failed.clone())
    }
}
