//! How many connections may be opened at once: any number, until one fails.
//!
//! After a failure at most [`AFTER_FAILURE`] are tried at a time, until one succeeds: a server that has just come
//! back is not met by a crowd. Whoever waited for a turn since before a failed attempt began gets that failure at once:
//! trying again for each of them in turn would make the last wait for all. Who came later keeps waiting, since the
//! server may have come back in between; only a time-out is for all, since nobody has the time for another one.

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
    /// Attempts so far.
    begun: u64,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    /// Attempts that had begun before it came.
    before: u64,
    answer: oneshot::Sender<Answer>,
}

impl Inner {
    fn begin(&mut self) -> u64 {
        self.running += 1;
        self.begun += 1;
        self.begun
    }
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
                let number = inner.begin();
                return Some(Ok(Turn { opener: Arc::clone(self), number, over: false }));
            }
            let (sender, answer) = oneshot::channel();
            let before = inner.begun;
            inner.queue.push_back(Waiter { before, answer: sender });
            answer
        };
        // A turn given just before the deadline is dropped with the channel, which passes it on.
        tokio::time::timeout_at(deadline, answer).await.ok()?.ok()
    }

    /// Ends an attempt (`None`: without a verdict) and answers those who wait, after the lock is released: an answer
    /// nobody takes is a turn that comes back here.
    fn end(self: &Arc<Self>, number: u64, result: Option<Result<(), OpenError>>) {
        let mut inner = self.0.lock();
        inner.running -= 1;
        if let Some(result) = &result {
            inner.failing = result.is_err();
        }
        let error = result.and_then(Result::err);
        let for_all = matches!(error, Some(OpenError::TimedOut { .. }));
        // In order of arrival: those who were there before the attempt are in front.
        let concerned = inner.queue.partition_point(|waiter| for_all || waiter.before < number);
        let failed: Vec<_> = match error {
            Some(_) => inner.queue.drain(..concerned).collect(),
            None => Vec::new(),
        };
        let free =
            if inner.failing { AFTER_FAILURE.saturating_sub(inner.running) as usize } else { usize::MAX };
        let next = inner.queue.len().min(free);
        let next: Vec<_> = inner.queue.drain(..next).collect();
        let next: Vec<_> = next.into_iter().map(|waiter| (inner.begin(), waiter)).collect();
        drop(inner);
        for (number, waiter) in next {
            drop(waiter.answer.send(Ok(Turn { opener: Arc::clone(self), number, over: false })));
        }
        for (waiter, error) in failed.into_iter().zip(std::iter::repeat(error).flatten()) {
            drop(waiter.answer.send(Err(error)));
        }
    }
}

/// Leave to try one connect.
#[derive(Debug)]
pub(super) struct Turn {
    opener: Arc<Opener>,
    number: u64,
    over: bool,
}

impl Turn {
    /// The attempt ended.
    pub(super) fn ended(mut self, result: Result<(), OpenError>) {
        self.over = true;
        self.opener.end(self.number, Some(result));
    }

    /// The attempt was given less time than others have: from now on few try at a time, but nobody else fails.
    pub(super) fn ended_early(self) {
        self.opener.0.lock().failing = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            self.opener.end(self.number, None);
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
    async fn a_refusal_is_for_those_who_came_before_the_attempt_began() {
        let opener = Arc::new(Opener::default());
        let refusal = || OpenError::Socket { cause: Arc::new(std::io::ErrorKind::ConnectionRefused.into()) };
        opener.enter(soon()).await.unwrap().unwrap().ended(Err(refusal()));
        let mut turns = Vec::new();
        for _ in 0..AFTER_FAILURE {
            turns.push(opener.enter(soon()).await.unwrap().unwrap());
        }
        let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(opener.enter(soon()))).collect();
        for waiter in &mut waiters {
            assert!(futures_util::poll!(waiter).is_pending());
        }
        // These attempts began before the waiters came: the server may have come back in between.
        turns.pop().unwrap().ended(Err(refusal()));
        let turn = waiters.remove(0).await.unwrap().expect("somebody else's refusal");
        assert!(futures_util::poll!(&mut waiters[0]).is_pending());
        // This one began after they came.
        turn.ended(Err(refusal()));
        for waiter in waiters {
            assert!(waiter.await.unwrap().is_err(), "the refusal was not shared");
        }
        drop(turns);
        assert_eq!(opener.0.lock().running, 0);
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
