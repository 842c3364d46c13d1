//! A form as `multipart/form-data` (RFC 7578), its files streamed.
//!
//! ```
//! # use pools_core::http::multipart::Form;
//! # use bytes::Bytes;
//! let pieces = futures_util::stream::iter([Ok(Bytes::from("a,b\n")), Ok(Bytes::from("1,2\n"))]);
//! let form = Form::new().text("kind", "table").file("file", "a.csv", "text/csv", 8, pieces);
//! ```
//!
//! Names and file names are escaped as browsers do it (`"`, CR and LF become `%22`, `%0D`, `%0A`), so that none can end its
//! header line. The boundary is random: content cannot contain it, except by guessing 128 bits.

use std::fmt;

use ::http::HeaderValue;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio_rustls::rustls::crypto::ring;

use super::upload::{Content, SourceError};

type Piece = stream::BoxStream<'static, Result<Bytes, SourceError>>;

/// A form. Sent by [`RequestBuilder::multipart`](super::RequestBuilder::multipart).
#[must_use = "nothing is sent before `RequestBuilder::multipart`"]
pub struct Form {
    boundary: String,
    /// What comes before the next file.
    text: Vec<u8>,
    pieces: Vec<Piece>,
    length: u64,
    bad: Option<::http::header::InvalidHeaderValue>,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Default for Form {
    fn default() -> Self {
        Self::new()
    }
}

impl Form {
    /// A form without fields.
    pub fn new() -> Self {
        Self { boundary: boundary(), text: Vec::new(), pieces: Vec::new(), length: 0, bad: None }
    }

    /// Adds a field.
    pub fn text(mut self, name: &str, value: &str) -> Self {
        let name = escaped(name);
        self.open(&format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}"));
        self
    }

    /// Adds a file of exactly `length` bytes. Its type is a header value; a bad one is told by `send`.
    pub fn file(
        mut self,
        name: &str,
        file_name: &str,
        content_type: &str,
        length: u64,
        content: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static,
    ) -> Self {
        if let Err(cause) = HeaderValue::from_str(content_type) {
            self.bad = Some(cause);
        }
        let (name, file_name) = (escaped(name), escaped(file_name));
        self.open(&format!(
            "Content-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
             Content-Type: {content_type}\r\n\r\n"
        ));
        self.flush();
        self.length += length;
        self.pieces.push(content.boxed());
        self
    }

    fn open(&mut self, part: &str) {
        let before = if self.text.is_empty() && self.pieces.is_empty() { "" } else { "\r\n" };
        self.text.extend_from_slice(format!("{before}--{}\r\n{part}", self.boundary).as_bytes());
    }

    fn flush(&mut self) {
        let text = Bytes::from(std::mem::take(&mut self.text));
        self.length += text.len() as u64;
        self.pieces.push(stream::once(async { Ok(text) }).boxed());
    }

    /// `Content-Type`, and the body: all of it at once if there is no file.
    pub(super) fn finish(mut self) -> Result<(HeaderValue, Content), ::http::header::InvalidHeaderValue> {
        if let Some(bad) = self.bad {
            return Err(bad);
        }
        let kind = HeaderValue::try_from(format!("multipart/form-data; boundary={}", self.boundary))?;
        let before = if self.text.is_empty() && self.pieces.is_empty() { "" } else { "\r\n" };
        self.text.extend_from_slice(format!("{before}--{}--\r\n", self.boundary).as_bytes());
        if self.pieces.is_empty() {
            return Ok((kind, Content::Whole(self.text.into())));
        }
        self.flush();
        Ok((kind, Content::streamed(self.length, stream::iter(self.pieces).flatten())))
    }
}

/// A boundary that nobody can guess, for whoever frames a form without [`Form`].
pub fn boundary() -> String {
    let mut random = [0; 16];
    // Only fails when the system has no randomness; then TLS fails as well, and a boundary need only be rare.
    if ring::default_provider().secure_random.fill(&mut random).is_err() {
        fastrand::fill(&mut random);
    }
    format!("form-{:032x}", u128::from_ne_bytes(random))
}

/// As HTML's "multipart/form-data encoding algorithm" has it.
fn escaped(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_without_files_is_there_at_once_and_no_name_ends_its_line() {
        let form = Form::new().text("a\"\r\nb", "1").text("c", "2");
        let boundary = form.boundary.clone();
        let (kind, content) = form.finish().unwrap();
        assert_eq!(kind, format!("multipart/form-data; boundary={boundary}"));
        let Content::Whole(body) = content else { panic!("{content:?}") };
        let field = |name, value| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let expected = format!("{}{}--{boundary}--\r\n", field("a%22%0D%0Ab", 1), field("c", 2));
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }

    #[test]
    fn the_boundary_differs_and_a_bad_type_is_refused() {
        assert_ne!(Form::new().boundary, Form::new().boundary);
        let form = Form::new().file("f", "f", "text/plain\r\nx: y", 0, stream::empty());
        assert!(form.finish().is_err());
    }
}
