//! A JSON-RPC node whose answers a test chooses, on top of [`Upstream`].
//!
//! Right by default: every entry of a batch goes to the handler and is answered under its id, in order.
//! [`RpcNode::misbehave`] says for each POST what is wrong with the answer. For a node that is real, use
//! [`crate::anvil`].

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::lock;
use crate::reply::Reply;
use crate::upstream::{Request, Upstream, upstream};

/// What a handler refuses a call with.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// The JSON-RPC code, such as 3 for a revert or -32000.
    pub code: i64,
    /// The text.
    pub message: String,
    /// A revert's data, for one.
    pub data: Option<Value>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: &str) -> Self {
        Self { code, message: message.to_owned(), data: None }
    }

    fn to_json(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        error
    }
}

/// One call, alone or in a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As the client chose it.
    pub id: Value,
    /// The method.
    pub method: String,
    /// The parameters; null when there were none.
    pub params: Value,
}

/// One POST as it arrived.
#[derive(Debug, Clone)]
pub struct Post {
    /// Which POST of the node it is, from 1.
    pub number: u64,
    /// Whether it was an array.
    pub is_batch: bool,
    /// Its calls; one when it was no array.
    pub entries: Vec<Entry>,
}

/// What is wrong with the answer to one POST.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is right, but late.
    Late(Duration),
    /// The entries are answered in the opposite order.
    Reordered,
    /// The entry at this place is answered twice.
    Duplicated(usize),
    /// The entry at this place is not answered.
    Missing(usize),
    /// There is one more answer, under an id that nobody used.
    ExtraId,
    /// Every id comes back as a string.
    IdsAsText,
    /// A batch of more than `limit` entries is refused as a whole; smaller ones are answered.
    RefusedOver {
        /// The most entries that are accepted.
        limit: usize,
        /// In which way it is refused.
        refusal: Refusal,
    },
    /// 429, with `Retry-After` in seconds where given.
    TooManyRequests {
        /// The header's value.
        retry_after: Option<u64>,
    },
    /// A proxy's error page instead of JSON.
    Html {
        /// Its status; some proxies say 200.
        status: u16,
    },
    /// The right answer, cut off after so many bytes of its body, and the connection closed.
    CutAt(usize),
    /// Anything else.
    Answer(Reply),
}

/// How a node refuses a batch that is too big.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// 200 with one error object under the id null.
    ErrorObject(RpcError),
    /// 200 with this error for every entry.
    EveryEntry(RpcError),
    /// This status, such as 400 or 413, with a line of text.
    Status(u16),
}

type Handler = dyn Fn(&str, &Value) -> Result<Value, RpcError> + Send + Sync;
type Plan = dyn FnMut(&Post) -> Fault + Send;

/// A scripted node; it is also an [`Upstream`], whose counts it has.
#[derive(Debug)]
pub struct RpcNode {
    upstream: Upstream,
    state: Arc<State>,
}

struct State {
    handler: Box<Handler>,
    plan: Mutex<Box<Plan>>,
    posts: Mutex<Vec<Post>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("posts", &self.posts).finish_non_exhaustive()
    }
}

/// A node that answers every call as the handler says.
pub async fn rpc_node(
    handler: impl Fn(&str, &Value) -> Result<Value, RpcError> + Send + Sync + 'static,
) -> RpcNode {
    let state = Arc::new(State {
        handler: Box::new(handler),
        plan: Mutex::new(Box::new(|_| Fault::None)),
        posts: Mutex::default(),
    });
    let answering = Arc::clone(&state);
    let upstream = upstream(move |request| answering.answer(request)).await;
    RpcNode { upstream, state }
}

impl Deref for RpcNode {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl RpcNode {
    /// Says what is wrong with each answer from now on.
    pub fn misbehave(&self, plan: impl FnMut(&Post) -> Fault + Send + 'static) {
        *lock(&self.state.plan) = Box::new(plan);
    }

    /// Answers rightly again.
    pub fn behave(&self) {
        self.misbehave(|_| Fault::None);
    }

    /// Every POST with valid JSON so far, in the order of arrival.
    pub fn posts(&self) -> Vec<Post> {
        lock(&self.state.posts).clone()
    }

    /// How many calls arrived so far, alone or in batches.
    pub fn entries(&self) -> usize {
        lock(&self.state.posts).iter().map(|post| post.entries.len()).sum()
    }

    /// How many calls of this method arrived so far.
    pub fn calls(&self, method: &str) -> usize {
        let posts = lock(&self.state.posts);
        posts.iter().flat_map(|post| &post.entries).filter(|entry| entry.method == method).count()
    }
}

impl State {
    fn answer(&self, request: &Request) -> Reply {
        let Some(post) = parse(request) else {
            let error = RpcError::new(-32700, "parse error").to_json();
            return Reply::json(json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string());
        };
        lock(&self.posts).push(post.clone());
        let fault = (lock(&self.plan))(&post);
        self.answer_with(&post, fault)
    }

    fn answer_with(&self, post: &Post, fault: Fault) -> Reply {
        let answers = || post.entries.iter().map(|entry| self.call(entry)).collect::<Vec<Value>>();
        let right = |answers: Vec<Value>| reply(post.is_batch, answers);
        match fault {
            Fault::None => right(answers()),
            Fault::Late(delay) => right(answers()).delay(delay),
            Fault::Reordered => right(answers().into_iter().rev().collect()),
            Fault::Duplicated(place) => {
                let mut answers = answers();
                answers.extend(answers.get(place).cloned());
                right(answers)
            }
            Fault::Missing(place) => {
                let answers = answers().into_iter().enumerate().filter(|(at, _)| *at != place);
                right(answers.map(|(_, answer)| answer).collect())
            }
            Fault::ExtraId => {
                let mut answers = answers();
                answers.push(json!({"jsonrpc": "2.0", "id": 987_654_321_u64, "result": "0x0"}));
                right(answers)
            }
            Fault::IdsAsText => right(answers().into_iter().map(id_as_text).collect()),
            Fault::RefusedOver { limit, refusal } if post.is_batch && post.entries.len() > limit => {
                refuse(post, refusal)
            }
            Fault::RefusedOver { .. } => right(answers()),
            Fault::TooManyRequests { retry_after } => {
                let reply = Reply::new(429).body("slow down");
                retry_after.map_or(reply.clone(), |seconds| reply.header("retry-after", &seconds.to_string()))
            }
            Fault::Html { status } => Reply::new(status)
                .header("content-type", "text/html")
                .body("<html><h1>Bad gateway</h1></html>"),
            Fault::CutAt(bytes) => right(answers()).cut_at(bytes, crate::End::Close),
            Fault::Answer(reply) => reply,
        }
    }

    fn call(&self, entry: &Entry) -> Value {
        match (self.handler)(&entry.method, &entry.params) {
            Ok(result) => json!({"jsonrpc": "2.0", "id": entry.id, "result": result}),
            Err(error) => failed(&entry.id, &error),
        }
    }
}

fn failed(id: &Value, error: &RpcError) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": error.to_json()})
}

fn refuse(post: &Post, refusal: Refusal) -> Reply {
    match refusal {
        Refusal::ErrorObject(error) => reply(false, vec![failed(&Value::Null, &error)]),
        Refusal::EveryEntry(error) => {
            reply(true, post.entries.iter().map(|entry| failed(&entry.id, &error)).collect())
        }
        Refusal::Status(status) => Reply::new(status).body("batch too large"),
    }
}

/// An array for a batch; else the answers one after the other, of which there should be one.
fn reply(is_batch: bool, answers: Vec<Value>) -> Reply {
    match is_batch {
        true => Reply::json(Value::from(answers).to_string()),
        false => Reply::json(answers.iter().map(Value::to_string).collect::<String>()),
    }
}

fn id_as_text(mut answer: Value) -> Value {
    answer["id"] = answer["id"].to_string().into();
    answer
}

fn parse(request: &Request) -> Option<Post> {
    let body: Value = serde_json::from_slice(&request.body).ok()?;
    let (is_batch, calls) = match body {
        Value::Array(calls) => (true, calls),
        call => (false, vec![call]),
    };
    let entries: Option<Vec<Entry>> = calls.into_iter().map(entry).collect();
    Some(Post { number: request.number, is_batch, entries: entries? })
}

fn entry(mut call: Value) -> Option<Entry> {
    let method = call.get("method")?.as_str()?.to_owned();
    let mut take = |name| call.get_mut(name).map_or(Value::Null, Value::take);
    Some(Entry { id: take("id"), method, params: take("params") })
}
