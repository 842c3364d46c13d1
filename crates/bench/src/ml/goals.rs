//! ml.1 to ml.6.

use crate::{
    report::{Better, Goal},
    runs::Metric,
};

pub(super) const OURS: &str = "ml-api";
pub(super) const PEER: &str = "Flask, scikit-learn, gunicorn";
/// As it comes: it stops 0.04 short of the optimum in one coefficient.
pub(super) const DEFAULT: &str = "scikit-learn lbfgs, 1e-4 (default)";
pub(super) const LBFGS: &str = "scikit-learn lbfgs, 1e-6";
pub(super) const QUICK_NEWTON: &str = "scikit-learn newton-cholesky, 1e-4";
pub(super) const NEWTON: &str = "scikit-learn newton-cholesky, 1e-8";
pub(super) const SOLVERS: &[&str] = &[DEFAULT, LBFGS, QUICK_NEWTON, NEWTON];

pub(super) const PREDICT: &str = "/predict, 8 connections";
pub(super) const BATCH: &str = "/predict/batch of 1,000, 2 connections";
pub(super) const RECORD: &str = "/data/record, 8 connections";
pub(super) const START: &str = "start";
pub(super) const LOADED: &str = "after the load";
pub(super) const TRAINING: &str = "100,000 rows of 22 features";

pub(super) const CPU: Metric = Metric { name: "server's processor time", unit: "us/request" };
pub(super) const REQUESTS: Metric = Metric { name: "requests", unit: "1/s" };
pub(super) const P99: Metric = Metric { name: "latency, 99th percentile", unit: "ms" };
pub(super) const READY: Metric = Metric { name: "until the first prediction", unit: "ms" };
pub(super) const MEMORY: Metric = Metric { name: "memory (PSS)", unit: "MB" };
pub(super) const FIT: Metric = Metric { name: "standardise and fit", unit: "ms" };

const fn less(
    id: &'static str,
    name: &'static str,
    case: &'static str,
    metric: Metric,
    peers: &'static [&'static str],
    target: f64,
) -> Goal {
    Goal { id, name, case, metric, ours: &[OURS], peers, better: Better::Lower, target }
}

pub(super) const GOALS: &[Goal] = &[
    less("ml.1", "processor time per /predict", PREDICT, CPU, &[PEER], 0.05),
    less("ml.2", "processor time per batch of 1,000", BATCH, CPU, &[PEER], 0.25),
    less("ml.3", "processor time per /data/record", RECORD, CPU, &[PEER], 0.125),
    less("ml.4", "memory after the load", LOADED, MEMORY, &[PEER], 0.125),
    less("ml.5", "time until the first prediction", START, READY, &[PEER], 0.1),
    less("ml.6", "training on 100,000 rows, against the fastest solver", TRAINING, FIT, SOLVERS, 1.0),
];
