//! The Postgres pool while its server fails: 40 tasks write rows over 10 + 20 connections, by the lane, by leases
//! and in transactions.
//!
//! ```text
//!  load ──► fault ──► server back ──► everybody served again ──► end ──► pool drained ──► rows counted
//! ```
//!
//! The server waits for its log at every commit (`synchronous_commit`), but not for the disk: what fails here is
//! the server, not the machine. The role may have as many connections as the pool, so that the server itself
//! counts whether there are ever more.

mod audit;
mod goals;
mod load;

use std::time::Duration;

use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgPool},
};
use testkit::{Postgres, PostgresOptions, Stop};
use tokio::time::{Instant, sleep, timeout};

use self::{
    audit::{Marks, audit},
    goals::{BACKENDS, CRASH, FREEZE, RESTART},
    load::Load,
};
use super::report::Report;
use crate::{Fault, runs::Runs, say};

const SIZE: u32 = 10;
const OVERFLOW: u32 = 20;
const TASKS: u32 = 40;

/// Before the fault each task has written some.
const RUNNING: usize = 1_000;
/// The server is away, or frozen, for so long.
const OUTAGE: Duration = Duration::from_secs(2);
/// Longer than two attempts to connect, so that some fail.
const FROZEN: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Server processes killed one by one, and the pause between two.
const KILLS: u32 = 60;
const KILL_PAUSE: Duration = Duration::from_millis(50);
/// Nothing that is hoped for here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every case so many times.
pub(crate) async fn measure(times: u32) -> Result<Report, Fault> {
    let mut runs = Runs::default();
    for round in 1..=times {
        for case in [RESTART, CRASH, FREEZE, BACKENDS] {
            say(&format!("{case}: run {round} of {times}"));
            run(case, &mut runs).await.map_err(|fault| format!("{case}: {fault}"))?;
        }
    }
    Ok(Report::new("postgres", &goals::all(), runs))
}

async fn run(case: &'static str, runs: &mut Runs) -> Result<(), Fault> {
    let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
    let server = testkit::postgres_with(PostgresOptions { settings, ..Default::default() }).await;
    let pool = PgPool::open(config(case, &server).await)?;
    let load = Load::start(&pool, TASKS);
    wait("the load", || load.acknowledged() >= RUNNING).await?;
    let marks = fail(case, &server).await;
    wait("everybody to be served again", || load.all_served_since(marks.back)).await?;
    // Failures that come late would come in this time.
    sleep(OUTAGE).await;
    let tries = load.end().await?;
    let cut_off = cut_off(&pool);
    let drained = pool.drain(Instant::now() + PATIENCE).await;
    if !drained.cut.is_empty() {
        return Err(format!("the pool did not drain: {:?}", drained.cut).into());
    }
    let findings = audit(&server, &tries, &marks, cut_off).await?;
    findings.add_to(runs, case);
    Ok(())
}

async fn config(case: &str, server: &Postgres) -> PgConfig {
    // A frozen server's processes outlive the connections that were cut off: the pool counts those.
    let limit = if case == FREEZE { 2 * (SIZE + OVERFLOW) } else { SIZE + OVERFLOW };
    let url = server.create_role_with_limit(audit::ROLE, limit).await;
    server.admin_query(audit::TABLE).await;
    PgConfig {
        url: Some(url.into()),
        size: SIZE,
        overflow: OVERFLOW,
        connect_timeout: CONNECT_TIMEOUT,
        ..PgConfig::default()
    }
}

/// Does it to the server, and tells when it began and when the server was back.
async fn fail(case: &str, server: &Postgres) -> Marks {
    let down = Instant::now();
    let mut kills = 0;
    match case {
        RESTART | CRASH => {
            server.stop(if case == CRASH { Stop::Kill } else { Stop::Fast }).await;
            sleep(OUTAGE).await;
            server.start().await;
        }
        FREEZE => {
            server.freeze();
            sleep(FROZEN).await;
            server.thaw();
        }
        _ => {
            for _ in 0..KILLS {
                kills += server.admin_query(audit::KILL_ONE).await.len();
                sleep(KILL_PAUSE).await;
            }
        }
    }
    Marks { down, back: Instant::now(), kills }
}

fn cut_off(pool: &PgPool) -> f64 {
    let samples = pool.snapshot().samples;
    let found = samples.iter().find(|sample| sample.name == "pools_postgres_cut_off_total");
    found.map_or(f64::NAN, |sample| sample.value)
}

async fn wait(what: &str, condition: impl Fn() -> bool) -> Result<(), Fault> {
    let look = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, look).await.map_err(|_| format!("waited {PATIENCE:?} for {what}").into())
}
