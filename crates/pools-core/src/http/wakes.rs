//! What wakes the task of a connection, and what need not.
//!
//! A wake costs a poll of everything that hyper keeps of a connection. Two kinds change nothing:
//!
//! * Who takes a piece of a body wakes the connection to send the next, after the last piece too. [`Task::hush`] keeps
//!   the wakes of one call back, and says whether there were any.
//! * Each poll tries to read two or three times, and each try asks tokio's driver. [`Readiness`] remembers that there was nothing
//!   to read until the driver says that there is.
//!
//! **Owners.** The connection's task owns the socket with its [`Readiness`], and the [`Driven`] connection; both pass on to
//! whoever polled last. Users of the connection share the [`Task`]. **Cancel, panic**: what is hushed ends with the call, panics included.

use std::{
    cell::Cell,
    pin::Pin,
    ptr,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Relaxed, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;

thread_local! {
    /// Whose wakes this thread keeps back (compared, never followed), and whether there were any.
    static HUSHED: Cell<(*const Task, bool)> = const { Cell::new((ptr::null(), false)) };
}

/// Whoever polled last.
#[derive(Debug)]
struct Latest(Mutex<Waker>);

impl Default for Latest {
    fn default() -> Self {
        Self(Mutex::new(Waker::noop().clone()))
    }
}

impl Latest {
    /// `known` is what the caller passed last, so that most polls take no lock.
    fn is(&self, waker: &Waker, known: &mut Waker) {
        if !known.will_wake(waker) {
            known.clone_from(waker);
            // Dropped without the lock: it may be the last that keeps a task.
            drop(std::mem::replace(&mut *self.0.lock(), waker.clone()));
        }
    }

    fn wake(&self) {
        let waker = self.0.lock().clone();
        waker.wake();
    }
}

/// The task that drives a connection, as its users see it.
#[derive(Debug, Default)]
pub(super) struct Task(Latest);

impl Task {
    /// Polls the connection again.
    pub(super) fn poll_again(&self) {
        self.0.wake();
    }

    /// Keeps back what `call` wakes the task by, on this thread; what comes from elsewhere meanwhile gets through. Returns
    /// whether something was kept back.
    pub(super) fn hush<T>(&self, call: impl FnOnce() -> T) -> (T, bool) {
        let hush = Hush { before: HUSHED.replace((ptr::from_ref(self), false)) };
        let result = call();
        let (_, kept_back) = HUSHED.get();
        drop(hush);
        (result, kept_back)
    }
}

/// Ends with the call.
struct Hush {
    before: (*const Task, bool),
}

impl Drop for Hush {
    fn drop(&mut self) {
        HUSHED.set(self.before);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let ours = Arc::as_ptr(self);
        match HUSHED.get() {
            (hushed, _) if ptr::eq(hushed, ours) => HUSHED.set((ours, true)),
            _ => self.0.wake(),
        }
    }
}

/// A connection whose wakes go through its [`Task`].
#[derive(Debug)]
pub(super) struct Driven<F> {
    connection: F,
    task: Arc<Task>,
    waker: Waker,
    polled_by: Waker,
}

impl<F> Driven<F> {
    pub(super) fn new(connection: F, task: Arc<Task>) -> Self {
        let waker = Waker::from(Arc::clone(&task));
        Self { connection, task, waker, polled_by: Waker::noop().clone() }
    }
}

impl<F: Future + Unpin> Future for Driven<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        this.task.0.is(cx.waker(), &mut this.polled_by);
        Pin::new(&mut this.connection).poll(&mut Context::from_waker(&this.waker))
    }
}

/// Whether a socket may have something to read.
#[derive(Debug)]
pub(super) struct Readiness {
    shared: Arc<Ready>,
    waker: Waker,
    polled_by: Waker,
}

#[derive(Debug)]
struct Ready {
    maybe: AtomicBool,
    task: Latest,
}

impl Readiness {
    /// It may.
    pub(super) fn new() -> Self {
        let shared = Arc::new(Ready { maybe: AtomicBool::new(true), task: Latest::default() });
        let waker = Waker::from(Arc::clone(&shared));
        Self { shared, waker, polled_by: Waker::noop().clone() }
    }

    /// Tries to read, unless there was nothing and nobody has woken since. `read` must leave its context's waker behind when it is pending.
    pub(super) fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.shared.task.is(cx.waker(), &mut self.polled_by);
        // Before the try, so that a wake in the middle of it is not lost.
        if !self.shared.maybe.load(Relaxed) || !self.shared.maybe.swap(false, AcqRel) {
            return Poll::Pending;
        }
        let result = read(&mut Context::from_waker(&self.waker));
        if result.is_ready() {
            self.shared.maybe.store(true, Relaxed);
        }
        result
    }
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.maybe.store(true, Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn counted() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    /// A task, and the waker that its connection has left with somebody.
    fn driven(by: &Waker) -> (Arc<Task>, Waker) {
        let task = Arc::new(Task::default());
        let mut left = None;
        let connection = Box::pin(poll_fn(|cx| {
            left = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        let mut driven = Driven::new(connection, Arc::clone(&task));
        assert!(Pin::new(&mut driven).poll(&mut Context::from_waker(by)).is_pending());
        drop(driven);
        (task, left.unwrap())
    }

    #[test]
    fn wakes_of_one_call_are_kept_back_and_no_others() {
        let ((wakes, waker), (others, other)) = (counted(), counted());
        let ((task, left), (_, of_another)) = (driven(&waker), driven(&other));

        let ((), kept_back) = task.hush(|| {
            left.wake_by_ref();
            of_another.wake_by_ref();
            std::thread::scope(|scope| drop(scope.spawn(|| left.wake_by_ref())));
        });

        assert!(kept_back);
        assert_eq!((wakes.0.load(SeqCst), others.0.load(SeqCst)), (1, 1));
        assert_eq!(task.hush(|| of_another.wake_by_ref()), ((), false));
        left.wake_by_ref();
        assert_eq!(wakes.0.load(SeqCst), 2);
        task.poll_again();
        assert_eq!(wakes.0.load(SeqCst), 3);
    }

    #[test]
    fn a_panic_ends_the_hush() {
        let (wakes, waker) = counted();
        let (task, left) = driven(&waker);
        let call = std::panic::AssertUnwindSafe(|| task.hush(|| panic!("on purpose")));
        assert!(std::panic::catch_unwind(call).is_err());
        left.wake();
        assert_eq!(wakes.0.load(SeqCst), 1);
    }

    #[test]
    fn reading_is_tried_again_when_something_came_and_whoever_polled_last_is_woken() {
        let ((first, waker), (second, other)) = (counted(), counted());
        let mut readiness = Readiness::new();
        let mut driver = None;
        let mut tries = 0;
        let mut nothing = |readiness: &mut Readiness, by: &Waker| {
            let result = readiness.poll(&Context::from_waker(by), |cx| {
                tries += 1;
                driver = Some(cx.waker().clone());
                Poll::<()>::Pending
            });
            assert!(result.is_pending());
            (tries, driver.clone().unwrap())
        };
        assert_eq!(nothing(&mut readiness, &waker).0, 1);
        assert_eq!(nothing(&mut readiness, &waker).0, 1);
        let (tries, driver) = nothing(&mut readiness, &other);
        assert_eq!(tries, 1);

        driver.wake();
        assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (0, 1));
        assert_eq!(nothing(&mut readiness, &other).0, 2);
        assert_eq!(nothing(&mut readiness, &other).0, 2);
    }

    #[test]
    fn what_was_ready_may_have_more_and_a_wake_in_the_middle_counts() {
        let (_, waker) = counted();
        let cx = Context::from_waker(&waker);
        let mut readiness = Readiness::new();
        assert!(readiness.poll(&cx, |_| Poll::Ready(())).is_ready());
        let woken_meanwhile = readiness.poll(&cx, |cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(woken_meanwhile.is_pending());
        assert!(readiness.poll(&cx, |_| Poll::Ready(())).is_ready());
    }
}
