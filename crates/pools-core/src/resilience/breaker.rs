//! A circuit breaker: after a run of failures nobody is sent for a while, then one probe decides.
//!
//! ```text
//!  closed ──`threshold` failures in a row──► open ──`pause` over──► half-open (one probe is out)
//!    ▲  ▲                                     ▲                        │ success │ failure
//!    │  └─────────────────────────────────────┼────────────────────────┘         │
//!    └ success                                └──────────────────────────────────┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// Where a [`Breaker`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everybody passes.
    Closed,
    /// Nobody passes until then.
    Open {
        /// When the next probe is let through.
        until: Instant,
    },
    /// One probe is out; the others wait for its verdict.
    HalfOpen {
        /// A probe that never reports is taken for lost then.
        until: Instant,
    },
}

/// Lets calls through, or keeps them back after a run of failures until one probe succeeds.
#[derive(Clone, Debug)]
pub struct Breaker {
    threshold: u32,
    pause: Duration,
    failures: u32,
    state: BreakerState,
    epoch: u64,
}

impl Breaker {
    /// Opens after `threshold` failures in a row, for `pause`.
    pub fn new(threshold: u32, pause: Duration) -> Self {
        Self { threshold, pause, failures: 0, state: BreakerState::Closed, epoch: 0 }
    }

    /// Whether a call may be sent now. `Err` holds the time to wait. When it passes half-open, the caller is
    /// the probe and must report.
    ///
    /// # Errors
    /// How long the breaker stays open.
    pub fn pass(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            BreakerState::Closed => Ok(()),
            BreakerState::Open { until } | BreakerState::HalfOpen { until } if now < until => {
                Err(until - now)
            }
            _ => {
                self.enter(BreakerState::HalfOpen { until: now + self.pause });
                Ok(())
            }
        }
    }

    /// A call succeeded. Returns whether that closed the breaker.
    pub fn succeed(&mut self) -> bool {
        self.failures = 0;
        let news = self.state != BreakerState::Closed;
        if news {
            self.enter(BreakerState::Closed);
        }
        news
    }

    /// A call failed. Returns whether that opened the breaker.
    pub fn fail(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let was_closed = self.state == BreakerState::Closed;
        if was_closed && self.failures < self.threshold {
            return false;
        }
        self.enter(BreakerState::Open { until: now + self.pause });
        was_closed
    }

    /// A call learnt nothing about the other side. If it was the probe, the next caller is.
    pub fn abstain(&mut self, now: Instant) {
        if matches!(self.state, BreakerState::HalfOpen { .. }) {
            self.enter(BreakerState::Open { until: now });
        }
    }

    /// Changes with the state. A call that passed in another epoch says nothing about this one: one sent before the
    /// breaker opened must neither close it nor speak for the probe.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn enter(&mut self, state: BreakerState) {
        self.epoch += 1;
        self.state = state;
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_the_threshold_lets_one_probe_pass_and_closes_on_its_success() {
        let now = Instant::now();
        let pause = Duration::from_secs(5);
        let mut breaker = Breaker::new(2, pause);
        assert!(!breaker.fail(now));
        assert!(breaker.fail(now));
        assert_eq!(breaker.pass(now), Err(pause));

        assert_eq!(breaker.pass(now + pause), Ok(()));
        assert_eq!(breaker.pass(now + pause), Err(pause), "a second probe was let through");
        assert!(!breaker.fail(now + pause), "opening again is no news");
        assert_eq!(breaker.pass(now + pause), Err(pause));

        assert_eq!(breaker.pass(now + 2 * pause), Ok(()));
        assert!(breaker.succeed());
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
