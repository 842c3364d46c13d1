//! What callers were told, beside what the server saw.

use std::{collections::HashMap, time::Duration};

use testkit::Request;
use tokio::time::Instant;

use super::{
    CALLERS,
    goals::{
        ANSWERED, EXTRA, FAILED, FAILED_BESIDE, GETS_FAILED, KINDS, LATE, LONGEST, LOST, OURS, PEAK,
        RECOVERY, SEEN, SENT, TWICE,
    },
    load::{Ending, Try},
};
use crate::runs::Runs;

/// What the server says, and what the pool counted.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) seen: Vec<Request>,
    /// Most connections at once.
    pub(super) peak: usize,
    pub(super) retries: f64,
}

/// How long after the end of the fault a failure is late.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) fn account(
    runs: &mut Runs,
    case: &'static str,
    tries: &[Try],
    beside: &[Try],
    server: &Server,
    back: Instant,
) {
    let mut seen = HashMap::<&str, u32>::new();
    for request in &server.seen {
        *seen.entry(&request.target).or_default() += 1;
    }
    let times = |call: &Try| seen.get(&*call.target).copied().unwrap_or(0);
    let count = |wanted: &dyn Fn(&Try) -> bool| number(tries.iter().filter(|call| wanted(call)).count());
    let failed = |call: &Try| call.end != Ending::Answered;

    let mut add = |metric, value| runs.add(case, OURS, metric, value);
    add(SENT, number(tries.len()));
    add(ANSWERED, count(&|call| !failed(call)));
    add(FAILED, count(&failed));
    add(GETS_FAILED, count(&|call| failed(call) && !call.posts));
    for (end, kind) in KINDS {
        add(kind, count(&|call| call.end == end));
    }
    add(LOST, count(&|call| !failed(call) && times(call) == 0));
    add(TWICE, count(&|call| call.posts && times(call) > 1));
    add(LATE, count(&|call| failed(call) && call.started > back + SETTLED));
    add(SEEN, number(server.seen.len()));
    add(EXTRA, server.retries / number(tries.len()));
    add(PEAK, number(server.peak));
    add(LONGEST, longest(tries));
    add(RECOVERY, recovery(tries, back));
    add(FAILED_BESIDE, number(beside.iter().filter(|call| failed(call)).count()));
}

fn longest(tries: &[Try]) -> f64 {
    let took = tries.iter().map(|call| call.ended - call.started);
    took.max().unwrap_or_default().as_secs_f64()
}

/// Until the last caller had an answer to something it asked after the fault.
fn recovery(tries: &[Try], back: Instant) -> f64 {
    let first = |caller: u32| {
        let mut own = tries.iter().filter(|call| call.caller == caller && call.started >= back);
        own.find(|call| call.end == Ending::Answered).map(|call| call.ended - back)
    };
    let slowest = (0..CALLERS).filter_map(first).max();
    slowest.unwrap_or(Duration::MAX).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn number(count: usize) -> f64 {
    count as f64
}
