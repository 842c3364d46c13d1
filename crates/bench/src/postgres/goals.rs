//! pg.1 to pg.12. An id with several goals stands here once for each.

use super::{
    FAIRNESS, OPERATIONS,
    faults::{CYCLE_TIME, REPORT, WAIT},
    subjects::{
        BB8, BB8_UNCHECKED, DEADPOOL, DEADPOOL_VERIFIED, LANE, NODE, OURS, OURS_CHECKED, SQLALCHEMY,
        SQLALCHEMY_CORE, SQLX,
    },
};
use crate::report::{Better, Goal};

pub(super) const FEW: &str = "64 tasks";
pub(super) const MANY: &str = "256 tasks";
pub(super) const CYCLE: &str = "one task, live connection, no SQL";
pub(super) const ABANDONED: &str = "one connection, after an abandoned 2 s query";
pub(super) const REFUSED: &str = "refused connect (bb8's connection_timeout 3 s instead of 30 s)";

/// Whoever may be the best at 64 and at 256 tasks. Those with a test on checkout are never.
const PEERS: &[&str] = &[DEADPOOL, SQLX, BB8, BB8_UNCHECKED, NODE, SQLALCHEMY];
const PYTHON: &[&str] = &[SQLALCHEMY, SQLALCHEMY_CORE];

const fn faster(
    id: &'static str,
    name: &'static str,
    case: &'static str,
    ours: &'static [&'static str],
    peers: &'static [&'static str],
    target: f64,
) -> Goal {
    Goal { id, name, case, metric: OPERATIONS, ours, peers, better: Better::Higher, target }
}

const fn fair(name: &'static str, case: &'static str) -> Goal {
    let (id, metric, ours) = ("pg.8", FAIRNESS, &[OURS, OURS_CHECKED]);
    Goal { id, name, case, metric, ours, peers: &[], better: Better::Higher, target: 0.7 }
}

const fn sooner(
    id: &'static str,
    name: &'static str,
    case: &'static str,
    metric: crate::runs::Metric,
    target: f64,
) -> Goal {
    Goal { id, name, case, metric, ours: &[OURS], peers: &[BB8], better: Better::Lower, target }
}

pub(super) const GOALS: &[Goal] = &[
    faster("pg.1", "ops/s, ping always, against SQLAlchemy", FEW, &[OURS_CHECKED], PYTHON, 1.5),
    faster("pg.2", "ops/s, bypass, against SQLAlchemy", FEW, &[OURS], PYTHON, 2.5),
    faster("pg.3", "ops/s, bypass, against node-pg", FEW, &[OURS], &[NODE], 1.5),
    faster(
        "pg.4",
        "ops/s, ping always, against deadpool Verified",
        FEW,
        &[OURS_CHECKED],
        &[DEADPOOL_VERIFIED],
        0.9,
    ),
    faster("pg.5", "ops/s, bypass, against deadpool Verified", FEW, &[OURS], &[DEADPOOL_VERIFIED], 1.6),
    faster("pg.6", "ops/s, bypass, against deadpool Fast, 64 tasks", FEW, &[OURS], &[DEADPOOL], 0.85),
    faster("pg.6", "ops/s, bypass, against deadpool Fast, 256 tasks", MANY, &[OURS], &[DEADPOOL], 1.0),
    faster("pg.7", "ops/s, bypass, against sqlx", FEW, &[OURS], &[SQLX], 1.4),
    fair("least / most served task, 64 tasks", FEW),
    fair("least / most served task, 256 tasks", MANY),
    faster("pg.9", "ops/s, lane against our exclusive lane, 64 tasks", FEW, &[LANE], &[OURS], 1.6),
    faster("pg.9", "ops/s, lane against our exclusive lane, 256 tasks", MANY, &[LANE], &[OURS], 2.0),
    faster("pg.9", "ops/s, lane against the best peer, 64 tasks", FEW, &[LANE], PEERS, 1.4),
    faster("pg.9", "ops/s, lane against the best peer, 256 tasks", MANY, &[LANE], PEERS, 2.5),
    sooner("pg.10", "checkout + return, against bare bb8", CYCLE, CYCLE_TIME, 1.3),
    sooner("pg.11", "wait after an abandoned 2 s query, against bb8", ABANDONED, WAIT, 0.05),
    sooner("pg.12", "time until a refused connect is reported, against bb8", REFUSED, REPORT, 0.01),
];
