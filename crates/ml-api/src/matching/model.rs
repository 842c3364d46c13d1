//! What requests, offers and matches may look like in JSON, and which fit: pure rules, no database.
//!
//! Members without a meaning are ignored.

use serde::Serialize;
use serde_json::value::RawValue;

use super::error::Refusal;
use crate::loans::model::{ADDRESS, FieldError, Members, Rest, address, printable, wrong};

#[cfg(test)]
mod tests;

/// Longest id: twice a uint256 in decimal, or any hash.
const LONGEST_ID: usize = 128;
/// Longest name of a token: an address and room for a prefix.
const LONGEST_TOKEN: usize = 64;
/// 10,000 % a year, in basis points: whoever means more has mistaken the unit.
const HIGHEST_RATE: i64 = 1_000_000;
/// 100 years, in seconds.
const LONGEST_DURATION: i64 = 3_155_760_000;
/// 2²⁵⁶ - 1.
const LARGEST_AMOUNT: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

const AMOUNT: &str = "a text of decimal digits, 1 to 2^256-1, without leading zeros";
const DURATION: &str = "a whole number of seconds, 1 to 3155760000";
const ID: &str = "a text of 1 to 128 printable characters, or a whole number";
const RATE: &str = "a whole number of basis points, 0 to 1000000";
const RISK: &str = "a number, 0 to 1000";
const SAME_ID: &str = "the id in the path, or absent";
const TOKEN: &str = "a text of 1 to 64 printable characters, or a whole number";
const UPPER: &str = "at least its minimum";

/// Identifies a request, an offer or a match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BookId(String);

impl BookId {
    /// The id in a path; `None` when it is empty, too long or not printable.
    pub fn parse(text: &str) -> Option<Self> {
        let length = text.chars().count();
        let good = (1..=LONGEST_ID).contains(&length) && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_owned()))
    }

    /// As the server wrote it.
    pub(super) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The id as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A uint256 in decimal, above 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Amount(String);

impl Amount {
    /// `None` when it is no such number.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let amount = Self(text.to_owned());
        (digits && !text.starts_with('0') && amount.key() <= (LARGEST_AMOUNT.len(), LARGEST_AMOUNT))
            .then_some(amount)
    }

    /// As the server wrote it.
    pub(super) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without leading zeros, more digits are more.
    fn key(&self) -> (usize, &str) {
        (self.0.len(), &self.0)
    }
}

/// Who wants to borrow, and on which terms.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoanRequest {
    /// Which request.
    pub loan_id: BookId,
    /// The address, in lower case.
    pub borrower: String,
    /// What is borrowed.
    pub token_type: String,
    /// How much, in the token's base unit.
    pub amount: Amount,
    /// Basis points.
    pub max_interest_rate: i32,
    /// Seconds.
    pub duration: i64,
    /// 0 to 1000.
    pub risk_score: f64,
}

impl LoanRequest {
    /// Checks an object for the request of this id.
    ///
    /// # Errors
    /// The first member that breaks its rule.
    pub fn parse(id: BookId, members: Members) -> Result<Self, FieldError> {
        let mut terms = Terms(Rest(members));
        terms.same_id("loanId", &id)?;
        Ok(Self {
            loan_id: id,
            borrower: terms.address("borrower")?,
            token_type: terms.required("tokenType", TOKEN, |value| name(value, LONGEST_TOKEN))?,
            amount: terms.amount()?,
            max_interest_rate: terms.rate("maxInterestRate")?,
            duration: terms.required("duration", DURATION, |value| whole(value, 1, LONGEST_DURATION))?,
            risk_score: terms.required("riskScore", RISK, risk)?,
        })
    }

    /// Whether the two can be matched, at this rate if one is named.
    ///
    /// # Errors
    /// The first term that does not fit.
    pub fn fits(&self, offer: &LendingOffer, rate: Option<i32>) -> Result<(), Refusal> {
        let highest = self.max_interest_rate.min(offer.max_interest_rate);
        let refuse = |field, reason| Err(Refusal::Unfit { field, reason });
        if self.token_type != offer.token_type {
            return refuse("tokenType", "the offer is in another token");
        }
        if self.amount.key() > offer.amount.key() {
            return refuse("amount", "the offer is smaller than the request");
        }
        if !(offer.min_duration..=offer.max_duration).contains(&self.duration) {
            return refuse("duration", "the request's duration is outside the offer's bounds");
        }
        if offer.min_interest_rate > highest {
            return refuse("maxInterestRate", "there is no rate that both accept");
        }
        if rate.is_some_and(|rate| !(offer.min_interest_rate..=highest).contains(&rate)) {
            return refuse("interestRate", "not both accept this rate");
        }
        Ok(())
    }
}

/// Who wants to lend, and on which terms.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LendingOffer {
    /// Which offer.
    pub offer_id: BookId,
    /// The address, in lower case.
    pub lender: String,
    /// What is lent.
    pub token_type: String,
    /// How much at most, in the token's base unit.
    pub amount: Amount,
    /// Basis points.
    pub min_interest_rate: i32,
    /// Basis points.
    pub max_interest_rate: i32,
    /// Seconds.
    pub min_duration: i64,
    /// Seconds.
    pub max_duration: i64,
}

impl LendingOffer {
    /// Checks an object for the offer of this id.
    ///
    /// # Errors
    /// The first member that breaks its rule.
    pub fn parse(id: BookId, members: Members) -> Result<Self, FieldError> {
        let mut terms = Terms(Rest(members));
        terms.same_id("offerId", &id)?;
        let seconds = |value: &RawValue| whole(value, 1, LONGEST_DURATION);
        let offer = Self {
            offer_id: id,
            lender: terms.address("lender")?,
            token_type: terms.required("tokenType", TOKEN, |value| name(value, LONGEST_TOKEN))?,
            amount: terms.amount()?,
            min_interest_rate: terms.rate("minInterestRate")?,
            max_interest_rate: terms.rate("maxInterestRate")?,
            min_duration: terms.required("minDuration", DURATION, seconds)?,
            max_duration: terms.required("maxDuration", DURATION, seconds)?,
        };
        if offer.max_interest_rate < offer.min_interest_rate {
            return Err(wrong("maxInterestRate", UPPER));
        }
        if offer.max_duration < offer.min_duration {
            return Err(wrong("maxDuration", UPPER));
        }
        Ok(offer)
    }
}

/// Who shall be matched with whom.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchOrder {
    /// The caller's name for it, by which a repetition is known; without one, the server gives one.
    pub match_id: Option<BookId>,
    /// Which request.
    pub loan_id: BookId,
    /// Which offer.
    pub offer_id: BookId,
    /// What the two agreed on, in basis points.
    pub interest_rate: Option<i32>,
}

impl MatchOrder {
    /// Checks an object.
    ///
    /// # Errors
    /// The first member that breaks its rule.
    pub fn parse(members: Members) -> Result<Self, FieldError> {
        let mut terms = Terms(Rest(members));
        let id = |value: &RawValue| name(value, LONGEST_ID).map(BookId);
        Ok(Self {
            match_id: terms.0.take("matchId", ID, id)?,
            loan_id: terms.required("loanId", ID, id)?,
            offer_id: terms.required("offerId", ID, id)?,
            interest_rate: terms.0.take("interestRate", RATE, rate)?,
        })
    }
}

/// The members that have not been taken yet, most of which must be there.
struct Terms(Rest);

impl Terms {
    fn required<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&RawValue) -> Option<T>,
    ) -> Result<T, FieldError> {
        self.0.take(field, expected, parse)?.ok_or(FieldError::Missing { field })
    }

    fn same_id(&mut self, field: &'static str, id: &BookId) -> Result<(), FieldError> {
        let same = |value: &RawValue| (name(value, LONGEST_ID)? == id.0).then_some(());
        self.0.take(field, SAME_ID, same).map(Option::unwrap_or_default)
    }

    fn address(&mut self, field: &'static str) -> Result<String, FieldError> {
        self.required(field, ADDRESS, |value| Some(address(value)?.as_str().to_owned()))
    }

    fn amount(&mut self) -> Result<Amount, FieldError> {
        let parse = |value: &RawValue| Amount::parse(&serde_json::from_str::<String>(value.get()).ok()?);
        self.required("amount", AMOUNT, parse)
    }

    fn rate(&mut self, field: &'static str) -> Result<i32, FieldError> {
        self.required(field, RATE, rate)
    }
}

fn name(value: &RawValue, longest: usize) -> Option<String> {
    let text = value.get();
    let whole = text.len() <= longest && text.bytes().all(|digit| digit.is_ascii_digit());
    if whole { Some(text.to_owned()) } else { printable(value, longest) }
}

fn whole(value: &RawValue, lowest: i64, highest: i64) -> Option<i64> {
    let number: i64 = serde_json::from_str(value.get()).ok()?;
    (lowest..=highest).contains(&number).then_some(number)
}

fn rate(value: &RawValue) -> Option<i32> {
    i32::try_from(whole(value, 0, HIGHEST_RATE)?).ok()
}

fn risk(value: &RawValue) -> Option<f64> {
    let score: f64 = serde_json::from_str(value.get()).ok()?;
    (0.0..=1000.0).contains(&score).then_some(score)
}
