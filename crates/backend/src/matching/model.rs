//! Orders, rates and pairs: pure.

mod fields;
mod rates;

pub use fields::{Amount, BasisPoints, BookId, Party, Risk, Seconds, TokenType};
pub use rates::{Breakdown, Loan, Market, Recommendation, recommend};

use std::collections::BTreeMap;

use pools_core::chain::{U256, keccak, to_hex};
use serde::{Deserialize, Serialize};

/// Who wants to borrow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoanRequest {
    /// Which request.
    pub loan_id: BookId,
    /// Who.
    pub borrower: Party,
    /// What.
    pub token_type: TokenType,
    /// How much.
    pub amount: Amount,
    /// At most.
    pub max_interest_rate: BasisPoints,
    /// For how long.
    pub duration: Seconds,
    /// 0 to 1000.
    pub risk_score: Risk,
}

/// Who wants to lend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LendingOffer {
    /// Which offer.
    pub offer_id: BookId,
    /// Who.
    pub lender: Party,
    /// What.
    pub token_type: TokenType,
    /// How much at most.
    pub amount: Amount,
    /// At least.
    pub min_interest_rate: BasisPoints,
    /// What the lender hopes for.
    pub max_interest_rate: BasisPoints,
    /// For at least so long.
    pub min_duration: Seconds,
    /// For at most so long.
    pub max_duration: Seconds,
}

/// Two sides that fit, and the rate that both accept.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// The same for the same two sides.
    pub match_id: String,
    /// Which request.
    pub loan_id: BookId,
    /// Which offer.
    pub offer_id: BookId,
    /// What they agree on.
    pub interest_rate: u32,
}

/// What is open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    /// By ascending risk.
    pub requests: Vec<LoanRequest>,
    /// The oldest first.
    pub offers: Vec<LendingOffer>,
}

impl Book {
    /// Supply, by token.
    pub fn supply(&self) -> BTreeMap<TokenType, U256> {
        sums(self.offers.iter().map(|offer| (&offer.token_type, offer.amount)))
    }

    /// Demand, by token.
    pub fn demand(&self) -> BTreeMap<TokenType, U256> {
        sums(self.requests.iter().map(|request| (&request.token_type, request.amount)))
    }

    /// How supply and demand of one token stand.
    pub fn market(&self, token: &TokenType) -> Market {
        let of = |sums: BTreeMap<TokenType, U256>| sums.get(token).copied().unwrap_or_default();
        Market { supply: of(self.supply()), demand: of(self.demand()) }
    }

    /// The middle of what lenders ask for, on average, by token: basis points.
    pub fn average_rates(&self) -> BTreeMap<TokenType, u32> {
        let mut rates: BTreeMap<&TokenType, (u64, u64)> = BTreeMap::new();
        for offer in &self.offers {
            let (sum, count) = rates.entry(&offer.token_type).or_default();
            *sum += u64::from(offer.min_interest_rate.get()) + u64::from(offer.max_interest_rate.get());
            *count += 2;
        }
        let mean = |(sum, count): (u64, u64)| u32::try_from((sum + count / 2) / count).unwrap_or(u32::MAX);
        rates.into_iter().map(|(token, rate)| (token.clone(), mean(rate))).collect()
    }

    /// Every pair of one token, each side in one at most.
    pub fn pairs(&self, token: &TokenType) -> Vec<Pair> {
        let market = self.market(token);
        let mut offers: Vec<_> = self.offers.iter().filter(|offer| offer.token_type == *token).collect();
        let mut requests: Vec<_> = self.requests.iter().filter(|one| one.token_type == *token).collect();
        requests.sort_by(|one, other| one.risk_score.get().total_cmp(&other.risk_score.get()));
        let mut pairs = Vec::new();
        for request in requests {
            let Some((index, rate)) = best(&Loan::of(request), request.max_interest_rate, &offers, &market)
            else {
                continue;
            };
            let offer = offers.remove(index);
            pairs.push(Pair {
                match_id: match_id(&request.loan_id, &offer.offer_id),
                loan_id: request.loan_id.clone(),
                offer_id: offer.offer_id.clone(),
                interest_rate: rate,
            });
        }
        pairs
    }
}

/// The offer that takes the loan at the lowest rate, the first of equals, and that rate.
fn best(loan: &Loan, most: BasisPoints, offers: &[&LendingOffer], market: &Market) -> Option<(usize, u32)> {
    let rates = offers
        .iter()
        .enumerate()
        .filter_map(|(index, offer)| Some((index, agreed(loan, most, offer, market)?)));
    rates.min_by_key(|(_, rate)| *rate)
}

/// The formula's rate, moved into what both accept; `None` if they do not fit.
fn agreed(loan: &Loan, most: BasisPoints, offer: &LendingOffer, market: &Market) -> Option<u32> {
    let (low, high) = (offer.min_interest_rate.get(), offer.max_interest_rate.get().min(most.get()));
    let duration = offer.min_duration..=offer.max_duration;
    let fits = offer.token_type == loan.token_type
        && offer.amount >= loan.amount
        && duration.contains(&loan.duration)
        && low <= high;
    fits.then(|| Breakdown::of(loan, market).rate().clamp(low, high))
}

fn sums<'a>(parts: impl Iterator<Item = (&'a TokenType, Amount)>) -> BTreeMap<TokenType, U256> {
    let mut sums: BTreeMap<TokenType, U256> = BTreeMap::new();
    for (token, amount) in parts {
        let sum = sums.entry(token.clone()).or_default();
        *sum = sum.saturating_add(amount.get());
    }
    sums
}

fn match_id(loan: &BookId, offer: &BookId) -> String {
    // No id has a control character in it, so that no other two sides give this text.
    to_hex(keccak(format!("{loan}\n{offer}").as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests;
