//! From a place in the pool to a connection that is fit for use.
//!
//! ```text
//!  Outside ─wait─► Inside ─► slot ─► a live connection? ◄─── or one that is seated, or handed over, with slot and place
//!                                     ├ no ──────────────────────────────────────► Empty ──► open
//!                                     ├ outdated, too old, condemned ────────────► Unfit ──► open (closed first, in the same slot)
//!                                     ├ idle for long ─► Due ─► check ─ failed ──► Unfit
//!                                     │                          └ passed ─┐
//!                                     └ yes ───────────────────────────────┴─────► Fit
//! ```
//!
//! An acquire that needs to wait for nothing goes through this without a future of its own: it reads the clock once, takes
//! what is [seated](super::seat), or a place and a slot, and one lock, under which its connection is out, its holder known
//! and itself counted. What has to wait goes on from the step it is at.
//!
//! **Cancel safety**: a caller that goes away during the check gives the connection back, where it is cleaned; for
//! one that goes away during the opening see `opening.rs`.

use std::{ops::Deref, panic::Location, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{FutureExt, poll};
use tokio::time::Instant;

use super::{
    SLOT_TIMEOUT, Shared,
    conn::Conn,
    errand::{Caller, Errand},
    error::PgError,
    held::{Held, Home, Inside, Parts, Place, SlotGuard},
    lease::Lease,
    seat::Seated,
    state::{Bounds, CheckOut, Phase},
};
use crate::{
    admission::{Entered, Refused},
    holders::Leases,
    resilience::{deadline, outgoing},
    stats::{CloseReason, Outcome},
};

/// Longest wait for the answer to a check.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a checkout is.
enum Step {
    Outside(Arc<Shared>),
    Inside(Inside),
    /// There is no connection in the slot.
    Empty(Place),
    /// Its connection has to be replaced.
    Unfit(Place, Box<Conn>, CloseReason),
    /// It has to be checked.
    Due(Parts),
    Fit(Parts),
}

/// What a caller has who has waited.
pub(super) enum Admitted {
    Inside(Inside),
    /// A connection that its last holder gave to him.
    Handed(Held),
}

impl Shared {
    pub(super) async fn acquire(self: Arc<Self>, caller: Caller) -> Result<Lease, PgError> {
        outgoing::begin().await;
        let started = Instant::now();
        let (mut step, mut now) = (begin(self, started, caller), started);
        if let Step::Outside(pool) = step {
            let admitted = pool.wait(started, caller.site).await?;
            now = Instant::now();
            step = enter_after_waiting(admitted, started, now, caller);
        }
        if let Step::Due(parts) = step {
            let attempt = Attempt::of(Arc::clone(parts.home.pool()), started, caller.site);
            (step, now) = check(parts, now).await;
            attempt.checked(&step, now);
        }
        match step {
            Step::Fit(parts) => Ok(Lease::new(Held::new(parts, now))),
            // In a box, since it is large and seldom needed.
            step => acquire_from(step, started, now, caller).boxed().await,
        }
    }

    pub(super) async fn wait(
        self: Arc<Self>,
        started: Instant,
        site: &Location<'_>,
    ) -> Result<Admitted, PgError> {
        let latest = started + self.config.timeout;
        let latest = deadline::current().map_or(latest, |deadline| deadline.min(latest));
        let attempt = Attempt::of(&*self, started, site);
        let entered = self.wait_in_line(started, latest).await.map(|entered| match entered {
            Entered::Place(place) => {
                place.keep();
                None
            }
            Entered::Handed(held) => Some(held),
        });
        let refused = match entered {
            Ok(handed) => {
                attempt.goes_on();
                return Ok(handed.map_or_else(|| Admitted::Inside(Inside::taken(self)), Admitted::Handed));
            }
            Err(Refused::QueueFull { waiting }) => PgError::QueueFull { waiting },
            Err(Refused::TimedOut { waited }) if self.state.lock().is_paused() => PgError::Paused { waited },
            Err(Refused::TimedOut { .. }) => self.exhausted(started),
            Err(Refused::Closed) => PgError::Closed,
        };
        attempt.ended(Err(refused), Instant::now())
    }

    async fn wait_in_line(&self, started: Instant, latest: Instant) -> Result<Entered<'_, Held>, Refused> {
        let mut entering = pin!(self.gate.enter_or_take(started, latest));
        if let Poll::Ready(entered) = poll!(&mut entering) {
            return entered;
        }
        // He is in the queue from now on, and must not wait for what is seated.
        self.unseat();
        entering.await
    }

    fn tell_if_slow(&self, waited: Duration, site: &Location<'_>, error: Option<&PgError>) {
        let threshold = self.config.slow_acquire;
        if threshold.is_zero() || waited < threshold {
            return;
        }
        let longest = self.longest().map(|holder| holder.to_string());
        let error = error.map(PgError::reason);
        tracing::warn!(
            pool = "postgres", site = %site, ?waited, waiting = self.gate.waiting(), longest, error, "slow acquire"
        );
    }

    pub(super) fn exhausted(&self, since: Instant) -> PgError {
        let Bounds { size, overflow } = self.state.lock().bounds();
        PgError::Exhausted {
            size,
            overflow,
            waited: since.elapsed(),
            longest: self.longest(),
            connect: self.connect_error.lock().clone(),
        }
    }

    /// A connection opened in `epoch` turned out to be dead: everything opened before now is looked at with suspicion,
    /// unless that was done since it was opened.
    pub(super) fn suspect(&self, epoch: u64) {
        self.state.lock().suspect(epoch);
        self.wake.notify_one();
    }

    fn is_due(&self, used: Instant, now: Instant) -> bool {
        // Adding is cheaper than subtracting, and this is part of every acquire.
        self.config.pre_ping && used.checked_add(self.config.pre_ping_idle).is_some_and(|due| due <= now)
    }
}

/// Goes as far as is possible without waiting.
fn begin(pool: Arc<Shared>, now: Instant, caller: Caller) -> Step {
    if let Some(Seated { conn, slot }) = pool.take_seated() {
        let place = Place { slot, inside: Inside::taken(pool) };
        return judge(conn, Phase::Idle, place, now, Some(caller), Some(Duration::ZERO));
    }
    let Ok(Some(place)) = pool.gate.try_enter() else { return Step::Outside(pool) };
    place.keep();
    enter(Inside::taken(pool), now, Some(caller), Some(Duration::ZERO))
}

/// The same, once inside. An acquire that ends here is counted, as one that has `waited` so long.
// Inlined, as the two below: what they return is large, and is copied at every call (6 % of a checkout and return).
#[inline(always)]
fn enter(inside: Inside, now: Instant, caller: Option<Caller>, waited: Option<Duration>) -> Step {
    // Not ready when bb8 makes a slot first, which takes it one hop.
    let slot = pin!(inside.pool().slots.get_owned()).now_or_never();
    match slot {
        Some(Ok(slot)) => look(slot, inside, now, caller, waited),
        _ => Step::Inside(inside),
    }
}

/// The same for a caller who has waited since `started`.
fn enter_after_waiting(admitted: Admitted, started: Instant, now: Instant, caller: Caller) -> Step {
    let waited = now.saturating_duration_since(started);
    let step = match admitted {
        Admitted::Inside(inside) => enter(inside, now, Some(caller), Some(waited)),
        Admitted::Handed(held) => take_over(held, now, caller, waited),
    };
    if let Step::Fit(parts) = &step {
        parts.home.pool().tell_if_slow(waited, caller.site, None);
    }
    step
}

async fn acquire_from(step: Step, started: Instant, now: Instant, caller: Caller) -> Result<Lease, PgError> {
    let errand = Errand { caller: Some(caller), began: started, limit: step.pool().config.connect_timeout };
    let attempt = Attempt::of(Arc::clone(step.pool()), started, caller.site);
    let result = finish(step, now, errand).await;
    let ended = result.as_ref().map_or_else(|_| Instant::now(), |(_, since)| *since);
    attempt.ended(result, ended).map(|(parts, since)| Lease::new(Held::new(parts, since)))
}

/// Finds a fit connection, or opens one; and since when it is out.
pub(super) async fn checkout(inside: Inside, errand: Errand) -> Result<(Parts, Instant), PgError> {
    let now = Instant::now();
    finish(enter(inside, now, errand.caller, None), now, errand).await
}

async fn finish(mut step: Step, mut now: Instant, errand: Errand) -> Result<(Parts, Instant), PgError> {
    loop {
        step = match step {
            Step::Outside(pool) => return Err(pool.exhausted(now)),
            Step::Inside(inside) => {
                // Never waits but for the one hop in which bb8 makes a slot: there are as many slots as places. Nor does
                // it come here again and again, but while bb8's queue is swept.
                if now.elapsed() > SLOT_TIMEOUT {
                    return Err(inside.pool().exhausted(now));
                }
                let slot = inside.pool().slots.get_owned().await;
                let slot = slot.map_err(|_| inside.pool().exhausted(now))?;
                look(slot, inside, now, errand.caller, None)
            }
            Step::Due(parts) => {
                let (checked, at) = check(parts, now).await;
                now = at;
                checked
            }
            Step::Empty(place) => return Shared::open(place, None, errand).await,
            Step::Unfit(place, conn, reason) => {
                return Shared::open(place, Some((conn, reason)), errand).await;
            }
            Step::Fit(parts) => return Ok((parts, now)),
        };
    }
}

/// What there is in a slot. If that is fit for use, and the acquire to be counted here, it has `waited` so long.
#[inline(always)]
fn look(
    mut slot: SlotGuard,
    inside: Inside,
    now: Instant,
    caller: Option<Caller>,
    waited: Option<Duration>,
) -> Step {
    let pool = inside.pool();
    let Some(conn) = slot.conn.take() else {
        // Left by a caller that went away while bb8 made it? Behind it there is something better. Or bb8's queue is
        // being swept: those that are idle have no places, so that one more beside them would be one too many. Or it
        // came to be seated just now.
        // They are back in a moment, and asking bb8 again lets others run.
        pool.unseat();
        let better = pool.slots.state().idle_connections > 0 || pool.state.lock().counts().idle > 0;
        return if better { Step::Inside(inside) } else { Step::Empty(Place { slot, inside }) };
    };
    judge(conn, Phase::Idle, Place { slot, inside }, now, caller, waited)
}

/// The same for what was handed over.
fn take_over(held: Held, now: Instant, caller: Caller, waited: Duration) -> Step {
    let Parts { conn, home } = held.into_parts();
    match home {
        Home::Place(place) => judge(conn, Phase::Out, place, now, Some(caller), Some(waited)),
        Home::Nowhere(_) => unreachable!("BUG: what was detached is not handed on"),
    }
}

/// Whether this connection, which is in that phase still, is fit for use.
#[inline(always)]
fn judge(
    conn: Box<Conn>,
    phase: Phase,
    place: Place,
    now: Instant,
    caller: Option<Caller>,
    waited: Option<Duration>,
) -> Step {
    let pool = place.inside.pool();
    let (expired, due) = (now >= conn.expires, pool.is_due(conn.used, now));
    let holder = caller.map(|caller| caller.record(now));
    // What ends while it is idle is idle no longer; what ends on its way from hand to hand is still out.
    let dead = phase == Phase::Out && conn.is_dead();
    let waited = waited.filter(|_| !expired && !due && !dead);
    let checked_out = pool.state.lock().check_out(conn.id, phase, conn.epoch, holder, waited);
    let reason = match checked_out {
        // The server closed it.
        CheckOut::NotIdle => {
            pool.forget(conn, CloseReason::Peer);
            return Step::Inside(place.inside);
        }
        CheckOut::Outdated => CloseReason::Invalidated,
        CheckOut::Taken if dead => CloseReason::Peer,
        CheckOut::Taken if expired => CloseReason::Recycled,
        CheckOut::Taken => {
            let parts = Parts { conn, home: Home::Place(place) };
            return if due { Step::Due(parts) } else { Step::Fit(parts) };
        }
    };
    pool.state.lock().condemn(conn.id);
    Step::Unfit(place, conn, reason)
}

/// One round trip, and when it ended. Dropped meanwhile, the connection is given back.
// Not an `async fn`, which would keep what it is given twice: this is part of every acquire.
fn check(parts: Parts, now: Instant) -> impl Future<Output = (Step, Instant)> + Send {
    let held = Held::new(parts, now);
    async move {
        let passed = held.conn().ping(CHECK_TIMEOUT).await;
        let (pool, now) = (Arc::clone(held.pool()), Instant::now());
        let parts = held.into_parts();
        let reason = match passed {
            true if now < parts.conn.expires => return (Step::Fit(parts), now),
            true => CloseReason::Recycled,
            false => {
                pool.suspect(parts.conn.epoch);
                CloseReason::CheckFailed
            }
        };
        pool.state.lock().condemn(parts.conn.id);
        let unfit = match parts.home {
            Home::Place(place) => Step::Unfit(place, parts.conn, reason),
            Home::Nowhere(pool) => Step::Outside(pool),
        };
        (unfit, now)
    }
}

impl Step {
    fn pool(&self) -> &Arc<Shared> {
        match self {
            Self::Outside(pool) => pool,
            Self::Inside(inside) => inside.pool(),
            Self::Empty(place) | Self::Unfit(place, ..) => place.inside.pool(),
            Self::Due(parts) | Self::Fit(parts) => parts.home.pool(),
        }
    }
}

/// Counts an acquire that took more than a wait in the queue, or did not end well; as cancelled when it is dropped.
struct Attempt<'a, P: Deref<Target = Shared>> {
    pool: P,
    started: Instant,
    site: &'a Location<'a>,
    counted: bool,
}

impl<'a, P: Deref<Target = Shared>> Attempt<'a, P> {
    fn of(pool: P, started: Instant, site: &'a Location<'a>) -> Self {
        Self { pool, started, site, counted: false }
    }

    /// It is counted elsewhere.
    fn goes_on(mut self) {
        self.counted = true;
    }

    /// Its check has ended in this step. Counted here if that was the last.
    fn checked(self, step: &Step, at: Instant) {
        match step {
            Step::Fit(_) => drop(self.ended(Ok(()), at)),
            _ => self.goes_on(),
        }
    }

    fn ended<T>(mut self, result: Result<T, PgError>, at: Instant) -> Result<T, PgError> {
        self.counted = true;
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(PgError::Exhausted { .. } | PgError::Paused { .. }) => Outcome::Timeout,
            Err(PgError::QueueFull { .. }) => Outcome::QueueFull,
            Err(PgError::Closed) => Outcome::Refused,
            Err(_) => Outcome::OpenFailed,
        };
        let waited = at.saturating_duration_since(self.started);
        self.pool.recorder.acquired(outcome, waited);
        self.pool.tell_if_slow(waited, self.site, result.as_ref().err());
        result
    }
}

impl<P: Deref<Target = Shared>> Drop for Attempt<'_, P> {
    fn drop(&mut self) {
        if !self.counted {
            self.pool.recorder.acquired(Outcome::Cancelled, self.started.elapsed());
        }
    }
}
