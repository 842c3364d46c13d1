//! Requests of an address within a fixed time, counted from its first one.
//!
//! Memory is bounded: at most so many addresses are remembered, and one more pushes out the oldest, which is the one whose time is
//! over next. An attacker with that many addresses is no longer limited by address; others never are by its doing.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::time::Instant;

/// How many requests an address may make in how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So many requests; at least 1.
    pub requests: u32,
    /// Within this time, from the first of them.
    pub window: Duration,
}

/// Where an address stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) allowance: Allowance,
    pub(super) remaining: u32,
    /// When the count begins again.
    pub(super) reset: Duration,
    /// The request was one too many.
    pub(super) over: bool,
}

/// The counts of one group of routes.
#[derive(Debug)]
pub(super) struct Windows {
    allowance: Allowance,
    capacity: usize,
    counts: HashMap<IpAddr, Window>,
    /// Oldest first: all windows are equally long.
    order: VecDeque<(IpAddr, Instant)>,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    requests: u32,
}

impl Windows {
    pub(super) fn new(allowance: Allowance, capacity: usize) -> Self {
        Self { allowance, capacity, counts: HashMap::new(), order: VecDeque::new() }
    }

    /// Counts a request.
    pub(super) fn hit(&mut self, client: IpAddr, now: Instant) -> Standing {
        let client = network(client);
        while self.order.front().is_some_and(|(_, ends)| *ends <= now) {
            self.forget_oldest();
        }
        if !self.counts.contains_key(&client) {
            if self.counts.len() >= self.capacity {
                self.forget_oldest();
            }
            self.order.push_back((client, now + self.allowance.window));
        }
        let fresh = Window { ends: now + self.allowance.window, requests: 0 };
        let window = self.counts.entry(client).or_insert(fresh);
        window.requests = window.requests.saturating_add(1);
        Standing {
            allowance: self.allowance,
            remaining: self.allowance.requests.saturating_sub(window.requests),
            reset: window.ends.saturating_duration_since(now),
            over: window.requests > self.allowance.requests,
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((client, _)) = self.order.pop_front() {
            self.counts.remove(&client);
        }
    }
}

/// Whoever has an IPv6 address has at least 2⁶⁴ of them.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn windows(capacity: usize) -> Windows {
        Windows::new(Allowance { requests: 2, window: MINUTE }, capacity)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_request_after_the_last_is_one_too_many_until_the_window_ends() {
        let now = Instant::now();
        let (mut windows, client) = (windows(9), address("192.0.2.1"));
        let standing = |windows: &mut Windows, after| {
            let Standing { remaining, reset, over, .. } =
                windows.hit(client, now + Duration::from_secs(after));
            (remaining, reset.as_secs(), over)
        };
        assert_eq!(standing(&mut windows, 0), (1, 60, false));
        assert_eq!(standing(&mut windows, 10), (0, 50, false));
        assert_eq!(standing(&mut windows, 20), (0, 40, true));
        assert_eq!(standing(&mut windows, 59), (0, 1, true));
        assert_eq!(standing(&mut windows, 60), (1, 60, false));
        assert!(!windows.hit(address("192.0.2.2"), now).over, "another address was counted along");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together_and_mapped_ones_as_ipv4() {
        let now = Instant::now();
        let mut windows = windows(9);
        windows.hit(address("2001:db8::1"), now);
        assert_eq!(windows.hit(address("2001:db8::ffff:2"), now).remaining, 0);
        assert_eq!(windows.hit(address("2001:db8:0:1::1"), now).remaining, 1);
        windows.hit(address("192.0.2.1"), now);
        assert_eq!(windows.hit(address("::ffff:192.0.2.1"), now).remaining, 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_over_is_forgotten() {
        let now = Instant::now();
        let mut windows = windows(100);
        for number in 0..10_000_u32 {
            windows.hit(std::net::Ipv4Addr::from(number).into(), now);
            assert!(windows.counts.len() <= 100 && windows.order.len() <= 100);
        }
        windows.hit(address("192.0.2.1"), now + MINUTE);
        assert_eq!((windows.counts.len(), windows.order.len()), (1, 1));
    }
}
