//! ml-api beside the same service in Flask, scikit-learn and SQLAlchemy under gunicorn with 2 workers.
//!
//! ```text
//!  subject: start ─► first prediction ─► answers compared ─► /predict ─► /predict/batch ─► /data/record ─► memory ─► end
//!  model:   ours, trained once ─► scikit-learn's pipeline with the same numbers
//! ```
//!
//! One service runs at a time, on the same server, whose processor time is nobody's. The processor time of a service is
//! that of its whole process tree.

mod goals;
mod loans;
mod subjects;
mod training;

use testkit::Postgres;

use self::{
    goals::{BATCH, CPU, LOADED, MEMORY, P99, PREDICT, READY, RECORD, REQUESTS, START},
    loans::Loans,
    subjects::{Running, Subject, Subjects},
};
use crate::{
    Fault, Plan,
    load::{Tally, drive_by},
    proc,
    report::Report,
    runs::{Runs, in_turn},
    say,
};

/// Runs all of it.
pub(crate) async fn measure(plan: Plan) -> Result<Report, Fault> {
    let server = testkit::postgres().await;
    let mut runs = Runs::default();
    let subjects = Subjects::prepare(&server, &mut runs).await?;
    let loans = Loans::new();
    for round in 0..plan.runs {
        for subject in in_turn(&[Subject::Ours, Subject::Peer], round) {
            if runs.faults.contains_key(subject.name()) {
                continue;
            }
            if let Err(fault) = run(&subjects, subject, &loans, &server, plan, round, &mut runs).await {
                runs.fail(subject.name(), fault.to_string());
            }
        }
        say(&format!("services: {} of {} rounds", round + 1, plan.runs));
    }
    training::measure(&subjects, plan, &mut runs).await?;
    Ok(Report::new("ml", goals::GOALS, runs))
}

async fn run(
    subjects: &Subjects,
    subject: Subject,
    loans: &Loans,
    server: &Postgres,
    plan: Plan,
    round: u32,
    runs: &mut Runs,
) -> Result<(), Fault> {
    let running = subjects.start(subject, server).await?;
    runs.add(START, subject.name(), READY, running.ready_after.as_secs_f64() * 1e3);
    loans.check(&running, subject, server, round).await?;
    for (case, tasks) in [(PREDICT, 8), (BATCH, 2), (RECORD, 8)] {
        let tally = load(&running, case, tasks, loans, plan, round).await?;
        add(runs, case, subject.name(), &tally);
    }
    runs.add(LOADED, subject.name(), MEMORY, proc::megabytes(running.pid()));
    running.end().await
}

async fn load(
    running: &Running,
    case: &str,
    tasks: u32,
    loans: &Loans,
    plan: Plan,
    round: u32,
) -> Result<Tally, Fault> {
    let pid = running.pid();
    let (api, loans) = (running.api.clone(), loans.clone());
    let path = case.split([',', ' ']).next().unwrap_or(case).to_owned();
    let operation = move |number: u32| {
        let body = match path.as_str() {
            "/predict" => loans.one(number),
            "/predict/batch" => loans.batch(),
            _ => loans.record(round, number),
        };
        let (api, path) = (api.clone(), path.clone());
        async move { api.expect(&path, body).await.map(drop) }
    };
    drive_by(|| proc::cpu_seconds(pid), tasks, plan.measured, operation).await
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn add(runs: &mut Runs, case: &'static str, subject: &'static str, tally: &Tally) {
    let requests = tally.served.iter().sum::<u64>() as f64;
    runs.add(case, subject, CPU, tally.cpu_seconds / requests * 1e6);
    runs.add(case, subject, REQUESTS, requests / tally.seconds);
    runs.add(case, subject, P99, tally.p99);
}
