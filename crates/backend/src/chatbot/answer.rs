//! What Gemini says: pieces of text, reasons to stop, errors, structured answers. Nothing here does I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest event of a stream. A piece is a few words; a picture, which nobody asked for, would be megabytes.
const MAX_EVENT: usize = 1024 * 1024;

/// A part of an answer, or all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// What was said; may be empty.
    pub text: String,
    /// How it ended, in the last piece.
    pub end: Option<End>,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All was said.
    Complete,
    /// It grew too long.
    CutShort,
    /// Question or answer break Google's rules. Holds its word for the reason.
    Blocked(String),
    /// For a reason that is none of the above. Holds its word.
    Failed(String),
}

/// Why an answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.why())]
#[non_exhaustive]
pub enum Unusable {
    /// It is not the JSON that Gemini documents.
    NotDocumented,
    /// An event of a stream is too long.
    TooLong,
    /// Structured output that breaks its schema.
    Schema,
}

impl Unusable {
    /// What is wrong.
    pub fn why(self) -> &'static str {
        match self {
            Self::NotDocumented => "it is not the JSON that Gemini documents",
            Self::TooLong => "an event of the stream is too long",
            Self::Schema => "it breaks the schema that was asked for",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    candidates: Option<Vec<Candidate>>,
    prompt_feedback: Option<Feedback>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
    /// What the model said to itself.
    #[serde(default)]
    thought: bool,
}

/// Reads one answer or one event of a streamed one.
///
/// # Errors
/// It is not the JSON that Gemini documents.
pub fn piece(json: &[u8]) -> Result<Piece, Unusable> {
    let response: Response = serde_json::from_slice(json).map_err(|_| Unusable::NotDocumented)?;
    if let Some(reason) = response.prompt_feedback.and_then(|feedback| feedback.block_reason) {
        return Ok(Piece { text: String::new(), end: Some(End::Blocked(word(reason))) });
    }
    let candidate = response.candidates.and_then(|candidates| candidates.into_iter().next());
    let Some(candidate) = candidate else {
        // The last event of a stream may hold nothing but what it cost.
        return Ok(Piece::default());
    };
    let parts = candidate.content.and_then(|content| content.parts).unwrap_or_default();
    let text = parts.into_iter().filter(|part| !part.thought).filter_map(|part| part.text).collect();
    Ok(Piece { text, end: candidate.finish_reason.map(end) })
}

fn end(reason: String) -> End {
    match reason.as_str() {
        "STOP" => End::Complete,
        "MAX_TOKENS" => End::CutShort,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE" => {
            End::Blocked(reason)
        }
        _ => End::Failed(word(reason)),
    }
}

/// Google's words for reasons are capitals; anything else is not shown to anybody.
fn word(reason: String) -> String {
    let is_word = reason.len() <= 64 && reason.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if is_word { reason } else { "OTHER".to_owned() }
}

/// An error answer, or one in the middle of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The status that goes with it.
    pub code: u16,
    /// Whether it is about the key.
    pub is_key: bool,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Its word for itself.
    pub status: Option<String>,
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: u16,
    status: Option<String>,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    reason: Option<String>,
    retry_delay: Option<String>,
}

/// Reads an error, if it is one as documented.
pub fn fault(json: &[u8]) -> Option<Fault> {
    // Asked for a stream, some versions put an array around it; and serde would take an array for a struct.
    let body = match serde_json::from_slice::<[ErrorResponse; 1]>(json) {
        Ok([response]) => response.error,
        Err(_) => serde_json::from_slice::<ErrorResponse>(json).ok()?.error,
    };
    let reasons = || body.details.iter().filter_map(|detail| detail.reason.as_deref());
    let delay = body.details.iter().find_map(|detail| detail.retry_delay.as_deref());
    Some(Fault {
        code: body.code,
        is_key: reasons().any(|reason| reason.starts_with("API_KEY_")),
        retry_after: delay.and_then(seconds),
        status: body.status.map(word),
    })
}

/// `"28.5s"`, as protobuf writes durations.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

/// Splits a stream of server-sent events into the data of each, however it arrives.
#[derive(Debug, Default)]
pub struct Events {
    rest: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Events {
    /// Adds what has arrived; returns the data of the events that it completes.
    ///
    /// # Errors
    /// An event is longer than any that Gemini sends.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Unusable> {
        self.rest.extend_from_slice(bytes);
        let mut complete = Vec::new();
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            let line = &self.rest[start..start + length];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    complete.push(std::mem::take(&mut self.data));
                }
            } else if let Some(value) = line.strip_prefix(b"data:") {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                self.has_data = true;
            }
            start += length + 1;
        }
        self.rest.drain(..start);
        if self.rest.len() + self.data.len() > MAX_EVENT { Err(Unusable::TooLong) } else { Ok(complete) }
    }
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Intent {
    /// One word.
    pub category: String,
    /// From 0 to 1.
    pub confidence: f64,
    /// Words that decided.
    pub keywords: Vec<String>,
}

/// Reads structured output.
///
/// # Errors
/// It breaks the schema.
pub fn intent(text: &str) -> Result<Intent, Unusable> {
    let intent: Intent = serde_json::from_str(text).map_err(|_| Unusable::Schema)?;
    let is_valid = is_label(&intent.category)
        && (0.0..=1.0).contains(&intent.confidence)
        && intent.keywords.len() <= 50
        && intent.keywords.iter().all(|word| is_label(word));
    if is_valid { Ok(intent) } else { Err(Unusable::Schema) }
}

#[derive(Deserialize)]
struct Suggestions {
    suggestions: Vec<String>,
}

/// Reads structured output.
///
/// # Errors
/// It breaks the schema.
pub fn suggestions(text: &str) -> Result<Vec<String>, Unusable> {
    let Suggestions { suggestions } = serde_json::from_str(text).map_err(|_| Unusable::Schema)?;
    let fits = |question: &String| !question.trim().is_empty() && question.chars().count() <= 500;
    let is_valid = (1..=20).contains(&suggestions.len()) && suggestions.iter().all(fits);
    if is_valid { Ok(suggestions) } else { Err(Unusable::Schema) }
}

fn is_label(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= 100
}

#[cfg(test)]
mod tests;
