//! What wakes the task of a connection, and what need not.
//!
//! A wake costs a poll of everything that hyper keeps of a connection. Two kinds change nothing:
//!
//! * Who takes a piece of a body wakes the connection to send the next, after the last piece too. [`DriverHandle::hush`] keeps
//!   the wakes of one call back, and says whether there were any.
//! * Each poll tries to read two or three times, and each try asks tokio's I/O driver. [`Readiness`] remembers that there was nothing
//!   to read until that says that there is.
//!
//! **Owners.** One task drives a connection all its life, so the waker of its first poll wakes it at any time. It owns the
//! [`Driven`] connection and in it the socket with its [`Readiness`]; users of the connection share the [`DriverHandle`].
//! **Cancel, panic**: what is hushed ends with the call, panics included. A wake of a task that has ended does nothing.
//!
//! **Not here**: HTTP/2, whose socket is polled by several futures, each of which must be woken by its own waker.

use std::{
    cell::Cell,
    pin::Pin,
    ptr,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Relaxed, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

thread_local! {
    /// Whose wakes this thread keeps back (compared, never followed), and whether there were any.
    static HUSHED: Cell<(*const DriverHandle, bool)> = const { Cell::new((ptr::null(), false)) };
}

/// The task that drives a connection, as its users see it.
#[derive(Debug, Default)]
pub(super) struct DriverHandle(OnceLock<Waker>);

impl DriverHandle {
    /// Polls the connection again. Before its first poll there is nothing to do.
    pub(super) fn poll_again(&self) {
        if let Some(waker) = self.0.get() {
            waker.wake_by_ref();
        }
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
    before: (*const DriverHandle, bool),
}

impl Drop for Hush {
    fn drop(&mut self) {
        HUSHED.set(self.before);
    }
}

impl Wake for DriverHandle {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let ours = Arc::as_ptr(self);
        match HUSHED.get() {
            (hushed, _) if ptr::eq(hushed, ours) => HUSHED.set((ours, true)),
            _ => self.poll_again(),
        }
    }
}

/// A connection whose wakes go through its [`DriverHandle`].
#[derive(Debug)]
pub(super) struct Driven<F> {
    connection: F,
    driver: Arc<DriverHandle>,
    waker: Waker,
}

impl<F> Driven<F> {
    pub(super) fn new(connection: F, driver: Arc<DriverHandle>) -> Self {
        Self { connection, waker: Waker::from(Arc::clone(&driver)), driver }
    }
}

impl<F: Future + Unpin> Future for Driven<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let known = this.driver.0.get_or_init(|| cx.waker().clone());
        debug_assert!(known.will_wake(cx.waker()), "BUG: driven by another task than before");
        Pin::new(&mut this.connection).poll(&mut Context::from_waker(&this.waker))
    }
}

/// Whether the socket of a connection may have something to read.
#[derive(Debug)]
pub(super) struct Readiness {
    came: Arc<Came>,
    waker: Waker,
}

/// Something has come that was not read yet, or may have.
#[derive(Debug)]
struct Came {
    maybe: AtomicBool,
    driver: Arc<DriverHandle>,
}

impl Readiness {
    /// It may.
    pub(super) fn new(driver: Arc<DriverHandle>) -> Self {
        let came = Arc::new(Came { maybe: AtomicBool::new(true), driver });
        Self { waker: Waker::from(Arc::clone(&came)), came }
    }

    /// Tries to read, unless there was nothing and nobody has woken since. Pending, `read` must leave the waker of its context behind.
    pub(super) fn poll<T>(&mut self, read: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        // Before the try, so that a wake in the middle of it is not lost.
        if !self.came.maybe.load(Relaxed) || !self.came.maybe.swap(false, AcqRel) {
            return Poll::Pending;
        }
        let result = read(&mut Context::from_waker(&self.waker));
        if result.is_ready() {
            self.came.maybe.store(true, Relaxed);
        }
        result
    }
}

impl Wake for Came {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.maybe.store(true, Release);
        self.driver.poll_again();
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

    /// A driver, and the waker that its connection has left with somebody.
    fn driven(by: &Waker) -> (Arc<DriverHandle>, Waker) {
        let driver = Arc::new(DriverHandle::default());
        let mut left = None;
        let connection = Box::pin(poll_fn(|cx| {
            left = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        let mut driven = Driven::new(connection, Arc::clone(&driver));
        assert!(Pin::new(&mut driven).poll(&mut Context::from_waker(by)).is_pending());
        drop(driven);
        (driver, left.unwrap())
    }

    #[test]
    fn wakes_of_one_call_are_kept_back_and_no_others() {
        let ((wakes, waker), (others, other)) = (counted(), counted());
        let ((driver, left), (_, of_another)) = (driven(&waker), driven(&other));

        let ((), kept_back) = driver.hush(|| {
            left.wake_by_ref();
            of_another.wake_by_ref();
            std::thread::scope(|scope| drop(scope.spawn(|| left.wake_by_ref())));
        });

        assert!(kept_back);
        assert_eq!((wakes.0.load(SeqCst), others.0.load(SeqCst)), (1, 1));
        assert_eq!(driver.hush(|| of_another.wake_by_ref()), ((), false));
        left.wake_by_ref();
        assert_eq!(wakes.0.load(SeqCst), 2);
        driver.poll_again();
        assert_eq!(wakes.0.load(SeqCst), 3);
    }

    #[test]
    fn a_panic_ends_the_hush() {
        let (wakes, waker) = counted();
        let (driver, left) = driven(&waker);
        let call = std::panic::AssertUnwindSafe(|| driver.hush(|| panic!("on purpose")));
        assert!(std::panic::catch_unwind(call).is_err());
        left.wake();
        assert_eq!(wakes.0.load(SeqCst), 1);
    }

    #[test]
    fn reading_is_tried_again_when_something_came() {
        let (wakes, waker) = counted();
        let (driver, _) = driven(&waker);
        let mut readiness = Readiness::new(driver);
        let mut left = None;
        let mut tries = 0;
        let mut nothing = || {
            let result = readiness.poll(|cx| {
                tries += 1;
                left = Some(cx.waker().clone());
                Poll::<()>::Pending
            });
            assert!(result.is_pending());
            (tries, left.clone().unwrap())
        };
        assert_eq!(nothing().0, 1);
        let (tries, left) = nothing();
        assert_eq!(tries, 1);

        left.wake();
        assert_eq!(wakes.0.load(SeqCst), 1);
        assert_eq!(nothing().0, 2);
        assert_eq!(nothing().0, 2);
    }

    #[test]
    fn what_was_ready_may_have_more_and_a_wake_in_the_middle_counts() {
        let mut readiness = Readiness::new(Arc::default());
        assert!(readiness.poll(|_| Poll::Ready(())).is_ready());
        let woken_meanwhile = readiness.poll(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(woken_meanwhile.is_pending());
        assert!(readiness.poll(|_| Poll::Ready(())).is_ready());
    }
}
