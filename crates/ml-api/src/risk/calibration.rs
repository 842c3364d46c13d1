//! Probabilities beside what came true.

use serde::{Deserialize, Serialize};

/// Bins of equal width.
const BINS: usize = 10;

/// The rows whose probability lies in a tenth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// The lowest probability that belongs here.
    pub from: f64,
    /// The lowest one that belongs to the next; 1 belongs to the last.
    pub to: f64,
    /// How many rows.
    pub rows: usize,
    /// Their mean probability; `None` without any.
    pub mean_probability: Option<f64>,
    /// The share of them that defaulted; `None` without any.
    pub default_rate: Option<f64>,
}

/// Probabilities beside what came true, in tenths.
pub fn calibration(scored: &[(f64, bool)]) -> Vec<Bin> {
    let mut sums = [(0, 0.0, 0); BINS];
    for &(probability, default) in scored {
        let (rows, probabilities, defaults) = &mut sums[((probability * BINS as f64) as usize).min(BINS - 1)];
        *rows += 1;
        *probabilities += probability;
        *defaults += usize::from(default);
    }
    let edge = |bin: usize| bin as f64 / BINS as f64;
    let bin = |(bin, (rows, probabilities, defaults)): (usize, (usize, f64, usize))| Bin {
        from: edge(bin),
        to: edge(bin + 1),
        rows,
        mean_probability: (rows > 0).then(|| probabilities / rows as f64),
        default_rate: (rows > 0).then(|| defaults as f64 / rows as f64),
    };
    sums.into_iter().enumerate().map(bin).collect()
}

/// How far probabilities and what came true lie apart, averaged over all rows; `None` without any.
pub fn calibration_error(bins: &[Bin]) -> Option<f64> {
    let rows: usize = bins.iter().map(|bin| bin.rows).sum();
    let apart = |bin: &Bin| Some(bin.rows as f64 * (bin.mean_probability? - bin.default_rate?).abs());
    (rows > 0).then(|| bins.iter().filter_map(apart).sum::<f64>() / rows as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_in_the_bin_of_its_probability_and_empty_bins_say_nothing() {
        let bins = calibration(&[(0.0, false), (0.05, true), (0.1, false), (1.0, true)]);
        assert_eq!(bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((bins[0].mean_probability, bins[0].default_rate), (Some(0.025), Some(0.5)));
        assert_eq!((bins[2].mean_probability, bins[2].default_rate), (None, None));
        assert_eq!((bins[9].from, bins[9].to), (0.9, 1.0));
    }

    #[test]
    fn the_error_weighs_each_bin_by_its_rows() {
        let scored = [(0.25, false), (0.25, false), (0.25, true), (0.25, false), (0.95, false)];
        let error = calibration_error(&calibration(&scored)).unwrap();
        assert!((error - 0.95 / 5.0).abs() < 1e-12, "{error}");
        assert_eq!(calibration_error(&calibration(&[])), None);
    }
}
