//! The driver of a provider: one task that sends the POSTs, reads their answers and probes the endpoints.
//!
//! The [`State`] decides, the driver does. **Panic**: whatever ends the task, nobody is left waiting.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    entry::Answer,
    error::ChainError,
    state::{Outcome, Post, ProbeOutcome, State, Step},
    transport::Transport,
};
use crate::{health::HealthCell, holders::Holders, stats::Recorder};

/// What the pool and its providers share.
pub(super) struct Shared {
    pub(super) recorder: Recorder,
    pub(super) holders: Arc<Holders>,
}

/// One provider, owned by the pool.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) state: Mutex<State>,
    pub(super) transports: Vec<Transport>,
    pub(super) wake: Notify,
    pub(super) stop: CancellationToken,
    pub(super) created: Instant,
    pub(super) last_used: Mutex<Instant>,
    /// Present on the provider of `RPC_URL`: its health is the pool's.
    health: Option<Arc<HealthCell>>,
    pub(super) shared: Arc<Shared>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("endpoints", &self.name).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn new(
        state: State,
        transports: Vec<Transport>,
        health: Option<Arc<HealthCell>>,
        shared: Arc<Shared>,
        stop: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let names: Vec<_> = transports.iter().map(|transport| &*transport.name).collect();
        Self {
            name: names.join(", "),
            state: Mutex::new(state),
            transports,
            wake: Notify::new(),
            stop,
            created: now,
            last_used: Mutex::new(now),
            health,
            shared,
        }
    }

    /// Calls that are out for this provider, or wait to be.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// Refuses everybody and gives up what is left; returns its methods.
    pub(super) fn cut(&self) -> Vec<String> {
        let mut step = Step::default();
        let cut = self.state.lock().cut(&mut step);
        deliver(step.answers);
        cut
    }
}

/// How something the driver had started ended.
enum End {
    Posted(Post, Outcome),
    Probed(usize, Instant, ProbeOutcome),
}

/// Sends and reads until the provider is stopped. However it ends, nobody is left waiting.
pub(super) async fn drive(inner: Arc<Inner>) {
    struct Ended<'a>(&'a Inner);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.cut();
        }
    }

    let inner = &*inner;
    let _ended = Ended(inner);
    let mut running: FuturesUnordered<BoxFuture<'_, End>> = FuturesUnordered::new();
    let mut step = inner.state.lock().step(Instant::now());
    loop {
        deliver(std::mem::take(&mut step.answers));
        running.extend(step.probes.drain(..).map(|index| probe(inner, index).boxed()));
        running.extend(step.posts.drain(..).map(|post| send(inner, post).boxed()));
        report_health(inner);
        let timer = async {
            match step.wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        step = tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            Some(end) = running.next(), if !running.is_empty() => ended(inner, end),
            () = inner.wake.notified() => {
                // Whoever is ready to call as well gets into the same POST. Costs a lone call a microsecond.
                tokio::task::yield_now().await;
                inner.state.lock().step(Instant::now())
            }
            () = timer => inner.state.lock().step(Instant::now()),
        };
    }
}

async fn send(inner: &Inner, mut post: Post) -> End {
    inner.shared.recorder.wait.record(post.waited);
    let outcome = inner.transports[post.endpoint].post(&mut post).await;
    End::Posted(post, outcome)
}

async fn probe(inner: &Inner, index: usize) -> End {
    let sent = Instant::now();
    let outcome = inner.transports[index].probe().await;
    let ok = matches!(outcome, ProbeOutcome::ChainId(_));
    inner.shared.recorder.open_ended(ok, sent.elapsed());
    End::Probed(index, sent, outcome)
}

fn ended(inner: &Inner, end: End) -> Step {
    let now = Instant::now();
    let mut state = inner.state.lock();
    let mut answered = Step::default();
    match end {
        End::Posted(post, outcome) => state.finish(post, outcome, now, &mut answered),
        End::Probed(index, sent, outcome) => state.probed(index, sent, outcome, now),
    }
    let mut step = state.step(now);
    step.answers.append(&mut answered.answers);
    step
}

fn deliver(answers: Vec<(Vec<oneshot::Sender<Answer>>, Answer)>) {
    for (waiters, answer) in answers {
        for waiter in waiters {
            // A caller that went away needs no answer.
            let _ = waiter.send(answer.clone());
        }
    }
}

fn report_health(inner: &Inner) {
    let Some(cell) = &inner.health else { return };
    match inner.state.lock().health() {
        Some(Ok(())) => cell.up(),
        Some(Err(error)) => cell.down(&with_cause(&error)),
        None => false,
    };
}

/// The error and what caused it, for a reason in one line.
fn with_cause(error: &ChainError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
