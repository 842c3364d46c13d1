//! Opening a connection in a slot, and its end.
//!
//! ```text
//!  open ─► task of the pool: close the old one ─► wait for a turn ─► TCP, TLS, log-in ─► Held ─► its caller, or idle
//!             ▲                                                         │ fails
//!             └──────────────── DB_CONNECT_RETRY_FOR, backoff ──────────┴─► the real error
//!  the connection's own task ends ─► its entry goes, and whoever is idle with it
//! ```
//!
//! **Cancel safety**: the task holds slot and place. If its caller goes away, the connection goes to the next one. So it
//! does if he hears of a failure first, since the server [is silent](super::opener).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Shared,
    cache::Statements,
    conn::Conn,
    errand::Errand,
    error::{OpenError, PgError, chain},
    held::{GRACE, Held, Home, Parts, Place},
    link::Link,
    manager::Opened,
    opener::{SILENT_WAIT, Silence},
    state::{ConnId, Phase},
    watch::Watch,
};
use crate::{
    resilience::{Backoff, deadline},
    stats::CloseReason,
};

/// What the network may add to the server's statement time-out before an answer counts as lost.
const NETWORK_SLACK: Duration = Duration::from_secs(5);

/// A connection that has to go before its slot can be used again.
pub(super) type Old = Option<(Box<Conn>, CloseReason)>;

impl Shared {
    /// Opens a connection in a task of the pool, in place of `old` if there is one.
    pub(super) async fn open(place: Place, old: Old, errand: Errand) -> Result<(Parts, Instant), PgError> {
        let (sender, opened) = oneshot::channel();
        let started = Instant::now();
        let pool = Arc::clone(place.inside.pool());
        // What drain closes has no place.
        if old.is_none() && pool.state.lock().is_draining() {
            return Err(PgError::Closed);
        }
        let Patience { latest, silence } = match Patience::of(&pool, errand, started) {
            Ok(patience) => patience,
            Err(cause) => {
                if let Some((conn, reason)) = old {
                    // It has a server process, and therefore its place, until that is gone.
                    Parts { conn, home: Home::Place(place) }.close_in_background(reason);
                }
                let waited = started.saturating_duration_since(errand.began);
                return Err(PgError::Open { waited, cause });
            }
        };
        pool.clone().spawn("open", async move {
            let result = pool.open_in(place, old, errand.limit).await;
            // Not taken, also when the caller goes between the send and its receipt: dropped with the channel,
            // and thereby given back.
            drop(sender.send(result));
        });
        let opened = match latest {
            None => opened.await,
            Some(latest) => timeout_at(latest, opened).await.unwrap_or_else(|_| {
                let late = || OpenError::TimedOut { after: started.elapsed() };
                Ok(Err(silence.unwrap_or_else(late)))
            }),
        };
        let held = opened.map_err(|_| PgError::Closed)?;
        let held = held.map_err(|cause| PgError::Open { waited: started.elapsed(), cause })?;
        let since = held.since;
        if let Some(caller) = errand.caller {
            held.pool().state.lock().hold(held.conn().id, caller.record(since));
        }
        Ok((held.into_parts(), since))
    }

    async fn open_in(self: &Arc<Self>, place: Place, old: Old, limit: Duration) -> Result<Held, OpenError> {
        let started = Instant::now();
        let give_up = started + self.config.connect_retry_for;
        if let Some((conn, reason)) = old {
            // Within the limit, of which most is for what comes after.
            self.close_within(GRACE.min(limit / 4), conn, reason).await;
        }
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut begun = started;
        loop {
            let error = match self.open_once(begun, limit).await {
                Ok(conn) => {
                    let parts = Parts { conn, home: Home::Place(place) };
                    return Ok(Held::new(parts, Instant::now()));
                }
                Err(error) => error,
            };
            let pause = backoff.fail();
            let again = error.is_transient() && Instant::now() + pause < give_up;
            if !again || self.state.lock().is_draining() {
                return Err(error);
            }
            sleep(pause).await;
            begun = Instant::now();
        }
    }

    async fn open_once(self: &Arc<Self>, begun: Instant, limit: Duration) -> Result<Box<Conn>, OpenError> {
        let (started, deadline) = (Instant::now(), begun + limit);
        let turn = self.opener.enter(deadline).await.ok_or(OpenError::TimedOut { after: limit })??;
        let (id, epoch) = self.state.lock().begin_open();
        let opening = Opening { pool: self, id, opened: false };
        let result = self.manager.open(deadline, limit, &self.cut_off).await;
        self.recorder.open_ended(result.is_ok(), started.elapsed());
        match result {
            Ok(opened) => {
                let conn = opening.finish(opened, epoch);
                turn.ended(Ok(()));
                *self.connect_error.lock() = None;
                self.health.up();
                Ok(conn)
            }
            Err(error) => {
                drop(opening);
                *self.connect_error.lock() = Some(error.clone());
                match &error {
                    OpenError::TimedOut { .. } if limit < self.config.connect_timeout => turn.ended_early(),
                    _ => turn.ended(Err(error.clone())),
                }
                if self.health.down(&chain(&error)) {
                    // The supervisor would otherwise sleep as long as it does while all is well.
                    self.wake.notify_one();
                }
                Err(error)
            }
        }
    }

    /// Called by the connection's own task when it is over.
    fn connection_ended(&self, id: ConnId) {
        let phase = self.state.lock().gone(id);
        if phase == Some(Phase::Idle) {
            self.recorder.closed(CloseReason::Peer);
            for (conn, _slot) in self.take_idle(Conn::is_dead) {
                self.forget(conn, CloseReason::Peer);
            }
            self.changes.tell();
        }
        if phase.is_some_and(|phase| phase != Phase::Closing) {
            self.wake.notify_one();
        }
    }

    /// Drops a connection that has ended. The entry of an idle one may be gone already.
    pub(super) fn forget(&self, conn: Box<Conn>, reason: CloseReason) {
        if self.state.lock().remove(conn.id).is_some() {
            self.recorder.closed(reason);
            self.changes.tell();
        }
    }
}

/// How long whoever wants a connection waits for it to be opened.
struct Patience {
    latest: Option<Instant>,
    /// What he hears then, if the server is known to be silent.
    silence: Option<OpenError>,
}

impl Patience {
    /// While the server is silent, [`SILENT_WAIT`] in all, unless `DB_CONNECT_RETRY_FOR` says that there is more time.
    ///
    /// # Errors
    /// Its failure to answer when that is known, and the time is over.
    fn of(pool: &Shared, errand: Errand, now: Instant) -> Result<Self, OpenError> {
        let silence = errand.caller.and_then(|_| pool.opener.silence(now));
        let told = errand.began + SILENT_WAIT.max(pool.config.connect_retry_for);
        match silence {
            Some(Silence { error, current: true }) if told <= now => Err(error),
            Some(Silence { error, .. }) => {
                Ok(Self { latest: deadline::earliest(Some(told)), silence: Some(error) })
            }
            None => Ok(Self { latest: deadline::current(), silence: None }),
        }
    }
}

/// Up to a tenth less than `recycle`, so that connections opened together are not replaced together.
fn age(recycle: Duration) -> Duration {
    recycle.mul_f64(1.0 - 0.1 * fastrand::f64())
}

/// The entry of a connection being opened; removed when it does not come to that.
struct Opening<'a> {
    pool: &'a Arc<Shared>,
    id: ConnId,
    opened: bool,
}

impl Opening<'_> {
    fn finish(mut self, opened: Opened, epoch: u64) -> Box<Conn> {
        self.opened = true;
        let (pool, id) = (self.pool, self.id);
        let Opened { client, token, wire, driver } = opened;
        let watch = Watch::new(pool.rules.statement_timeout + NETWORK_SLACK);
        let link = Arc::new(Link::new(token, wire, watch));
        let end = Ended { pool: Arc::downgrade(pool), link: Arc::clone(&link), id };
        let driver = pool.links.spawn("connection", async move {
            driver.await;
            drop(end);
        });
        link.driven_by(driver.abort_handle());
        pool.state.lock().opened(id, Arc::clone(&link));
        let now = Instant::now();
        let age = age(pool.config.recycle);
        Box::new(Conn {
            client,
            statements: Mutex::new(Statements::new(pool.config.statement_cache)),
            id,
            epoch,
            expires: now + age,
            used: now,
            link,
            driver,
            rules: pool.rules,
            alone: tokio::sync::Mutex::default(),
            touched: AtomicBool::new(false),
            unwanted: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            rollback_due: AtomicBool::new(false),
            limited: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
        })
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.opened {
            self.pool.state.lock().remove(self.id);
            self.pool.changes.tell();
        }
    }
}

/// Tells the pool that a connection's task is over, also when it was cut or panicked.
struct Ended {
    pool: std::sync::Weak<Shared>,
    link: Arc<Link>,
    id: ConnId,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.link.ended.store(true, Ordering::Release);
        if let Some(pool) = self.pool.upgrade() {
            pool.connection_ended(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_12_ages_are_spread_over_the_last_tenth_and_never_beyond() {
        let recycle = Duration::from_secs(1_000);
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let early = recycle - age(recycle);
            assert!(early <= Duration::from_secs(100), "{early:?} early");
            tenths[(early.as_secs() / 10).min(9) as usize] += 1;
        }
        // 1,000 expected in each, with a deviation of 30.
        assert!(tenths.iter().all(|count| (700..1_300).contains(count)), "{tenths:?}");
    }
}
