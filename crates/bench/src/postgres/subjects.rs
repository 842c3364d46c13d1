//! Who is measured.

use std::time::Duration;

use deadpool_postgres::RecyclingMethod;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ACCOUNTS, Account, Store,
    bb8::Bb8,
    deadpool::Deadpool,
    ours::{Exclusive, Pipelined},
    sqlx::Sqlx,
};
use crate::{
    Fault,
    load::{Tally, WARM_UP, drive},
    peer::Peer,
    runs::Runs,
};

pub(super) const OURS_CHECKED: &str = "ours, ping always";
pub(super) const OURS: &str = "ours, ping with 500 ms bypass";
pub(super) const LANE: &str = "ours, pipelined lane";
pub(super) const DEADPOOL_VERIFIED: &str = "deadpool Verified";
pub(super) const DEADPOOL: &str = "deadpool Fast";
pub(super) const SQLX: &str = "sqlx";
pub(super) const BB8: &str = "bb8";
pub(super) const BB8_UNCHECKED: &str = "bb8, no test, LIFO";
pub(super) const SQLALCHEMY: &str = "SQLAlchemy QueuePool, psycopg2 cursor";
pub(super) const SQLALCHEMY_CORE: &str = "SQLAlchemy Core, psycopg2";
pub(super) const NODE: &str = "node-pg";

/// HikariCP's.
pub(super) const BYPASS: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    OursChecked,
    Ours,
    Lane,
    DeadpoolVerified,
    Deadpool,
    Sqlx,
    Bb8,
    Bb8Unchecked,
    SqlAlchemy,
    SqlAlchemyCore,
    Node,
}

impl Subject {
    /// Ours among the others, so that each has a peer close by in time.
    pub(super) const ALL: &[Self] = &[
        Self::SqlAlchemy,
        Self::OursChecked,
        Self::DeadpoolVerified,
        Self::Node,
        Self::Ours,
        Self::Deadpool,
        Self::Lane,
        Self::Sqlx,
        Self::Bb8Unchecked,
        Self::Bb8,
        Self::SqlAlchemyCore,
    ];

    /// For 256 tasks: without those that no ratio needs there.
    pub(super) const MANY: &[Self] = &[
        Self::SqlAlchemy,
        Self::OursChecked,
        Self::Node,
        Self::Ours,
        Self::Deadpool,
        Self::Lane,
        Self::Sqlx,
        Self::Bb8Unchecked,
        Self::Bb8,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OursChecked => OURS_CHECKED,
            Self::Ours => OURS,
            Self::Lane => LANE,
            Self::DeadpoolVerified => DEADPOOL_VERIFIED,
            Self::Deadpool => DEADPOOL,
            Self::Sqlx => SQLX,
            Self::Bb8 => BB8,
            Self::Bb8Unchecked => BB8_UNCHECKED,
            Self::SqlAlchemy => SQLALCHEMY,
            Self::SqlAlchemyCore => SQLALCHEMY_CORE,
            Self::Node => NODE,
        }
    }
}

/// What is done with a subject.
enum Work<'a> {
    Find(&'a [i32]),
    Load { tasks: u32, measured: Duration },
}

/// What came of it.
enum Done {
    Found(Vec<Account>),
    Loaded(Tally),
}

#[derive(Deserialize)]
struct Found {
    accounts: Vec<(i64, String)>,
}

/// The means to run each of them.
pub(super) struct Subjects {
    url: String,
    python: Option<Peer>,
    node: Option<Peer>,
}

impl Subjects {
    /// Starts the peers in other languages; those that cannot be are noted in `runs`.
    pub(super) async fn start(url: String, runs: &mut Runs) -> Self {
        let python = Peer::python("postgres.py").await;
        let node = Peer::node("postgres.mjs").await;
        if let Err(fault) = &python {
            runs.fail(SQLALCHEMY, fault.to_string());
            runs.fail(SQLALCHEMY_CORE, fault.to_string());
        }
        if let Err(fault) = &node {
            runs.fail(NODE, fault.to_string());
        }
        Self { url, python: python.ok(), node: node.ok() }
    }

    pub(super) async fn end(self) {
        for peer in [self.python, self.node].into_iter().flatten() {
            peer.end().await;
        }
    }

    pub(super) async fn find(&mut self, subject: Subject, ids: &[i32]) -> Result<Vec<Account>, Fault> {
        match self.with(subject, Work::Find(ids)).await? {
            Done::Found(accounts) => Ok(accounts),
            Done::Loaded(_) => Err("BUG: asked to find".into()),
        }
    }

    pub(super) async fn run(
        &mut self,
        subject: Subject,
        tasks: u32,
        measured: Duration,
    ) -> Result<Tally, Fault> {
        match self.with(subject, Work::Load { tasks, measured }).await? {
            Done::Loaded(tally) => Ok(tally),
            Done::Found(_) => Err("BUG: asked to run".into()),
        }
    }

    /// Opens the subject's pool, does the work and closes the pool.
    async fn with(&mut self, subject: Subject, work: Work<'_>) -> Result<Done, Fault> {
        let url = self.url.as_str();
        match subject {
            Subject::OursChecked => through(Exclusive::open(url, Duration::ZERO)?, work).await,
            Subject::Ours => through(Exclusive::open(url, BYPASS)?, work).await,
            Subject::Lane => through(Pipelined::open(url, BYPASS)?, work).await,
            Subject::DeadpoolVerified => through(Deadpool::open(url, RecyclingMethod::Verified)?, work).await,
            Subject::Deadpool => through(Deadpool::open(url, RecyclingMethod::Fast)?, work).await,
            Subject::Sqlx => through(Sqlx::open(url).await?, work).await,
            Subject::Bb8 => through(Bb8::open(url).await?, work).await,
            Subject::Bb8Unchecked => through(Bb8::open_unchecked(url).await?, work).await,
            Subject::SqlAlchemy => ask(&mut self.python, url, "pool", work).await,
            Subject::SqlAlchemyCore => ask(&mut self.python, url, "core", work).await,
            Subject::Node => ask(&mut self.node, url, "", work).await,
        }
    }
}

async fn through<S: Store>(store: S, work: Work<'_>) -> Result<Done, Fault> {
    let done = match work {
        Work::Find(ids) => find_all(&store, ids).await.map(Done::Found),
        Work::Load { tasks, measured } => {
            let store = store.clone();
            drive(tasks, measured, move |number| look_up(store.clone(), number)).await.map(Done::Loaded)
        }
    };
    store.close().await;
    done
}

async fn find_all<S: Store>(store: &S, ids: &[i32]) -> Result<Vec<Account>, Fault> {
    let mut accounts = Vec::new();
    for id in ids {
        accounts.push(store.find(*id).await?);
    }
    Ok(accounts)
}

async fn look_up<S: Store>(store: S, number: u32) -> Result<(), Fault> {
    let id = i32::try_from(number % ACCOUNTS.unsigned_abs())? + 1;
    let account = store.find(id).await?;
    if account.balance == i64::from(id) * 7 {
        Ok(())
    } else {
        Err(format!("account {id} has {}", account.balance).into())
    }
}

async fn ask(peer: &mut Option<Peer>, url: &str, mode: &str, work: Work<'_>) -> Result<Done, Fault> {
    let peer = peer.as_mut().ok_or("it is not running")?;
    match work {
        Work::Find(ids) => {
            let request = json!({ "do": "find", "url": url, "mode": mode, "ids": ids });
            let found: Found = peer.ask(&request).await?;
            let accounts = found.accounts.into_iter();
            Ok(Done::Found(accounts.map(|(balance, owner)| Account { balance, owner }).collect()))
        }
        Work::Load { tasks, measured } => {
            let request: Value = json!({
                "do": "run", "url": url, "mode": mode, "tasks": tasks,
                "warm_up": WARM_UP.as_secs_f64(), "seconds": measured.as_secs_f64(),
            });
            Ok(Done::Loaded(peer.ask(&request).await?))
        }
    }
}
