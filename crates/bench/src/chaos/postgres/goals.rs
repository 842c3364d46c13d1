//! What must hold in each case.

use super::TASKS;
use crate::{chaos::report::Goal, report::Better, runs::Metric};

pub(super) const RESTART: &str = "restart, 2 s away";
pub(super) const CRASH: &str = "kill -9 of all server processes, 2 s away";
pub(super) const FREEZE: &str = "frozen for 5 s (SIGSTOP)";
pub(super) const BACKENDS: &str = "60 backends killed, one every 50 ms";

pub(super) const POOL: &str = "ours";

pub(super) const ACKNOWLEDGED: Metric = rows("acknowledged");
pub(super) const FOUND: Metric = rows("found");
pub(super) const UNSURE: Metric = rows("failed for the caller, but found");
pub(super) const GONE: Metric = rows("acknowledged, but not found");
pub(super) const TWICE: Metric = rows("found more often than written");
pub(super) const TORN: Metric = rows("transactions found by half");
pub(super) const UNKNOWN: Metric = rows("found, but never written");
pub(super) const RECOVERY: Metric = seconds("server back until every task was served");
pub(super) const LONGEST_FAILURE: Metric = seconds("longest wait for a failed connect");
pub(super) const LATE: Metric = errors("failures that began a second after the server was back");
pub(super) const UNDER_WAY: Metric = errors("failures of what had a connection");
pub(super) const UNDER_WAY_PER_KILL: Metric = errors("failed leases per killed backend");
pub(super) const ERRORS: Metric = errors("errors by kind");
pub(super) const REFUSED: Metric = errors("connections refused by the server's limit of size + overflow");
pub(super) const LEFT: Metric = Metric { name: "server processes left at the end", unit: "processes" };
pub(super) const CUT_OFF: Metric = Metric { name: "connections cut off", unit: "connections" };

const fn rows(name: &'static str) -> Metric {
    Metric { name, unit: "rows" }
}

const fn seconds(name: &'static str) -> Metric {
    Metric { name, unit: "s" }
}

const fn errors(name: &'static str) -> Metric {
    Metric { name, unit: "errors" }
}

const fn goal(case: &'static str, id: &'static str, metric: Metric, target: f64) -> Goal {
    Goal { id, name: metric.name, case, subject: POOL, metric, better: Better::Lower, target }
}

macro_rules! what_always_holds {
    ($case:expr, $id:literal, recovery $recovery:literal, failure $failure:literal) => {
        [
            Goal {
                better: Better::Higher,
                ..goal($case, concat!("pg.", $id, ".acknowledged"), ACKNOWLEDGED, 1_000.0)
            },
            goal($case, concat!("pg.", $id, ".lost"), GONE, 0.0),
            goal($case, concat!("pg.", $id, ".twice"), TWICE, 0.0),
            goal($case, concat!("pg.", $id, ".torn"), TORN, 0.0),
            goal($case, concat!("pg.", $id, ".unknown"), UNKNOWN, 0.0),
            goal($case, concat!("pg.", $id, ".recovery"), RECOVERY, $recovery),
            goal($case, concat!("pg.", $id, ".late"), LATE, 0.0),
            goal($case, concat!("pg.", $id, ".prompt"), LONGEST_FAILURE, $failure),
            goal($case, concat!("pg.", $id, ".left"), LEFT, 0.0),
        ]
    };
}

pub(super) fn all() -> Vec<Goal> {
    let mut goals = Vec::new();
    // Refused at once; the connect time-out bounds what the kernel lets hang.
    goals.extend(what_always_holds!(RESTART, "restart", recovery 1.0, failure 2.2));
    goals.extend(what_always_holds!(CRASH, "crash", recovery 1.0, failure 2.2));
    // The check's second and the connect time-out of two, and a tenth.
    goals.extend(what_always_holds!(FREEZE, "freeze", recovery 1.5, failure 3.3));
    goals.extend(what_always_holds!(BACKENDS, "backends", recovery 1.0, failure 2.2));
    for (case, id) in
        [(RESTART, "pg.restart.bound"), (CRASH, "pg.crash.bound"), (BACKENDS, "pg.backends.bound")]
    {
        goals.push(goal(case, id, REFUSED, 0.0));
    }
    // Each task has one statement under way when the server goes.
    let once = f64::from(TASKS);
    goals.push(goal(RESTART, "pg.restart.under_way", UNDER_WAY, once));
    goals.push(goal(CRASH, "pg.crash.under_way", UNDER_WAY, once));
    goals.push(goal(FREEZE, "pg.freeze.under_way", UNDER_WAY, 0.0));
    goals.push(goal(BACKENDS, "pg.backends.under_way", UNDER_WAY_PER_KILL, 1.0));
    goals
}
