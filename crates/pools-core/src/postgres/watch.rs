//! Notices that a server does not answer, with one timer per connection instead of one per statement.
//!
//! ```text
//!  statement: begin ─► waits for its answer, or for the alarm ─► end
//!  connection's task: something is under way ─► timer ─► answered meanwhile? ─ yes ─► timer for what is under way now
//!                                                          └ no ─► alarm: everybody who waits is told
//! ```
//!
//! The server does one statement after the other, so each end gives the next one its time from then on.
//!
//! **Cancel safety**: a statement that is dropped ends. After an alarm the connection lives on, for whoever cleans it.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use slab::Slab;
use tokio::time::{Instant, Sleep};

/// By when a connection must have answered.
#[derive(Debug, Default)]
pub(super) struct Watch {
    due: Mutex<Due>,
    /// The timer has to be set to an earlier time.
    sooner: AtomicBool,
}

#[derive(Debug, Default)]
struct Due {
    /// Who waits for a statement under way.
    waiting: Slab<Waiter>,
    /// The longest of theirs.
    patience: Duration,
    /// `None` while nothing is under way, and after the alarm.
    latest: Option<Instant>,
    /// When the timer fires next. Longer than `latest` after a statement that was waited for patiently.
    armed: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    waker: Waker,
    /// The server did not answer.
    alarmed: bool,
}

/// A statement under way, from its first poll on.
#[derive(Debug)]
struct UnderWay<'a> {
    watch: &'a Watch,
    key: Option<usize>,
}

impl UnderWay<'_> {
    fn begin(&mut self, waker: &Waker, started: Instant, patience: Duration) {
        let mut due = self.watch.due.lock();
        self.key = Some(due.waiting.insert(Waiter { waker: waker.clone(), alarmed: false }));
        due.patience = due.patience.max(patience);
        let latest = *due.latest.get_or_insert(started + patience);
        if due.armed.is_some_and(|armed| latest < armed) {
            self.watch.sooner.store(true, Ordering::Release);
        }
    }

    /// Whether there was an alarm; if not, `waker` is told of the next one.
    fn is_alarmed(&self, key: usize, waker: &Waker) -> bool {
        let mut due = self.watch.due.lock();
        let waiter = &mut due.waiting[key];
        let alarmed = waiter.alarmed;
        let same = alarmed || waiter.waker.will_wake(waker);
        let before = if same { None } else { Some(mem::replace(&mut waiter.waker, waker.clone())) };
        // Not under the lock: it may be the last that keeps a task.
        drop(due);
        drop(before);
        alarmed
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut due = self.watch.due.lock();
        let waiter = due.waiting.remove(key);
        if due.waiting.is_empty() {
            (due.patience, due.latest) = (Duration::ZERO, None);
        } else {
            due.latest = Some(Instant::now() + due.patience);
        }
        drop(due);
        drop(waiter);
    }
}

impl Watch {
    /// Runs a statement that began at `started`; `None` when the server did not answer for `patience`.
    pub(super) async fn patiently<T>(
        &self,
        started: Instant,
        patience: Duration,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut under_way = UnderWay { watch: self, key: None };
        poll_fn(|cx| {
            let known = under_way.key;
            if known.is_none() {
                // Before it is sent, so that the connection's task sees it when it looks.
                under_way.begin(cx.waker(), started, patience);
            }
            match work.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if known.is_some_and(|key| under_way.is_alarmed(key, cx.waker())) => {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// The part of the connection's task, to be called whenever that waits.
    pub(super) fn look(&self, timer: &mut Timer, cx: &mut Context<'_>) {
        if timer.armed && !timer.sleep.is_elapsed() && !self.sooner.load(Ordering::Acquire) {
            return;
        }
        let mut due = self.due.lock();
        self.sooner.store(false, Ordering::Relaxed);
        (timer.armed, due.armed) = (false, None);
        let Some(latest) = due.latest else { return };
        if latest <= Instant::now() {
            let alarmed = due.alarm();
            drop(due);
            alarmed.into_iter().for_each(Waker::wake);
            return;
        }
        due.armed = Some(latest);
        drop(due);
        timer.sleep.as_mut().reset(latest);
        timer.armed = timer.sleep.as_mut().poll(cx).is_pending();
        if !timer.armed {
            // It was due in this very moment.
            cx.waker().wake_by_ref();
        }
    }
}

impl Due {
    /// Who has to be told.
    fn alarm(&mut self) -> Vec<Waker> {
        self.latest = None;
        let tell = |(_, waiter): (usize, &mut Waiter)| {
            waiter.alarmed = true;
            waiter.waker.clone()
        };
        self.waiting.iter_mut().map(tell).collect()
    }
}

/// The timer of a connection's task.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: bool,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed: false }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin, sync::Arc};

    use futures_util::task::AtomicWaker;
    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A watch with a task that looks whenever it is woken, as a connection's does.
    fn watched() -> Arc<Watch> {
        watched_and_woken().0
    }

    /// The same, and what wakes it besides, as sending a statement does.
    fn watched_and_woken() -> (Arc<Watch>, Arc<AtomicWaker>) {
        let woken = Arc::new(AtomicWaker::new());
        let waker = Arc::clone(&woken);
        let watch = Arc::new(Watch::default());
        let seen = Arc::clone(&watch);
        let mut timer = Timer::new();
        tokio::spawn(poll_fn(move |cx| {
            waker.register(cx.waker());
            // By what arrives, in a real connection; here every second.
            if timer.armed || seen.due.lock().latest.is_none() {
                let waker = cx.waker().clone();
                tokio::spawn(async move {
                    sleep(Duration::from_secs(1)).await;
                    waker.wake();
                });
            }
            seen.look(&mut timer, cx);
            Poll::<()>::Pending
        }));
        (watch, woken)
    }

    async fn ask(watch: &Watch, work: impl Future<Output = u32>) -> (Option<u32>, Duration) {
        let started = Instant::now();
        let answer = watch.patiently(started, PATIENCE, pin!(work)).await;
        (answer, started.elapsed())
    }

    async fn after(seconds: u64) -> u32 {
        sleep(Duration::from_secs(seconds)).await;
        7
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_had_and_none_is_an_alarm_again_and_again() {
        let watch = watched();
        for _ in 0..3 {
            assert_eq!(ask(&watch, after(9)).await, (Some(7), Duration::from_secs(9)));
            let (answer, waited) = ask(&watch, pending()).await;
            assert_eq!(answer, None);
            assert!(waited >= PATIENCE && waited <= PATIENCE + Duration::from_secs(1), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_gives_those_behind_it_their_time() {
        let watch = watched();
        let all = tokio::join!(ask(&watch, after(8)), ask(&watch, after(16)), ask(&watch, pending()));
        assert_eq!((all.0.0, all.1.0, all.2.0), (Some(7), Some(7), None));
        let waited = all.2.1;
        assert!(waited >= Duration::from_secs(26) && waited <= Duration::from_secs(27), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_one_that_was_waited_for_patiently_the_next_has_no_more_than_its_own_time() {
        let (watch, woken) = watched_and_woken();
        let patience = Duration::from_secs(3_600);
        let answer = watch.patiently(Instant::now(), patience, pin!(after(3))).await;
        assert_eq!(answer, Some(7));
        let sent = async {
            woken.wake();
            pending().await
        };
        let (answer, waited) = ask(&watch, sent).await;
        assert_eq!(answer, None);
        assert!(waited <= PATIENCE + Duration::from_secs(1), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_is_dropped_is_waited_for_no_longer() {
        let watch = watched();
        let dropped = tokio::time::timeout(Duration::from_secs(5), ask(&watch, pending()));
        assert!(dropped.await.is_err());
        assert!(watch.due.lock().latest.is_none());
        sleep(Duration::from_secs(4)).await;
        assert_eq!(ask(&watch, after(9)).await.0, Some(7));
    }
}
