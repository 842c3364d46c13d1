//! What a pool adds to a statement, and how it deals with two faults: ours beside bb8.

use std::{hint::black_box, time::Duration};

use bb8_postgres::bb8::Pool;
use pools_core::postgres::{PgConfig, PgPool};
use testkit::Postgres;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    CONNECTIONS, FIND, bb8,
    goals::{ABANDONED, CYCLE, REFUSED},
    ours, settle,
    subjects::{BB8, BYPASS, OURS},
};
use crate::{
    Fault, Plan,
    runs::{Metric, Runs, in_turn, median},
    say,
};

pub(super) const CYCLE_TIME: Metric = Metric { name: "checkout + return", unit: "ns" };
pub(super) const WAIT: Metric = Metric { name: "wait for an answer", unit: "ms" };
pub(super) const REPORT: Metric = Metric { name: "time to the error", unit: "ms" };

/// Cycles are timed in batches, of which the middle one counts: on a busy machine some are interrupted.
const BATCHES: usize = 31;
/// A few milliseconds' worth.
const CYCLES: u32 = 10_000;
/// An abandoned statement is dropped when it surely runs.
const HEAD_START: Duration = Duration::from_millis(100);
/// bb8's own default is 30 s: the ratio would be ten times as good.
const BB8_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
enum Who {
    Ours,
    Bb8,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::Bb8 => BB8,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Case {
    Cycle,
    Abandoned,
    Refused,
}

impl Case {
    fn row(self) -> (&'static str, Metric) {
        match self {
            Self::Cycle => (CYCLE, CYCLE_TIME),
            Self::Abandoned => (ABANDONED, WAIT),
            Self::Refused => (REFUSED, REPORT),
        }
    }
}

pub(super) async fn measure(server: &Postgres, plan: Plan, runs: &mut Runs) {
    let free = testkit::free_port();
    let refused = format!("postgres://app@127.0.0.1:{free}/app");
    for case in [Case::Cycle, Case::Abandoned, Case::Refused] {
        let (name, metric) = case.row();
        for round in 0..plan.runs {
            for who in in_turn(&[Who::Ours, Who::Bb8], round) {
                let measured = match (case, who) {
                    (Case::Cycle, Who::Ours) => our_cycle(server.url()).await,
                    (Case::Cycle, Who::Bb8) => bb8_cycle(server.url()).await,
                    (Case::Abandoned, Who::Ours) => our_wait(&server.url()).await,
                    (Case::Abandoned, Who::Bb8) => bb8_wait(&server.url()).await,
                    (Case::Refused, Who::Ours) => our_refusal(&refused).await,
                    (Case::Refused, Who::Bb8) => bb8_refusal(&refused).await,
                };
                match measured {
                    Ok(value) => runs.add(name, who.name(), metric, value),
                    Err(fault) => runs.fail(who.name(), format!("{name}: {fault}")),
                }
                settle(server).await;
            }
        }
        say(&format!("{name}: done"));
    }
}

fn millis_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

fn per_cycle(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e9 / f64::from(CYCLES)
}

async fn our_cycle(url: String) -> Result<f64, Fault> {
    let pool = PgPool::open(ours::config(&url, BYPASS))?;
    drop(pool.acquire().await?.query_one(FIND, &[&1]).await?);
    let cycling = pool.clone();
    let measured = in_a_task(async move {
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let started = Instant::now();
            for _ in 0..CYCLES {
                drop(black_box(cycling.acquire().await?));
            }
            batches.push(per_cycle(started));
        }
        Ok(batches)
    })
    .await;
    ours::close(&pool).await;
    measured
}

async fn bb8_cycle(url: String) -> Result<f64, Fault> {
    let builder = Pool::builder().max_size(CONNECTIONS).test_on_check_out(false);
    let pool = builder.build(bb8::manager(&url)?).await?;
    drop(pool.get().await?.query_one(FIND, &[&1]).await?);
    in_a_task(async move {
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let started = Instant::now();
            for _ in 0..CYCLES {
                drop(black_box(pool.get().await?));
            }
            batches.push(per_cycle(started));
        }
        Ok(batches)
    })
    .await
}

/// As a request is. Returns the middle value.
async fn in_a_task(
    work: impl Future<Output = Result<Vec<f64>, Fault>> + Send + 'static,
) -> Result<f64, Fault> {
    let mut tasks = JoinSet::from_iter([work]);
    let values = tasks.join_next().await.ok_or("BUG: one was spawned")???;
    Ok(median(&values).ok_or("BUG: there are batches")?)
}

/// With one connection, so that the next caller needs the one that was left busy.
async fn our_wait(url: &str) -> Result<f64, Fault> {
    let config = PgConfig { size: 1, overflow: 0, pipeline_connections: 0, ..ours::config(url, BYPASS) };
    let pool = PgPool::open(config)?;
    drop(pool.acquire().await?.query_one(FIND, &[&1]).await?);
    let lease = pool.acquire().await?;
    let cut = timeout(HEAD_START, lease.query("SELECT pg_sleep(2)::text", &[])).await;
    drop(lease);
    let started = Instant::now();
    drop(pool.acquire().await?.query_one(FIND, &[&1]).await?);
    let waited = millis_since(started);
    ours::close(&pool).await;
    if cut.is_ok() { Err("the statement ended before it was abandoned".into()) } else { Ok(waited) }
}

async fn bb8_wait(url: &str) -> Result<f64, Fault> {
    let pool = Pool::builder().max_size(1).build(bb8::manager(url)?).await?;
    drop(pool.get().await?.query_one(FIND, &[&1]).await?);
    let conn = pool.get().await?;
    let cut = timeout(HEAD_START, conn.query("SELECT pg_sleep(2)::text", &[])).await;
    drop(conn);
    let started = Instant::now();
    drop(pool.get().await?.query_one(FIND, &[&1]).await?);
    let waited = millis_since(started);
    if cut.is_ok() { Err("the statement ended before it was abandoned".into()) } else { Ok(waited) }
}

async fn our_refusal(url: &str) -> Result<f64, Fault> {
    let pool = PgPool::open(ours::config(url, BYPASS))?;
    let started = Instant::now();
    let refused = pool.acquire().await.is_err();
    let took = millis_since(started);
    ours::close(&pool).await;
    if refused { Ok(took) } else { Err("somebody listens there".into()) }
}

async fn bb8_refusal(url: &str) -> Result<f64, Fault> {
    let builder = Pool::builder().max_size(CONNECTIONS).connection_timeout(BB8_PATIENCE);
    let pool = builder.build_unchecked(bb8::manager(url)?);
    let started = Instant::now();
    let refused = pool.get().await.is_err();
    let took = millis_since(started);
    if refused { Ok(took) } else { Err("somebody listens there".into()) }
}
