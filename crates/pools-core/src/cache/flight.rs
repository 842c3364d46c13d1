//! One load per key at a time in this process.
//!
//! ```text
//!  join ──► the gate of the key ──first──► leader: loads, leaves its outcome, opens the gate for everybody
//!                │                            └ dropped half-way: the next in the queue leads, with its own load
//!                └──later──► follower: finds the outcome
//! ```
//!
//! An outcome is for those who came while it was made: the flight leaves the map before the gate opens, so whoever
//! comes later starts a new one. **Limits**: one entry per key being loaded. **Cancel safety**: everybody may be
//! dropped at any point; the last one to go takes the entry along.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

#[derive(Default)]
struct Flight {
    gate: tokio::sync::Mutex<()>,
    outcome: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// The flights of a cache.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Arc<str>, Arc<Flight>>>);

struct Passenger<'a> {
    flights: &'a Flights,
    key: Arc<str>,
    flight: Arc<Flight>,
}

impl Drop for Passenger<'_> {
    fn drop(&mut self) {
        let mut map = self.flights.0.lock();
        // Two owners: the map and this one. Nobody can join meanwhile, that takes the same lock.
        if Arc::strong_count(&self.flight) == 2 {
            self.leave(&mut map);
        }
    }
}

impl Passenger<'_> {
    fn leave(&self, map: &mut HashMap<Arc<str>, Arc<Flight>>) {
        if map.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            map.remove(&self.key);
        }
    }
}

impl Flights {
    /// The outcome of `work`, or of whoever worked on the key already. `work` ends with `None` when it has
    /// nothing to share; then the next in the queue works.
    pub(crate) async fn join<R>(&self, key: Arc<str>, work: impl Future<Output = Option<R>>) -> Option<R>
    where
        R: Clone + Send + Sync + 'static,
    {
        let flight = Arc::clone(self.0.lock().entry(Arc::clone(&key)).or_default());
        let passenger = Passenger { flights: self, key, flight };
        let _lead = passenger.flight.gate.lock().await;
        if let Some(outcome) = passenger.flight.outcome.get()
            && let Some(outcome) = outcome.downcast_ref::<R>()
        {
            return Some(outcome.clone());
        }
        let outcome = work.await;
        if let Some(shared) = outcome.clone() {
            passenger.leave(&mut self.0.lock());
            // Set already only when an outcome of another type was there: its own kind keeps it.
            let _set = passenger.flight.outcome.set(Box::new(shared));
        }
        outcome
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_thousand_share_one_outcome_and_leave_nothing_behind() {
        let (flights, loads) = (Arc::new(Flights::default()), Arc::new(AtomicU32::new(0)));
        let callers: Vec<_> = (0..1_000)
            .map(|_| {
                let (flights, loads) = (Arc::clone(&flights), Arc::clone(&loads));
                tokio::spawn(async move {
                    let work = async {
                        tokio::task::yield_now().await;
                        Some(loads.fetch_add(1, Ordering::Relaxed))
                    };
                    flights.join("key".into(), work).await
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Some(0));
        }
        assert_eq!(flights.count(), 0);
    }

    #[tokio::test]
    async fn when_the_leader_is_dropped_the_next_leads() {
        let flights = Flights::default();
        let mut leader = Box::pin(flights.join("key".into(), std::future::pending::<Option<u8>>()));
        assert!(futures_util::poll!(&mut leader).is_pending());
        let mut next = Box::pin(flights.join("key".into(), async { Some(2) }));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(leader);
        assert_eq!(next.await, Some(2));
        assert_eq!(flights.count(), 0);
    }

    #[tokio::test]
    async fn a_lone_caller_that_is_dropped_leaves_nothing_behind() {
        let flights = Flights::default();
        let mut lone = Box::pin(flights.join("key".into(), std::future::pending::<Option<u8>>()));
        assert!(futures_util::poll!(&mut lone).is_pending());
        drop(lone);
        assert_eq!(flights.count(), 0);
    }
}
