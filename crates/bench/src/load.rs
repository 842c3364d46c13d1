//! A closed loop: so many tasks, each of which does the next operation when its last one is done.
//!
//! ```text
//!  start ──warm-up (connect, prepare)──► counted ──► end, all tasks joined
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::Fault;

/// Long enough to open thirty connections on a busy machine and to prepare on each.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

const WARMING: u8 = 0;
const COUNTING: u8 = 1;
const OVER: u8 = 2;

/// What came of one run. Programs in other languages report it in these words.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Length of the counted part.
    pub(crate) seconds: f64,
    /// Operations that ended in the counted part, by task.
    pub(crate) served: Vec<u64>,
    /// Of those operations, in milliseconds.
    pub(crate) p50: f64,
    /// The same.
    pub(crate) p99: f64,
    /// The longest, those included that the end of the counted part cut short: a task that waited all the time
    /// has no other.
    pub(crate) longest: f64,
    /// Processor time of what is measured in the counted part: the client's process, or a program of its own.
    pub(crate) cpu_seconds: f64,
}

/// Runs `operation` in `tasks` tasks. It gets a number that differs from call to call.
pub(crate) async fn drive<F, Fut>(tasks: u32, measured: Duration, operation: F) -> Result<Tally, Fault>
where
    F: Fn(u32) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), Fault>> + Send + 'static,
{
    drive_each(tasks, measured, |_| operation.clone()).await
}

/// The same with an operation for each task.
pub(crate) async fn drive_each<F, Fut>(
    tasks: u32,
    measured: Duration,
    operation_of: impl Fn(u32) -> F,
) -> Result<Tally, Fault>
where
    F: Fn(u32) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), Fault>> + Send + 'static,
{
    count(cpu_seconds, tasks, measured, operation_of).await
}

/// The same for a program of its own, whose processor time `cpu_seconds` tells.
pub(crate) async fn drive_by<F, Fut>(
    cpu_seconds: impl Fn() -> f64,
    tasks: u32,
    measured: Duration,
    operation: F,
) -> Result<Tally, Fault>
where
    F: Fn(u32) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), Fault>> + Send + 'static,
{
    count(cpu_seconds, tasks, measured, |_| operation.clone()).await
}

async fn count<F, Fut>(
    cpu_seconds: impl Fn() -> f64,
    tasks: u32,
    measured: Duration,
    operation_of: impl Fn(u32) -> F,
) -> Result<Tally, Fault>
where
    F: Fn(u32) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), Fault>> + Send + 'static,
{
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut workers = JoinSet::new();
    for task in 0..tasks {
        workers.spawn(work(task, Arc::clone(&phase), operation_of(task)));
    }
    sleep(WARM_UP).await;
    phase.store(COUNTING, Ordering::Release);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    sleep(measured).await;
    phase.store(OVER, Ordering::Release);
    let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (mut served, mut took, mut longest) = (Vec::new(), Vec::new(), 0_f64);
    while let Some(done) = workers.join_next().await {
        let (one, last) = done??;
        served.push(one.len() as u64);
        took.extend(one);
        longest = longest.max(last);
    }
    took.sort_by(f64::total_cmp);
    longest = longest.max(took.last().copied().ok_or("not one operation ended in time")?);
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    Ok(Tally { seconds, served, p50, p99, longest, cpu_seconds })
}

/// The durations of the counted operations and of the one after them, in milliseconds.
async fn work<F, Fut>(task: u32, phase: Arc<AtomicU8>, operation: F) -> Result<(Vec<f64>, f64), Fault>
where
    F: Fn(u32) -> Fut,
    Fut: Future<Output = Result<(), Fault>>,
{
    let mut took = Vec::new();
    let mut number = task;
    loop {
        let started = Instant::now();
        operation(number).await?;
        number = number.wrapping_add(61);
        let millis = started.elapsed().as_secs_f64() * 1e3;
        match phase.load(Ordering::Acquire) {
            WARMING => {}
            COUNTING => took.push(millis),
            _ => return Ok((took, millis)),
        }
    }
}

/// Processor time of this process.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default().as_secs_f64()
}
