//! Who waits at a gate, and how one of them waits.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
};

use tokio::time::Instant;

use super::{Admission, CLOSED, Entered, Place, Refused, SLOW};

/// Who waits, and what is owed. The word's flags change only under its lock.
#[derive(Debug)]
pub(super) struct Line<T> {
    pub(super) limit: u32,
    /// Places that exist no more but are still in use.
    pub(super) debt: u32,
    /// In order of arrival, and therefore by number.
    pub(super) waiters: VecDeque<Waiter>,
    /// Inside, but not aware of it yet: by number, with what was handed to them.
    pub(super) served: Vec<(u64, Option<T>)>,
    pub(super) last_number: u64,
    /// When the timekeeper will look; `None` until it is told to.
    pub(super) next_look: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) waker: Waker,
    pub(super) deadline: Instant,
}

impl<T> Line<T> {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, debt: 0, waiters: VecDeque::new(), served: Vec::new(), last_number: 0, next_look: None }
    }

    pub(super) fn waiting(&self) -> u32 {
        u32::try_from(self.waiters.len()).unwrap_or(u32::MAX)
    }

    fn find(&self, number: u64) -> Option<usize> {
        // Most often it is asked for one that was just served, and who was served came before all the others.
        if self.waiters.front().is_none_or(|first| number < first.number) {
            return None;
        }
        self.waiters.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }

    /// What was handed to the waiter, or nothing but his place.
    fn take_served(&mut self, number: u64) -> Option<Option<T>> {
        let found = self.served.iter().position(|(served, _)| *served == number);
        found.map(|index| self.served.swap_remove(index).1)
    }
}

/// A caller in the queue; in it from the first poll on. Ends with an error of `None` when it is late.
pub(super) struct Waiting<'a, T> {
    pub(super) gate: &'a Admission<T>,
    pub(super) deadline: Instant,
    pub(super) number: Option<u64>,
}

impl<'a, T> Waiting<'a, T> {
    /// Enters the gate or else its queue.
    fn join(&mut self, line: &mut Line<T>, waker: &Waker) -> Poll<Result<Entered<'a, T>, Refused>> {
        let gate = self.gate;
        // From here on whoever leaves takes the lock, so what is not free now is not freed unseen.
        gate.word.fetch_or(SLOW, Ordering::Relaxed);
        if let Some(entered) = gate.try_enter().transpose() {
            return Poll::Ready(entered.map(Entered::Place));
        }
        if line.waiting() >= gate.queue {
            return Poll::Ready(Err(Refused::QueueFull { waiting: line.waiting() }));
        }
        line.last_number += 1;
        self.number = Some(line.last_number);
        let (waker, deadline) = (waker.clone(), self.deadline);
        line.waiters.push_back(Waiter { number: line.last_number, waker, deadline });
        if line.next_look.is_none_or(|next| self.deadline < next) && gate.kept.load(Ordering::Relaxed) {
            line.next_look = Some(self.deadline);
            gate.sooner.notify_one();
        }
        Poll::Pending
    }
}

impl<'a, T> Future for Waiting<'a, T> {
    type Output = Result<Entered<'a, T>, Option<Refused>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let gate = self.gate;
        let mut line = gate.line.lock();
        let Some(number) = self.number else {
            let joined = self.join(&mut line, cx.waker());
            gate.settle(&line);
            return joined.map_err(Some);
        };
        if let Some(index) = line.find(number) {
            let before = mem::replace(&mut line.waiters[index].waker, cx.waker().clone());
            // Not under the lock: it may be the last that keeps a task.
            drop(line);
            drop(before);
            return Poll::Pending;
        }
        self.number = None;
        let closed = gate.word.load(Ordering::Relaxed) & CLOSED != 0;
        Poll::Ready(match line.take_served(number) {
            Some(Some(handed)) => Ok(Entered::Handed(handed)),
            Some(None) => Ok(Entered::Place(Place(gate))),
            None => Err(closed.then_some(Refused::Closed)),
        })
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut line = self.gate.line.lock();
        let left = line.find(number).and_then(|index| line.waiters.remove(index));
        // Served, but gone before it knew.
        let served = line.take_served(number);
        let next = if matches!(served, Some(None)) { self.gate.free_one(&mut line) } else { None };
        self.gate.settle(&line);
        drop(line);
        next.into_iter().for_each(Waker::wake);
        drop((left, served));
    }
}
