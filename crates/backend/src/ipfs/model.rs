//! What a document is, what a content id is, and the form that carries a document to Pinata.

use bytes::Bytes;
use cid::Cid;

/// Largest document.
pub const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// How much of a document's beginning tells its type: the longest signature that matters here is 36 bytes, and HTML may
/// stand behind blanks.
pub const HEAD_BYTES: usize = 512;

/// Pinata's public gateway.
const GATEWAY: &str = "https://gateway.pinata.cloud/ipfs/";

/// The accepted types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentType {
    /// `application/pdf`
    Pdf,
    /// `image/jpeg`
    Jpeg,
    /// `image/png`
    Png,
    /// `text/plain`, in UTF-8
    Text,
}

impl DocumentType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pdf, Self::Jpeg, Self::Png, Self::Text];

    /// The type of this name, without parameters.
    pub fn parse(media_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(media_type))
    }

    /// Its media type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Text => "text/plain",
        }
    }
}

/// Why a document is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// There is nothing in it.
    #[error("the document is empty")]
    Empty,
    /// It is longer than [`MAX_BYTES`].
    #[error("the document is larger than 10 MiB")]
    TooLarge,
    /// It is called one type and is another.
    #[error("the document is called {} but is {}", declared.name(), found.unwrap_or("something else"))]
    Mismatch {
        /// What the form says.
        declared: DocumentType,
        /// What its first bytes say, where they say something.
        found: Option<&'static str>,
    },
    /// It is called text and holds something that no text holds.
    #[error("the document is called text/plain but is not text in UTF-8")]
    NotText,
}

/// Looks at a document while it passes by.
#[derive(Debug)]
pub struct Inspector {
    kind: DocumentType,
    bytes: u64,
    /// The beginning of a character whose end is in the next piece.
    partial: Vec<u8>,
}

impl Inspector {
    /// `head` holds the first [`HEAD_BYTES`] of the document, or all of it. They are to be inspected as well.
    ///
    /// # Errors
    /// The document is empty, or of another type.
    pub fn new(kind: DocumentType, head: &[u8]) -> Result<Self, Unfit> {
        if head.is_empty() {
            return Err(Unfit::Empty);
        }
        let found = infer::get(head);
        let name = found.map(|found| found.mime_type());
        // Text has no signature. That of a short one, such as "BM" or "MZ", also begins ordinary texts; whether the
        // content is text shows in all of it.
        let fits = match kind {
            DocumentType::Text => found.is_none_or(|found| {
                let is_other = DocumentType::ALL.into_iter().any(|other| other.name() == found.mime_type());
                !is_other && found.matcher_type() != infer::MatcherType::Text
            }),
            kind => name == Some(kind.name()),
        };
        if !fits {
            return Err(Unfit::Mismatch { declared: kind, found: name });
        }
        Ok(Self { kind, bytes: 0, partial: Vec::new() })
    }

    /// The next piece, whatever its size.
    ///
    /// # Errors
    /// The document is too large, or no text although it is called so.
    pub fn inspect(&mut self, piece: &[u8]) -> Result<(), Unfit> {
        self.bytes += piece.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(Unfit::TooLarge);
        }
        match self.kind {
            DocumentType::Text => self.inspect_text(piece),
            _ => Ok(()),
        }
    }

    /// The document has ended. Returns its length.
    ///
    /// # Errors
    /// It ends in the middle of a character.
    pub fn finish(self) -> Result<u64, Unfit> {
        if self.partial.is_empty() { Ok(self.bytes) } else { Err(Unfit::NotText) }
    }

    fn inspect_text(&mut self, mut piece: &[u8]) -> Result<(), Unfit> {
        if piece.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c)) {
            return Err(Unfit::NotText);
        }
        while !self.partial.is_empty() {
            let Some((first, rest)) = piece.split_first() else { return Ok(()) };
            self.partial.push(*first);
            piece = rest;
            match std::str::from_utf8(&self.partial) {
                Ok(_) => self.partial.clear(),
                Err(error) if error.error_len().is_some() => return Err(Unfit::NotText),
                Err(_) => {}
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(Unfit::NotText),
            Err(error) => {
                self.partial = piece[error.valid_up_to()..].to_vec();
                Ok(())
            }
        }
    }
}

/// A content id in its canonical spelling: base58 for version 0, base32 for version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentId(String);

impl ContentId {
    /// Accepts any spelling that consists of letters and digits; nothing else may become part of an upstream's path.
    pub fn parse(text: &str) -> Option<Self> {
        // The longest hash in use, 64 bytes, takes 113 characters in base32.
        let plain = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let cid = plain.then(|| Cid::try_from(text).ok()).flatten()?;
        Some(Self(cid.to_string()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the content of a pinned id can be read.
pub fn gateway_url(cid: &str) -> String {
    format!("{GATEWAY}{cid}")
}

/// What Pinata knows of a pinned file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRecord {
    /// Pinata's own id, where it has one.
    pub id: Option<String>,
    /// Bytes.
    pub size: u64,
    /// When it was pinned, as Pinata writes it: RFC 3339.
    pub pinned_at: Option<String>,
    /// Name and whatever else was stored beside it.
    pub metadata: serde_json::Value,
}

/// A file name that can be shown and stored: no folders, no control characters, at most 255 bytes.
pub fn file_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name: String = last.chars().filter(|c| !c.is_control()).collect();
    let mut end = name.len().min(255);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.trim().is_empty() { "document".to_owned() } else { name }
}

/// The form that carries one file, of a length that is known only when it has passed.
///
/// Its own length is told beforehand all the same: room is made for `bound` bytes of file, and what the file leaves of it is filled
/// with blanks behind the JSON of the last field, where they mean nothing.
#[derive(Debug)]
pub struct Envelope {
    before: String,
    between: String,
    after: String,
    bound: u64,
}

/// The file of an [`Envelope`].
#[derive(Clone, Copy, Debug)]
pub struct FilePart<'a> {
    /// File name, made by [`file_name`].
    pub name: &'a str,
    /// Media type.
    pub kind: DocumentType,
    /// More bytes than this it cannot have.
    pub bound: u64,
}

const BLANKS: &[u8] = &[b' '; 8 * 1024];

impl Envelope {
    /// `boundary` must not be guessable; `fields` come before the file, `last`, a name and its JSON, behind it.
    pub fn new(boundary: &str, fields: &[(&str, &str)], file: FilePart<'_>, last: (&str, &str)) -> Self {
        let mut before = String::new();
        for (name, value) in fields {
            before.push_str(&format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        // As HTML's "multipart/form-data encoding algorithm" escapes it; line ends were taken out before.
        let name = file.name.replace('"', "%22");
        before.push_str(&format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: {}\r\n\r\n",
            file.kind.name()
        ));
        let (name, json) = last;
        let between =
            format!("\r\n--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{json}");
        Self { before, between, after: format!("\r\n--{boundary}--\r\n"), bound: file.bound }
    }

    /// Of the whole form.
    pub fn length(&self) -> u64 {
        (self.before.len() + self.between.len() + self.after.len()) as u64 + self.bound
    }

    /// What comes before the file.
    pub fn before(&self) -> Bytes {
        self.before.clone().into()
    }

    /// What comes behind a file of this length, in pieces.
    pub fn after(self, bytes: u64) -> impl Iterator<Item = Bytes> {
        let mut left = self.bound.saturating_sub(bytes);
        let blanks = std::iter::from_fn(move || {
            let piece = left.min(BLANKS.len() as u64);
            left -= piece;
            (piece > 0).then(|| Bytes::from_static(&BLANKS[..usize::try_from(piece).unwrap_or(BLANKS.len())]))
        });
        std::iter::once(self.between.into()).chain(blanks).chain(std::iter::once(self.after.into()))
    }
}

#[cfg(test)]
mod tests;
