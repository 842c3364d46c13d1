//! The HTTP pool: the same small GET from 1, 50 and 256 callers, plain and over TLS, and what happens on a long way, when servers
//! close, and over HTTP/2.
//!
//! ```text
//!  server: a process on the first core ◄── subject: a fresh process on the last core, per run
//!                                            ▲ one line of JSON: an order; one line: what came of it
//!                                          this process waits
//! ```
//!
//! Processes of hyper-based clients fall into two modes about 30 % apart: a fresh process per run and two runs more than asked
//! for show both.

mod client;
mod goals;
mod server;
mod special;
mod subjects;

use serde_json::json;

pub(crate) use self::client::Args as ClientArgs;
use self::{
    goals::{CPU, MEMORY, P50, P99, PLAIN_1, PLAIN_50, PLAIN_256, REQUESTS, TLS_1, TLS_50, TLS_256},
    server::BODY,
    subjects::{Got, Subject, Subjects},
};
use crate::{
    Fault, Plan,
    load::Tally,
    proc,
    report::Report,
    runs::{Runs, in_turn},
    say,
};

/// How many more runs where ratios are taken.
const MORE_RUNS: u32 = 2;

struct Case {
    name: &'static str,
    tasks: u32,
    tls: bool,
    subjects: &'static [Subject],
    more: u32,
}

const CASES: &[Case] = &[
    Case { name: PLAIN_50, tasks: 50, tls: false, subjects: Subject::ALL, more: MORE_RUNS },
    Case { name: PLAIN_256, tasks: 256, tls: false, subjects: Subject::SOME, more: MORE_RUNS },
    Case { name: PLAIN_1, tasks: 1, tls: false, subjects: Subject::FEW, more: 0 },
    Case { name: TLS_50, tasks: 50, tls: true, subjects: Subject::ALL, more: MORE_RUNS },
    Case { name: TLS_256, tasks: 256, tls: true, subjects: Subject::FEW, more: 0 },
    Case { name: TLS_1, tasks: 1, tls: true, subjects: Subject::FEW, more: 0 },
];

/// Obeys as a subject.
pub(crate) fn client(args: &ClientArgs) -> Result<(), Fault> {
    client::run(args)
}

/// Serves.
pub(crate) fn server() -> Result<(), Fault> {
    server::run()
}

/// Runs all of it.
pub(crate) async fn measure(plan: Plan) -> Result<Report, Fault> {
    let mut runs = Runs::default();
    let mut subjects = Subjects::prepare(&mut runs).await?;
    compare_answers(&subjects, &mut runs).await;
    for case in CASES {
        let rounds = plan.runs + case.more;
        for round in 0..rounds {
            for subject in in_turn(case.subjects, round) {
                if runs.faults.contains_key(subject.name()) {
                    continue;
                }
                match twice(&subjects, subject, case, plan).await {
                    Ok((tally, memory)) => add(&mut runs, case.name, subject.name(), &tally, memory),
                    Err(fault) => runs.fail(subject.name(), fault.to_string()),
                }
            }
            say(&format!("{}: {} of {rounds} rounds", case.name, round + 1));
        }
    }
    special::measure(&mut subjects, plan, &mut runs).await;
    subjects.end().await;
    Ok(Report::new("http", goals::GOALS, runs))
}

/// Every subject gives the same answers, plain and over TLS, or is not timed.
async fn compare_answers(subjects: &Subjects, runs: &mut Runs) {
    for subject in Subject::ALL {
        if runs.faults.contains_key(subject.name()) {
            continue;
        }
        for url in [plain(subjects.ports.plain), tls(subjects.ports.tls)] {
            match get(subjects, *subject, &url, 3).await {
                Ok(got)
                    if got.answers.iter().all(|(status, body)| (*status, body.as_str()) == (200, BODY)) => {}
                Ok(_) => runs.fail(subject.name(), "its answers differ from what was sent".to_owned()),
                Err(fault) => runs.fail(subject.name(), fault.to_string()),
            }
        }
    }
}

async fn get(subjects: &Subjects, subject: Subject, url: &str, count: u32) -> Result<Got, Fault> {
    let mut running = subjects.start(subject)?;
    let got = running.ask(&json!({ "do": "get", "url": url, "count": count })).await;
    running.end().await;
    got
}

/// A busy machine may starve a run of so short a length: once more, then it is a fault.
async fn twice(
    subjects: &Subjects,
    subject: Subject,
    case: &Case,
    plan: Plan,
) -> Result<(Tally, f64), Fault> {
    match load(subjects, subject, case, plan).await {
        Ok(done) => Ok(done),
        Err(fault) => {
            say(&format!("{}: {}: {fault}; once more", case.name, subject.name()));
            load(subjects, subject, case, plan).await
        }
    }
}

/// One run, and the most memory that its process had.
async fn load(subjects: &Subjects, subject: Subject, case: &Case, plan: Plan) -> Result<(Tally, f64), Fault> {
    let url = if case.tls { tls(subjects.ports.tls) } else { plain(subjects.ports.plain) };
    let mut running = subjects.start(subject)?;
    let order = json!({
        "do": "load", "url": url, "tasks": case.tasks, "body": BODY,
        "warm_up": subject.warm_up(), "seconds": plan.measured.as_secs_f64(),
    });
    let tally = running.ask(&order).await;
    let memory = running.pid().map(proc::peak_megabytes);
    running.end().await;
    Ok((tally?, memory.ok_or("it is gone")?))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn add(runs: &mut Runs, case: &'static str, subject: &'static str, tally: &Tally, memory: f64) {
    let requests = tally.served.iter().sum::<u64>() as f64;
    let values = [
        (CPU, tally.cpu_seconds / requests * 1e6),
        (REQUESTS, requests / tally.seconds),
        (P50, tally.p50),
        (P99, tally.p99),
        (MEMORY, memory),
    ];
    for (metric, value) in values {
        runs.add(case, subject, metric, value);
    }
}

fn plain(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

fn tls(port: u16) -> String {
    format!("https://127.0.0.1:{port}/")
}
