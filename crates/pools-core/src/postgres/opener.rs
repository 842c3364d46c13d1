//! How many connections may be opened at once: any number, until one fails.
//!
//! After a failure at most [`AFTER_FAILURE`] are tried at a time, until one succeeds: a server that has just come
//! back is not met by a crowd. Whoever waited for a turn since before a failed attempt began gets that failure at once:
//! trying again for each of them in turn would make the last wait for all. Who came later keeps waiting, since the
//! server may have come back in between; only a time-out is for all, since nobody has the time for another one.
//!
//! A server that has not answered in time will probably not answer now: whoever finds all turns taken then waits
//! for [`SILENT_WAIT`] only, and gets the failure that is known. Nor does a caller wait for longer in all, who may have
//! waited for a place before: if somebody tries the server or has just done so, he is refused at once, else he leaves behind
//! an attempt with the whole time. So there is always one who finds out, and never a crowd that waits for it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::error::OpenError;

/// Attempts at a time after a failure.
const AFTER_FAILURE: u32 = 4;

/// Time for a server that was silent to show that it is back to those who are trying it.
pub(super) const SILENT_WAIT: Duration = Duration::from_secs(1);

type Answer = Result<Turn, OpenError>;

#[derive(Debug, Default)]
struct Inner {
    failing: bool,
    /// Why, if it was that the server did not answer.
    silent: Option<Silent>,
    running: u32,
    /// Attempts so far.
    begun: u64,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Silent {
    error: OpenError,
    since: Instant,
}

/// What is known of a server that did not answer in time.
pub(super) struct Silence {
    pub(super) error: OpenError,
    /// Somebody is trying it, or has just done so.
    pub(super) current: bool,
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
        let (answer, limit) = {
            let mut inner = self.0.lock();
            if !inner.failing || inner.running < AFTER_FAILURE {
                let number = inner.begin();
                return Some(Ok(Turn { opener: Arc::clone(self), number, over: false }));
            }
            let (sender, answer) = oneshot::channel();
            let before = inner.begun;
            inner.queue.push_back(Waiter { before, answer: sender });
            let silent = inner.silent.is_some();
            (answer, if silent { deadline.min(Instant::now() + SILENT_WAIT) } else { deadline })
        };
        // A turn given just before the limit is dropped with the channel, which passes it on.
        match tokio::time::timeout_at(limit, answer).await {
            Ok(answer) => answer.ok(),
            Err(_) if limit < deadline => {
                self.0.lock().silent.as_ref().map(|silent| Err(silent.error.clone()))
            }
            Err(_) => None,
        }
    }

    /// That the server is silent, if that is how the last attempt ended.
    pub(super) fn silence(&self, now: Instant) -> Option<Silence> {
        let inner = self.0.lock();
        let Silent { error, since } = inner.silent.as_ref()?;
        let current = inner.running > 0 || now < *since + SILENT_WAIT;
        Some(Silence { error: error.clone(), current })
    }

    /// Ends an attempt (`None`: without a verdict) and answers those who wait, after the lock is released: an answer
    /// nobody takes is a turn that comes back here.
    fn end(self: &Arc<Self>, number: u64, result: Option<Result<(), OpenError>>) {
        let mut inner = self.0.lock();
        inner.running -= 1;
        let (over, error) = (result.is_some(), result.and_then(Result::err));
        let for_all = matches!(error, Some(OpenError::TimedOut { .. }));
        if over {
            inner.failing = error.is_some();
            let silence = error.clone().filter(|_| for_all);
            inner.silent = silence.map(|error| Silent { error, since: Instant::now() });
        }
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
    async fn while_a_silent_server_is_tried_by_a_few_the_others_wait_for_a_second_only() {
        let opener = Arc::new(Opener::default());
        let late = || Instant::now() + Duration::from_secs(10);
        let silence = || OpenError::TimedOut { after: Duration::from_secs(10) };
        opener.enter(late()).await.unwrap().unwrap().ended(Err(silence()));
        let mut turns = Vec::new();
        for _ in 0..AFTER_FAILURE {
            turns.push(opener.enter(late()).await.unwrap().unwrap());
        }
        let started = Instant::now();
        let known = opener.enter(late()).await.expect("there is a failure to tell of");
        assert!(matches!(known, Err(OpenError::TimedOut { .. })));
        assert!((SILENT_WAIT..SILENT_WAIT * 2).contains(&started.elapsed()));

        turns.pop().unwrap().ended(Ok(()));
        assert!(opener.enter(late()).await.unwrap().is_ok(), "it is back");
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
