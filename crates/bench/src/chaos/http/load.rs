//! Callers of an upstream, each call with a number of its own, that remember what they were told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use pools_core::http::{HttpError, Upstream};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::Fault;

/// Longest time of a call.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);
/// No answer of the server is longer.
const BODY: usize = 1_024;

/// One call.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub(super) caller: u32,
    /// Names the call for the server.
    pub(super) target: String,
    pub(super) posts: bool,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    pub(super) end: Ending,
}

/// How a call ended, in the pool's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Answered,
    Unwell,
    BreakerOpen,
    Busy,
    Open,
    Stale,
    Late,
    Broken,
    Other,
}

impl Ending {
    fn of(result: &Result<u16, HttpError>) -> Self {
        match result {
            Ok(200) => Self::Answered,
            Ok(_) => Self::Unwell,
            Err(HttpError::BreakerOpen { .. }) => Self::BreakerOpen,
            Err(error) if error.is_busy() => Self::Busy,
            Err(HttpError::Open { .. }) => Self::Open,
            Err(HttpError::Stale { .. }) => Self::Stale,
            Err(error) if error.is_timeout() => Self::Late,
            Err(HttpError::Reset { .. } | HttpError::Truncated { .. } | HttpError::Protocol { .. }) => {
                Self::Broken
            }
            Err(_) => Self::Other,
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicUsize,
    answered: AtomicUsize,
    /// When each caller began the call that was answered last.
    served: Mutex<BTreeMap<u32, Instant>>,
}

/// Running callers.
pub(super) struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<Vec<Try>>,
    count: u32,
}

impl Load {
    pub(super) fn start(upstream: &Upstream, count: u32) -> Self {
        let shared = Arc::<Shared>::default();
        let mut callers = JoinSet::new();
        for caller in 0..count {
            callers.spawn(work(caller, upstream.clone(), Arc::clone(&shared)));
        }
        Self { shared, callers, count }
    }

    pub(super) fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    pub(super) fn all_served_since(&self, moment: Instant) -> bool {
        let served = self.shared.served.lock();
        served.len() == self.count as usize && served.values().all(|last| *last >= moment)
    }

    /// Ends the callers and returns everything they tried, each caller's in order.
    pub(super) async fn end(mut self) -> Result<Vec<Try>, Fault> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(tries) = self.callers.join_next().await {
            all.extend(tries?);
        }
        Ok(all)
    }
}

async fn work(caller: u32, upstream: Upstream, shared: Arc<Shared>) -> Vec<Try> {
    let mut tries = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let (posts, target) = (number.is_multiple_of(3), format!("/{number}"));
        let started = Instant::now();
        let end = Ending::of(&call(&upstream, &target, posts).await);
        tries.push(Try { caller, target, posts, started, ended: Instant::now(), end });
        if end == Ending::Answered {
            shared.answered.fetch_add(1, Ordering::Relaxed);
            shared.served.lock().insert(caller, started);
        }
        // 0 to 20 ms, spread evenly and the same in every run.
        sleep(Duration::from_millis((number * 13 % 21) as u64)).await;
    }
    tries
}

async fn call(upstream: &Upstream, target: &str, posts: bool) -> Result<u16, HttpError> {
    let request = if posts { upstream.post(target).body("once") } else { upstream.get(target) };
    let response = request.send().await?;
    let status = response.status().as_u16();
    response.bytes(BODY).await?;
    Ok(status)
}
