//! A stand-in for ml-api: its routes with answers in their form, on top of [`Upstream`].
//!
//! Right by default; [`MlApi::misbehave`] says what is wrong from now on. The probe `/health/live` is right all the same. What it
//! predicts is always the same: for numbers that mean something take the real program.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::process::lock;
use crate::reply::{End, Reply};
use crate::upstream::{Request, Upstream, upstream};

/// What is wrong with the answers.
#[derive(Debug, Clone)]
pub enum MlFault {
    /// The right answer without its second half, though its end says that it is whole.
    TruncatedJson,
    /// The right answer breaks off: the connection is closed in the middle.
    Cut,
    /// The error page of a proxy, with this status; some say 200.
    Html(u16),
    /// 503 as ml-api says it without its database, and `Retry-After` in seconds.
    Unavailable(u64),
    /// The connection is reset instead of an answer.
    Reset,
    /// No byte ever.
    Never,
    /// Anything else.
    Answer(Reply),
}

/// The stand-in; it is also an [`Upstream`], whose counts it has.
#[derive(Debug)]
pub struct MlApi {
    upstream: Upstream,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    fault: Mutex<Option<MlFault>>,
}

/// A stand-in that is right.
pub async fn ml_api() -> MlApi {
    let state = Arc::new(State::default());
    let answering = Arc::clone(&state);
    let upstream = upstream(move |request| answering.answer(request)).await;
    MlApi { upstream, state }
}

impl Deref for MlApi {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl MlApi {
    /// Says what is wrong with each answer from now on.
    pub fn misbehave(&self, fault: MlFault) {
        *lock(&self.state.fault) = Some(fault);
    }

    /// Answers rightly again.
    pub fn behave(&self) {
        *lock(&self.state.fault) = None;
    }

    /// How many requests for this path arrived.
    pub fn asked(&self, path: &str) -> usize {
        self.seen().iter().filter(|request| request.target == path).count()
    }
}

impl State {
    fn answer(&self, request: &Request) -> Reply {
        let right = right(request);
        let fault = lock(&self.fault).clone().filter(|_| request.target != "/health/live");
        let Some(fault) = fault else { return reply(&right) };
        match fault {
            MlFault::TruncatedJson => {
                let text = right.1.to_string();
                json_reply(right.0, &text[..text.len() / 2])
            }
            MlFault::Cut => reply(&right).cut_at(right.1.to_string().len() / 2, End::Close),
            MlFault::Html(status) => Reply::new(status)
                .header("content-type", "text/html")
                .body("<html><head><title>Bad gateway</title></head><body>proxy</body></html>"),
            MlFault::Unavailable(seconds) => {
                let detail = "DATABASE_URL is not set";
                reply(&problem(503, "upstream_not_configured", detail, request))
                    .header("retry-after", &seconds.to_string())
            }
            MlFault::Reset => Reply::none(End::Reset),
            MlFault::Never => Reply::never(),
            MlFault::Answer(reply) => reply,
        }
    }
}

/// Status and body.
type Said = (u16, Value);

fn right(request: &Request) -> Said {
    let prediction = json!({
        "default_prediction": 0, "default_probability": 0.125, "risk_score": 125, "risk_category": "Low",
    });
    let model = "logistic_regression";
    let body = match (request.method.as_str(), request.target.as_str()) {
        ("GET", "/health") => json!({
            "status": "degraded", "model_loaded": true, "service": "ML Risk Assessment Service",
            "database": "not_configured",
        }),
        ("GET", "/health/live") => json!({ "status": "live" }),
        ("POST", "/predict") => json!({
            "success": true, "prediction": prediction, "model": model, "missing_features": [],
        }),
        ("POST", "/predict/batch") => json!({ "success": true, "count": 1, "predictions": [prediction] }),
        ("GET", "/model/info") => json!({ "success": true, "type": model, "version": 1 }),
        ("GET", "/model/metrics") => json!({ "success": true, "model": model, "metrics": {} }),
        ("GET", "/comparison") => json!({ "success": true, model: {}, "heuristic": {} }),
        ("GET", "/data/statistics") => json!({ "total": 0 }),
        ("POST", "/data/record" | "/data/update") => json!({ "success": true, "loan_id": "loan-1" }),
        _ => return problem(404, "not_found", "there is no such route", request),
    };
    (200, body)
}

fn problem(status: u16, code: &str, detail: &str, request: &Request) -> Said {
    let body = json!({
        "type": "about:blank", "title": "Scripted", "status": status, "detail": detail, "code": code,
        "instance": request.target, "request_id": "ml-1", "error": detail,
    });
    (status, body)
}

fn reply((status, body): &Said) -> Reply {
    json_reply(*status, &body.to_string())
}

fn json_reply(status: u16, body: &str) -> Reply {
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    Reply::new(status).header("content-type", kind).body(body.to_owned())
}
