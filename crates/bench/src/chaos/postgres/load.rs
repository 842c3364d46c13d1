//! Tasks that write rows, each with a number of its own, and remember what they were told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use pools_core::postgres::{PgError, PgPool};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::Fault;

/// A caller that was refused waits a moment before its next try.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Pipelined with others'.
    Lane,
    /// Alone on a connection.
    Lease,
    /// Two rows, both or none.
    Transaction,
}

impl Way {
    fn of(number: i64) -> Self {
        match number % 3 {
            0 => Self::Lane,
            1 => Self::Lease,
            _ => Self::Transaction,
        }
    }

    /// Rows with the same number.
    pub(super) fn rows(self) -> usize {
        if self == Self::Transaction { 2 } else { 1 }
    }
}

/// One number, tried once.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub(super) number: i64,
    pub(super) way: Way,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    /// Its connection was there: what failed later failed under way.
    pub(super) failure: Option<Failure>,
}

/// In the pool's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Open,
    Wait,
    Lost,
    Stalled,
    Refused,
    Other,
}

impl Failure {
    pub(super) const ALL: [Self; 6] =
        [Self::Open, Self::Wait, Self::Lost, Self::Stalled, Self::Refused, Self::Other];

    fn of(error: &PgError) -> Self {
        match error {
            PgError::Open { .. } => Self::Open,
            PgError::Exhausted { .. } | PgError::QueueFull { .. } => Self::Wait,
            PgError::Lost { .. } => Self::Lost,
            PgError::Stalled { .. } => Self::Stalled,
            PgError::Statement { .. } => Self::Refused,
            _ => Self::Other,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "no connection could be opened",
            Self::Wait => "no place in time",
            Self::Lost => "connection lost during the statement",
            Self::Stalled => "no answer in time",
            Self::Refused => "refused by the server",
            Self::Other => "anything else",
        }
    }

    /// The connection was there when it failed.
    pub(super) fn is_under_way(self) -> bool {
        !matches!(self, Self::Open | Self::Wait)
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicI64,
    acknowledged: AtomicUsize,
    /// When each task was served last.
    served: Mutex<BTreeMap<u32, Instant>>,
}

/// Running tasks.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<Vec<Try>>,
    count: u32,
}

impl Load {
    pub(super) fn start(pool: &PgPool, count: u32) -> Self {
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        for task in 0..count {
            tasks.spawn(work(task, pool.clone(), Arc::clone(&shared)));
        }
        Self { shared, tasks, count }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn all_served_since(&self, moment: Instant) -> bool {
        let served = self.shared.served.lock();
        served.len() == self.count as usize && served.values().all(|last| *last >= moment)
    }

    /// Ends the tasks and returns everything they tried, each task's in order.
    pub(super) async fn end(mut self) -> Result<Vec<Vec<Try>>, Fault> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(tries) = self.tasks.join_next().await {
            all.push(tries?);
        }
        Ok(all)
    }
}

async fn work(task: u32, pool: PgPool, shared: Arc<Shared>) -> Vec<Try> {
    let mut tries = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let (way, started) = (Way::of(number), Instant::now());
        let result = write(&pool, way, number).await;
        let ended = Instant::now();
        let failure = result.as_ref().err().map(Failure::of);
        tries.push(Try { number, way, started, ended, failure });
        if failure.is_some() {
            sleep(AFTER_FAILURE).await;
        } else {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            // Begun before the server was back, it may have been answered before the fault.
            shared.served.lock().insert(task, started);
        }
    }
    tries
}

async fn write(pool: &PgPool, way: Way, number: i64) -> Result<(), PgError> {
    const INSERT: &str = "INSERT INTO ledger (number) VALUES ($1)";
    match way {
        Way::Lane => {
            pool.lane().execute(INSERT, &[&number]).await?;
        }
        Way::Lease => {
            pool.acquire().await?.execute(INSERT, &[&number]).await?;
        }
        Way::Transaction => {
            let mut lease = pool.acquire().await?;
            let transaction = lease.begin().await?;
            transaction.execute(INSERT, &[&number]).await?;
            transaction.execute(INSERT, &[&number]).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}
