//! Against values worked out by hand, and scikit-learn's for the same eight rows.

use super::*;
use crate::risk::features::FEATURE_COUNT;

/// Rows whose first feature is the probability that is predicted for them.
fn measure(scored: &[(f64, bool)]) -> Metrics {
    let example = |&(probability, default)| {
        let mut features = [0.0; FEATURE_COUNT];
        features[0] = probability;
        Example { features, default }
    };
    let examples: Vec<Example> = scored.iter().map(example).collect();
    Metrics::of(|features| features[0], &examples).unwrap()
}

fn assert_close(ours: f64, expected: f64) {
    assert!((ours - expected).abs() < 1e-12, "{ours} is not {expected}");
}

#[test]
fn all_measures_are_scikit_learns() {
    let labels = [false, false, true, true, false, true, false, true];
    let probabilities = [0.1, 0.4, 0.4, 0.8, 0.55, 0.5, 0.0, 1.0];
    let scored: Vec<_> = probabilities.into_iter().zip(labels).collect();
    let metrics = measure(&scored);
    assert_eq!((metrics.rows, metrics.confusion_matrix), (8, [[3, 1], [1, 3]]));
    assert_close(metrics.accuracy, 0.75);
    assert_close(metrics.precision, 0.75);
    assert_close(metrics.recall, 0.75);
    assert_close(metrics.f1_score, 0.75);
    assert_close(metrics.roc_auc.unwrap(), 0.84375);
    assert_close(metrics.log_loss, 0.40590941242373746);
    assert_close(metrics.brier, 0.1403125);
}

#[test]
fn tied_probabilities_count_half_in_the_roc() {
    assert_eq!(measure(&[(0.3, false), (0.3, true), (0.3, false), (0.3, true)]).roc_auc, Some(0.5));
    assert_eq!(measure(&[(0.1, false), (0.3, false), (0.3, true), (0.9, true)]).roc_auc, Some(0.875));
    assert_eq!(measure(&[(0.9, false), (0.1, true)]).roc_auc, Some(0.0));
    assert_eq!(measure(&[(0.0, true), (-0.0, false)]).roc_auc, Some(0.5));
}

#[test]
fn one_class_has_no_roc_and_undefined_shares_are_zero() {
    let metrics = measure(&[(0.1, false), (0.2, false)]);
    assert_eq!(metrics.roc_auc, None);
    assert_eq!((metrics.accuracy, metrics.precision, metrics.recall, metrics.f1_score), (1.0, 0.0, 0.0, 0.0));
}

#[test]
fn certain_and_wrong_costs_much_but_not_infinitely() {
    assert_close(measure(&[(0.0, true)]).log_loss, -f64::EPSILON.ln());
    let wrong = measure(&[(1.0, false)]).log_loss;
    assert!((wrong + f64::EPSILON.ln()).abs() < 1e-9, "{wrong}");
}

#[test]
fn without_rows_there_are_no_metrics() {
    assert_eq!(Metrics::of(|_| 0.5, &[]), None);
}
