//! Work on many rows, on all processors.
//!
//! Rows are cut into parts of a fixed size, and what comes of the parts is put together in their order: a sum of floats
//! depends on its order, and a model must not depend on the machine it was trained on.

use std::{
    num::NonZero,
    panic::resume_unwind,
    thread::{available_parallelism, scope},
};

/// Rows of a part: some milliseconds of work, far more than a thread costs.
pub(super) const PART: usize = 1 << 14;

/// What `work` makes of each part, in order. Few parts are done here, more by threads that have ended when this returns.
pub(super) fn in_parts<P: Send, T: Send>(
    parts: impl Iterator<Item = P>,
    work: impl Fn(P) -> T + Sync,
) -> Vec<T> {
    let parts: Vec<P> = parts.collect();
    let threads = available_parallelism().map_or(1, NonZero::get).min(parts.len());
    if threads <= 1 {
        return parts.into_iter().map(work).collect();
    }
    let share = parts.len().div_ceil(threads);
    let mut parts = parts.into_iter();
    let shares: Vec<Vec<P>> = (0..threads).map(|_| parts.by_ref().take(share).collect()).collect();
    let work = &work;
    scope(|scope| {
        let start = |share: Vec<P>| scope.spawn(move || share.into_iter().map(work).collect::<Vec<T>>());
        let threads: Vec<_> = shares.into_iter().map(start).collect();
        let done =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        done.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once_and_stands_in_its_place() {
        for count in [0, 1, 2, 3, 7, 64] {
            let done = in_parts(0..count, |part| part * part);
            assert_eq!(done, (0..count).map(|part| part * part).collect::<Vec<_>>());
        }
    }

    #[test]
    #[should_panic(expected = "the third")]
    fn a_panic_in_a_part_is_that_of_the_caller() {
        in_parts(0..4, |part| assert_ne!(part, 2, "the third"));
    }
}
