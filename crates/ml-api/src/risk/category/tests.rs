//! The edges of the categories.

use super::*;
use crate::risk::features::FEATURE_COUNT;

#[test]
fn each_category_includes_its_upper_bound() {
    let above = |edge: f64| edge.next_up();
    for (probability, category) in [
        (0.0, RiskCategory::Low),
        (0.2, RiskCategory::Low),
        (above(0.2), RiskCategory::Medium),
        (0.5, RiskCategory::Medium),
        (above(0.5), RiskCategory::High),
        (0.7, RiskCategory::High),
        (above(0.7), RiskCategory::VeryHigh),
        (1.0, RiskCategory::VeryHigh),
    ] {
        assert_eq!(RiskCategory::of(probability), category, "{probability}");
    }
}

#[test]
fn a_prediction_has_the_fields_and_spellings_of_the_interface() {
    let shown = serde_json::to_value(Prediction::of(0.7345)).unwrap();
    let expected = serde_json::json!({
        "default_prediction": 1, "default_probability": 0.7345, "risk_score": 735, "risk_category": "Very High"
    });
    assert_eq!(shown, expected);
    assert_eq!(Prediction::of(0.5).default_prediction, 1);
    assert_eq!(Prediction::of(0.5_f64.next_down()).default_prediction, 0);
    assert_eq!((Prediction::of(0.0).risk_score, Prediction::of(1.0).risk_score), (0, 1000));
}

#[test]
fn the_heuristic_is_its_formula_and_stays_a_probability() {
    let mut features = [0.0; FEATURE_COUNT];
    assert_eq!(heuristic(&features), 0.0);
    features[Feature::LoanToCollateralRatio as usize] = 0.6;
    features[Feature::VolatilityIndex as usize] = 0.5;
    features[Feature::DefaultedLoans as usize] = 1.0;
    features[Feature::TotalLoans as usize] = 4.0;
    assert!((heuristic(&features) - 0.475).abs() < 1e-15);
    for value in [f64::MAX, f64::MIN] {
        assert!((0.0..=1.0).contains(&heuristic(&[value; FEATURE_COUNT])));
    }
}
