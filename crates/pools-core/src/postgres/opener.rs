//! How many connections may be opened at once: any number, until one fails.
//!
//! After a failure at most [`AFTER_FAILURE`] are tried at a time, until one succeeds: a server that has just come
//! back is not met by a crowd. Whoever waited for a turn when an attempt failed gets that failure at once:
//! trying again for each of them in turn would make the last wait for all.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::error::OpenError;

/// Attempts at a time after a failure.
const AFTER_FAILURE: u32 = 4;

type Answer = Result<Turn, OpenError>;

#[derive(Debug, Default)]
struct Inner {
    failing: bool,
    running: u32,
    queue: VecDeque<oneshot::Sender<Answer>>,
}

/// Gives turns.
#[derive(Debug, Default)]
pub(super) struct Opener(Mutex<Inner>);

impl Opener {
    /// Waits for a turn until `deadline`; `None` when it passed.
    pub(super) async fn enter(self: &Arc<Self>, deadline: Instant) -> Option<Answer> {
        let answer = {
            let mut inner = self.0.lock();
            if !inner.failing || inner.running < AFTER_FAILURE {
                inner.running += 1;
                return Some(Ok(Turn { opener: Arc::clone(self), over: false }));
            }
            let (sender, answer) = oneshot::channel();
            inner.queue.push_back(sender);
            answer
        };
        // A turn given just before the deadline is dropped with the channel, which passes it on.
        tokio::time::timeout_at(deadline, answer).await.ok()?.ok()
    }

    /// Ends one attempt (`None`: without a verdict) and answers those who wait, after the lock is released: an answer nobody takes is a turn
    /// that comes back here.
    fn end(self: &Arc<Self>, result: Option<Result<(), OpenError>>) {
        let mut inner = self.0.lock();
        inner.running -= 1;
        let waiting: Vec<_> = match &result {
            None => {
                let free = AFTER_FAILURE.saturating_sub(inner.running) as usize;
                let next = inner.queue.len().min(free);
                inner.queue.drain(..next).collect()
            }
            Some(result) => {
                inner.failing = result.is_err();
                inner.queue.drain(..).collect()
            }
        };
        let refused = result.and_then(Result::err);
        if refused.is_none() {
            inner.running += u32::try_from(waiting.len()).expect("BUG: more callers than places");
        }
        drop(inner);
        for sender in waiting {
            let turn = || Turn { opener: Arc::clone(self), over: false };
            drop(sender.send(refused.clone().map_or_else(|| Ok(turn()), Err)));
        }
    }
}

/// Leave to try one connect.
#[derive(Debug)]
pub(super) struct Turn {
    opener: Arc<Opener>,
    over: bool,
}

impl Turn {
    /// The attempt ended.
    pub(super) fn ended(mut self, result: Result<(), OpenError>) {
        self.over = true;
        self.opener.end(Some(result));
    }

    /// The attempt was given less time than others have: from now on few try at a time, but nobody else fails.
    pub(super) fn ended_early(self) {
        self.opener.0.lock().failing = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            self.opener.end(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_a_few_try_and_the_rest_share_their_fate() {
        let opener = Arc::new(Opener::default());
        let failure = || OpenError::TimedOut { after: Duration::from_secs(1) };
        opener.enter(soon()).await.unwrap().unwrap().ended(Err(failure()));

        let mut turns = Vec::new();
        for _ in 0..AFTER_FAILURE {
            turns.push(opener.enter(soon()).await.unwrap().unwrap());
        }
        let (waiter, ()) = tokio::join!(opener.enter(soon()), async {
            turns.pop().unwrap().ended(Err(failure()));
        });
        assert!(waiter.unwrap().is_err(), "the failure was not shared");

        turns.push(opener.enter(soon()).await.unwrap().unwrap());
        assert!(opener.enter(soon()).await.is_none(), "a fifth attempt at a time");
        let (waiter, ()) = tokio::join!(opener.enter(soon()), async {
            turns.pop().unwrap().ended(Ok(()));
        });
        assert!(waiter.unwrap().is_ok(), "one success lets everybody try");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_nobody_takes_goes_to_the_next() {
        let opener = Arc::new(Opener::default());
        opener.0.lock().failing = true;
        let mut turns = Vec::new();
        for _ in 0..AFTER_FAILURE {
            turns.push(opener.enter(soon()).await.unwrap().unwrap());
        }
        let mut gone = Box::pin(opener.enter(soon()));
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        let (waiter, ()) = tokio::join!(opener.enter(soon()), async { drop(turns.pop()) });
        assert!(waiter.unwrap().is_ok());
        drop(turns);
        assert_eq!(opener.0.lock().running, 0);
    }
}
