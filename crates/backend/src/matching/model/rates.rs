//! What a loan costs.

use pools_core::chain::U256;
use serde::{Deserialize, Serialize};

use super::{Amount, BasisPoints, Book, LoanRequest, Risk, Seconds, TokenType, best};

const BASE: f64 = 300.0;
/// Of the highest risk score.
const FULL_RISK: f64 = 1_500.0;
const RISK_SCALE: f64 = 1_000.0;
const PER_YEAR: f64 = 200.0;
const LONGEST: f64 = 400.0;
/// Of the contract: 365 days.
const YEAR: f64 = 31_536_000.0;
/// For more than ten ETH.
const LARGE: f64 = 100.0;
const HIGHEST: f64 = 3_000.0;

/// A loan that somebody might take.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loan {
    /// What.
    pub token_type: TokenType,
    /// How much.
    pub amount: Amount,
    /// For how long.
    pub duration: Seconds,
    /// 0 to 1000.
    pub risk_score: Risk,
}

impl Loan {
    /// What a request asks for.
    pub fn of(request: &LoanRequest) -> Self {
        Self {
            token_type: request.token_type.clone(),
            amount: request.amount,
            duration: request.duration,
            risk_score: request.risk_score,
        }
    }
}

/// What is open for one token, in its base unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Market {
    /// Offered.
    pub supply: U256,
    /// Wanted.
    pub demand: U256,
}

impl Market {
    /// Basis points for the ratio of supply to demand; no demand counts as balance.
    pub fn surcharge(&self) -> f64 {
        // A quarter of sides so large that three times as much would be no number any more.
        let (supply, demand) = (self.supply >> 2_u32, self.demand >> 2_u32);
        let small = supply.bits().max(demand.bits()) < 128;
        let (supply, demand) = if small { (self.supply, self.demand) } else { (supply, demand) };
        match () {
            () if self.demand.is_zero() => 0.0,
            () if supply * 2 >= demand * 3 => -200.0,
            () if supply >= demand => 0.0,
            () if supply * 2 >= demand => 300.0,
            () => 800.0,
        }
    }
}

/// A rate and what it is made of, in basis points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Breakdown {
    /// The platform's own.
    pub base: f64,
    /// For the borrower's risk.
    pub risk: f64,
    /// For the time.
    pub duration: f64,
    /// For supply and demand.
    pub market: f64,
    /// For a large loan.
    pub size: f64,
}

impl Breakdown {
    /// By the formula.
    pub fn of(loan: &Loan, market: &Market) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "at most a hundred years of seconds")]
        let years = loan.duration.get() as f64 / YEAR;
        let is_large = loan.token_type.is_eth() && loan.amount.get() > U256::exp10(19);
        Self {
            base: BASE,
            risk: loan.risk_score.get() / RISK_SCALE * FULL_RISK,
            duration: (years * PER_YEAR).min(LONGEST),
            market: market.surcharge(),
            size: if is_large { LARGE } else { 0.0 },
        }
    }

    /// The rate: a whole number of basis points.
    pub fn rate(&self) -> u32 {
        let sum = self.base + self.risk + self.duration + self.market + self.size;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 3000")]
        let rate = sum.clamp(0.0, HIGHEST).round() as u32;
        rate
    }
}

/// What a borrower may expect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// The lowest that can be had.
    pub optimal_rate: u32,
    /// The formula's.
    pub market_rate: u32,
    /// The difference.
    pub savings: u32,
    /// What to do.
    pub recommendation: String,
    /// Seconds; null where nobody knows.
    pub wait_time: Option<u32>,
}

/// For a loan at `most`.
pub fn recommend(book: &Book, loan: &Loan, most: BasisPoints) -> Recommendation {
    let market = book.market(&loan.token_type);
    let market_rate = Breakdown::of(loan, &market).rate();
    let offers: Vec<_> = book.offers.iter().collect();
    let found = best(loan, most, &offers, &market).map(|(_, rate)| rate);
    let recommendation = match found {
        Some(rate) => format!("an open offer takes this loan now, at {rate} basis points"),
        None if market_rate <= most.get() => {
            "no open offer fits yet; the maximum covers the market rate, so a request may find its lender"
                .to_owned()
        }
        None => format!("no open offer fits; raise the maximum to at least {market_rate} basis points"),
    };
    let optimal_rate = found.unwrap_or(market_rate);
    Recommendation {
        optimal_rate,
        market_rate,
        savings: market_rate.saturating_sub(optimal_rate),
        recommendation,
        wait_time: found.map(|_| 0),
    }
}
