//! From what Etherscan and the node list to the inputs of the credit score: pure arithmetic.

mod history;
mod holdings;
mod parts;

pub use history::{History, Repayment, Transaction};
pub use holdings::{Balances, Holdings, Token, Transfer, tokens};
pub use parts::{
    Analysis, DefiBehavior, LendingHistory, PortfolioStability, Source, Sources, Status, TransactionMetrics,
};

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// Days from `then` to `now`, never negative: a block's clock may run ahead of ours.
fn days(then: u64, now: u64) -> f64 {
    seconds(now.saturating_sub(then)) / DAY
}

/// Exact for every time before the year 285 million.
#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53")]
fn seconds(whole: u64) -> f64 {
    whole as f64
}

#[cfg(test)]
mod tests;
