//! Gemini's `generateContent` and `streamGenerateContent?alt=sse` as documented, on top of [`Upstream`].
//!
//! Right by default: what the test's closure says is the model's text, as a whole or word by word. A request that the
//! real API refuses is refused. [`Gemini::misbehave`] says what is wrong from now on.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::lock;
use crate::reply::{End, Reply};
use crate::upstream::{Request, Upstream, upstream};

/// The account's key.
pub const API_KEY: &str = "gemini-key-0001";
/// The model that exists.
pub const MODEL: &str = "gemini-2.5-flash";

/// What is wrong with the answers.
#[derive(Debug, Clone)]
pub enum GeminiFault {
    /// 429, with a `RetryInfo` where a delay is given (`"28.5s"`).
    Quota(Option<&'static str>),
    /// 503: the model is overloaded.
    Overloaded,
    /// The prompt is blocked for this reason; no candidate.
    PromptBlocked(&'static str),
    /// The answer ends for this reason: after two words when streamed, without text when not.
    Finished(&'static str),
    /// A proxy's error page with this status.
    Html(u16),
    /// The right answer, cut after so many bytes of its body, and the connection ended like this.
    CutAt(usize, End),
    /// The right answer, late.
    Late(Duration),
    /// The right answer, this pause before each piece of it.
    Slow(Duration),
    /// Anything else.
    Answer(Reply),
}

/// One accepted call.
#[derive(Debug, Clone)]
pub struct GeminiCall {
    /// Whether the answer is streamed.
    pub streamed: bool,
    /// The request.
    pub body: Value,
}

impl GeminiCall {
    /// The role and text of each turn.
    pub fn turns(&self) -> Vec<(String, String)> {
        let contents = self.body["contents"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        contents.iter().map(|turn| (text(&turn["role"]), text(&turn["parts"][0]["text"]))).collect()
    }
}

type Model = dyn Fn(&GeminiCall) -> String + Send + Sync;

/// A scripted Gemini; it is also an [`Upstream`], whose counts it has.
#[derive(Debug)]
pub struct Gemini {
    upstream: Upstream,
    state: Arc<State>,
}

struct State {
    model: Box<Model>,
    fault: Mutex<Option<GeminiFault>>,
    calls: Mutex<Vec<GeminiCall>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// A Gemini whose model says what the closure says.
pub async fn gemini(model: impl Fn(&GeminiCall) -> String + Send + Sync + 'static) -> Gemini {
    let state = Arc::new(State { model: Box::new(model), fault: Mutex::default(), calls: Mutex::default() });
    let answering = Arc::clone(&state);
    let upstream = upstream(move |request| answering.answer(request)).await;
    Gemini { upstream, state }
}

impl Deref for Gemini {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl Gemini {
    /// Says what is wrong with each answer from now on.
    pub fn misbehave(&self, fault: GeminiFault) {
        *lock(&self.state.fault) = Some(fault);
    }

    /// Answers rightly again.
    pub fn behave(&self) {
        *lock(&self.state.fault) = None;
    }

    /// Every call that was not refused, in the order of arrival.
    pub fn calls(&self) -> Vec<GeminiCall> {
        lock(&self.state.calls).clone()
    }
}

impl State {
    fn answer(&self, request: &Request) -> Reply {
        if request.header("x-goog-api-key") != Some(API_KEY) {
            return bad_key();
        }
        let models = "/v1beta/models/";
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let Some(rest) = path.strip_prefix(models) else { return error(404, "NOT_FOUND", "no route", &[]) };
        let (model, method) = rest.split_once(':').unwrap_or((rest, ""));
        if model != MODEL {
            let message = format!("models/{model} is not found for API version v1beta");
            return error(404, "NOT_FOUND", &message, &[]);
        }
        let streamed = match (request.method.as_str(), method, query) {
            ("GET", "", _) => return Reply::json(json!({"name": format!("models/{MODEL}")}).to_string()),
            ("POST", "generateContent", _) => false,
            ("POST", "streamGenerateContent", "alt=sse") => true,
            _ => return error(404, "NOT_FOUND", "no route", &[]),
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if let Some(why) = refusal(&body) {
            return error(400, "INVALID_ARGUMENT", why, &[]);
        }
        let call = GeminiCall { streamed, body };
        lock(&self.calls).push(call.clone());
        self.reply(&call)
    }

    fn reply(&self, call: &GeminiCall) -> Reply {
        let right = || whole(call.streamed, (self.model)(call).as_str(), "STOP");
        match lock(&self.fault).clone() {
            None => right(),
            Some(GeminiFault::Quota(delay)) => quota(delay),
            Some(GeminiFault::Overloaded) => {
                error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", &[])
            }
            Some(GeminiFault::PromptBlocked(reason)) => {
                let blocked = json!({
                    "promptFeedback": {"blockReason": reason},
                    "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7},
                    "modelVersion": MODEL,
                });
                let text = blocked.to_string();
                if call.streamed { events(&[text]) } else { Reply::json(text) }
            }
            Some(GeminiFault::Finished(reason)) if call.streamed => {
                let text = (self.model)(call);
                let words: Vec<&str> = text.split_inclusive(' ').take(2).collect();
                whole(true, &words.concat(), reason)
            }
            Some(GeminiFault::Finished(reason)) => {
                Reply::json(json!({"candidates": [{"finishReason": reason, "index": 0}]}).to_string())
            }
            Some(GeminiFault::Html(status)) => Reply::new(status)
                .header("content-type", "text/html")
                .body("<!DOCTYPE html><html lang=en><title>Error</title></html>"),
            Some(GeminiFault::CutAt(bytes, end)) => right().cut_at(bytes, end),
            Some(GeminiFault::Late(delay)) => right().delay(delay),
            Some(GeminiFault::Slow(pause)) => right().slow_body(pause),
            Some(GeminiFault::Answer(reply)) => reply,
        }
    }
}

/// Why the real API refuses a request.
fn refusal(body: &Value) -> Option<&'static str> {
    let turns = body["contents"].as_array().filter(|turns| !turns.is_empty());
    let Some(turns) = turns else { return Some("contents is not specified") };
    if !turns.iter().all(|turn| matches!(turn["role"].as_str(), Some("user" | "model"))) {
        return Some("Please use a valid role: user, model.");
    }
    let is_empty = |turn: &Value| turn["parts"][0]["text"].as_str().is_none_or(str::is_empty);
    if turns.iter().any(is_empty) {
        return Some("contents.parts must not be empty.");
    }
    let config = &body["generationConfig"];
    let has_schema = !config["responseSchema"].is_null();
    (has_schema && config["responseMimeType"] != "application/json")
        .then_some("response_schema needs a response_mime_type of application/json")
}

/// The text in one piece, or word by word with the reason in the last event.
fn whole(streamed: bool, text: &str, reason: &str) -> Reply {
    if !streamed {
        return Reply::json(piece(text, Some(reason)).to_string());
    }
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let last = words.len().saturating_sub(1);
    let words = words.iter().enumerate();
    events(
        &words.map(|(at, word)| piece(word, (at == last).then_some(reason)).to_string()).collect::<Vec<_>>(),
    )
}

fn piece(text: &str, reason: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"parts": [{"text": text}], "role": "model"}, "index": 0});
    if let Some(reason) = reason {
        candidate["finishReason"] = json!(reason);
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 3, "totalTokenCount": 14},
        "modelVersion": MODEL,
        "responseId": "r-1",
    })
}

/// Server-sent events with the line ends of the real API, one chunk each.
fn events(data: &[String]) -> Reply {
    Reply::new(200)
        .header("content-type", "text/event-stream")
        .chunks(data.iter().map(|data| format!("data: {data}\r\n\r\n")))
}

fn error(status: u16, name: &str, message: &str, details: &[Value]) -> Reply {
    let mut body = json!({"error": {"code": status, "message": message, "status": name}});
    if !details.is_empty() {
        body["error"]["details"] = details.into();
    }
    Reply::new(status).header("content-type", "application/json; charset=UTF-8").body(body.to_string())
}

fn bad_key() -> Reply {
    let details = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
        "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"},
    });
    error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", &[details])
}

fn quota(delay: Option<&str>) -> Reply {
    let mut details = vec![json!({
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": MODEL}, "quotaValue": "10",
        }],
    })];
    if let Some(delay) = delay {
        details.push(json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}));
    }
    error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", &details)
}
