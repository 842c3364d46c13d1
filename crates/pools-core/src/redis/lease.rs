//! Dedicated connections, for what must not share one: blocking commands, WATCH, subscriptions.
//!
//! ```text
//!  acquire ──► Admission (in order, deadline, bounded queue) ──► slot of bb8 ──► PING if it was idle ──► Lease
//!                                                                  │ empty or dead: open
//!  drop: finished ──► back into the slot          unfinished, or in a state of its own ──► closed, then the place is free
//! ```
//!
//! bb8 keeps the slots and hands out the one used last; a slot is filled by the caller that got it, so a failed
//! open is that caller's error with its cause, and nothing is opened that nobody waits for.
//!
//! # Cancel safety
//! [`acquire`](super::RedisPool::acquire) may be dropped at any point. A command dropped half-way leaves its
//! lease unfinished: the connection is closed, not reused, since the server may still be busy with it.

use std::{
    convert::Infallible,
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, FromRedisValue, Pipeline, PushInfo, Value};
use tokio::time::{Instant, timeout};

use super::{
    Shared,
    error::RedisError,
    manager::{Census, Link},
};
use crate::{
    admission::{Admission, Permit, Refused},
    holders::{HolderGuard, Holders},
    pool::PoolKind,
    resilience::{deadline, outgoing},
    stats::{CloseReason, Outcome},
};

/// A connection idle for less is handed out without a PING: the driver sees a peer that hangs up anyway, so the
/// PING only finds the silent death of a network.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// What a slot of bb8 holds.
#[derive(Debug, Default)]
pub(crate) struct Slot(Option<Idle>);

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// bb8's manager: a slot costs nothing to make and never breaks.
#[derive(Debug)]
pub(crate) struct Slots;

impl bb8::ManageConnection for Slots {
    type Connection = Slot;
    type Error = Infallible;

    async fn connect(&self) -> Result<Slot, Infallible> {
        Ok(Slot::default())
    }

    async fn is_valid(&self, _slot: &mut Slot) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _slot: &mut Slot) -> bool {
        false
    }
}

/// The dedicated connections of a pool.
#[derive(Debug)]
pub(crate) struct Lanes {
    gate: Arc<Admission>,
    slots: bb8::Pool<Slots>,
    pub(crate) holders: Arc<Holders>,
    pub(crate) census: Arc<Census>,
    leased: Arc<AtomicU32>,
    wait: Duration,
}

impl Lanes {
    pub(crate) fn new(limit: u32, queue: u32, wait: Duration) -> Self {
        let slots = bb8::Pool::builder()
            .max_size(limit)
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None);
        Self {
            gate: Arc::new(Admission::new(limit, queue)),
            slots: slots.build_unchecked(Slots),
            holders: Holders::new(PoolKind::Redis),
            census: Arc::default(),
            leased: Arc::default(),
            wait,
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.gate.limit()
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.gate.waiting()
    }

    pub(crate) fn leased(&self) -> u32 {
        self.leased.load(Ordering::Relaxed)
    }

    /// Whether nobody has a lease, nor is about to get one.
    pub(crate) fn is_idle(&self) -> bool {
        self.gate.inside() == 0
    }

    pub(crate) fn close(&self) {
        self.gate.close();
    }
}

/// Counts a lease that is out.
#[derive(Debug)]
struct Leased(Arc<AtomicU32>);

impl Leased {
    fn new(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an acquire that its caller gave up.
struct Attempt<'a> {
    shared: &'a Shared,
    started: Instant,
    outcome: Outcome,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.shared.recorder.acquired(self.outcome, self.started.elapsed());
    }
}

impl Shared {
    pub(crate) async fn lease(
        self: &Arc<Self>,
        site: &'static Location<'static>,
    ) -> Result<Lease, RedisError> {
        outgoing::begin().await;
        let started = Instant::now();
        let mut attempt = Attempt { shared: self, started, outcome: Outcome::Cancelled };
        let result = self.enter(site, started).await;
        attempt.outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(RedisError::QueueFull { .. }) => Outcome::QueueFull,
            Err(RedisError::Exhausted { .. }) => Outcome::Timeout,
            Err(RedisError::Open { .. }) => Outcome::OpenFailed,
            Err(_) => Outcome::Refused,
        };
        result
    }

    async fn enter(
        self: &Arc<Self>,
        site: &'static Location<'static>,
        started: Instant,
    ) -> Result<Lease, RedisError> {
        self.refuse_unless_up()?;
        let lanes = &self.lanes;
        let exhausted =
            |waited| RedisError::Exhausted { max: lanes.limit(), waited, longest: lanes.holders.longest() };
        let latest = started + lanes.wait;
        let latest = deadline::current().map_or(latest, |deadline| deadline.min(latest));
        let permit = lanes.gate.enter_owned(started, latest).await.map_err(|refused| match refused {
            Refused::QueueFull { waiting } => RedisError::QueueFull { waiting },
            Refused::TimedOut { waited } => exhausted(waited),
            Refused::Closed => RedisError::Closed,
        })?;
        let permit = Arc::new(permit);
        // There are as many slots as permits, so bb8 has one at once.
        let mut slot = lanes.slots.get_owned().await.map_err(|_| exhausted(started.elapsed()))?;
        let link = match self.reuse(&mut slot).await {
            Some(mut link) => {
                link.place = Some(Arc::clone(&permit));
                link
            }
            None => self.open_dedicated(&permit, started).await?,
        };
        Ok(Lease {
            link: Some(link),
            using: Use::default(),
            guard: lanes.holders.enter(site),
            shared: Arc::clone(self),
            slot,
            _leased: Leased::new(&lanes.leased),
            _permit: permit,
        })
    }

    /// The connection in the slot, if there is one that still works.
    async fn reuse(&self, slot: &mut Slot) -> Option<Link> {
        let Idle { mut link, since } = slot.0.take()?;
        if !link.is_open() {
            self.recorder.closed(CloseReason::Peer);
            return None;
        }
        if since.elapsed() < TRUSTED_IDLE || link.ping(self.command_timeout).await {
            return Some(link);
        }
        self.recorder.closed(CloseReason::CheckFailed);
        link.close().await;
        None
    }

    async fn open_dedicated(&self, permit: &Arc<Permit>, started: Instant) -> Result<Link, RedisError> {
        let begun = Instant::now();
        let opened = self.manager.open(&self.lanes.census, Some(Arc::clone(permit))).await;
        self.recorder.open_ended(opened.is_ok(), begun.elapsed());
        opened.map_err(|cause| RedisError::Open { waited: started.elapsed(), cause })
    }
}

/// A dedicated connection. Dropping it gives the connection back, or closes it when it is not as it was.
///
/// # Cancel safety
/// A command dropped half-way, or one that timed out, leaves the lease unfinished: later commands fail with
/// [`RedisError::Unfinished`] and the connection is closed when the lease is dropped.
#[must_use = "a lease that is not used still takes a place in the pool"]
#[derive(Debug)]
pub struct Lease {
    link: Option<Link>,
    using: Use,
    guard: HolderGuard,
    shared: Arc<Shared>,
    // In this order: the slot is in bb8 before the next caller may ask for it.
    slot: bb8::PooledConnection<'static, Slots>,
    _leased: Leased,
    _permit: Arc<Permit>,
}

impl Lease {
    /// Sends a command and waits for its answer, at most `REDIS_COMMAND_TIMEOUT_MS`.
    ///
    /// # Errors
    /// As [`RedisPool::run`](super::RedisPool::run), and [`RedisError::Unfinished`].
    ///
    /// # Cancel safety
    /// Dropped half-way, the lease is unfinished.
    pub async fn run<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        self.run_for(command, self.shared.command_timeout).await
    }

    /// [`run`](Self::run) with another deadline, for commands that block.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_for<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
        limit: Duration,
    ) -> Result<T, RedisError> {
        let link = self.begin()?;
        let answer = timeout(limit, command.query_async::<Value>(&mut link.conn)).await;
        let value = self.end(answer, limit, std::iter::once(command))?;
        redis::from_redis_value(value).map_err(RedisError::Type)
    }

    /// Sends several commands at once, as one transaction if the pipeline is atomic, and waits at most `limit`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_pipeline<T: FromRedisValue>(
        &mut self,
        pipeline: &Pipeline,
        limit: Duration,
    ) -> Result<T, RedisError> {
        let link = self.begin()?;
        let answer = timeout(limit, pipeline.query_async::<Value>(&mut link.conn)).await;
        let value = self.end(answer, limit, pipeline.cmd_iter())?;
        redis::from_redis_value(value).map_err(RedisError::Type)
    }

    /// The next message of a subscription; `None` when the connection has ended.
    ///
    /// # Cancel safety
    /// Safe: no message is lost.
    pub async fn next_push(&mut self) -> Option<PushInfo> {
        self.link.as_mut()?.pushes.recv().await
    }

    fn begin(&mut self) -> Result<&mut Link, RedisError> {
        if self.using.busy {
            return Err(RedisError::Unfinished);
        }
        self.using.busy = true;
        Ok(self.link.as_mut().expect("BUG: a lease has its connection until it is dropped"))
    }

    fn end<'a>(
        &mut self,
        answer: Result<redis::RedisResult<Value>, tokio::time::error::Elapsed>,
        limit: Duration,
        commands: impl Iterator<Item = &'a Cmd>,
    ) -> Result<Value, RedisError> {
        let answer = answer.map_err(|_| RedisError::Timeout { after: limit })?;
        let answer = answer.map_err(RedisError::of);
        if !matches!(answer, Err(RedisError::Lost(_))) {
            self.using.busy = false;
            commands.for_each(|command| self.using.note(command));
        }
        answer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        self.shared.recorder.usage.record(self.guard.held());
        let reason = match (&self.using, link.is_open()) {
            (using, true) if using.is_clean() => {
                // An idle connection takes no place: the permit is what allows a caller to take it out.
                link.place = None;
                self.slot.0 = Some(Idle { link, since: Instant::now() });
                return;
            }
            (_, true) => CloseReason::Unfinished,
            (_, false) => CloseReason::Broken,
        };
        self.shared.recorder.closed(reason);
    }
}

/// What a connection was used for, as far as the next holder could notice.
#[derive(Debug, Default)]
struct Use {
    /// A command is out, or its answer was never awaited.
    busy: bool,
    watching: bool,
    in_transaction: bool,
    /// It has a state that no command takes back for sure: subscribed, another database, another user.
    altered: bool,
}

impl Use {
    fn is_clean(&self) -> bool {
        !(self.busy || self.watching || self.in_transaction || self.altered)
    }

    fn note(&mut self, command: &Cmd) {
        let Some(redis::Arg::Simple(name)) = command.args_iter().next() else { return };
        match name.to_ascii_uppercase().as_slice() {
            b"WATCH" => self.watching = true,
            b"UNWATCH" => self.watching = false,
            b"MULTI" => self.in_transaction = true,
            b"EXEC" | b"DISCARD" => (self.watching, self.in_transaction) = (false, false),
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"MONITOR" | b"SELECT" | b"AUTH" | b"HELLO"
            | b"RESET" | b"CLIENT" | b"READONLY" | b"ASKING" | b"QUIT" => self.altered = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_inside_a_transaction_or_with_a_state_of_its_own_is_not_handed_on() {
        let after = |names: &[&str]| {
            let mut using = Use::default();
            names.iter().for_each(|name| using.note(&redis::cmd(name)));
            using.is_clean()
        };
        assert!(after(&["GET", "BLPOP"]));
        assert!(after(&["WATCH", "MULTI", "SET", "EXEC"]));
        assert!(after(&["watch", "unwatch"]));
        for unclean in [&["WATCH"][..], &["MULTI", "SET"], &["SUBSCRIBE", "UNSUBSCRIBE"], &["SELECT"]] {
            assert!(!after(unclean), "{unclean:?}");
        }
    }
}
