//! What the last call to a third party said, for `/health`.
//!
//! Each call costs quota there, so nobody is asked without need: a call that users make is the verdict. Only when `/health`
//! is read and there is no verdict yet, or the last one was bad and is older than [`AGAIN`], one question is asked in the
//! background, so that an upstream that is back is seen without anybody's request failing first.
//!
//! **Cancel**: a call that nobody waited for to its end says nothing. **Time-out**: a reader of `/health` waits at most [`FIRST`],
//! and only while there is no verdict. **Panic** of a question: counted by `Tasks`, and the next reader asks again.
//! **Shutdown**: questions are jobs of the service and cut by it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use pools_core::{health::HealthState, tasks::Tasks};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::ThirdPartyError;

/// A reader of `/health` sits through this; what answers later counts as down until then.
const FIRST: Duration = Duration::from_secs(1);
/// Pinata allows 30 questions a minute.
const AGAIN: Duration = Duration::from_secs(5);

/// The verdict on one upstream. Clones share it.
#[derive(Clone, Debug)]
pub struct Verdict(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    upstream: &'static str,
    jobs: Tasks,
    known: watch::Sender<Option<bool>>,
    asked: Mutex<Option<Instant>>,
}

impl Verdict {
    /// None yet. `upstream` is for the log.
    pub fn new(upstream: &'static str, jobs: &Tasks) -> Self {
        let known = watch::Sender::new(None);
        Self(Arc::new(Inner { upstream, jobs: jobs.clone(), known, asked: Mutex::default() }))
    }

    /// It answered, and took the key.
    fn up(&self) {
        if self.0.known.send_replace(Some(true)) != Some(true) {
            tracing::info!(upstream = self.0.upstream, "upstream is up");
        }
    }

    /// It failed, or refused the key. `why` must be free of secrets.
    fn down(&self, why: &str) {
        // What a user's call says is as good as an answer to our question.
        *self.0.asked.lock() = Some(Instant::now());
        if self.0.known.send_replace(Some(false)) != Some(false) {
            tracing::warn!(upstream = self.0.upstream, reason = why, "upstream is down");
        }
    }

    /// What a call's outcome says.
    pub fn judge<T>(&self, outcome: &Result<T, ThirdPartyError>) {
        match outcome {
            Ok(_) => self.up(),
            Err(error) => match error.says_up() {
                Some(true) => self.up(),
                Some(false) => self.down(&error.detail()),
                None => {}
            },
        }
    }

    /// What the last call said; `None` before the first.
    pub fn last(&self) -> Option<bool> {
        *self.0.known.borrow()
    }

    /// What is known; `ask` is how to find out, and has the outcome [judged](Self::judge).
    pub async fn state(&self, ask: impl Future<Output = ()> + Send + 'static) -> HealthState {
        let mut known = self.0.known.subscribe();
        if *known.borrow() != Some(true) && self.is_due() {
            self.0.jobs.spawn("upstream question", ask);
        }
        // Late or cut: then it did not answer.
        let _ = timeout(FIRST, known.wait_for(Option::is_some)).await;
        if *known.borrow() == Some(true) { HealthState::Up } else { HealthState::Down }
    }

    /// Whether this caller is the one that asks.
    fn is_due(&self) -> bool {
        let mut asked = self.0.asked.lock();
        let now = Instant::now();
        let due = asked.is_none_or(|at| now >= at + AGAIN);
        if due {
            *asked = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_while_calls_succeed_and_one_question_at_a_time_otherwise() {
        let verdict = Verdict::new("test", &Tasks::new());
        let asked = Arc::new(AtomicU32::new(0));
        let ask = |up: bool| {
            let (verdict, asked) = (verdict.clone(), Arc::clone(&asked));
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                if up { verdict.up() } else { verdict.down("away") }
            }
        };
        assert_eq!(verdict.state(ask(false)).await, HealthState::Down);
        assert_eq!(verdict.state(ask(true)).await, HealthState::Down, "asked again at once");
        tokio::time::advance(AGAIN).await;
        assert_eq!(verdict.state(ask(true)).await, HealthState::Down, "a known verdict is not waited for");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(verdict.state(ask(false)).await, HealthState::Up);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        verdict.down("a call failed");
        assert_eq!(verdict.state(ask(true)).await, HealthState::Down);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_the_first_question_in_time_is_down_until_it_does() {
        let verdict = Verdict::new("test", &Tasks::new());
        let late = verdict.clone();
        let ask = async move {
            tokio::time::sleep(3 * FIRST).await;
            late.up();
        };
        assert_eq!(verdict.state(ask).await, HealthState::Down);
        tokio::time::sleep(3 * FIRST).await;
        assert_eq!(verdict.state(async {}).await, HealthState::Up);
    }
}
