//! How many retries the calls of a while allow: a share of them, so that retries never multiply an outage.
//!
//! The calls of the last [`WINDOW`] are counted by the second; `share` per cent of them may be repeated. A client with hardly
//! any traffic may repeat [`FLOOR`] in that time, which is no load worth saving.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// tower's default: long enough that a burst pays for its own retries, short enough that yesterday's calls do not.
const WINDOW: Duration = Duration::from_secs(10);
/// One call tried four times in all.
const FLOOR: u32 = 3;

/// Retries as a share of calls.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    share: u32,
    seconds: VecDeque<Second>,
}

#[derive(Clone, Copy, Debug)]
struct Second {
    began: Instant,
    calls: u32,
    retries: u32,
}

impl RetryBudget {
    /// Retries may be `share` per cent of the calls.
    pub fn new(share: u32) -> Self {
        Self { share, seconds: VecDeque::new() }
    }

    /// A call is sent for the first time.
    pub fn call(&mut self, now: Instant) {
        let second = self.second(now);
        second.calls = second.calls.saturating_add(1);
    }

    /// Takes a retry if there is one left.
    pub fn retry(&mut self, now: Instant) -> bool {
        self.second(now);
        let sum = |count: fn(&Second) -> u32| self.seconds.iter().map(count).fold(0, u32::saturating_add);
        let (calls, retries) = (sum(|second| second.calls), sum(|second| second.retries));
        let allowed = u64::from(calls) * u64::from(self.share) / 100;
        let floor = if self.share == 0 { 0 } else { u64::from(FLOOR) };
        let left = u64::from(retries) < allowed.max(floor);
        if left {
            self.second(now).retries += 1;
        }
        left
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        while self.seconds.front().is_some_and(|second| second.began + WINDOW <= now) {
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|second| second.began + Duration::from_secs(1) <= now) {
            self.seconds.push_back(Second { began: now, calls: 0, retries: 0 });
        }
        self.seconds.back_mut().expect("BUG: one was pushed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_calls_of_the_last_ten_seconds() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(20);
        for _ in 0..100 {
            budget.call(now);
        }
        assert_eq!((0..100).filter(|_| budget.retry(now)).count(), 20);
        let later = now + WINDOW;
        for _ in 0..50 {
            budget.call(later);
        }
        assert_eq!((0..100).filter(|_| budget.retry(later)).count(), 10, "the first hundred still counted");
    }

    #[test]
    fn a_lone_call_may_be_repeated_unless_nothing_may() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(20);
        budget.call(now);
        assert_eq!((0..9).filter(|_| budget.retry(now)).count(), 3);
        let mut none = RetryBudget::new(0);
        none.call(now);
        assert!(!none.retry(now));
    }

    #[test]
    fn it_remembers_seconds_and_not_calls() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(20);
        for milli in 0..100_000_u64 {
            budget.call(now + Duration::from_millis(milli));
        }
        assert!(budget.seconds.len() <= 11, "{}", budget.seconds.len());
    }
}
