//! Histograms of durations, with buckets that all pools share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

/// Upper bounds in seconds of all duration histograms: 100 µs to 60 s, the range between a warm checkout and
/// the longest default time-out.
pub const BUCKETS: [f64; 16] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0];

/// [`BUCKETS`] in nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole nanoseconds, none negative"
)]
const NANOS: [u64; BUCKETS.len()] = {
    let (mut nanos, mut i) = ([0; BUCKETS.len()], 0);
    while i < BUCKETS.len() {
        nanos[i] = (BUCKETS[i] * 1e9).round() as u64;
        i += 1;
    }
    nanos
};

/// A histogram of durations with fixed [`BUCKETS`]. Recording is two relaxed atomic adds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_nanos: AtomicU64,
}

/// The nanoseconds of a duration, and the index of its bucket.
fn bucket(duration: Duration) -> (u64, usize) {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    // From the shortest: most are.
    (nanos, NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(NANOS.len()))
}

impl Histogram {
    /// Records one duration.
    pub fn record(&self, duration: Duration) {
        let (nanos, index) = bucket(duration);
        self.buckets[index].fetch_add(1, Ordering::Relaxed);
        if nanos > 0 {
            self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// The counts so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        self.snapshot_with(&Durations::default())
    }

    pub(super) fn snapshot_with(&self, others: &Durations) -> HistogramSnapshot {
        let mut total = 0;
        let counts = self.buckets.iter().zip(&others.buckets);
        let cumulative = counts
            .map(|(count, other)| {
                total += count.load(Ordering::Relaxed) + other;
                total
            })
            .collect();
        let sum = self.sum_nanos.load(Ordering::Relaxed).saturating_add(others.sum_nanos);
        HistogramSnapshot { cumulative, sum: Duration::from_nanos(sum).as_secs_f64() }
    }
}

/// A [`Histogram`] of plain numbers.
#[derive(Debug, Default)]
pub(super) struct Durations {
    buckets: [u64; BUCKETS.len() + 1],
    sum_nanos: u64,
}

impl Durations {
    pub(super) fn add(&mut self, duration: Duration) {
        let (nanos, index) = bucket(duration);
        self.buckets[index] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Counts of a [`Histogram`]: one cumulative count per bucket, the last without an upper bound.
#[derive(Clone, Debug, Serialize)]
pub struct HistogramSnapshot {
    /// Cumulative counts, one per bound of [`BUCKETS`] and one for everything.
    pub cumulative: Vec<u64>,
    /// Sum of all durations in seconds.
    pub sum: f64,
}
