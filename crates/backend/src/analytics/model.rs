//! Sums over loans: pure.

use std::collections::BTreeMap;

use pools_core::chain::U256;
use serde::{Deserialize, Serialize};

use crate::contracts::{
    borrower::usd,
    model::{Loan, Status},
};

/// Base units by token.
pub type Sums = BTreeMap<U256, U256>;

/// What the loans add up to, before anything has a price.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    by_status: BTreeMap<String, u64>,
    total: u64,
    active: u64,
    paid_out: u64,
    defaulted: u64,
    /// Basis points, in sum.
    rates: u64,
    /// Lent, by token.
    pub volume: Sums,
    /// Held by the contract, by token.
    pub collateral: Sums,
}

impl Tally {
    /// Of these loans.
    pub fn of(loans: &[Loan]) -> Self {
        let mut tally = Self::default();
        for loan in loans {
            tally.add(loan);
        }
        tally
    }

    fn add(&mut self, loan: &Loan) {
        let status = loan.status;
        *self.by_status.entry(status.name().to_owned()).or_default() += 1;
        self.total += 1;
        self.active += u64::from(status.is_running());
        self.defaulted += u64::from(status == Status::Defaulted);
        if status.is_running() || matches!(status, Status::Repaid | Status::Defaulted) {
            self.paid_out += 1;
            self.rates = self.rates.saturating_add(u64::try_from(loan.interest_rate).unwrap_or(u64::MAX));
            put(&mut self.volume, loan.token_id, loan.amount);
        }
        if status.is_running() || status == Status::Requested {
            put(&mut self.collateral, loan.collateral_token_id, loan.collateral_amount);
        }
    }

    /// The market at prices: `worth` has USD with 8 decimals for each token of both sums, or why there is none.
    pub fn market(&self, block: u64, volume: &[Worth], collateral: &[Worth]) -> Market {
        let mut unpriced: Vec<Unpriced> = Vec::new();
        for (token, worth) in volume.iter().chain(collateral) {
            let Err(reason) = worth else { continue };
            let token_id = token.to_string();
            if !unpriced.iter().any(|known| known.token_id == token_id) {
                unpriced.push(Unpriced { token_id, reason: reason.clone() });
            }
        }
        Market {
            loans_by_status: self.by_status.clone(),
            total_loans: self.total,
            active_loans: self.active,
            total_volume_usd: sum(volume),
            collateral_usd: sum(collateral),
            average_interest_rate: ratio(count(self.rates), self.paid_out),
            default_rate: ratio(count(self.defaulted), self.paid_out).unwrap_or(0.0),
            unpriced,
            block,
        }
    }
}

/// A token and what its sum is worth, in USD with 8 decimals.
pub type Worth = (U256, Result<U256, String>);

fn put(sums: &mut Sums, token: U256, amount: U256) {
    let sum = sums.entry(token).or_default();
    *sum = sum.saturating_add(amount);
}

fn sum(worth: &[Worth]) -> f64 {
    worth.iter().filter_map(|(_, worth)| worth.as_ref().ok()).map(|worth| usd(*worth)).sum()
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 loans")]
fn count(number: u64) -> f64 {
    number as f64
}

fn ratio(sum: f64, of: u64) -> Option<f64> {
    (of > 0).then(|| sum / count(of))
}

/// A token without a price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpriced {
    /// Its number in the contract.
    pub token_id: String,
    /// The contract's reason.
    pub reason: String,
}

/// The market at one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Market {
    /// Every loan, by the name of its status.
    pub loans_by_status: BTreeMap<String, u64>,
    /// Every loan.
    pub total_loans: u64,
    /// Those that run.
    pub active_loans: u64,
    /// USD lent to loans that were paid out.
    #[serde(rename = "totalVolumeUSD")]
    pub total_volume_usd: f64,
    /// USD that the contract holds for running loans and open requests.
    #[serde(rename = "collateralUSD")]
    pub collateral_usd: f64,
    /// Basis points, over the loans paid out; null without one.
    pub average_interest_rate: Option<f64>,
    /// Share of the loans paid out that defaulted.
    pub default_rate: f64,
    /// Tokens that are in no sum.
    pub unpriced: Vec<Unpriced>,
    /// The block that was read.
    pub block: u64,
}
