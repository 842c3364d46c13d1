//! ml-api while its Postgres fails: 200 writers record loans and their ends, and repeat what was not acknowledged.
//!
//! ```text
//!  writers ──/data/record, /data/update──► ml-api ──► Postgres ◄── kill -9, restart
//!     └── what was acknowledged ──► compared with the rows found
//! ```
//!
//! One write in five is given up after its first refusal: it may be there or not, but whole and once. The server
//! waits for its log at every commit (`synchronous_commit`), but not for the disk: what fails is the server, not the
//! machine.

mod audit;
mod goals;
mod writers;

use std::{path::Path, time::Duration};

use testkit::{Postgres, PostgresOptions, Service, Stop};
use tokio::time::{Instant, sleep, timeout};

use self::{
    goals::{KILLED, RESTARTED},
    writers::Writers,
};
use super::report::Report;
use crate::{Fault, api::Api, program, runs::Runs, say};

/// Acknowledged before a fault, and again after it.
const RUNNING: usize = 6_000;
/// The server is away for so long.
const OUTAGE: Duration = Duration::from_secs(2);
/// Nothing that is hoped for here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every case so many times.
pub(crate) async fn measure(times: u32) -> Result<Report, Fault> {
    let program = program::build("ml-api").await?;
    let mut runs = Runs::default();
    for round in 1..=times {
        for case in [KILLED, RESTARTED] {
            say(&format!("{case}: run {round} of {times}"));
            run(&program, case, &mut runs).await.map_err(|fault| format!("{case}: {fault}"))?;
        }
    }
    Ok(Report::new("ml", goals::GOALS, runs))
}

async fn run(program: &Path, case: &'static str, runs: &mut Runs) -> Result<(), Fault> {
    let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
    let server = testkit::postgres_with(PostgresOptions { settings, ..Default::default() }).await;
    let (service, api) = start(program, &server).await?;
    let writers = Writers::start(&api);
    wait("the load", || writers.acknowledged() >= RUNNING).await?;
    server.stop(if case == KILLED { Stop::Kill } else { Stop::Fast }).await;
    sleep(OUTAGE).await;
    server.start().await;
    let back = Instant::now();
    wait("everybody to be served again", || writers.all_served_since(back)).await?;
    let recovery = back.elapsed();
    let target = writers.acknowledged() + RUNNING;
    wait("the load after the fault", || writers.acknowledged() >= target).await?;
    let told = writers.end().await?;
    if !service.is_running() {
        return Err("ml-api has ended".into());
    }
    audit::audit(&server, &told).await?.add_to(runs, case, recovery);
    Ok(())
}

async fn start(program: &Path, server: &Postgres) -> Result<(Service, Api), Fault> {
    let port = testkit::free_port();
    let (text, url) = (port.to_string(), server.url());
    let service =
        testkit::service(program, &[], &[("ML_PORT", &text), ("DATABASE_URL", &url), ("LOG_LEVEL", "error")]);
    let api = Api::on(port);
    let first = r#"{"loan_id":"first"}"#;
    let ready = async {
        while !api.post("/data/record", first).await.is_ok_and(|(status, _)| status == 200) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ready).await.map_err(|_| "ml-api is not ready")?;
    Ok((service, api))
}

async fn wait(what: &str, condition: impl Fn() -> bool) -> Result<(), Fault> {
    let look = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, look).await.map_err(|_| format!("waited {PATIENCE:?} for {what}").into())
}
