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
//! was just given, goes to the next waiter. **Not here**: what a place stands for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
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
    places: Arc<Semaphore>,
    limit: u32,
    queue: u32,
    waiting: AtomicU32,
}

/// A place inside; dropping it gives the place to the next waiter.
#[derive(Debug)]
#[must_use = "dropping the permit gives the place away at once"]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

impl Admission {
    /// A gate with `limit` places and room for `queue` waiters.
    pub fn new(limit: u32, queue: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(limit as usize)), limit, queue, waiting: AtomicU32::new(0) }
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
        match tokio::time::timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(Permit { _place: place }),
            Ok(Err(_)) => Err(Refused::Closed),
            Err(_) => Err(Refused::TimedOut { waited: started.elapsed() }),
        }
    }

    /// Enters if a place is free and nobody waits for it.
    ///
    /// # Errors
    /// [`Refused::Closed`].
    pub fn try_enter(&self) -> Result<Option<Permit>, Refused> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(Some(Permit { _place: place })),
            Err(tokio::sync::TryAcquireError::NoPermits) => Ok(None),
            Err(tokio::sync::TryAcquireError::Closed) => Err(Refused::Closed),
        }
    }

    /// Refuses everybody from now on, those waiting included. Permits that are out stay valid.
    pub fn close(&self) {
        self.places.close();
    }

    /// Places that exist.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Places taken.
    pub fn inside(&self) -> u32 {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        self.limit.saturating_sub(free)
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
    async fn closing_refuses_waiters_and_newcomers() {
        let gate = Admission::new(1, 10);
        let _inside = gate.enter(soon()).await.unwrap();
        let waiting = gate.enter(soon());
        let (refused, ()) = tokio::join!(waiting, async { gate.close() });
        assert_eq!(refused.unwrap_err(), Refused::Closed);
        assert_eq!(gate.enter(soon()).await.unwrap_err(), Refused::Closed);
    }
}
