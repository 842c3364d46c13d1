//! The formulas: from the four parts of an analysis to a score.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::wallet::model::{Analysis, DefiBehavior, LendingHistory, PortfolioStability, TransactionMetrics};

/// Weights of the parts, in the order of [`Parts`].
const WEIGHTS: [f64; 4] = [0.30, 0.25, 0.25, 0.20];
/// Names of the parts in `breakdown`, in the order of [`Parts`].
const NAMES: [&str; 4] = ["transactionAnalysis", "portfolioStability", "lendingHistory", "defiBehavior"];
const LOWEST: f64 = 300.0;
const HIGHEST: f64 = 850.0;
/// Where every part starts: knowing nothing speaks neither for nor against.
const NEUTRAL: f64 = 0.5;

/// The parts of a score, 0..1; `None` where the data cannot be had.
pub type Parts = [Option<f64>; 4];

/// The parts of an analysis.
pub fn parts(analysis: &Analysis) -> Parts {
    [
        analysis.transaction_metrics.as_ref().map(transactions),
        analysis.portfolio_stability.as_ref().map(portfolio),
        analysis.lending_history.as_ref().map(lending),
        analysis.defi_behavior.as_ref().map(defi),
    ]
}

/// The score of what is there; `None` for nothing.
pub fn score(parts: &Parts) -> Option<u32> {
    let weights = scaled(parts)?;
    let sum: f64 = parts.iter().zip(weights).map(|(part, weight)| part.unwrap_or(0.0) * weight).sum();
    let score = (LOWEST + (HIGHEST - LOWEST) * sum).round().clamp(LOWEST, HIGHEST);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "300 to 850")]
    Some(score as u32)
}

/// The weights of the parts that are there, scaled so that they sum up to 1.
fn scaled(parts: &Parts) -> Option<[f64; 4]> {
    let known = |index: usize| parts[index].is_some();
    let sum: f64 =
        WEIGHTS.iter().enumerate().filter(|(index, _)| known(*index)).map(|(_, weight)| weight).sum();
    let scaled = std::array::from_fn(|index| if known(index) { WEIGHTS[index] / sum } else { 0.0 });
    (sum > 0.0).then_some(scaled)
}

/// What a score is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Category {
    /// 740 and more.
    Excellent,
    /// 670 and more.
    Good,
    /// 580 and more.
    Fair,
    /// Less.
    Poor,
}

impl Category {
    /// Of this score.
    pub fn of(score: u32) -> Self {
        match score {
            740.. => Self::Excellent,
            670.. => Self::Good,
            580.. => Self::Fair,
            _ => Self::Poor,
        }
    }
}

/// `breakdown` of the parts that are there.
pub fn breakdown(parts: &Parts) -> Value {
    let weights = scaled(parts).unwrap_or_default();
    let entries = NAMES.iter().zip(parts).zip(weights);
    let shown = entries.filter_map(|((name, part), weight)| {
        let entry = json!({ "weight": percent(weight), "score": ((*part)? * 100.0).round() });
        Some(((*name).to_owned(), entry))
    });
    Value::Object(shown.collect::<Map<_, _>>())
}

/// With one decimal, where it needs one.
fn percent(share: f64) -> String {
    let tenths = (share * 1_000.0).round();
    if tenths % 10.0 == 0.0 { format!("{}%", tenths / 10.0) } else { format!("{:.1}%", tenths / 10.0) }
}

/// `metrics`: the figures that people ask for first; null where they cannot be had.
pub fn metrics(analysis: &Analysis) -> Value {
    let (transactions, portfolio) = (&analysis.transaction_metrics, &analysis.portfolio_stability);
    let defi = &analysis.defi_behavior;
    json!({
        "transactionCount": transactions.as_ref().map(|part| part.transaction_count),
        "totalVolume": transactions.as_ref().map(|part| part.total_volume),
        "stablecoinRatio": portfolio.as_ref().map(|part| part.stablecoin_ratio),
        "protocolCount": defi.as_ref().map(|part| part.protocol_count),
        "defiExperience": defi.as_ref().map(|part| part.defi_experience),
    })
}

fn transactions(of: &TransactionMetrics) -> f64 {
    let count = match of.transaction_count {
        1_001.. => 0.15,
        501.. => 0.10,
        101.. => 0.05,
        10.. => 0.0,
        _ => -0.15,
    };
    let volume = (of.total_volume / 1e6).min(1.0) * 0.15;
    let frequency = match of.avg_frequency {
        per_day if per_day > 5.0 => 0.10,
        per_day if per_day > 1.0 => 0.05,
        per_day if per_day < 0.1 => -0.10,
        _ => 0.0,
    };
    // 0 is no gap: fewer than two transactions.
    let gap = match of.avg_time_between {
        hours if hours <= 0.0 => 0.0,
        hours if hours < 24.0 => 0.10,
        hours if hours < 168.0 => 0.05,
        _ => 0.0,
    };
    clamped(count + volume + frequency + gap)
}

fn portfolio(of: &PortfolioStability) -> f64 {
    let stablecoins = match of.stablecoin_ratio {
        ratio if ratio > 0.7 => 0.20,
        ratio if ratio > 0.5 => 0.15,
        ratio if ratio > 0.3 => 0.10,
        ratio if ratio < 0.1 => -0.10,
        _ => 0.0,
    };
    let holding = match of.avg_holding_period {
        days if days > 180.0 => 0.15,
        days if days > 90.0 => 0.10,
        days if days > 30.0 => 0.05,
        days if days < 7.0 => -0.10,
        _ => 0.0,
    };
    let volatility = -(of.volatility_index - 0.5) * 0.15;
    clamped(stablecoins + holding + volatility + of.diversity_score * 0.10)
}

fn lending(of: &LendingHistory) -> f64 {
    if of.total_loans == 0 {
        return NEUTRAL;
    }
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 loans")]
    let share = |loans: u64| loans as f64 / of.total_loans as f64;
    let repaid = match share(of.repaid_loans) {
        share if share > 0.95 => 0.30,
        share if share > 0.85 => 0.20,
        share if share > 0.75 => 0.10,
        share if share < 0.5 => -0.30,
        _ => 0.0,
    };
    let defaulted = match share(of.defaulted_loans) {
        share if share > 0.2 => -0.25,
        share if share > 0.1 => -0.15,
        share if share > 0.05 => -0.10,
        _ => 0.0,
    };
    let time = of.avg_repayment_time;
    let early = if time > 0.0 && time < 0.8 { 0.10 } else { 0.0 };
    let experience = match of.total_loans {
        21.. => 0.10,
        11.. => 0.05,
        _ => 0.0,
    };
    clamped(repaid + defaulted + early + experience)
}

fn defi(of: &DefiBehavior) -> f64 {
    let protocols = match of.protocol_count {
        11.. => 0.15,
        6.. => 0.10,
        3.. => 0.05,
        _ => 0.0,
    };
    let calls = match of.smart_contract_calls {
        101.. => 0.10,
        51.. => 0.07,
        11.. => 0.04,
        _ => 0.0,
    };
    let experience = match of.defi_experience {
        days if days > 365.0 => 0.10,
        days if days > 180.0 => 0.07,
        days if days > 90.0 => 0.04,
        days if days < 30.0 => -0.05,
        _ => 0.0,
    };
    clamped(protocols + of.yield_farming_activity * 0.15 + calls + experience)
}

fn clamped(change: f64) -> f64 {
    (NEUTRAL + change).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests;
