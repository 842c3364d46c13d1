//! What a closed loop on a near server does not show: a long way, servers that close, a cold start over HTTP/2.

use serde::Deserialize;
use serde_json::json;

use super::{
    client::Kind,
    get,
    goals::{COLD, CONNECTIONS, ERRORS, FAR, FAR_TLS, FIN, OURS_H2, P50, RST},
    plain,
    server::BODY,
    subjects::{Subject, Subjects},
    tls,
};
use crate::{
    Fault, Plan,
    runs::{Runs, in_turn, median},
    say,
};

/// Requests on the long way, one after the other, beside the one that finds no connection.
const FAR_REQUESTS: u32 = 10;
/// Each pauses for 10 ms on average: most connections are idle at any time.
const CALLERS: u32 = 100;
const COLD_REQUESTS: u32 = 50;
const GETS: u32 = 10_000;

const STALE: &[Subject] = &[
    Subject::Rust(Kind::Ours),
    Subject::Undici,
    Subject::Rust(Kind::OursNoRetry),
    Subject::Go,
    Subject::Rust(Kind::Legacy),
];

/// With their names there.
const MULTIPLEXED: &[(Subject, &str)] = &[
    (Subject::Rust(Kind::Ours), OURS_H2),
    (Subject::Go, "Go net/http, HTTP/2"),
    (Subject::Rust(Kind::Reqwest), "reqwest, HTTP/2"),
    (Subject::Rust(Kind::Legacy), "hyper-util legacy, HTTP/2"),
    (Subject::Undici, "undici Pool, HTTP/2"),
];

#[derive(Debug, Deserialize)]
struct Failed {
    errors: u32,
    first: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Cold {
    answered: u32,
}

pub(super) async fn measure(subjects: &mut Subjects, plan: Plan, runs: &mut Runs) {
    for round in 0..plan.runs {
        far(subjects, round, runs).await;
        stale(subjects, round, runs).await;
        cold(subjects, round, runs).await;
        say(&format!("long way, closing servers, HTTP/2: {} of {} rounds", round + 1, plan.runs));
    }
}

async fn far(subjects: &Subjects, round: u32, runs: &mut Runs) {
    let urls = [(FAR, plain(subjects.ports.far)), (FAR_TLS, tls(subjects.ports.far_tls))];
    for (case, url) in urls {
        for subject in in_turn(&[Kind::Ours, Kind::OursUnpooled].map(Subject::Rust), round) {
            if runs.faults.contains_key(subject.name()) {
                continue;
            }
            match get(subjects, subject, &url, FAR_REQUESTS + 1).await {
                Ok(got) => {
                    let latency = median(&got.millis[1..]).unwrap_or(f64::NAN);
                    runs.add(case, subject.name(), P50, latency);
                }
                Err(fault) => runs.fail(subject.name(), fault.to_string()),
            }
        }
    }
}

async fn stale(subjects: &Subjects, round: u32, runs: &mut Runs) {
    for (case, port) in [(FIN, subjects.ports.fin), (RST, subjects.ports.rst)] {
        for subject in in_turn(STALE, round) {
            if runs.faults.contains_key(subject.name()) {
                continue;
            }
            match errors(subjects, subject, &plain(port)).await {
                Ok(failed) => {
                    if let Some(first) = failed.first.filter(|_| round == 0) {
                        say(&format!(
                            "{case}: {}: {} errors, the first: {first}",
                            subject.name(),
                            failed.errors
                        ));
                    }
                    runs.add(case, subject.name(), ERRORS, failed.errors.into());
                }
                Err(fault) => runs.fail(subject.name(), fault.to_string()),
            }
        }
    }
}

async fn errors(subjects: &Subjects, subject: Subject, url: &str) -> Result<Failed, Fault> {
    let mut running = subjects.start(subject)?;
    let order = json!({ "do": "errors", "url": url, "tasks": CALLERS, "requests": GETS, "body": BODY });
    let failed = running.ask(&order).await;
    running.end().await;
    failed
}

async fn cold(subjects: &mut Subjects, round: u32, runs: &mut Runs) {
    for (subject, name) in in_turn(MULTIPLEXED, round) {
        if runs.faults.contains_key(subject.name()) || runs.faults.contains_key(name) {
            continue;
        }
        match connections(subjects, subject).await {
            Ok(connections) => runs.add(COLD, name, CONNECTIONS, connections),
            Err(fault) => runs.fail(name, fault.to_string()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of connections")]
async fn connections(subjects: &mut Subjects, subject: Subject) -> Result<f64, Fault> {
    // What came before is nobody's.
    subjects.accepted().await?;
    let mut running = subjects.start(subject)?;
    let order = json!({ "do": "cold", "url": tls(subjects.ports.h2), "tasks": COLD_REQUESTS, "body": BODY });
    let cold: Result<Cold, Fault> = running.ask(&order).await;
    running.end().await;
    match cold?.answered {
        COLD_REQUESTS => Ok(subjects.accepted().await? as f64),
        answered => Err(format!("{answered} of {COLD_REQUESTS} answered").into()),
    }
}
