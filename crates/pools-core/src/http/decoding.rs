//! Bodies that were compressed for the wire.
//!
//! A request says what it can read (`Accept-Encoding`) unless its caller does; then the answer is given out decoded, without its
//! `Content-Encoding` and `Content-Length`. An encoding that nobody asked for is left as it is, with its headers.
//!
//! At most [`PIECE`] bytes are decoded at a time, when somebody asks for them, so that a small body that would become a huge one costs
//! nothing before it meets the caller's limit, which counts decoded bytes. A body whose end is missing is an error, never
//! a shorter body. Dropped early, a body is not decoded further.

use std::io;

use ::http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
};
use bytes::{Buf, Bytes};
use compression_codecs::{
    BrotliDecoder, DecodeV2, GzipDecoder, ZlibDecoder, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};

/// What we can read; servers choose the one they like best.
pub(super) const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");

/// Half of what TLS hands over at a time.
const PIECE: usize = 8 * 1024;
/// RFC 9659: a reader need not hold a longer window than 8 MB. Without a limit, a few bytes could ask for 128 MB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let value = values.next()?.to_str().ok()?.trim();
        let is = |name: &str| value.eq_ignore_ascii_case(name);
        let coding = match () {
            () if is("gzip") || is("x-gzip") => Self::Gzip,
            () if is("deflate") => Self::Deflate,
            () if is("br") => Self::Brotli,
            () if is("zstd") => Self::Zstd,
            // Several, one inside the other, or one that we never heard of.
            () => return None,
        };
        values.next().is_none().then_some(coding)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn codec(self) -> Box<dyn DecodeV2 + Send + Sync> {
        match self {
            Self::Gzip => Box::new(GzipDecoder::new()),
            Self::Deflate => Box::new(ZlibDecoder::new()),
            Self::Brotli => Box::new(BrotliDecoder::new()),
            Self::Zstd => {
                Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW_LOG)]))
            }
        }
    }
}

/// Turns what came over the wire into what was meant.
pub(super) struct Decoder {
    coding: Coding,
    codec: Box<dyn DecodeV2 + Send + Sync>,
    input: Bytes,
    output: Box<[u8]>,
    /// The codec may have more to give without more input.
    full: bool,
    begun: bool,
    ended: bool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("coding", &self.coding).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for the body of this head, which from now on describes the decoded body.
    pub(super) fn of(headers: &mut HeaderMap) -> Option<Self> {
        let coding = Coding::of(headers)?;
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        let output = vec![0; PIECE].into_boxed_slice();
        let codec = coding.codec();
        Some(Self { coding, codec, input: Bytes::new(), output, full: false, begun: false, ended: false })
    }

    pub(super) fn coding(&self) -> &'static str {
        self.coding.name()
    }

    /// The next piece of the body, which came after [`next`](Self::next) had nothing more.
    pub(super) fn push(&mut self, input: Bytes) {
        self.begun |= !input.is_empty();
        self.input = input;
    }

    /// What can be decoded from what was pushed; `None` when more is needed.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.full || !self.input.is_empty() {
            if self.ended {
                // Gzip and zstd bodies may be several in a row.
                if !matches!(self.coding, Coding::Gzip | Coding::Zstd) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "something follows the end"));
                }
                self.codec.reinit()?;
            }
            let drained = self.input.is_empty();
            let mut input = PartialBuffer::new(&*self.input);
            let mut output = WriteBuffer::new_initialized(&mut self.output);
            let ended = self.codec.decode(&mut input, &mut output);
            let (read, written) = (input.written_len(), output.written_len());
            self.input.advance(read);
            self.full = written == self.output.len();
            // A codec asked for more than it has complains about missing input, which may still come.
            self.ended = if drained { ended.unwrap_or(false) } else { ended? };
            self.full &= !self.ended;
            if written > 0 {
                return Ok(Some(Bytes::copy_from_slice(&self.output[..written])));
            }
            if read == 0 && !self.ended && !drained {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no progress"));
            }
        }
        Ok(None)
    }

    /// The body has ended. Nothing at all is nothing; otherwise the end must have been seen.
    pub(super) fn finish(&self) -> io::Result<()> {
        if self.ended || !self.begun { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
