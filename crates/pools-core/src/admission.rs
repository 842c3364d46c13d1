//! Fair, bounded entry with a deadline: at most `limit` inside, at most `queue` waiting, in order of arrival.
//!
//! ```text
//!              queue full ──► Refused::QueueFull
//!             ▲
//!  enter ─────┼─ a place is free and nobody waits ──► Permit ──drop──► the next waiter
//!             │                                          ▲
//!             └─► waiting (in order) ──a place is freed──┘
//!                    │ deadline ──► Refused::TimedOut
//!                    │ close()  ──► Refused::Closed
//!                    └ dropped: leaves the queue, the others keep their order
//! ```
//!
//! **Fairness**: tokio's semaphore gives a freed place to the head of its queue, so a newcomer cannot overtake.
//! **Cancel safety**: [`Admission::enter`] may be dropped at any point; its place in the queue, or the permit it
//! was just given, goes to the next waiter. **Resizing**: places taken away while they are in use are a debt that
//! is paid as they come back; waiters keep their order. **Not here**: what a place stands for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, TryAcquireError},
    time::Instant,
};

/// Why [`Admission::enter`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The queue is full: shed load, or allow a longer queue.
    #[error("{waiting} callers wait already, the queue holds no more")]
    QueueFull {
        /// Callers in the queue.
        waiting: u32,
    },
    /// Nobody left in time.
    #[error("no place became free within {waited:?}")]
    TimedOut {
        /// How long the caller waited.
        waited: Duration,
    },
    /// [`Admission::close`] was called.
    #[error("closed")]
    Closed,
}

/// The gate.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Places>,
    limit: Mutex<u32>,
    queue: u32,
    waiting: AtomicU32,
}

/// A place inside; dropping it gives the place to the next waiter.
#[derive(Debug)]
#[must_use = "dropping the permit gives the place away at once"]
pub struct Permit {
    places: Arc<Places>,
}

#[derive(Debug)]
struct Places {
    free: Semaphore,
    /// Places that exist no more but are still in use.
    debt: AtomicU32,
}

impl Places {
    /// Takes free places out of existence until nothing is owed or nothing is free.
    fn settle(&self) {
        // The place first: a debt that is paid for a moment would let somebody's place go free unseen.
        while self.debt.load(Ordering::SeqCst) > 0 && self.free.forget_permits(1) > 0 {
            if !self.pay_one() {
                self.free.add_permits(1);
            }
        }
    }

    fn pay_one(&self) -> bool {
        let owed = |debt: u32| debt.checked_sub(1);
        self.debt.fetch_update(Ordering::SeqCst, Ordering::SeqCst, owed).is_ok()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.places.pay_one() {
            return;
        }
        self.places.free.add_permits(1);
        // A debt made between the two lines above found this place neither free nor to be had from us.
        if self.places.debt.load(Ordering::SeqCst) > 0 {
            self.places.settle();
        }
    }
}

impl Admission {
    /// A gate with `limit` places and room for `queue` waiters.
    pub fn new(limit: u32, queue: u32) -> Self {
        let places = Places { free: Semaphore::new(limit as usize), debt: AtomicU32::new(0) };
        Self { places: Arc::new(places), limit: Mutex::new(limit), queue, waiting: AtomicU32::new(0) }
    }

    /// Enters, or waits until `deadline`. A deadline that has passed tries once.
    ///
    /// # Errors
    /// [`Refused`], at once for `QueueFull` and `Closed`.
    ///
    /// # Cancel safety
    /// Dropped while waiting, the caller leaves the queue and nothing is lost.
    pub async fn enter(&self, deadline: Instant) -> Result<Permit, Refused> {
        if let Some(permit) = self.try_enter()? {
            return Ok(permit);
        }
        let started = Instant::now();
        let _queued = self.queue()?;
        match tokio::time::timeout_at(deadline, self.places.free.acquire()).await {
            Ok(Ok(place)) => {
                place.forget();
                Ok(Permit { places: Arc::clone(&self.places) })
            }
            Ok(Err(_)) => Err(Refused::Closed),
            Err(_) => Err(Refused::TimedOut { waited: started.elapsed() }),
        }
    }

    /// Enters if a place is free and nobody waits for it.
    ///
    /// # Errors
    /// [`Refused::Closed`].
    pub fn try_enter(&self) -> Result<Option<Permit>, Refused> {
        match self.places.free.try_acquire() {
            Ok(place) => {
                place.forget();
                Ok(Some(Permit { places: Arc::clone(&self.places) }))
            }
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(Refused::Closed),
        }
    }

    /// Changes how many places exist. New ones go to the waiters in order; of those in use that exist no more,
    /// each ends when it is left.
    pub fn resize(&self, limit: u32) {
        let mut current = self.limit.lock();
        if limit < *current {
            self.places.debt.fetch_add(*current - limit, Ordering::SeqCst);
            self.places.settle();
        } else {
            for _ in *current..limit {
                if !self.places.pay_one() {
                    self.places.free.add_permits(1);
                }
            }
        }
        *current = limit;
    }

    /// Refuses everybody from now on, those waiting included. Permits that are out stay valid.
    pub fn close(&self) {
        self.places.free.close();
    }

    /// Places that exist.
    pub fn limit(&self) -> u32 {
        *self.limit.lock()
    }

    /// Places taken, among them those that exist no more.
    pub fn inside(&self) -> u32 {
        let limit = self.limit.lock();
        let free = u32::try_from(self.places.free.available_permits()).unwrap_or(u32::MAX);
        (*limit + self.places.debt.load(Ordering::SeqCst)).saturating_sub(free)
    }

    /// Callers in the queue.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn queue(&self) -> Result<Queued<'_>, Refused> {
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < self.queue).then_some(waiting + 1)
        });
        entered.map(|_| Queued(&self.waiting)).map_err(|waiting| Refused::QueueFull { waiting })
    }
}

struct Queued<'a>(&'a AtomicU32);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_enter_in_order_and_a_newcomer_does_not_overtake() {
        let gate = Arc::new(Admission::new(1, 10));
        let inside = gate.enter(soon()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..5)
            .map(|number| {
                let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
                tokio::spawn(async move {
                    let _permit = gate.enter(soon()).await.unwrap();
                    order.lock().unwrap().push(number);
                })
            })
            .collect();
        testkit::until(Duration::from_secs(1), || gate.waiting() == 5).await;
        drop(inside);
        assert!(gate.try_enter().unwrap().is_none(), "a newcomer overtook");
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!((gate.inside(), gate.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_the_deadline_holds() {
        let gate = Admission::new(1, 1);
        let _inside = gate.enter(soon()).await.unwrap();
        let (timed_out, queue_full) = tokio::join!(gate.enter(soon()), gate.enter(soon()));
        assert_eq!(timed_out.unwrap_err(), Refused::TimedOut { waited: Duration::from_secs(1) });
        assert_eq!(queue_full.unwrap_err(), Refused::QueueFull { waiting: 1 });
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_waiter_costs_the_next_nothing() {
        let gate = Admission::new(1, 10);
        let inside = gate.enter(soon()).await.unwrap();
        {
            let mut cancelled = Box::pin(gate.enter(soon()));
            assert!(futures_util::poll!(&mut cancelled).is_pending());
            assert_eq!(gate.waiting(), 1);
        }
        assert_eq!(gate.waiting(), 0);
        drop(inside);
        assert!(gate.try_enter().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn places_taken_away_while_in_use_are_owed_and_given_back_ones_pay() {
        let gate = Admission::new(3, 10);
        let mut inside = Vec::new();
        for _ in 0..3 {
            inside.push(gate.enter(soon()).await.unwrap());
        }
        gate.resize(1);
        assert_eq!((gate.limit(), gate.inside()), (1, 3));
        inside.pop();
        inside.pop();
        assert!(gate.try_enter().unwrap().is_none(), "a place that exists no more was given out");
        inside.pop();
        inside.push(gate.try_enter().unwrap().expect("one place is left"));
        gate.resize(0);
        gate.resize(2);
        inside.push(gate.try_enter().unwrap().expect("the debt was forgiven, and one place added"));
        assert!(gate.try_enter().unwrap().is_none());
        inside.clear();
        assert_eq!((gate.limit(), gate.inside()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_place_goes_to_whoever_has_waited_longest() {
        let gate = Admission::new(0, 10);
        let mut first = Box::pin(gate.enter(soon()));
        assert!(futures_util::poll!(&mut first).is_pending());
        gate.resize(1);
        assert!(gate.try_enter().unwrap().is_none(), "a newcomer overtook");
        drop(first.await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn however_it_is_resized_under_load_every_place_is_there_in_the_end() {
        let gate = Arc::new(Admission::new(4, 1_000));
        let users: Vec<_> = (0..32)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move {
                    for _ in 0..200 {
                        let permit = gate.enter(Instant::now() + Duration::from_secs(30)).await.unwrap();
                        tokio::task::yield_now().await;
                        drop(permit);
                    }
                })
            })
            .collect();
        for round in 0..500_u32 {
            gate.resize(round % 7);
            tokio::task::yield_now().await;
        }
        gate.resize(5);
        for user in users {
            user.await.expect("a waiter was lost");
        }
        let all: Vec<_> = std::iter::from_fn(|| gate.try_enter().unwrap()).collect();
        assert_eq!((all.len(), gate.inside()), (5, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_refuses_waiters_and_newcomers() {
        let gate = Admission::new(1, 10);
        let _inside = gate.enter(soon()).await.unwrap();
        let waiting = gate.enter(soon());
        let (refused, ()) = tokio::join!(waiting, async { gate.close() });
        assert_eq!(refused.unwrap_err(), Refused::Closed);
        assert_eq!(gate.enter(soon()).await.unwrap_err(), Refused::Closed);
    }
}
