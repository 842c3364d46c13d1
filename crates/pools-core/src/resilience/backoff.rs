//! Exponential backoff with full jitter.

use std::time::Duration;

/// Pauses between attempts: the n-th is random between 0 and `min(base · 2ⁿ, cap)` ("full jitter", which AWS'
/// architecture blog measured to spread a crowd of clients best), but never under a tenth of that bound, so
/// that a loop cannot spin.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `base` and grows to `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// One more failure: how long to pause.
    pub fn fail(&mut self) -> Duration {
        let bound = self.base.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(0.1 + 0.9 * fastrand::f64())
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A success: the next pause starts at `base` again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for failures in 0..40 {
            let bound = Duration::from_millis(100 << failures.min(4)).min(Duration::from_secs(1));
            let pause = backoff.fail();
            assert!(pause <= bound && pause >= bound / 10, "{failures}: {pause:?}");
        }
        assert_eq!(backoff.failures(), 40);
        backoff.reset();
        assert!(backoff.fail() <= Duration::from_millis(100));
    }
}
