//! What must hold in each case.

use super::load::Ending;
use crate::{chaos::report::Goal, report::Better, runs::Metric};

pub(super) const IDLE: &str = "idle connections closed after 10 ms";
pub(super) const RESETS: &str = "all connections reset, 40 times, every 50 ms";
pub(super) const FROZEN: &str = "silent for 3 s";
pub(super) const BURSTS: &str = "503 for 3 s, three times";

pub(super) const OURS: &str = "ours";

/// Of all hosts together, which is [`super::SOCKETS`] as a number to compare with.
const SOCKETS: f64 = 30.0;

pub(super) const SENT: Metric = calls("calls");
pub(super) const ANSWERED: Metric = calls("answered");
pub(super) const FAILED: Metric = calls("failed");
pub(super) const GETS_FAILED: Metric = calls("GETs that failed");
pub(super) const LOST: Metric = calls("answered, but never seen by the server");
pub(super) const TWICE: Metric = calls("POSTs seen twice");
pub(super) const LATE: Metric = calls("failed a second after the upstream was well, or later");
pub(super) const FAILED_BESIDE: Metric = calls("calls of the healthy neighbour that failed");
pub(super) const SEEN: Metric = Metric { name: "seen by the server", unit: "requests" };
pub(super) const EXTRA: Metric = Metric { name: "retries by policy per call", unit: "ratio" };
pub(super) const PEAK: Metric = Metric { name: "most connections at once", unit: "connections" };
pub(super) const LONGEST: Metric = seconds("longest call");
pub(super) const RECOVERY: Metric = seconds("upstream well until every caller was answered");

/// Why calls failed.
pub(super) const KINDS: [(Ending, Metric); 8] = [
    (Ending::Unwell, calls("failed: answered 503")),
    (Ending::BreakerOpen, calls("failed: kept back by the breaker")),
    (Ending::Busy, calls("failed: no place in time")),
    (Ending::Open, calls("failed: no connection could be opened")),
    (Ending::Stale, calls("failed: idle connection closed, not to be sent again")),
    (Ending::Late, calls("failed: no answer in time")),
    (Ending::Broken, calls("failed: connection lost during the exchange")),
    (Ending::Other, calls("failed: anything else")),
];

const fn calls(name: &'static str) -> Metric {
    Metric { name, unit: "calls" }
}

const fn seconds(name: &'static str) -> Metric {
    Metric { name, unit: "s" }
}

const fn most(case: &'static str, id: &'static str, metric: Metric, target: f64) -> Goal {
    Goal { id, name: metric.name, case, subject: OURS, metric, better: Better::Lower, target }
}

macro_rules! what_always_holds {
    ($case:expr, $id:literal, recovery $recovery:literal) => {
        [
            Goal {
                better: Better::Higher,
                ..most($case, concat!("http.", $id, ".answered"), ANSWERED, 500.0)
            },
            most($case, concat!("http.", $id, ".lost"), LOST, 0.0),
            most($case, concat!("http.", $id, ".twice"), TWICE, 0.0),
            most($case, concat!("http.", $id, ".neighbour"), FAILED_BESIDE, 0.0),
            most($case, concat!("http.", $id, ".bound"), PEAK, SOCKETS),
            // The deadline of a call, and a tenth for a busy machine.
            most($case, concat!("http.", $id, ".prompt"), LONGEST, 1.1),
            // The budget.
            most($case, concat!("http.", $id, ".extra"), EXTRA, 0.2),
            most($case, concat!("http.", $id, ".recovery"), RECOVERY, $recovery),
        ]
    };
}

pub(super) fn all() -> Vec<Goal> {
    let mut goals = Vec::new();
    goals.extend(what_always_holds!(IDLE, "idle", recovery 1.0));
    goals.extend(what_always_holds!(RESETS, "resets", recovery 1.0));
    // A pause of the breaker, and the wait of a probe that was sent just before the end.
    goals.extend(what_always_holds!(FROZEN, "frozen", recovery 1.5));
    goals.extend(what_always_holds!(BURSTS, "bursts", recovery 1.0));
    // A POST may have been processed; it fails by design when its connection turns out to be closed.
    goals.push(most(IDLE, "http.idle.gets", GETS_FAILED, 0.0));
    for (case, id) in
        [(RESETS, "http.resets.late"), (FROZEN, "http.frozen.late"), (BURSTS, "http.bursts.late")]
    {
        goals.push(most(case, id, LATE, 0.0));
    }
    goals
}
