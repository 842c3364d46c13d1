//! What holds whatever the callers do and wherever they are cut: after every single step the bound is kept and the
//! numbers add up; nobody starves; in the end nothing is left.
//!
//! Every task plays from a deck that has each use of a connection in it four times, cut in four ways, in an order
//! of its own. So each cut falls into each phase, and tasks that are served alike play alike. `LAWS_SEED` repeats
//! a run's decks and cuts; which task comes first on the machine it cannot repeat.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use fastrand::Rng;
use parking_lot::Mutex;
use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgError, PgPool},
};
use tokio::{sync::OwnedMutexGuard, time::Instant};

use crate::{at, ms, open, secs, settled};

const TASKS: u32 = 256;
/// Places: 10 + 20, the defaults.
const BOUND: u32 = 30;
/// Of each task, more or less; a deck.
const STEPS: i64 = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Ask,
    Sleep,
    ReturnInTransaction,
    ReturnInFailedTransaction,
    Commit,
    Rollback,
    AbandonTransaction,
    Limit,
    Lane,
    Invalidate,
    Detach,
}

impl Use {
    const ALL: [Self; 11] = [
        Self::Ask,
        Self::Sleep,
        Self::ReturnInTransaction,
        Self::ReturnInFailedTransaction,
        Self::Commit,
        Self::Rollback,
        Self::AbandonTransaction,
        Self::Limit,
        Self::Lane,
        Self::Invalidate,
        Self::Detach,
    ];
}

/// When a use's future is dropped.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Never,
    /// As soon as it waits for the first time, which is mostly for a place.
    AtOnce,
    /// When it has waited so often as to be in the middle of anything.
    AfterPolls,
    AfterTime,
}

impl Cut {
    const ALL: [Self; 4] = [Self::Never, Self::AtOnce, Self::AfterPolls, Self::AfterTime];
}

/// What a future was in when it was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Wait,
    /// A place was there: its connection was being opened or checked.
    OpenOrCheck,
    Use,
    Begin,
    Commit,
    Reset,
    Limit,
    Lane,
    Detached,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Wait,
        Self::OpenOrCheck,
        Self::Use,
        Self::Begin,
        Self::Commit,
        Self::Reset,
        Self::Limit,
        Self::Lane,
        Self::Detached,
    ];
}

/// A run and what was seen of it.
struct Run {
    seed: u64,
    pool: PgPool,
    /// How many connections the server allows.
    limit: u32,
    /// Steps that nobody has begun yet.
    left: AtomicI64,
    cuts: [AtomicU32; Phase::ALL.len()],
    /// By the server's own count.
    most: AtomicU64,
    samples: AtomicU64,
    /// Whoever has it may take a connection out of the bound.
    detaching: Arc<tokio::sync::Mutex<()>>,
}

/// How far a use has come.
#[derive(Default)]
struct Progress {
    phase: Mutex<Phase>,
    served: AtomicU32,
    alone: Mutex<Option<OwnedMutexGuard<()>>>,
}

impl Progress {
    fn enters(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    fn is_served(&self, phase: Phase) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.enters(phase);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_01_04_21_after_every_step_the_bound_holds_and_stats_add_up_and_nobody_starves() {
    // The second time idle ones linger, and there is one connection more: the one that may be detached.
    for (linger, detached) in [(Duration::ZERO, false), (secs(1), true)] {
        laws(linger, detached).await;
    }
}

async fn laws(linger: Duration, detached: bool) {
    let seed = std::env::var("LAWS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    say(&format!("LAWS_SEED={seed}"));
    let server = testkit::postgres().await;
    let limit = BOUND + u32::from(detached);
    let url = server.create_role_with_limit("bounded", limit).await;
    let pool = open(PgConfig { overflow_linger: linger, recycle: secs(1), timeout: secs(60), ..at(&url) });
    let run = Arc::new(Run {
        seed,
        pool: pool.clone(),
        limit,
        left: AtomicI64::new(i64::from(TASKS) * STEPS),
        cuts: Default::default(),
        most: AtomicU64::new(0),
        samples: AtomicU64::new(0),
        detaching: Arc::default(),
    });
    let over = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(count(Arc::clone(&run), server.admin_url(), Arc::clone(&over)));
    let replacing = tokio::spawn(replace(pool.clone(), Arc::clone(&over)));
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(play(Arc::clone(&run), task))).collect();
    let mut served = Vec::new();
    for task in tasks {
        served.push(task.await.unwrap_or_else(|_| panic!("a task failed; LAWS_SEED={seed}")));
    }
    over.store(true, Ordering::Relaxed);
    replacing.await.unwrap();
    counting.await.unwrap();
    run.judge(&served);
    nothing_is_left(&server, &pool).await;
}

/// Shown when the test fails, so that it can be repeated.
#[allow(clippy::print_stderr, reason = "the test's own output")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// The server's own count, by a connection that is nobody else's.
async fn count(run: Arc<Run>, url: String, over: Arc<AtomicBool>) {
    let pool = open(PgConfig { size: 1, overflow: 0, slow_statement: Duration::ZERO, ..at(&url) });
    let lease = pool.acquire().await.unwrap();
    while !over.load(Ordering::Relaxed) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'bounded'";
        let count: i64 = lease.query_one(sql, &[]).await.unwrap().get(0);
        run.most.fetch_max(count.unsigned_abs(), Ordering::Relaxed);
        run.samples.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(ms(1)).await;
    }
    drop(lease);
    pool.drain(Instant::now() + secs(10)).await;
}

/// Opening is a phase that a warm pool hardly knows.
async fn replace(pool: PgPool, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        pool.invalidate();
        tokio::time::sleep(ms(400)).await;
    }
}

/// One task. Returns how often it got a connection.
async fn play(run: Arc<Run>, task: u32) -> u32 {
    let mut rng = Rng::with_seed(run.seed ^ (u64::from(task) << 32));
    let (mut deck, mut served) = (Vec::new(), 0);
    while run.left.fetch_sub(1, Ordering::Relaxed) > 0 {
        if deck.is_empty() {
            let uses = Use::ALL.iter().filter(|what| **what != Use::Detach || run.limit > BOUND);
            deck = uses.flat_map(|what| Cut::ALL.map(|cut| (*what, cut))).collect();
            rng.shuffle(&mut deck);
        }
        let (what, cut) = deck.pop().expect("BUG: it was filled");
        served += run.step(what, cut, &mut rng).await;
        run.look();
    }
    served
}

/// Connections that were taken out of the pool and still have a server process.
fn detached(pool: &PgPool) -> u32 {
    let samples = pool.snapshot().samples;
    let found = samples.iter().find(|sample| sample.name == "pools_postgres_detached").unwrap();
    u32::from(found.value > 0.5)
}

impl Run {
    async fn step(&self, what: Use, cut: Cut, rng: &mut Rng) -> u32 {
        let progress = Progress::default();
        let limit = match cut {
            Cut::Never => None,
            Cut::AtOnce => Some((1, secs(60))),
            Cut::AfterPolls => Some((rng.u32(2..9), secs(60))),
            Cut::AfterTime => Some((u32::MAX, Duration::from_micros(rng.u64(0..15_000)))),
        };
        let nap = f64::from(rng.u32(0..4)) / 1_000.0;
        match limit {
            None => self.one(what, nap, &progress).await.unwrap_or_else(|error| self.fail(what, &error)),
            Some((polls, time)) => self.cut(polls, time, what, nap, &progress).await,
        }
        // The next one may be detached when this one's server process is gone.
        if let Some(_alone) = progress.alone.into_inner() {
            testkit::until(secs(20), || detached(&self.pool) == 0).await;
        }
        progress.served.into_inner()
    }

    /// Drops the use after so many polls that did not end it, or so much time, and notes where that was.
    async fn cut(&self, polls: u32, time: Duration, what: Use, nap: f64, progress: &Progress) {
        let mut polled = 0;
        let ended = {
            let mut work = pin!(self.one(what, nap, progress));
            let polling = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => {
                    polled += 1;
                    if polled >= polls { Poll::Ready(None) } else { Poll::Pending }
                }
            });
            tokio::time::timeout(time, polling).await.ok().flatten()
        };
        if let Some(result) = ended {
            return result.unwrap_or_else(|error| self.fail(what, &error));
        }
        let phase = match *progress.phase.lock() {
            // Woken once, it had its place.
            Phase::Wait if polled > 1 => Phase::OpenOrCheck,
            phase => phase,
        };
        self.cuts[phase as usize].fetch_add(1, Ordering::Relaxed);
    }

    async fn one(&self, what: Use, nap: f64, progress: &Progress) -> Result<(), PgError> {
        if what == Use::Lane {
            progress.enters(Phase::Lane);
            self.pool.lane().query_one("SELECT 1", &[]).await?;
            progress.is_served(Phase::Lane);
            return Ok(());
        }
        let mut lease = self.pool.acquire().await?;
        progress.is_served(Phase::Use);
        match what {
            Use::Ask | Use::Lane => drop(lease.query_one("SELECT 1", &[]).await?),
            Use::Sleep => drop(lease.query("SELECT pg_sleep($1)", &[&nap]).await?),
            Use::ReturnInTransaction => lease.batch_execute("BEGIN; SELECT 1").await?,
            Use::ReturnInFailedTransaction => {
                lease.batch_execute("BEGIN; SELECT 1 / 0").await.expect_err("it cannot be divided by");
            }
            Use::Commit | Use::Rollback | Use::AbandonTransaction => {
                progress.enters(Phase::Begin);
                let transaction = lease.begin().await?;
                progress.enters(Phase::Use);
                transaction.query("SELECT 1", &[]).await?;
                progress.enters(if what == Use::Commit { Phase::Commit } else { Phase::Reset });
                match what {
                    Use::Commit => transaction.commit().await?,
                    Use::Rollback => transaction.rollback().await?,
                    _ => {
                        drop(transaction);
                        lease.query_one("SELECT 1", &[]).await?;
                    }
                }
            }
            Use::Limit => {
                progress.enters(Phase::Limit);
                lease.limit(secs(5)).await?;
                lease.query_one("SELECT 1", &[]).await?;
            }
            Use::Invalidate => {
                lease.query_one("SELECT 1", &[]).await?;
                lease.invalidate();
            }
            Use::Detach => {
                if let Ok(alone) = Arc::clone(&self.detaching).try_lock_owned() {
                    *progress.alone.lock() = Some(alone);
                    lease.detach();
                    progress.enters(Phase::Detached);
                }
                lease.query("SELECT pg_sleep($1)", &[&nap]).await?;
            }
        }
        Ok(())
    }

    fn fail(&self, what: Use, error: &PgError) -> ! {
        panic!("{what:?}: {}; LAWS_SEED={}", error.reason(), self.seed)
    }

    /// After every step of every task.
    fn look(&self) {
        let (stats, seed) = (self.pool.stats(), self.seed);
        let sum = stats.checked_in + stats.checked_out;
        assert_eq!(sum, stats.total_connections, "{stats:?}; LAWS_SEED={seed}");
        let above = stats.total_connections.saturating_sub(10);
        assert_eq!(stats.overflow, above, "{stats:?}; LAWS_SEED={seed}");
        let snapshot = self.pool.snapshot();
        let places = snapshot.live() + snapshot.opening();
        assert!(places <= BOUND, "{places} connections by our own count; LAWS_SEED={seed}");
        let most = self.most.load(Ordering::Relaxed);
        assert!(most <= u64::from(self.limit), "{most} server processes; LAWS_SEED={seed}");
    }

    /// When all steps are done.
    fn judge(&self, served: &[u32]) {
        let seed = self.seed;
        self.look();
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        assert!(least * 2 >= *most, "least {least}, most {most}; LAWS_SEED={seed}");
        let cuts = Phase::ALL.map(|phase| (phase, self.cuts[phase as usize].load(Ordering::Relaxed)));
        let enough = |phase| if phase == Phase::Detached { self.limit - BOUND } else { 5 };
        let missed = |(phase, count): &(Phase, u32)| *count < enough(*phase);
        assert!(!cuts.iter().any(missed), "hardly cut somewhere: {cuts:?}; LAWS_SEED={seed}");
        let (samples, opened) = (self.samples.load(Ordering::Relaxed), self.pool.snapshot().totals.opened);
        assert!(samples > 100 && opened > 100, "{samples} samples, {opened} opened; LAWS_SEED={seed}");
        let seen = self.most.load(Ordering::Relaxed);
        say(&format!("cut {cuts:?}, served {least} to {most}, {opened} opened, {seen} in {samples} samples"));
    }
}

async fn nothing_is_left(server: &testkit::Postgres, pool: &PgPool) {
    settled(pool).await;
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.waiting(), snapshot.holders.len(), detached(pool)), (0, 0, 0));
    let leases = futures_util::future::try_join_all((0..BOUND).map(|_| pool.acquire())).await.unwrap();
    assert_eq!(pool.stats().checked_out, BOUND, "a place was lost");
    drop(leases);
    assert!(!server.log().contains("too many connections"), "the server refused a connection");
    let drained = pool.drain(Instant::now() + secs(20)).await;
    assert!(drained.cut.is_empty(), "{drained:?}");
    assert_eq!(pool.stats().total_connections, 0);
    testkit::until_async(secs(10), async || server.all_connections().await == 0).await;
}
