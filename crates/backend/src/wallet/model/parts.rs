//! The four parts of an analysis, and where each came from.

use pools_core::chain::U256;
use serde::{Deserialize, Serialize};

use super::{History, Holdings, Repayment, days};
use crate::contracts::borrower::{Lending, RepaidLoan};

/// Wei of one ETH.
const ETHER: f64 = 1e18;

/// How much the wallet transacts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionMetrics {
    /// Transactions that it signed.
    pub transaction_count: u64,
    /// ETH moved, in both directions.
    pub total_volume: f64,
    /// Transactions per day.
    pub avg_frequency: f64,
    /// Hours between two; 0 if unknown.
    pub avg_time_between: f64,
}

impl TransactionMetrics {
    /// `count` is `eth_getTransactionCount`.
    pub fn new(history: &History, count: u64, now: u64) -> Self {
        Self {
            transaction_count: count,
            total_volume: ether(history.volume),
            avg_frequency: history.per_day(now),
            avg_time_between: history.mean_gap_hours(),
        }
    }
}

/// What the wallet holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortfolioStability {
    /// Tokens that it ever gave or took.
    pub token_count: u64,
    /// Those that it holds.
    pub held_tokens: u64,
    /// Stablecoins' share of these.
    pub stablecoin_ratio: f64,
    /// Days since each was first received, on average.
    pub avg_holding_period: f64,
    /// By ETH balance.
    pub volatility_index: f64,
    /// 0..1.
    pub diversity_score: f64,
    /// Wei.
    pub eth_balance: String,
}

impl PortfolioStability {
    /// `balance` in wei.
    pub fn new(holdings: &Holdings, balance: U256, now: u64) -> Self {
        Self {
            token_count: holdings.known,
            held_tokens: holdings.held,
            stablecoin_ratio: holdings.stablecoin_ratio(),
            avg_holding_period: holdings.mean_holding_days(now),
            volatility_index: volatility(balance),
            diversity_score: holdings.diversity(),
            eth_balance: balance.to_string(),
        }
    }
}

fn volatility(balance: U256) -> f64 {
    let tenths_below = |tenths: u64| balance < U256::exp10(17) * tenths;
    match () {
        () if tenths_below(1) => 0.8,
        () if tenths_below(10) => 0.6,
        () if tenths_below(100) => 0.4,
        () => 0.3,
    }
}

/// How the wallet pays back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LendingHistory {
    /// Loans that were funded.
    pub total_loans: u64,
    /// Of these, paid back.
    pub repaid_loans: u64,
    /// Of these, liquidated.
    pub defaulted_loans: u64,
    /// Share of the duration that repaid loans used, on average; 0 if unknown.
    pub avg_repayment_time: f64,
}

impl LendingHistory {
    /// The contract does not keep when a loan was paid back: `repayments` are the wallet's calls, where they are known.
    pub fn new(lending: &Lending, repayments: &[Repayment]) -> Self {
        let share = |loan: &RepaidLoan| {
            let of_loan = |call: &&Repayment| call.contract == lending.contract && call.loan == loan.id;
            // The newest first: the call that closed it.
            let closed = repayments.iter().find(of_loan).filter(|_| loan.duration > 0)?;
            let used = closed.at.saturating_sub(loan.funded_at);
            Some(super::seconds(used) / super::seconds(loan.duration))
        };
        let shares: Vec<f64> = lending.repaid_loans.iter().filter_map(share).collect();
        let known = super::seconds(shares.len() as u64);
        Self {
            total_loans: lending.total,
            repaid_loans: lending.repaid,
            defaulted_loans: lending.defaulted,
            avg_repayment_time: if shares.is_empty() { 0.0 } else { shares.iter().sum::<f64>() / known },
        }
    }
}

/// How the wallet uses contracts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DefiBehavior {
    /// Distinct contracts called.
    pub protocol_count: u64,
    /// Share of the calls that farm.
    pub yield_farming_activity: f64,
    /// Transactions with calldata.
    pub smart_contract_calls: u64,
    /// Days since the first of them.
    pub defi_experience: f64,
}

impl DefiBehavior {
    /// Of the history as it stands at `now`.
    pub fn new(history: &History, now: u64) -> Self {
        Self {
            protocol_count: history.protocols,
            yield_farming_activity: history.farming_share(),
            smart_contract_calls: history.calls,
            defi_experience: history.first_call.map_or(0.0, |first| days(first, now)),
        }
    }
}

/// Whether a part is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is.
    Ok,
    /// What it needs failed.
    Unavailable,
    /// What it needs was never named.
    NotConfigured,
    /// The caller did not want it.
    NotRequested,
}

/// Where a part came from, or why it is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Whether it is there.
    pub status: Status,
    /// Who was asked: `etherscan`, `chain`, `transfers` (what follows from Etherscan's lists).
    pub from: Vec<String>,
    /// The network asked about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<String>,
    /// `loaded` just now, or the level of the cache that had it; `stale` when past its time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache: Option<String>,
    /// Age of what the cache had.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_seconds: Option<u64>,
    /// Whether older entries are missing from what Etherscan lists.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub truncated: bool,
    /// Why the part is missing, or came another way than usual.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl Source {
    /// A part that is not there.
    pub fn missing(status: Status, reason: Option<String>) -> Self {
        Self {
            status,
            from: Vec::new(),
            network: None,
            cache: None,
            age_seconds: None,
            truncated: false,
            reason,
        }
    }
}

/// Where each part came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sources {
    /// Of the transactions.
    pub transaction_metrics: Source,
    /// Of the portfolio.
    pub portfolio_stability: Source,
    /// Of the loans.
    pub lending_history: Source,
    /// Of the contract calls.
    pub defi_behavior: Source,
}

impl Sources {
    /// All four.
    pub fn all(&self) -> [&Source; 4] {
        [&self.transaction_metrics, &self.portfolio_stability, &self.lending_history, &self.defi_behavior]
    }
}

/// A wallet, as far as it is known. A part that cannot be had is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// With its checksum.
    pub wallet_address: String,
    /// How much it transacts.
    pub transaction_metrics: Option<TransactionMetrics>,
    /// What it holds.
    pub portfolio_stability: Option<PortfolioStability>,
    /// How it pays back.
    pub lending_history: Option<LendingHistory>,
    /// How it uses contracts.
    pub defi_behavior: Option<DefiBehavior>,
    /// Where each came from.
    pub sources: Sources,
}

impl Analysis {
    /// Whether no part is missing, or came another way than usual, because something failed.
    pub fn is_whole(&self) -> bool {
        let failed = |source: &Source| match source.status {
            Status::Ok => source.reason.is_some(),
            Status::Unavailable => true,
            Status::NotConfigured | Status::NotRequested => false,
        };
        !self.sources.all().into_iter().any(failed)
    }

    /// Parts that are missing because something failed.
    pub fn failed(&self) -> Vec<&'static str> {
        let names = ["transactionMetrics", "portfolioStability", "lendingHistory", "defiBehavior"];
        let parts = names.into_iter().zip(self.sources.all());
        parts.filter(|(_, source)| source.status == Status::Unavailable).map(|(name, _)| name).collect()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.sources.all().iter().all(|source| source.status != Status::Ok)
    }
}

/// Wei as ETH, as exact as a float is.
fn ether(wei: U256) -> f64 {
    let text = wei.to_string();
    // Decimal digits of 256 bits are always a float.
    text.parse::<f64>().map_or(f64::MAX, |wei| wei / ETHER)
}
