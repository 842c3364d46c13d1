//! Who writes, and what they were told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::{Fault, api::Api};

const WRITERS: usize = 200;
/// One in so many writes is given up after its first refusal.
const GIVEN_UP: usize = 5;

/// What became of one loan's two writes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// Goes into the row, so that a row of another write shows.
    pub(super) number: usize,
    pub(super) recorded: bool,
    pub(super) ended: bool,
}

/// What all writers were told.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) loans: BTreeMap<String, Told>,
    /// Answers 503 and 504.
    pub(super) refused: usize,
    /// Any other answer but 200.
    pub(super) wrong: usize,
}

impl Ledger {
    fn add(&mut self, other: Self) {
        self.loans.extend(other.loans);
        self.refused += other.refused;
        self.wrong += other.wrong;
    }
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    acknowledged: AtomicUsize,
    last_served: Vec<Mutex<Option<Instant>>>,
}

/// 200 closed loops.
#[derive(Debug)]
pub(super) struct Writers {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<Ledger, Fault>>,
}

impl Writers {
    pub(super) fn start(api: &Api) -> Self {
        let last_served = (0..WRITERS).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared { last_served, ..Shared::default() });
        let writer = |writer| {
            let (api, shared) = (api.clone(), Arc::clone(&shared));
            let mut one = Writer { api, shared, writer, ledger: Ledger::default() };
            async move {
                one.write_all().await?;
                Ok(one.ledger)
            }
        };
        let tasks = (0..WRITERS).map(writer).collect();
        Self { shared, tasks }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn all_served_since(&self, since: Instant) -> bool {
        let served = |last: &Mutex<Option<Instant>>| *last.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.last_served.iter().all(|last| served(last).is_some_and(|last| last > since))
    }

    pub(super) async fn end(self) -> Result<Ledger, Fault> {
        let Self { shared, mut tasks } = self;
        shared.over.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        while let Some(one) = tasks.join_next().await {
            all.add(one??);
        }
        Ok(all)
    }
}

struct Writer {
    api: Api,
    shared: Arc<Shared>,
    writer: usize,
    ledger: Ledger,
}

impl Writer {
    async fn write_all(&mut self) -> Result<(), Fault> {
        for number in 0.. {
            if self.shared.over.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("{}-{number}", self.writer);
            let repeat = !(self.writer + number).is_multiple_of(GIVEN_UP);
            let mut told = Told { number, ..Told::default() };
            let loan = json!({ "loan_id": id, "loan_amount": number, "note": id });
            told.recorded = self.write("/data/record", &loan, repeat).await?;
            if told.recorded {
                let end = json!({ "default": number % 2, "actual_repayment_time": number });
                let end = json!({ "loan_id": id, "outcome": end });
                told.ended = self.write("/data/update", &end, repeat).await?;
            }
            self.ledger.loans.insert(id, told);
        }
        Ok(())
    }

    /// Whether it was acknowledged in the end.
    async fn write(&mut self, path: &str, body: &Value, repeat: bool) -> Result<bool, Fault> {
        loop {
            let (status, _) = self.api.post(path, body.to_string()).await?;
            if status == 200 {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                let mut last =
                    self.shared.last_served[self.writer].lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some(Instant::now());
                return Ok(true);
            }
            if [503, 504].contains(&status) {
                self.ledger.refused += 1;
            } else {
                self.ledger.wrong += 1;
            }
            if !repeat {
                return Ok(false);
            }
        }
    }
}
