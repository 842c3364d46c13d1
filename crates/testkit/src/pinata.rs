//! Pinata as its documentation has it: the legacy pinning API with two keys, and the V3 files API with a JWT, on top of
//! [`Upstream`]. Both know their own files only, as the real ones do.
//!
//! Right by default; [`Pinata::misbehave`] says what is wrong from now on. Forms are read strictly, so that a client's
//! framing is checked as well. The content id is made of the content, but not by the rules of IPFS: real in form, not in fact.

use std::hash::{DefaultHasher, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::process::lock;
use crate::reply::{End, Reply};
use crate::upstream::{Request, Upstream, UpstreamOptions, upstream_with};

/// `pinata_api_key` of the account.
pub const API_KEY: &str = "pinata-key-0001";
/// `pinata_secret_api_key` of the account.
pub const SECRET_KEY: &str = "pinata-secret-0001";
/// The account's token for both APIs.
pub const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.pinata-jwt-0001.c2ln";

const RAW: u64 = 0x55;
const SHA2_256: u64 = 0x12;
const SECOND: Duration = Duration::from_secs(1);
const DATE: &str = "2026-03-01T10:20:30.456Z";

/// What is wrong with the answers.
#[derive(Debug, Clone)]
pub enum PinataFault {
    /// 429 with the account's limits, and `Retry-After` where given.
    RateLimited(Option<u64>),
    /// 403: the plan's storage is used up.
    OverPlan,
    /// A proxy's error page with this status.
    Html(u16),
    /// The right answer, cut after so many bytes of its body.
    CutAt(usize),
    /// The right answer, late.
    Late(Duration),
    /// Anything else.
    Answer(Reply),
}

/// One pinned file.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The V3 API's own id.
    pub id: String,
    /// Content id: v0 from the legacy API, v1 from V3.
    pub cid: String,
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// What was uploaded.
    pub content: Bytes,
    /// The other fields of the form.
    pub fields: Vec<(String, String)>,
    /// Whether it was pinned through V3.
    pub v3: bool,
    unpinned: bool,
}

impl Pinned {
    /// A field of the form.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A scripted Pinata; it is also an [`Upstream`], whose counts it has.
#[derive(Debug)]
pub struct Pinata {
    upstream: Upstream,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    files: Mutex<Vec<Pinned>>,
    fault: Mutex<Option<PinataFault>>,
    arrivals: Mutex<Vec<Instant>>,
}

/// An account without files.
pub async fn pinata() -> Pinata {
    pinata_with(UpstreamOptions::default()).await
}

/// The same with options: one that answers early refuses before it has read the file.
pub async fn pinata_with(options: UpstreamOptions) -> Pinata {
    let state = Arc::new(State::default());
    let answering = Arc::clone(&state);
    let upstream = upstream_with(options, move |request| answering.answer(request)).await;
    Pinata { upstream, state }
}

impl Deref for Pinata {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl Pinata {
    /// Says what is wrong with each answer from now on.
    pub fn misbehave(&self, fault: PinataFault) {
        *lock(&self.state.fault) = Some(fault);
    }

    /// Answers rightly again.
    pub fn behave(&self) {
        *lock(&self.state.fault) = None;
    }

    /// Every file that is pinned now.
    pub fn pinned(&self) -> Vec<Pinned> {
        lock(&self.state.files).iter().filter(|file| !file.unpinned).cloned().collect()
    }

    /// How many uploads arrived whole.
    pub fn uploads(&self) -> usize {
        self.seen().iter().filter(|request| request.method == "POST").count()
    }

    /// The most requests that arrived within a second.
    pub fn busiest_second(&self) -> usize {
        let arrivals = lock(&self.state.arrivals);
        let within = |from: Instant| arrivals.iter().filter(|at| (from..from + SECOND).contains(*at)).count();
        arrivals.iter().map(|from| within(*from)).max().unwrap_or(0)
    }

    /// Pins a file as another program of the same account would.
    pub fn pin(&self, v3: bool, name: &str, content: impl Into<Bytes>) -> Pinned {
        let content = content.into();
        self.state.keep(v3, name, "text/plain", content, Vec::new())
    }
}

impl State {
    fn answer(&self, request: &Request) -> Reply {
        lock(&self.arrivals).push(Instant::now());
        let right = || self.right(request);
        match lock(&self.fault).clone() {
            None => right(),
            Some(PinataFault::RateLimited(after)) => {
                let reply = legacy_error(429, "RATE_LIMIT_EXCEEDED", "You have exceeded your rate limit")
                    .header("x-ratelimit-limit", "180")
                    .header("x-ratelimit-remaining", "0");
                after.map_or(reply.clone(), |seconds| reply.header("retry-after", &seconds.to_string()))
            }
            Some(PinataFault::OverPlan) => {
                legacy_error(403, "ACCOUNT_BLOCKED", "Account blocked due to plan usage limit")
            }
            Some(PinataFault::Html(status)) => Reply::new(status)
                .header("content-type", "text/html")
                .body("<html><head><title>Bad gateway</title></head><body>cloud</body></html>"),
            Some(PinataFault::CutAt(bytes)) => right().cut_at(bytes, End::Close),
            Some(PinataFault::Late(delay)) => right().delay(delay),
            Some(PinataFault::Answer(reply)) => reply,
        }
    }

    fn right(&self, request: &Request) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let v3 = path.starts_with("/v3/");
        if !is_known(request, v3) {
            return match v3 {
                true => v3_error(401, "Not Authorized"),
                false => legacy_error(401, "INVALID_CREDENTIALS", "Invalid/expired credentials"),
            };
        }
        match (request.method.as_str(), path) {
            ("GET", "/data/testAuthentication") => Reply::json(
                json!({"message": "Congratulations! You are communicating with the Pinata API!"}).to_string(),
            ),
            ("POST", "/pinning/pinFileToIPFS" | "/v3/files") => self.upload(request, v3),
            ("GET", "/data/pinList") => self.pin_list(
                &parameter("hashContains").unwrap_or_default(),
                parameter("status").as_deref() == Some("pinned"),
            ),
            ("GET", "/v3/files/public") => self.list(parameter("cid").as_deref()),
            ("DELETE", path) => self.delete(path),
            _ => legacy_error(404, "NOT_FOUND", "No such route"),
        }
    }

    fn upload(&self, request: &Request, v3: bool) -> Reply {
        let form = match parse_form(request) {
            Ok(form) => form,
            Err(why) if v3 => return v3_error(400, why),
            Err(why) => return legacy_error(400, "INVALID_FORM", why),
        };
        let Form { name, content_type, content, fields } = form;
        let field =
            |name: &str| fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        let is_json =
            |name: &str| field(name).is_empty() || serde_json::from_str::<Value>(field(name)).is_ok();
        if !["pinataOptions", "pinataMetadata", "keyvalues"].into_iter().all(is_json) {
            return legacy_error(400, "INVALID_METADATA", "metadata must be JSON");
        }
        if v3 && field("network") != "public" {
            // Pinned privately: listed nowhere that this service looks.
            return v3_error(400, "the test's account has no private network");
        }
        let kept = self.keep(v3, &name, &content_type, content, fields);
        match v3 {
            true => Reply::json(json!({"data": entry(&kept)}).to_string()),
            false => Reply::json(
                json!({"IpfsHash": kept.cid, "PinSize": kept.content.len(), "Timestamp": DATE, "isDuplicate": false})
                    .to_string(),
            ),
        }
    }

    fn keep(
        &self,
        v3: bool,
        name: &str,
        content_type: &str,
        content: Bytes,
        fields: Vec<(String, String)>,
    ) -> Pinned {
        // SHA-256 of 10 MiB takes seconds without optimisation, in which this runtime could serve nobody else.
        let mut short = DefaultHasher::new();
        short.write(&content);
        let digest = Sha256::digest(short.finish().to_be_bytes());
        let hash = Multihash::wrap(SHA2_256, &digest).expect("BUG: 32 bytes fit");
        let cid = match v3 {
            true => Cid::new_v1(RAW, hash).to_string(),
            false => Cid::new_v0(hash).expect("BUG: it is SHA-256").to_string(),
        };
        let mut files = lock(&self.files);
        let id = format!("00000000-0000-4000-8000-{:012}", files.len() + 1);
        let (name, content_type) = (name.to_owned(), content_type.to_owned());
        let kept = Pinned { id, cid, name, content_type, content, fields, v3, unpinned: false };
        files.push(kept.clone());
        kept
    }

    fn pin_list(&self, contains: &str, pinned_only: bool) -> Reply {
        let files = lock(&self.files);
        let matching = files.iter().filter(|file| !file.v3 && file.cid.contains(contains));
        let rows: Vec<Value> = matching
            .filter(|file| !(file.unpinned && pinned_only))
            .map(|file| {
                json!({
                    "id": file.id, "ipfs_pin_hash": file.cid, "size": file.content.len(), "user_id": "u-1",
                    "date_pinned": DATE, "date_unpinned": file.unpinned.then_some(DATE),
                    "metadata": {"name": file.name, "keyvalues": null},
                    "regions": [{"regionId": "FRA1", "currentReplicationCount": 1, "desiredReplicationCount": 1}],
                })
            })
            .collect();
        Reply::json(json!({"count": rows.len(), "rows": rows}).to_string())
    }

    fn list(&self, cid: Option<&str>) -> Reply {
        let files = lock(&self.files);
        let matching = files.iter().filter(|file| file.v3 && !file.unpinned);
        let found: Vec<Value> =
            matching.filter(|file| cid.is_none_or(|cid| cid == file.cid)).map(entry).collect();
        Reply::json(json!({"data": {"files": found, "next_page_token": ""}}).to_string())
    }

    fn delete(&self, path: &str) -> Reply {
        let mut files = lock(&self.files);
        let mut live = files.iter_mut().filter(|file| !file.unpinned);
        if let Some(id) = path.strip_prefix("/v3/files/public/") {
            return match live.find(|file| file.v3 && file.id == id) {
                Some(file) => {
                    file.unpinned = true;
                    Reply::json(json!({"data": null}).to_string())
                }
                None => v3_error(404, "file not found"),
            };
        }
        let Some(cid) = path.strip_prefix("/pinning/unpin/") else {
            return legacy_error(404, "NOT_FOUND", "No such route");
        };
        let mut found = false;
        for file in live.filter(|file| !file.v3 && file.cid == cid) {
            (file.unpinned, found) = (true, true);
        }
        match found {
            true => Reply::ok("OK").header("content-type", "text/plain; charset=utf-8"),
            false => {
                let details = format!("The current user has not pinned the cid: {cid}");
                legacy_error(400, "CURRENT_USER_HAS_NOT_PINNED_CID", &details)
            }
        }
    }
}

/// A file as V3 lists it.
fn entry(file: &Pinned) -> Value {
    json!({
        "id": file.id, "name": file.name, "cid": file.cid, "created_at": DATE, "size": file.content.len(),
        "number_of_files": 1, "mime_type": file.content_type, "group_id": null, "keyvalues": {},
    })
}

fn legacy_error(status: u16, reason: &str, details: &str) -> Reply {
    let body = json!({"error": {"reason": reason, "details": details}}).to_string();
    Reply::new(status).header("content-type", "application/json").body(body)
}

fn v3_error(status: u16, message: &str) -> Reply {
    let body = json!({"error": {"code": status, "message": message}}).to_string();
    Reply::new(status).header("content-type", "application/json").body(body)
}

fn is_known(request: &Request, v3: bool) -> bool {
    let with_keys = request.header("pinata_api_key") == Some(API_KEY)
        && request.header("pinata_secret_api_key") == Some(SECRET_KEY);
    let with_token = request.header("authorization") == Some(&format!("Bearer {JWT}"));
    with_token || (with_keys && !v3)
}

/// A form with one file.
struct Form {
    name: String,
    content_type: String,
    content: Bytes,
    fields: Vec<(String, String)>,
}

/// Strictly RFC 7578: nothing before the first boundary, nothing after the last.
fn parse_form(request: &Request) -> Result<Form, &'static str> {
    let kind = request.header("content-type").unwrap_or_default();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").ok_or("no form")?;
    let body = request.body.clone();
    let opening = format!("--{boundary}\r\n");
    let closing = format!("\r\n--{boundary}--\r\n");
    let between = format!("\r\n--{boundary}\r\n");
    if !body.starts_with(opening.as_bytes()) || !body.ends_with(closing.as_bytes()) {
        return Err("the form has no beginning or no end");
    }
    let mut rest = body.slice(opening.len()..body.len() - closing.len());
    let mut form =
        Form { name: String::new(), content_type: String::new(), content: Bytes::new(), fields: Vec::new() };
    let mut has_file = false;
    loop {
        let end = find(&rest, between.as_bytes());
        let part = rest.slice(..end.unwrap_or(rest.len()));
        let head_end = find(&part, b"\r\n\r\n").ok_or("a part without a head")?;
        let head = std::str::from_utf8(&part[..head_end]).map_err(|_| "a head that is not UTF-8")?;
        let content = part.slice(head_end + 4..);
        let name = quoted(head, "; name=\"").ok_or("a part without a name")?;
        if let Some(file_name) = quoted(head, "filename=\"") {
            let content_type = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Type: "));
            if name != "file" || has_file {
                return Err("one file, in the field `file`");
            }
            has_file = true;
            form.name = file_name;
            form.content_type = content_type.ok_or("a file without a type")?.to_owned();
            form.content = content;
        } else {
            form.fields.push((name, String::from_utf8_lossy(&content).into_owned()));
        }
        match end {
            Some(end) => rest = rest.slice(end + between.len()..),
            None if has_file => return Ok(form),
            None => return Err("no file"),
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

fn quoted(head: &str, before: &str) -> Option<String> {
    let (_, rest) = head.split_once(before)?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}
