//! Who waits for a connection to one host, in order.

use std::collections::{VecDeque, vec_deque};

use tokio::time::Instant;

/// Whoever waits.
#[derive(Debug)]
pub(super) struct Waiter<W> {
    /// The smallest is served first.
    pub(super) number: i64,
    pub(super) handle: W,
    pub(super) fresh: bool,
    /// It is told by then that it has waited for nothing.
    pub(super) deadline: Instant,
}

/// Sorted by number. Numbers grow at the back and shrink at the front ([`State::ticket`](super::State::ticket)), so that
/// both ends are all that callers are added at.
#[derive(Debug)]
pub(super) struct Queue<W>(VecDeque<Waiter<W>>);

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<W> Queue<W> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one whose number is the smallest or the greatest.
    pub(super) fn join(&mut self, waiter: Waiter<W>) {
        if self.0.back().is_none_or(|last| last.number < waiter.number) {
            self.0.push_back(waiter);
        } else {
            debug_assert!(waiter.number < self.first_number(), "BUG: between others");
            self.0.push_front(waiter);
        }
    }

    /// Takes one out, if it is still there.
    pub(super) fn leave(&mut self, number: i64) -> Option<Waiter<W>> {
        let found = self.0.binary_search_by_key(&number, |waiter| waiter.number);
        found.ok().and_then(|index| self.0.remove(index))
    }

    pub(super) fn pop_first(&mut self) -> Option<Waiter<W>> {
        self.0.pop_front()
    }

    /// Takes out the first of those that fit.
    pub(super) fn pop_first_that(&mut self, fits: impl Fn(&Waiter<W>) -> bool) -> Option<Waiter<W>> {
        let index = self.0.iter().position(fits)?;
        self.0.remove(index)
    }

    pub(super) fn first_number(&self) -> i64 {
        self.0.front().map_or(i64::MAX, |first| first.number)
    }

    pub(super) fn iter(&self) -> vec_deque::Iter<'_, Waiter<W>> {
        self.0.iter()
    }

    /// Takes out who has waited for too long; says when the next will have.
    pub(super) fn pop_late(&mut self, now: Instant) -> (Vec<W>, Option<Instant>) {
        let mut late = Vec::new();
        for _ in 0..self.0.len() {
            match self.0.pop_front() {
                Some(waiter) if waiter.deadline <= now => late.push(waiter.handle),
                in_time => self.0.extend(in_time),
            }
        }
        (late, self.0.iter().map(|waiter| waiter.deadline).min())
    }
}

impl<W> IntoIterator for Queue<W> {
    type Item = Waiter<W>;
    type IntoIter = vec_deque::IntoIter<Waiter<W>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn numbers(queue: &Queue<()>) -> Vec<i64> {
        queue.iter().map(|waiter| waiter.number).collect()
    }

    #[test]
    fn those_in_front_and_those_at_the_back_stay_in_order_whoever_leaves() {
        let (now, mut queue) = (Instant::now(), Queue::default());
        for (number, after) in [(1, 5), (2, 1), (-1, 3), (3, 9), (-2, 0)] {
            let deadline = now + Duration::from_secs(after);
            queue.join(Waiter { number, handle: (), fresh: number < 0, deadline });
        }
        assert_eq!(numbers(&queue), [-2, -1, 1, 2, 3]);
        assert_eq!(queue.first_number(), -2);

        let (late, next) = queue.pop_late(now + Duration::from_secs(1));
        assert_eq!((late.len(), next), (2, Some(now + Duration::from_secs(3))));
        assert_eq!(numbers(&queue), [-1, 1, 3]);

        assert_eq!(queue.pop_first_that(|waiter| !waiter.fresh).map(|waiter| waiter.number), Some(1));
        assert!(queue.leave(1).is_none());
        assert_eq!(queue.leave(3).map(|waiter| waiter.number), Some(3));
        assert_eq!(queue.pop_first().map(|waiter| waiter.number), Some(-1));
        assert_eq!((queue.is_empty(), queue.first_number()), (true, i64::MAX));
    }
}
