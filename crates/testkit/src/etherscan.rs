//! A stand-in for Etherscan's V2 API: `module=account` with `txlist`, `txlistinternal` and `tokentx`.
//!
//! It holds the rows that a test put in and answers as the documentation says: one base URL, `chainid`, blocks,
//! pages, order, texts in place of numbers, refusals with status 200. [`Etherscan::misbehave`] says for each call what
//! goes wrong instead. Every call is kept with the moment of its arrival.

mod rows;

pub use rows::Row;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::process::lock;
use crate::reply::{End, Reply};
use crate::upstream::{Request, Upstream, upstream};

/// The only key that is accepted.
const KEY: &str = "STANDINETHERSCANKEY0123456789ABCDE";
/// The most rows that pages can reach.
const WINDOW: u64 = 10_000;
/// What an empty account is told, which is no refusal.
const EMPTY: &str = "No transactions found";

/// One call as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it was read.
    pub at: Instant,
    /// The query; the key is not in it.
    pub query: BTreeMap<String, String>,
}

impl Call {
    /// A parameter, empty where it was not given.
    pub fn get(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

/// What goes wrong with one call.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// Nothing.
    None,
    /// 200 and `Max rate limit reached`.
    RateLimited,
    /// 200 and `Max calls per sec rate limit reached (3/sec)`.
    TooFast,
    /// 200 and `Invalid API Key`.
    InvalidKey,
    /// 200 and any other refusal.
    Refused(&'static str),
    /// The error page of a proxy, with this status; some say 200.
    Html(u16),
    /// The right answer, but it breaks off after so many bytes, though its end says that it is whole.
    Truncated(usize),
    /// The right answer, so much later.
    Slow(Duration),
    /// The connection is reset.
    Reset,
}

type Plan = dyn FnMut(&Call) -> Trouble + Send;

/// The stand-in; it is also an [`Upstream`], whose counts it has.
#[derive(Debug)]
pub struct Etherscan {
    upstream: Upstream,
    state: Arc<State>,
}

struct State {
    rows: Mutex<Vec<Row>>,
    plan: Mutex<Box<Plan>>,
    calls: Mutex<Vec<Call>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("calls", &lock(&self.calls).len()).finish_non_exhaustive()
    }
}

impl Deref for Etherscan {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

/// A stand-in without rows.
pub async fn etherscan() -> Etherscan {
    let state = Arc::new(State {
        rows: Mutex::default(),
        plan: Mutex::new(Box::new(|_| Trouble::None)),
        calls: Mutex::default(),
    });
    let answering = Arc::clone(&state);
    let upstream = upstream(move |request| answering.answer(request)).await;
    Etherscan { upstream, state }
}

impl Etherscan {
    /// The whole endpoint, as `ETHERSCAN_URL` wants it.
    pub fn endpoint(&self) -> String {
        format!("{}/v2/api", self.upstream.url())
    }

    /// The key that is accepted.
    pub fn key(&self) -> &'static str {
        KEY
    }

    /// Adds rows, each of which belongs to the accounts on both its sides.
    pub fn put(&self, rows: impl IntoIterator<Item = Row>) {
        lock(&self.state.rows).extend(rows);
    }

    /// From now on, this is what goes wrong with every call.
    pub fn trouble(&self, trouble: Trouble) {
        self.misbehave(move |_| trouble.clone());
    }

    /// From now on, `plan` says for each call what goes wrong with it.
    pub fn misbehave(&self, plan: impl FnMut(&Call) -> Trouble + Send + 'static) {
        *lock(&self.state.plan) = Box::new(plan);
    }

    /// Every call so far, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state.calls).clone()
    }

    /// The most calls that arrived within any second.
    pub fn most_in_a_second(&self) -> usize {
        let at: Vec<_> = self.calls().iter().map(|call| call.at).collect();
        let within = |first: &Instant| {
            at.iter().filter(|other| *other >= first && **other - *first < Duration::from_secs(1)).count()
        };
        at.iter().map(within).max().unwrap_or(0)
    }
}

impl State {
    fn answer(&self, request: &Request) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let mut query: BTreeMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let key = query.remove("apikey");
        let call = Call { at: Instant::now(), query };
        lock(&self.calls).push(call.clone());
        if (request.method.as_str(), path) != ("GET", "/v2/api") {
            return html(404);
        }
        let trouble = (lock(&self.plan))(&call);
        let right = || self.right(&call, key.as_deref());
        match trouble {
            Trouble::None => Reply::json(right()),
            Trouble::RateLimited => {
                refused("Max rate limit reached, please use API Key for higher rate limit")
            }
            Trouble::TooFast => refused("Max calls per sec rate limit reached (3/sec)"),
            Trouble::InvalidKey => refused("Invalid API Key (#err2)|STA-"),
            Trouble::Refused(text) => refused(text),
            Trouble::Html(status) => html(status),
            Trouble::Truncated(bytes) => {
                let whole = right();
                Reply::json(whole[..bytes.min(whole.len().saturating_sub(1))].to_owned())
            }
            Trouble::Slow(delay) => Reply::json(right()).delay(delay),
            Trouble::Reset => Reply::none(End::Reset),
        }
    }

    /// What the documentation says.
    fn right(&self, call: &Call, key: Option<&str>) -> String {
        match self.list(call, key) {
            Ok(rows) if rows.is_empty() => envelope("0", EMPTY, json!([])),
            Ok(rows) => envelope("1", "OK", Value::Array(rows)),
            Err(refusal) => envelope("0", "NOTOK", json!(refusal)),
        }
    }

    fn list(&self, call: &Call, key: Option<&str>) -> Result<Vec<Value>, &'static str> {
        match key {
            None | Some("") => return Err("Missing/Invalid API Key"),
            Some(KEY) => {}
            Some(_) => return Err("Invalid API Key (#err2)|"),
        }
        let chain: u64 =
            call.get("chainid").parse().map_err(|_| "Missing or unsupported chainid parameter")?;
        if call.get("module") != "account" {
            return Err("Error! Missing Or invalid Module name");
        }
        let action = call.get("action");
        if !rows::ACTIONS.contains(&action) {
            return Err("Error! Missing Or invalid Action name");
        }
        let address = call.get("address").to_ascii_lowercase();
        if address.len() != 42 || !address[2..].bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("Error! Invalid address format");
        }
        let number = |name, default: u64| call.get(name).parse().unwrap_or(default);
        let (page, offset) = (number("page", 1).max(1), number("offset", WINDOW));
        if page.saturating_mul(offset) > WINDOW {
            return Err(
                "Result window is too large, PageNo x Offset size must be less than or equal to 10000",
            );
        }
        let blocks = number("startblock", 0)..=number("endblock", u64::MAX);
        let rows = lock(&self.rows);
        let mut found: Vec<_> = rows
            .iter()
            .filter(|row| row.action == action && row.chain == chain && row.is_of(&address))
            .filter(|row| blocks.contains(&row.block()))
            .collect();
        found.sort_by_key(|row| row.at());
        if call.get("sort") == "desc" {
            found.reverse();
        }
        let of_page = found.into_iter().skip(((page - 1) * offset) as usize).take(offset as usize);
        Ok(of_page.map(Row::to_json).collect())
    }
}

fn envelope(status: &str, message: &str, result: Value) -> String {
    json!({ "status": status, "message": message, "result": result }).to_string()
}

fn refused(text: &str) -> Reply {
    Reply::json(envelope("0", "NOTOK", json!(text)))
}

fn html(status: u16) -> Reply {
    let page = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>";
    Reply::new(status).header("content-type", "text/html; charset=UTF-8").body(page)
}
