//! How far what the model is asked has moved from what it was trained on: each feature's population stability index.
//!
//! ```text
//!  training rows ──of──► Reference: edges and shares by feature, stored with the model
//!  a row that is predicted ──bins──► Window: counts of the latest rows ──indices──► Σ (a - e) · ln(a / e)
//! ```
//!
//! With `e` the share of training rows in a bin and `a` that of the latest rows. Below 0.1 nothing has moved, above
//! 0.25 the model should be trained again: the usual reading of this index. An absent feature counts as the 0 that the
//! model sees, so that a caller that stops sending one shows up.
//!
//! # Limits
//! A window holds counts, not rows: some 2 KB, whatever passes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::features::{Example, FEATURE_COUNT, Feature, Features};

#[cfg(test)]
mod tests;

/// Edges lie at the training rows' tenths.
const TENTHS: usize = 10;
/// Nine tenths and one below the least value, where training had no row.
const MAX_EDGES: usize = TENTHS;
const MAX_BINS: usize = MAX_EDGES + 1;
/// Rows that the edges are found from; shares are counted over all.
const SORTED: usize = 20_000;
/// Least share in the index, so that an empty bin is no infinity.
const FLOOR: f64 = 1e-4;
/// Fewer rows say nothing: with ten bins, 100 rows from the training data itself have an index of 0.09 on average.
pub const ENOUGH: u32 = 100;
/// Rows after which the older half of a window is forgotten.
pub const HALF: u32 = 5_000;

/// What the training rows look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Shape>", into = "BTreeMap<String, Shape>")]
pub struct Reference(Box<[Shape; FEATURE_COUNT]>);

/// One feature's values: bin i holds those above `edges[i - 1]` and up to `edges[i]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Shape {
    edges: Vec<f64>,
    shares: Vec<f64>,
}

/// The bin of each feature of a row.
pub type Bins = [u8; FEATURE_COUNT];

/// A stored reference that cannot be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: no ascending edges with a share for each bin")]
struct StoredReferenceError {
    field: &'static str,
}

impl Reference {
    /// Measures at least one row of finite numbers.
    pub fn of(examples: &[Example]) -> Self {
        let stride = examples.len().div_ceil(SORTED).max(1);
        Self(Box::new(Feature::ALL.map(|feature| {
            let value = |example: &Example| example.features[feature as usize];
            let mut sorted: Vec<f64> = examples.iter().step_by(stride).map(value).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            Shape::of(&sorted, examples.iter().map(value))
        })))
    }

    /// Where a row stands.
    pub fn bins(&self, features: &Features) -> Bins {
        std::array::from_fn(|column| self.0[column].bin(features[column]) as u8)
    }
}

impl Shape {
    fn of(sorted: &[f64], all: impl ExactSizeIterator<Item = f64>) -> Self {
        let mut edges: Vec<f64> =
            (1..TENTHS).filter_map(|tenth| sorted.get(sorted.len() * tenth / TENTHS)).copied().collect();
        edges.dedup();
        // Many rows have the least value: what is below it must not hide among them. Below the least double is nothing.
        if let Some(&least) =
            sorted.first().filter(|&&least| edges.first() == Some(&least) && least > f64::MIN)
        {
            edges.insert(0, least.next_down());
        }
        let rows = all.len() as f64;
        let mut shape = Self { shares: vec![0.0; edges.len() + 1], edges };
        for value in all {
            let bin = shape.bin(value);
            shape.shares[bin] += 1.0;
        }
        shape.shares.iter_mut().for_each(|share| *share /= rows);
        shape
    }

    fn bin(&self, value: f64) -> usize {
        self.edges.partition_point(|&edge| edge < value)
    }

    fn index(&self, counts: &[u32; MAX_BINS], rows: u32) -> f64 {
        let both = self.shares.iter().zip(counts);
        both.map(|(&expected, &count)| {
            let expected = expected.max(FLOOR);
            let actual = (f64::from(count) / f64::from(rows)).max(FLOOR);
            (actual - expected) * (actual / expected).ln()
        })
        .sum()
    }

    fn is_sound(&self) -> bool {
        let Self { edges, shares } = self;
        let ascending = edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|edge| edge.is_finite());
        ascending && edges.len() <= MAX_EDGES && shares.len() == edges.len() + 1
    }
}

impl From<Reference> for BTreeMap<String, Shape> {
    fn from(Reference(shapes): Reference) -> Self {
        Feature::ALL.into_iter().map(|feature| feature.name().to_owned()).zip(*shapes).collect()
    }
}

impl TryFrom<BTreeMap<String, Shape>> for Reference {
    type Error = StoredReferenceError;

    fn try_from(mut stored: BTreeMap<String, Shape>) -> Result<Self, StoredReferenceError> {
        let mut shapes: [Shape; FEATURE_COUNT] = std::array::from_fn(|_| Shape::default());
        for feature in Feature::ALL {
            let shape = stored.remove(feature.name()).filter(Shape::is_sound);
            shapes[feature as usize] = shape.ok_or(StoredReferenceError { field: feature.name() })?;
        }
        Ok(Self(Box::new(shapes)))
    }
}

/// How many rows stood where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    rows: u32,
    bins: [[u32; MAX_BINS]; FEATURE_COUNT],
}

impl Counts {
    /// Adds one row.
    pub fn add(&mut self, bins: &Bins) {
        self.rows += 1;
        for (counts, &bin) in self.bins.iter_mut().zip(bins) {
            counts[usize::from(bin)] += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        for (ours, theirs) in self.bins.iter_mut().flatten().zip(other.bins.iter().flatten()) {
            *ours += theirs;
        }
    }
}

/// Counts of the latest rows: between [`HALF`] and twice as many, once so many have passed.
#[derive(Clone, Debug, Default)]
pub struct Window {
    newer: Counts,
    older: Counts,
}

impl Window {
    /// Adds one row.
    pub fn add(&mut self, bins: &Bins) {
        self.newer.add(bins);
        self.turn();
    }

    /// Adds many rows.
    pub fn add_all(&mut self, rows: &Counts) {
        self.newer.merge(rows);
        self.turn();
    }

    /// Adds rows that are older than all others.
    pub fn add_older(&mut self, rows: &Counts) {
        self.older.merge(rows);
    }

    fn turn(&mut self) {
        if self.newer.rows >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
    }

    /// How far each feature has moved.
    pub fn drift(&self, reference: &Reference) -> Drift {
        let mut counts = self.newer.clone();
        counts.merge(&self.older);
        let Counts { rows, bins } = counts;
        let index = |feature: Feature| reference.0[feature as usize].index(&bins[feature as usize], rows);
        Drift { rows, indices: (rows >= ENOUGH).then(|| Feature::ALL.map(index)) }
    }
}

/// How far the latest rows have moved from the training rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// The latest rows.
    pub rows: u32,
    /// By feature; `None` below [`ENOUGH`] rows.
    pub indices: Option<Features>,
}
