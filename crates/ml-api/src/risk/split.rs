//! The held-out part that a model is judged by.

use super::features::Example;
use super::random::Random;

#[cfg(test)]
mod tests;

/// The usual held-out part.
pub const HELD_OUT: f64 = 0.2;

/// Rows to train on, and rows to judge by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Split {
    /// To train on.
    pub train: Vec<Example>,
    /// To judge by; never seen in training.
    pub held_out: Vec<Example>,
}

/// Holds out `fraction` of each class, chosen by `seed`, so both parts have the same share of defaults.
///
/// A class of n rows gives round(n · fraction) of them, but always keeps one to train on: a class with a single row is
/// not held out. Both parts keep the order of `examples`.
pub fn stratified(examples: &[Example], fraction: f64, seed: u64) -> Split {
    let mut random = Random::new(seed);
    let mut chosen = vec![false; examples.len()];
    for class in [false, true] {
        let mut places: Vec<usize> = (0..examples.len()).filter(|&i| examples[i].default == class).collect();
        random.shuffle(&mut places);
        let count = (places.len() as f64 * fraction).round() as usize;
        for &place in places.iter().take(count.min(places.len().saturating_sub(1))) {
            chosen[place] = true;
        }
    }
    let part = |held_out: bool| {
        let both = examples.iter().zip(&chosen);
        both.filter(|&(_, &chosen)| chosen == held_out).map(|(example, _)| *example).collect()
    };
    Split { train: part(false), held_out: part(true) }
}
