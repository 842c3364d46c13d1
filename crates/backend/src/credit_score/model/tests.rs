//! Hand-computed examples on both sides of every threshold.

use super::*;
use crate::wallet::model::{Source, Sources, Status};

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-9
}

/// Nothing that adds or takes away.
fn plain_transactions() -> TransactionMetrics {
    TransactionMetrics {
        transaction_count: 50,
        total_volume: 0.0,
        avg_frequency: 0.5,
        avg_time_between: 200.0,
    }
}

fn plain_portfolio() -> PortfolioStability {
    PortfolioStability {
        token_count: 0,
        held_tokens: 0,
        stablecoin_ratio: 0.2,
        avg_holding_period: 20.0,
        volatility_index: 0.5,
        diversity_score: 0.0,
        eth_balance: "0".to_owned(),
    }
}

fn loans(total: u64, repaid: u64, defaulted: u64) -> LendingHistory {
    LendingHistory {
        total_loans: total,
        repaid_loans: repaid,
        defaulted_loans: defaulted,
        avg_repayment_time: 0.0,
    }
}

fn plain_defi() -> DefiBehavior {
    DefiBehavior {
        protocol_count: 0,
        yield_farming_activity: 0.0,
        smart_contract_calls: 0,
        defi_experience: 60.0,
    }
}

#[test]
fn transactions_are_judged_by_count_volume_frequency_and_gap() {
    let with = |change: fn(&mut TransactionMetrics, f64), value: f64| {
        let mut of = plain_transactions();
        change(&mut of, value);
        transactions(&of)
    };
    let count: fn(&mut TransactionMetrics, f64) = |of, value| of.transaction_count = value as u64;
    for (value, expected) in [
        (1001.0, 0.65),
        (1000.0, 0.60),
        (501.0, 0.60),
        (500.0, 0.55),
        (101.0, 0.55),
        (100.0, 0.5),
        (10.0, 0.5),
        (9.0, 0.35),
    ] {
        assert!(close(with(count, value), expected), "count {value}");
    }
    let volume: fn(&mut TransactionMetrics, f64) = |of, value| of.total_volume = value;
    for (value, expected) in [(0.0, 0.5), (500_000.0, 0.575), (1e6, 0.65), (5e6, 0.65)] {
        assert!(close(with(volume, value), expected), "volume {value}");
    }
    let frequency: fn(&mut TransactionMetrics, f64) = |of, value| of.avg_frequency = value;
    for (value, expected) in
        [(5.1, 0.6), (5.0, 0.55), (1.1, 0.55), (1.0, 0.5), (0.1, 0.5), (0.09, 0.4), (0.0, 0.4)]
    {
        assert!(close(with(frequency, value), expected), "per day {value}");
    }
    let gap: fn(&mut TransactionMetrics, f64) = |of, value| of.avg_time_between = value;
    for (value, expected) in [(0.0, 0.5), (0.1, 0.6), (23.9, 0.6), (24.0, 0.55), (167.9, 0.55), (168.0, 0.5)]
    {
        assert!(close(with(gap, value), expected), "gap {value}");
    }
}

#[test]
fn a_portfolio_is_judged_by_stablecoins_holding_volatility_and_diversity() {
    let with = |change: fn(&mut PortfolioStability, f64), value: f64| {
        let mut of = plain_portfolio();
        change(&mut of, value);
        portfolio(&of)
    };
    let ratio: fn(&mut PortfolioStability, f64) = |of, value| of.stablecoin_ratio = value;
    for (value, expected) in [
        (0.71, 0.7),
        (0.7, 0.65),
        (0.51, 0.65),
        (0.5, 0.6),
        (0.31, 0.6),
        (0.3, 0.5),
        (0.1, 0.5),
        (0.09, 0.4),
        (0.0, 0.4),
    ] {
        assert!(close(with(ratio, value), expected), "ratio {value}");
    }
    let holding: fn(&mut PortfolioStability, f64) = |of, value| of.avg_holding_period = value;
    for (value, expected) in [
        (181.0, 0.65),
        (180.0, 0.6),
        (91.0, 0.6),
        (90.0, 0.55),
        (31.0, 0.55),
        (30.0, 0.5),
        (7.0, 0.5),
        (6.9, 0.4),
    ] {
        assert!(close(with(holding, value), expected), "days {value}");
    }
    let volatility: fn(&mut PortfolioStability, f64) = |of, value| of.volatility_index = value;
    for (value, expected) in [(0.8, 0.455), (0.6, 0.485), (0.4, 0.515), (0.3, 0.53)] {
        assert!(close(with(volatility, value), expected), "volatility {value}");
    }
    let diversity: fn(&mut PortfolioStability, f64) = |of, value| of.diversity_score = value;
    for (value, expected) in [(0.0, 0.5), (0.5, 0.55), (1.0, 0.6)] {
        assert!(close(with(diversity, value), expected), "diversity {value}");
    }
}

#[test]
fn lending_is_judged_by_shares_earliness_and_number() {
    let cases = [
        (loans(0, 0, 0), 0.5),
        (loans(1, 1, 0), 0.8),
        (loans(20, 19, 0), 0.5 + 0.20 + 0.05),
        (loans(100, 96, 0), 0.5 + 0.30 + 0.10),
        (loans(100, 95, 0), 0.5 + 0.20 + 0.10),
        (loans(100, 86, 0), 0.5 + 0.20 + 0.10),
        (loans(100, 85, 0), 0.5 + 0.10 + 0.10),
        (loans(100, 76, 0), 0.5 + 0.10 + 0.10),
        (loans(100, 75, 0), 0.5 + 0.10),
        (loans(100, 50, 0), 0.5 + 0.10),
        (loans(100, 49, 0), 0.5 - 0.30 + 0.10),
        (loans(100, 60, 5), 0.5 + 0.10),
        (loans(100, 60, 6), 0.5 - 0.10 + 0.10),
        (loans(100, 60, 10), 0.5 - 0.10 + 0.10),
        (loans(100, 60, 11), 0.5 - 0.15 + 0.10),
        (loans(100, 60, 20), 0.5 - 0.15 + 0.10),
        (loans(100, 60, 21), 0.5 - 0.25 + 0.10),
        (loans(1, 0, 1), 0.0),
        (loans(10, 6, 0), 0.5),
        (loans(11, 7, 0), 0.55),
        (loans(20, 14, 0), 0.55),
        (loans(21, 14, 0), 0.60),
        (LendingHistory { avg_repayment_time: 0.79, ..loans(10, 6, 0) }, 0.6),
        (LendingHistory { avg_repayment_time: 0.8, ..loans(10, 6, 0) }, 0.5),
    ];
    for (of, expected) in cases {
        assert!(close(lending(&of), expected), "{of:?}: {}", lending(&of));
    }
}

#[test]
fn defi_is_judged_by_protocols_farming_calls_and_days() {
    let protocols = [(11, 0.65), (10, 0.6), (6, 0.6), (5, 0.55), (3, 0.55), (2, 0.5)];
    for (protocol_count, expected) in protocols {
        assert!(close(defi(&DefiBehavior { protocol_count, ..plain_defi() }), expected), "{protocol_count}");
    }
    let calls = [(101, 0.6), (100, 0.57), (51, 0.57), (50, 0.54), (11, 0.54), (10, 0.5)];
    for (smart_contract_calls, expected) in calls {
        let of = DefiBehavior { smart_contract_calls, ..plain_defi() };
        assert!(close(defi(&of), expected), "{smart_contract_calls}");
    }
    let days = [
        (366.0, 0.6),
        (365.0, 0.57),
        (181.0, 0.57),
        (180.0, 0.54),
        (91.0, 0.54),
        (90.0, 0.5),
        (30.0, 0.5),
        (29.9, 0.45),
    ];
    for (defi_experience, expected) in days {
        assert!(
            close(defi(&DefiBehavior { defi_experience, ..plain_defi() }), expected),
            "{defi_experience}"
        );
    }
    let of = DefiBehavior { yield_farming_activity: 0.4, ..plain_defi() };
    assert!(close(defi(&of), 0.56));
}

#[test]
fn the_score_weighs_the_parts_and_stays_within_its_bounds() {
    assert_eq!(score(&[Some(0.5); 4]), Some(575));
    assert_eq!(score(&[Some(1.0); 4]), Some(850));
    assert_eq!(score(&[Some(0.0); 4]), Some(300));
    // 300 + 550 · (0.30·0.8 + 0.25·0.6 + 0.25·0.4 + 0.20·0.2) = 300 + 550 · 0.53
    assert_eq!(score(&[Some(0.8), Some(0.6), Some(0.4), Some(0.2)]), Some(592));
}

#[test]
fn without_a_part_the_weights_of_the_rest_are_scaled_up() {
    // (0.30·0.8 + 0.25·0.4) / 0.55 = 0.61818…
    assert_eq!(score(&[Some(0.8), None, Some(0.4), None]), Some(640));
    assert_eq!(score(&[None, None, Some(0.8), None]), Some(740));
    assert_eq!(score(&[None; 4]), None);
    let shown = breakdown(&[Some(0.8), None, Some(0.4), None]);
    assert_eq!(shown["transactionAnalysis"], json!({ "weight": "54.5%", "score": 80.0 }));
    assert_eq!(shown["lendingHistory"], json!({ "weight": "45.5%", "score": 40.0 }));
    assert!(shown.get("portfolioStability").is_none() && shown.get("defiBehavior").is_none());
    assert_eq!(breakdown(&[Some(0.5); 4])["transactionAnalysis"]["weight"], "30%");
    assert_eq!(breakdown(&[None, None, Some(0.8), None])["lendingHistory"]["weight"], "100%");
}

#[test]
fn categories_begin_at_740_670_and_580() {
    let names = [850, 740, 739, 670, 669, 580, 579, 300].map(Category::of);
    use Category::{Excellent, Fair, Good, Poor};
    assert_eq!(names, [Excellent, Excellent, Good, Good, Fair, Fair, Poor, Poor]);
}

#[test]
fn an_analysis_gives_the_parts_that_it_has() {
    let missing = Source::missing(Status::Unavailable, Some("away".to_owned()));
    let analysis = Analysis {
        wallet_address: String::new(),
        transaction_metrics: Some(plain_transactions()),
        portfolio_stability: None,
        lending_history: Some(loans(1, 1, 0)),
        defi_behavior: None,
        sources: Sources {
            transaction_metrics: Source::missing(Status::Ok, None),
            portfolio_stability: missing.clone(),
            lending_history: Source::missing(Status::Ok, None),
            defi_behavior: missing,
        },
    };
    let [transactions, portfolio, lending, defi] = parts(&analysis);
    assert!(close(transactions.unwrap(), 0.5) && close(lending.unwrap(), 0.8));
    assert_eq!((portfolio, defi), (None, None));
    assert_eq!(metrics(&analysis)["transactionCount"], 50);
    assert!(metrics(&analysis)["stablecoinRatio"].is_null());
}
