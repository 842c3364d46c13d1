//! http.1 to http.10. An id with several goals stands here once for each.

use super::subjects::{AXIOS, GO, LEGACY, OURS, RAW, REQWEST, UNDICI, UNPOOLED, UPSTREAM};
use crate::{
    report::{Better, Goal},
    runs::Metric,
};

pub(super) const PLAIN_1: &str = "plain, 1 caller";
pub(super) const PLAIN_50: &str = "plain, 50 callers";
pub(super) const PLAIN_256: &str = "plain, 256 callers";
pub(super) const TLS_1: &str = "TLS, 1 caller";
pub(super) const TLS_50: &str = "TLS, 50 callers";
pub(super) const TLS_256: &str = "TLS, 256 callers";
pub(super) const FAR: &str = "plain, 20 ms round trip";
pub(super) const FAR_TLS: &str = "TLS, 20 ms round trip";
pub(super) const FIN: &str = "10,000 GETs, idle connections closed by FIN";
pub(super) const RST: &str = "10,000 GETs, idle connections closed by RST";
pub(super) const COLD: &str = "50 cold requests to an HTTP/2 host";

/// Of HTTP/2, apart: what fails there is no fault elsewhere.
pub(super) const OURS_H2: &str = "ours, HTTP/2";

pub(super) const REQUESTS: Metric = Metric { name: "requests", unit: "1/s" };
pub(super) const CPU: Metric = Metric { name: "client's processor time", unit: "us/request" };
pub(super) const P50: Metric = Metric { name: "latency, median", unit: "ms" };
pub(super) const P99: Metric = Metric { name: "latency, 99th percentile", unit: "ms" };
pub(super) const MEMORY: Metric = Metric { name: "client's peak memory (VmHWM)", unit: "MB" };
pub(super) const ERRORS: Metric = Metric { name: "visible errors", unit: "of 10,000" };
pub(super) const CONNECTIONS: Metric = Metric { name: "connections accepted", unit: "connections" };

/// All features on: with and without an upstream's policy, the worse counts.
const BOTH: &[&str] = &[OURS, UPSTREAM];

const fn less(
    id: &'static str,
    name: &'static str,
    case: &'static str,
    peers: &'static [&'static str],
    target: f64,
) -> Goal {
    Goal { id, name, case, metric: CPU, ours: BOTH, peers, better: Better::Lower, target }
}

const fn against_axios(name: &'static str, metric: Metric, better: Better, target: f64) -> Goal {
    Goal { id: "http.6", name, case: PLAIN_50, metric, ours: BOTH, peers: &[AXIOS], better, target }
}

const fn pooled(name: &'static str, case: &'static str, target: f64) -> Goal {
    let (ours, peers): (&[&str], &[&str]) = (&[OURS], &[UNPOOLED]);
    Goal { id: "http.7", name, case, metric: P50, ours, peers, better: Better::Lower, target }
}

const fn none(name: &'static str, case: &'static str) -> Goal {
    let (metric, ours, better) = (ERRORS, &[OURS], Better::Lower);
    Goal { id: "http.8", name, case, metric, ours, peers: &[], better, target: 0.0 }
}

pub(super) const GOALS: &[Goal] = &[
    less("http.1", "CPU per request, 50 callers, against a raw loop", PLAIN_50, &[RAW], 1.6),
    less("http.2", "CPU per request, 50 callers, against hyper-util legacy", PLAIN_50, &[LEGACY], 1.0),
    less("http.2", "CPU per request, 256 callers, against hyper-util legacy", PLAIN_256, &[LEGACY], 0.8),
    less("http.3", "CPU per request, 50 callers, against reqwest", PLAIN_50, &[REQWEST], 0.7),
    less("http.4", "CPU per request, 50 callers, against Go", PLAIN_50, &[GO], 0.7),
    less("http.5", "CPU per request, 50 callers, against undici", PLAIN_50, &[UNDICI], 0.4),
    against_axios("CPU per request, 50 callers, against axios", CPU, Better::Lower, 0.1),
    against_axios("requests/s, 50 callers, against axios", REQUESTS, Better::Higher, 8.0),
    against_axios("peak memory, 50 callers, against axios", MEMORY, Better::Lower, 0.15),
    pooled("latency at 20 ms round trip, pooled against unpooled, plain", FAR, 0.58),
    pooled("latency at 20 ms round trip, pooled against unpooled, TLS", FAR_TLS, 0.4),
    none("errors of 10,000 GETs, idle connections closed by FIN", FIN),
    none("errors of 10,000 GETs, idle connections closed by RST", RST),
    less("http.9", "CPU per request, TLS, 50 callers, against a raw TLS loop", TLS_50, &[RAW], 1.3),
    Goal {
        id: "http.10",
        name: "connections of 50 cold requests to an HTTP/2 host",
        case: COLD,
        metric: CONNECTIONS,
        ours: &[OURS_H2],
        peers: &[],
        better: Better::Lower,
        target: 1.0,
    },
];
