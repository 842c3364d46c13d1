//! What must hold in each case.

use crate::{chaos::report::Goal, report::Better, runs::Metric};

pub(super) const KILLED: &str = "kill -9 of all server processes, 2 s away";
pub(super) const RESTARTED: &str = "fast restart, 2 s away";

pub(super) const OURS: &str = "ml-api, 200 writers";

pub(super) const ACKNOWLEDGED: Metric = rows("loans acknowledged");
pub(super) const ENDS_ACKNOWLEDGED: Metric = rows("ends acknowledged");
pub(super) const FOUND: Metric = rows("loans found");
pub(super) const UNSURE: Metric = rows("refused, but found");
pub(super) const GONE: Metric = rows("loans acknowledged, but not found");
pub(super) const ENDS_GONE: Metric = rows("ends acknowledged, but not found");
pub(super) const TWICE: Metric = rows("found twice");
pub(super) const TORN: Metric = rows("found otherwise than written");
pub(super) const REFUSED: Metric = answers("answers 503 or 504");
pub(super) const WRONG: Metric = answers("other answers but 200");
pub(super) const RECOVERY: Metric = Metric { name: "server back until every writer was served", unit: "s" };

const fn rows(name: &'static str) -> Metric {
    Metric { name, unit: "rows" }
}

const fn answers(name: &'static str) -> Metric {
    Metric { name, unit: "answers" }
}

const fn at_most(id: &'static str, case: &'static str, metric: Metric, target: f64) -> Goal {
    Goal { id, name: metric.name, case, subject: OURS, metric, better: Better::Lower, target }
}

const fn at_least(id: &'static str, case: &'static str, metric: Metric, target: f64) -> Goal {
    Goal { better: Better::Higher, ..at_most(id, case, metric, target) }
}

pub(super) const GOALS: &[Goal] = &[
    at_least("ml.kill.acknowledged", KILLED, ACKNOWLEDGED, 5_000.0),
    at_least("ml.kill.refused", KILLED, REFUSED, 1.0),
    at_most("ml.kill.lost", KILLED, GONE, 0.0),
    at_most("ml.kill.ends_lost", KILLED, ENDS_GONE, 0.0),
    at_most("ml.kill.twice", KILLED, TWICE, 0.0),
    at_most("ml.kill.torn", KILLED, TORN, 0.0),
    at_most("ml.kill.wrong", KILLED, WRONG, 0.0),
    at_most("ml.kill.recovery", KILLED, RECOVERY, 5.0),
    at_least("ml.restart.acknowledged", RESTARTED, ACKNOWLEDGED, 5_000.0),
    at_least("ml.restart.refused", RESTARTED, REFUSED, 1.0),
    at_most("ml.restart.lost", RESTARTED, GONE, 0.0),
    at_most("ml.restart.ends_lost", RESTARTED, ENDS_GONE, 0.0),
    at_most("ml.restart.twice", RESTARTED, TWICE, 0.0),
    at_most("ml.restart.torn", RESTARTED, TORN, 0.0),
    at_most("ml.restart.wrong", RESTARTED, WRONG, 0.0),
    at_most("ml.restart.recovery", RESTARTED, RECOVERY, 5.0),
];
