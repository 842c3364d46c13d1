//! The HTTP pool and its policies while an upstream fails: 30 callers of one upstream, a third of them posting, and ten of a healthy
//! neighbour on the same pool.
//!
//! ```text
//!  load ──► running ──► fault, and its end ──► everybody served again ──► end ──► pool drained ──► what the server saw
//! ```
//!
//! The upstream keeps idle connections for less time than callers think, resets all of its connections, falls silent, or answers 503 in
//! bursts. A POST that it sees twice is a loss as bad as one that nobody saw.

mod audit;
mod goals;
mod load;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pools_core::{
    http::{BreakerPolicy, HttpConfig, HttpPool, Policy, Upstream},
    pool::Pool,
};
use testkit::{End, Reply, UpstreamOptions};
use tokio::time::{Instant, sleep, timeout};

use self::{
    audit::Server,
    goals::{BURSTS, FROZEN, IDLE, RESETS},
    load::Load,
};
use super::report::Report;
use crate::{Fault, runs::Runs, say};

const CALLERS: u32 = 30;
const NEIGHBOURS: u32 = 10;
/// Sockets of all hosts: fewer than the callers of the sick upstream could use.
const SOCKETS: u32 = 30;
/// Places of the sick upstream among them.
const PLACES: u32 = 20;

/// Before the fault the callers have been answered so often.
const RUNNING: usize = 500;
const AFTERWARDS: Duration = Duration::from_secs(1);
/// The upstream closes what was idle for so long; callers think for 0 to 20 ms.
const IDLE_CLOSE: Duration = Duration::from_millis(10);
/// Answers in the case of idle connections.
const MANY: usize = 10_000;
/// All connections are reset so often, with this pause.
const RESET_TIMES: u32 = 40;
const RESET_PAUSE: Duration = Duration::from_millis(50);
/// The upstream is silent, or answers 503, for so long.
const AWAY: Duration = Duration::from_secs(3);
/// Bursts of 503, and of 200 in between.
const BURST_TIMES: u32 = 3;
/// Nothing that is hoped for here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every case so many times.
pub(crate) async fn measure(times: u32) -> Result<Report, Fault> {
    let mut runs = Runs::default();
    for round in 1..=times {
        for case in [IDLE, RESETS, FROZEN, BURSTS] {
            say(&format!("{case}: run {round} of {times}"));
            run(case, &mut runs).await.map_err(|fault| format!("{case}: {fault}"))?;
        }
    }
    Ok(Report::new("http", &goals::all(), runs))
}

/// A call ends within a second, so that silence is felt.
fn policy() -> Policy {
    Policy {
        max_in_flight: PLACES,
        head_timeout: Duration::from_millis(500),
        total_timeout: load::DEADLINE,
        breaker: Some(BreakerPolicy { pause: Duration::from_millis(500), ..BreakerPolicy::default() }),
        ..Policy::default()
    }
}

async fn run(case: &'static str, runs: &mut Runs) -> Result<(), Fault> {
    let ill = Arc::new(AtomicBool::new(false));
    let is_ill = Arc::clone(&ill);
    let options = UpstreamOptions { idle_close: (case == IDLE).then_some(IDLE_CLOSE), ..Default::default() };
    let sick = testkit::upstream_with(options, move |_| match (is_ill.load(Ordering::Relaxed), case) {
        (false, _) => Reply::ok("well"),
        (true, FROZEN) => Reply::never(),
        (true, _) => Reply::new(503),
    })
    .await;
    let well = testkit::upstream(|_| Reply::ok("well")).await;
    let http = HttpPool::new(HttpConfig { max_total_sockets: SOCKETS, ..HttpConfig::default() });
    let peer = Upstream::new(http.clone(), "sick", &sick.url(), policy())?;
    let neighbour = Upstream::new(http.clone(), "well", &well.url(), policy())?;

    let load = Load::start(&peer, CALLERS);
    let beside = Load::start(&neighbour, NEIGHBOURS);
    wait("the load", || load.answered() >= RUNNING).await?;
    let back = fail(case, &sick, &ill, &load).await?;
    wait("everybody to be served again", || load.all_served_since(back)).await?;
    // Failures that come late would come in this time.
    sleep(AFTERWARDS).await;
    let (tries, beside) = (load.end().await?, beside.end().await?);
    let (retries, peak) = (sample(&http, "pools_http_retries_total"), sick.peak_open());
    let drained = http.drain(Instant::now() + PATIENCE).await;
    if !drained.cut.is_empty() {
        return Err(format!("the pool did not drain: {:?}", drained.cut).into());
    }
    wait("the server to see its connections closed", || sick.open() == 0).await?;
    let server = Server { seen: sick.seen(), peak, retries };
    audit::account(runs, case, &tries, &beside, &server, back);
    Ok(())
}

/// Does it to the upstream, and tells when it was well again.
async fn fail(case: &str, sick: &testkit::Upstream, ill: &AtomicBool, load: &Load) -> Result<Instant, Fault> {
    match case {
        // It is this way all the time.
        IDLE => wait("the answers", || load.answered() >= MANY).await?,
        RESETS => {
            for _ in 0..RESET_TIMES {
                sick.end_all(End::Reset);
                sleep(RESET_PAUSE).await;
            }
        }
        FROZEN => {
            ill.store(true, Ordering::Relaxed);
            sleep(AWAY).await;
            ill.store(false, Ordering::Relaxed);
        }
        _ => {
            for _ in 0..BURST_TIMES {
                ill.store(true, Ordering::Relaxed);
                sleep(AWAY).await;
                ill.store(false, Ordering::Relaxed);
                let well = Instant::now();
                wait("the pause between two bursts", || load.all_served_since(well)).await?;
            }
        }
    }
    Ok(Instant::now())
}

fn sample(http: &HttpPool, name: &str) -> f64 {
    http.snapshot().samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
}

async fn wait(what: &str, condition: impl Fn() -> bool) -> Result<(), Fault> {
    let look = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, look).await.map_err(|_| format!("waited {PATIENCE:?} for {what}").into())
}
