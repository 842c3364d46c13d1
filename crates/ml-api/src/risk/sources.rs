//! How many of a model's rows came from where.

use serde::{Deserialize, Serialize};

use super::Split;

/// Rows by where they came from: what is synthetic is named as such also where it is merged with what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// From the seeded generator.
    pub synthetic: usize,
    /// Recorded loans.
    pub recorded: usize,
}

/// The rows of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSources {
    /// That it was trained on.
    pub training: Sources,
    /// That it was judged by.
    pub held_out: Sources,
}

impl RowSources {
    /// Of the two merged.
    pub fn of(synthetic: &Split, recorded: &Split) -> Self {
        Self {
            training: Sources { synthetic: synthetic.train.len(), recorded: recorded.train.len() },
            held_out: Sources { synthetic: synthetic.held_out.len(), recorded: recorded.held_out.len() },
        }
    }
}
