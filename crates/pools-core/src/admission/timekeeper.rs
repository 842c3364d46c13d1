//! One timer for all who wait at a gate.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Weak, atomic::Ordering},
    task::Waker,
};

use tokio::time::{Instant, timeout_at};

use super::Admission;

impl<T: Send + 'static> Admission<T> {
    /// Ends the wait of those whose deadline passes, for as long as it is polled, and until the gate is dropped:
    /// one timer for all of them. Dropped earlier, each has its own again.
    pub fn timekeeper(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<T> {
        self.kept.store(true, Ordering::Relaxed);
        let (keeping, sooner) = (Keeping(Arc::downgrade(self)), Arc::clone(&self.sooner));
        async move {
            while let Some(next) = keeping.0.upgrade().map(|gate| gate.refuse_late(Instant::now())) {
                match next {
                    Some(next) => drop(timeout_at(next, sooner.notified()).await),
                    None => sooner.notified().await,
                }
            }
        }
    }
}

impl<T> Admission<T> {
    /// Under the lock, so that a waiter either sees it when it comes, or is woken.
    fn keep_no_longer(&self) {
        let line = self.line.lock();
        self.kept.store(false, Ordering::Relaxed);
        let wakers: Vec<_> = line.waiters.iter().map(|waiter| waiter.waker.clone()).collect();
        drop(line);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns when to look again.
    fn refuse_late(&self, now: Instant) -> Option<Instant> {
        let mut line = self.line.lock();
        let (late, others): (VecDeque<_>, _) =
            mem::take(&mut line.waiters).into_iter().partition(|waiter| waiter.deadline <= now);
        line.waiters = others;
        line.next_look = line.waiters.iter().map(|waiter| waiter.deadline).min();
        self.settle(&line);
        let next = line.next_look;
        drop(line);
        late.into_iter().for_each(|waiter| waiter.waker.wake());
        next
    }
}

impl<T> Drop for Admission<T> {
    fn drop(&mut self) {
        self.sooner.notify_one();
    }
}

/// A timekeeper; its end is told to those who rely on it.
struct Keeping<T>(Weak<Admission<T>>);

impl<T> Drop for Keeping<T> {
    fn drop(&mut self) {
        self.0.upgrade().inspect(|gate| gate.keep_no_longer());
    }
}
