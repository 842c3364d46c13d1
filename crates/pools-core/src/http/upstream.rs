//! One upstream and the rules for it: whatever is sent through an [`Upstream`] obeys its [`Policy`].
//!
//! ```text
//!  send ─► breaker ─► turn (rate) ─► place (bulkhead) ─► pool: wait, send, head ─► Response ── body ends ─► place free
//!            │ open      │ late         │ full, late         │ failed, 429, 502, 503, 504
//!            ▼           ▼              ▼                    ▼
//!       BreakerOpen  RateLimited  QueueFull, Bulkhead   pause ─► again: budget, breaker, deadline and body allowing
//! ```
//!
//! **Limits**: places and queue per upstream, each wait bounded by the request's deadline, which is the earliest of the caller's own, the
//! incoming request's ([`deadline`](crate::resilience::deadline)) and the policy's. Pauses hold no place. A pause that
//! would end after the deadline is not begun: the answer at hand is given.
//!
//! **Retries**: only what does no harm twice, only a body that can be sent from its beginning, never while the breaker is open. What fails
//! after the head is the caller's to repeat. With a rate, every sending takes a turn, the stale retry included.
//!
//! **Cancel safety**: dropped anywhere, a request leaves its queues and gives back its turn and its place; a probe that
//! is dropped lets the next caller probe. **Shutdown**: the pool's. **Not here**: a rate shared between processes.

use std::{
    panic::Location,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use ::http::Method;
use chrono::Utc;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    HttpError, HttpPool, Response,
    policy::{Policy, Verdict, retry_after},
    request::RequestBuilder,
    target::Target,
};
use crate::{
    admission::{Admission, Permit, Refused},
    health::HealthState,
    resilience::{Backoff, Breaker, BreakerState, Late, RateGate, RetryBudget, Turn},
    stats::{Sample, SampleKind},
};

/// An upstream with its policy. Clones share places, turns, budget and breaker.
#[derive(Clone, Debug)]
pub struct Upstream {
    pool: HttpPool,
    shared: Arc<Shared>,
}

/// What all requests to an upstream share.
#[derive(Debug)]
pub(super) struct Shared {
    name: &'static str,
    host: Arc<str>,
    base: String,
    policy: Policy,
    places: Arc<Admission>,
    turns: Option<RateGate>,
    breaker: Option<Mutex<Breaker>>,
    budget: Mutex<RetryBudget>,
    failed_last: AtomicBool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    retries: AtomicU64,
    unbudgeted: AtomicU64,
    opened: AtomicU64,
    kept_back: AtomicU64,
    late_turns: AtomicU64,
    no_place: AtomicU64,
}

impl Upstream {
    /// The upstream at `base_url`, called `name` in errors and metrics.
    ///
    /// # Errors
    /// [`HttpError::Url`].
    pub fn new(
        pool: HttpPool,
        name: &'static str,
        base_url: &str,
        policy: Policy,
    ) -> Result<Self, HttpError> {
        let turns = policy.rate.map(|rate| RateGate::new(rate, policy.max_queue));
        Self::with_turns(pool, name, base_url, policy, turns)
    }

    /// Another upstream whose calls count against the same allowance: both take turns at this one's rate, whatever the rate of
    /// `policy` is. Both show what waits for them.
    ///
    /// # Errors
    /// [`HttpError::Url`].
    pub fn beside(&self, name: &'static str, base_url: &str, policy: Policy) -> Result<Self, HttpError> {
        Self::with_turns(self.pool.clone(), name, base_url, policy, self.shared.turns.clone())
    }

    fn with_turns(
        pool: HttpPool,
        name: &'static str,
        base_url: &str,
        policy: Policy,
        turns: Option<RateGate>,
    ) -> Result<Self, HttpError> {
        let target = Target::parse(base_url)?;
        let breaker = policy.breaker.as_ref().map(|rule| Breaker::new(rule.failures, rule.pause));
        let shared = Arc::new(Shared {
            name,
            host: target.key.shared_name(),
            base: base_url.trim_end_matches('/').to_owned(),
            places: Arc::new(Admission::new(policy.max_in_flight, policy.max_queue)),
            turns,
            breaker: breaker.map(Mutex::new),
            budget: Mutex::new(RetryBudget::new(policy.retry_budget)),
            failed_last: AtomicBool::new(false),
            counts: Counts::default(),
            policy,
        });
        pool.0.upstreams.lock().push(Arc::downgrade(&shared));
        Ok(Self { pool, shared })
    }

    /// A GET request. `path_and_query` is appended to the base URL.
    #[track_caller]
    pub fn get(&self, path_and_query: &str) -> RequestBuilder {
        self.request(Method::GET, path_and_query)
    }

    /// A POST request.
    #[track_caller]
    pub fn post(&self, path_and_query: &str) -> RequestBuilder {
        self.request(Method::POST, path_and_query)
    }

    /// Any request. A path that makes no URL is told by `send`.
    #[track_caller]
    pub fn request(&self, method: Method, path_and_query: &str) -> RequestBuilder {
        // Anything else would continue the host or the last segment of the base.
        let slash = match path_and_query.as_bytes().first() {
            None | Some(b'/' | b'?') => "",
            Some(_) => "/",
        };
        let url = [&*self.shared.base, slash, path_and_query].concat();
        let request = RequestBuilder::new(self.pool.clone(), Location::caller(), method, &url);
        request.through(Arc::clone(&self.shared))
    }

    /// Its name in errors and metrics.
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// Up until an attempt failed, down until one succeeds.
    pub fn health(&self) -> HealthState {
        if self.shared.failed_last.load(Relaxed) { HealthState::Down } else { HealthState::Up }
    }
}

/// What one attempt holds: its turn, and its place until the connection is given back.
#[derive(Debug, Default)]
pub(super) struct Passage {
    turn: Option<Turn>,
    place: Option<Arc<Permit>>,
}

impl Passage {
    /// Whether each sending needs leave of its own.
    pub(super) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// The request is handed to a connection.
    pub(super) fn sent(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.sent();
        }
    }

    /// To be kept for as long as the connection is used.
    pub(super) fn place(&self) -> Option<Arc<Permit>> {
        self.place.clone()
    }
}

impl Shared {
    /// Sends the request by the rules.
    pub(super) async fn run(&self, request: &mut RequestBuilder) -> Result<Response, HttpError> {
        let policy = &self.policy;
        let mut now = Instant::now();
        let deadline = request.limit(policy, now + policy.total_timeout);
        let mut pauses = Backoff::new(policy.backoff, policy.max_backoff);
        self.budget.lock().call(now);
        let (mut retry, mut number, mut was_stale) = (0, 0, false);
        loop {
            number += 1;
            let result = self.attempt(request, number, deadline, now).await;
            if matches!(result, Err(HttpError::Stale { .. })) && !was_stale && request.may_go_again() {
                // Not sent again on the same turn; else it is the pool's retry, which costs no pause.
                was_stale = true;
                request.count_stale_retry();
                now = Instant::now();
                continue;
            }
            if retry >= policy.max_retries || !policy.is_worth_repeating(&result) || !request.may_go_again() {
                return result;
            }
            let asked = result.as_ref().ok().and_then(|response| retry_after(response, Utc::now()));
            let pause = asked.unwrap_or_else(|| pauses.fail());
            now = Instant::now();
            let in_time = deadline.checked_duration_since(now).is_some_and(|left| pause < left);
            if !in_time || self.open_until(now + pause).is_some() {
                return result;
            }
            if !self.budget.lock().retry(now) {
                self.counts.unbudgeted.fetch_add(1, Relaxed);
                return result;
            }
            self.counts.retries.fetch_add(1, Relaxed);
            retry += 1;
            // Its connection is free while we pause.
            drop(result);
            sleep(pause).await;
            now = Instant::now();
        }
    }

    async fn attempt(
        &self,
        request: &RequestBuilder,
        number: u32,
        deadline: Instant,
        mut now: Instant,
    ) -> Result<Response, HttpError> {
        let mut passage = Passage::default();
        if self.turns.is_none() {
            passage.place = self.places.try_enter_owned().ok().flatten().map(Arc::new);
        }
        if passage.place.is_none() {
            // Before the waits, which would be for nothing; and after them, since it may have opened meanwhile.
            if let Some(until) = self.open_until(now) {
                return Err(self.keep_back(until));
            }
            passage.turn = self.turn(deadline).await?;
            passage.place = Some(self.place(deadline).await?);
            now = Instant::now();
        }
        let pass = self.pass(now)?;
        let result = request.attempt(&mut passage, number, now).await;
        if let Some(turn) = passage.turn.take().filter(|_| result.is_ok()) {
            turn.answered();
        }
        pass.judge(self.policy.verdict(&result));
        result
    }

    async fn turn(&self, deadline: Instant) -> Result<Option<Turn>, HttpError> {
        let Some(turns) = &self.turns else { return Ok(None) };
        turns.turn(deadline).await.map(Some).map_err(|Late { waiting, turn_in }| {
            self.counts.late_turns.fetch_add(1, Relaxed);
            HttpError::RateLimited { upstream: self.name, host: Arc::clone(&self.host), waiting, turn_in }
        })
    }

    async fn place(&self, deadline: Instant) -> Result<Arc<Permit>, HttpError> {
        let host = || Arc::clone(&self.host);
        let now = Instant::now();
        let latest = deadline.min(now + self.policy.wait_timeout);
        self.places.enter_owned(now, latest).await.map(Arc::new).map_err(|refused| {
            self.counts.no_place.fetch_add(1, Relaxed);
            match refused {
                Refused::QueueFull { waiting } => HttpError::QueueFull { host: host(), waiting },
                Refused::TimedOut { waited } => {
                    let in_flight = self.places.inside();
                    HttpError::Bulkhead { upstream: self.name, host: host(), waited, in_flight }
                }
                Refused::Closed => HttpError::Closed { host: host() },
            }
        })
    }

    /// Until when the breaker lets nobody through, if it does not at that time.
    fn open_until(&self, at: Instant) -> Option<Instant> {
        match self.breaker.as_ref()?.lock().state() {
            BreakerState::Open { until } | BreakerState::HalfOpen { until } if at < until => Some(until),
            _ => None,
        }
    }

    fn keep_back(&self, until: Instant) -> HttpError {
        self.counts.kept_back.fetch_add(1, Relaxed);
        HttpError::BreakerOpen { upstream: self.name, host: Arc::clone(&self.host), until }
    }

    fn pass(&self, now: Instant) -> Result<Pass<'_>, HttpError> {
        let Some(breaker) = &self.breaker else {
            return Ok(Pass { upstream: self, epoch: 0, judged: false });
        };
        let mut breaker = breaker.lock();
        if let Err(wait) = breaker.pass(now) {
            return Err(self.keep_back(now + wait));
        }
        Ok(Pass { upstream: self, epoch: breaker.epoch(), judged: false })
    }

    fn judge(&self, epoch: u64, verdict: Verdict) {
        if verdict != Verdict::Unknown {
            self.failed_last.store(verdict == Verdict::Bad, Relaxed);
        }
        let Some(breaker) = &self.breaker else { return };
        let mut breaker = breaker.lock();
        if breaker.epoch() != epoch {
            return;
        }
        match verdict {
            Verdict::Good => {
                if breaker.succeed() {
                    tracing::info!(upstream = self.name, "the breaker has closed");
                }
            }
            Verdict::Bad => {
                if breaker.fail(Instant::now()) {
                    self.counts.opened.fetch_add(1, Relaxed);
                    tracing::warn!(upstream = self.name, "the breaker has opened");
                }
            }
            Verdict::Unknown => breaker.abstain(Instant::now()),
        }
    }

    fn samples(&self) -> Vec<Sample> {
        use SampleKind::{Counter, Gauge};
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
        let count = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let state = self.breaker.as_ref().map(|breaker| breaker.lock().state());
        let state = match state {
            None | Some(BreakerState::Closed) => 0.0,
            Some(BreakerState::HalfOpen { .. }) => 1.0,
            Some(BreakerState::Open { .. }) => 2.0,
        };
        let (waiting, waits) = self.turns.as_ref().map_or((0, 0), |turns| (turns.waiting(), turns.waits()));
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
        let waits = waits as f64;
        let counts = &self.counts;
        let rows = [
            (RETRIES, "Requests sent again by policy.", Counter, count(&counts.retries)),
            (UNBUDGETED, "Retries that the budget refused.", Counter, count(&counts.unbudgeted)),
            (BREAKER_STATE, "0 closed, 1 one request tries, 2 open.", Gauge, state),
            (BREAKER_OPENED, "Times that the breaker has opened.", Counter, count(&counts.opened)),
            (BREAKER_REFUSED, "Requests that the breaker kept back.", Counter, count(&counts.kept_back)),
            (RATE_WAITING, "Requests that wait for their turn.", Gauge, f64::from(waiting)),
            (RATE_WAITS, "Requests that had to wait for their turn.", Counter, waits),
            (RATE_REFUSED, "Requests whose turn would be too late.", Counter, count(&counts.late_turns)),
            (IN_FLIGHT, "Requests under way.", Gauge, f64::from(self.places.inside())),
            (PLACE_WAITING, "Requests that wait for a place.", Gauge, f64::from(self.places.waiting())),
            (PLACE_REFUSED, "Requests that got no place.", Counter, count(&counts.no_place)),
        ];
        let labels = || vec![("upstream", self.name)];
        rows.map(|(name, help, kind, value)| Sample { name, help, kind, labels: labels(), value }).into()
    }
}

const RETRIES: &str = "pools_http_retries_total";
const UNBUDGETED: &str = "pools_http_retries_refused_total";
const BREAKER_STATE: &str = "pools_http_breaker_state";
const BREAKER_OPENED: &str = "pools_http_breaker_opened_total";
const BREAKER_REFUSED: &str = "pools_http_breaker_refused_total";
const RATE_WAITING: &str = "pools_http_rate_waiting";
const RATE_WAITS: &str = "pools_http_rate_waits_total";
const RATE_REFUSED: &str = "pools_http_rate_refused_total";
const IN_FLIGHT: &str = "pools_http_upstream_in_flight";
const PLACE_WAITING: &str = "pools_http_upstream_waiting";
const PLACE_REFUSED: &str = "pools_http_upstream_refused_total";

/// The metrics of every upstream that still exists.
pub(super) fn samples(upstreams: &Mutex<Vec<Weak<Shared>>>) -> Vec<Sample> {
    let mut upstreams = upstreams.lock();
    upstreams.retain(|upstream| upstream.strong_count() > 0);
    upstreams.iter().filter_map(Weak::upgrade).flat_map(|upstream| upstream.samples()).collect()
}

/// One passing of the breaker. Dropped without a verdict, it has learnt nothing.
struct Pass<'a> {
    upstream: &'a Shared,
    epoch: u64,
    judged: bool,
}

impl Pass<'_> {
    fn judge(mut self, verdict: Verdict) {
        self.judged = true;
        self.upstream.judge(self.epoch, verdict);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.judged {
            self.upstream.judge(self.epoch, Verdict::Unknown);
        }
    }
}
