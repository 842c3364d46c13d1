//! From the signal to the exit code.
//!
//! ```text
//!  starting ──► ready ──SIGTERM, SIGINT──► draining ───────────────────────────────────► exit
//!                          │ /health/ready 503
//!                          ├ SHUTDOWN_DELAY: balancers look away
//!                          ├ no new connection is accepted
//!                          ├ requests already accepted run on and may still acquire  ┐ at most
//!                          ├ jobs, chain, HTTP, Redis, Postgres close in this order  ┘ SHUTDOWN_TIMEOUT
//!                          └ exit 0, or 1 if something was cut; a second signal exits at once
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::Instant,
};

use crate::{registry::Registry, tasks::Tasks};

/// A request whose connection was accepted counts once its head was read. Between the two lie some microseconds
/// of a worker's time; this is a thousand times that.
const SETTLE: Duration = Duration::from_millis(100);

/// What `/health/ready` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not yet listening.
    Starting,
    /// Serving.
    Ready,
    /// A signal came.
    Draining,
}

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    requests: AtomicU32,
    ended: Notify,
}

/// Phase of the process and the requests it is working on. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<Shared>);

impl Lifecycle {
    /// Starting, without requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// The service listens. Does nothing once draining.
    pub fn ready(&self) {
        // Losing the race against a signal leaves the phase at draining, as it must.
        self.0.phase.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    fn drain(&self) {
        self.0.phase.store(2, Ordering::Release);
    }

    /// Counts a request until the guard is dropped, which is when the last byte of its answer was made.
    pub fn request(&self) -> RequestGuard {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard(self.clone())
    }

    /// Requests being worked on.
    pub fn requests(&self) -> u32 {
        self.0.requests.load(Ordering::Acquire)
    }

    /// Waits until no request is being worked on, at most until `deadline`. Returns how many still are.
    async fn idle(&self, deadline: Instant) -> u32 {
        loop {
            let ended = self.0.ended.notified();
            let requests = self.requests();
            if requests == 0 || tokio::time::timeout_at(deadline, ended).await.is_err() {
                return self.requests();
            }
        }
    }
}

/// A request being worked on.
#[derive(Debug)]
pub struct RequestGuard(Lifecycle);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.0.0.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.ended.notify_waiters();
        }
    }
}

/// Both signals that ask a process to end.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Listens from now on; the default action of both is off.
    ///
    /// # Errors
    /// The runtime could not register them.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// The listening side of a service, stopped in two steps.
pub trait Listener {
    /// Accepts no new connection.
    fn pause(&self) -> impl Future<Output = ()>;
    /// Closes the connections that are left, gracefully when `cut` is false.
    fn close(&self, cut: bool) -> impl Future<Output = ()>;
}

/// What shutdown closes, in the order of the fields.
#[derive(Debug)]
pub struct Shutdown<L> {
    /// Phase and requests.
    pub lifecycle: Lifecycle,
    /// The listening side.
    pub listener: L,
    /// Background jobs of the service.
    pub jobs: Tasks,
    /// The pools.
    pub pools: Arc<Registry>,
    /// `SHUTDOWN_DELAY`.
    pub delay: Duration,
    /// `SHUTDOWN_TIMEOUT`.
    pub timeout: Duration,
}

impl<L: Listener> Shutdown<L> {
    /// Waits for a signal, then closes everything. Returns the exit code: 0 if nothing was cut, else 1.
    pub async fn run(self, signals: &mut Signals) -> u8 {
        let name = signals.next().await;
        self.lifecycle.drain();
        tracing::info!(signal = name, requests = self.lifecycle.requests(), "shutting down");
        tokio::select! {
            cut = self.close() => u8::from(cut),
            second = signals.next() => {
                tracing::error!(signal = second, "second signal: exiting at once");
                1
            }
        }
    }

    /// Waits until no request was worked on for one [`SETTLE`]. Returns how many still were at the deadline.
    async fn quiet(&self, deadline: Instant) -> u32 {
        loop {
            let requests = self.lifecycle.idle(deadline).await;
            tokio::time::sleep(SETTLE).await;
            if requests > 0 || self.lifecycle.requests() == 0 {
                return requests;
            }
        }
    }

    async fn close(&self) -> bool {
        tokio::time::sleep(self.delay).await;
        let deadline = Instant::now() + self.timeout;
        self.listener.pause().await;
        let requests = self.quiet(deadline).await;
        let mut cut = Vec::new();
        if requests > 0 {
            cut.push(format!("{requests} requests"));
        }
        self.listener.close(requests > 0).await;
        cut.extend(self.jobs.shutdown(deadline).await.into_iter().map(|job| format!("job {job}")));
        cut.extend(self.pools.drain(deadline).await);
        for what in &cut {
            tracing::error!(what, "cut at the end of SHUTDOWN_TIMEOUT");
        }
        tracing::info!(cut = cut.len(), "shut down");
        !cut.is_empty()
    }
}
