//! From a probability to what the platform shows, and the heuristic that the model is compared with.

use serde::Serialize;

use super::features::{Feature, Features};

#[cfg(test)]
mod tests;

/// How risky a loan is, by its probability of default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum RiskCategory {
    /// Up to 0.2.
    Low,
    /// Up to 0.5.
    Medium,
    /// Up to 0.7.
    High,
    /// Above.
    #[serde(rename = "Very High")]
    VeryHigh,
}

impl RiskCategory {
    /// The category of a probability.
    pub fn of(probability: f64) -> Self {
        match probability {
            p if p <= 0.2 => Self::Low,
            p if p <= 0.5 => Self::Medium,
            p if p <= 0.7 => Self::High,
            _ => Self::VeryHigh,
        }
    }
}

/// What `/predict` says about one loan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// 1 from a probability of one half.
    pub default_prediction: u8,
    /// 0 to 1.
    pub default_probability: f64,
    /// The probability in thousandths, 0 to 1000.
    pub risk_score: u16,
    /// Its category.
    pub risk_category: RiskCategory,
}

impl Prediction {
    /// The answer for a probability between 0 and 1.
    pub fn of(probability: f64) -> Self {
        Self {
            default_prediction: u8::from(probability >= 0.5),
            default_probability: probability,
            risk_score: (1000.0 * probability).round() as u16,
            risk_category: RiskCategory::of(probability),
        }
    }
}

/// A probability without a model: the yardstick of `/comparison`.
pub fn heuristic(features: &Features) -> f64 {
    let value = |feature: Feature| features[feature as usize];
    let defaulted_share = value(Feature::DefaultedLoans) / value(Feature::TotalLoans).max(1.0);
    let sum = 0.5 * value(Feature::LoanToCollateralRatio)
        + 0.3 * defaulted_share
        + 0.2 * value(Feature::VolatilityIndex);
    sum.clamp(0.0, 1.0)
}
