//! What a loan may look like in JSON: pure rules, no database.
//!
//! Members with a meaning are checked; all others are metadata and kept as they came. An absent member, or one
//! that is `null` and no feature, says nothing: what was recorded before stays.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    address::Address,
    storable::{Storable, numbers_fit},
};
use crate::risk::{FEATURE_COUNT, Feature, RowError};

#[cfg(test)]
mod tests;

/// Longest `loan_id`: twice a uint256 in decimal, or any hash.
const LONGEST_ID: usize = 128;
/// Longest `loan_status`.
const LONGEST_STATUS: usize = 64;
/// The year 5138. Above it a number is not seconds, but milliseconds by mistake.
const LATEST_SECONDS: f64 = 1e11;

/// A JSON object whose members have not been looked at yet.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// Why a loan is not accepted (422).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// It must be there.
    #[error("{field}: is missing")]
    Missing {
        /// The member.
        field: &'static str,
    },
    /// It breaks its rule.
    #[error("{field}: must be {expected}")]
    Wrong {
        /// The member.
        field: String,
        /// The rule.
        expected: &'static str,
    },
    /// A feature is no finite number.
    #[error(transparent)]
    Feature(#[from] RowError),
}

impl FieldError {
    /// The member at fault.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Missing { field } => Some(field),
            Self::Wrong { field, .. } => Some(field),
            Self::Feature(error) => error.field(),
        }
    }
}

/// Identifies a loan: whatever the platform uses, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoanId(String);

impl LoanId {
    /// The id as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a loan ended, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Whether it defaulted: the label.
    pub default: Option<bool>,
    /// Days until it was paid back.
    pub actual_repayment_time: Option<f64>,
    /// In the platform's words.
    pub loan_status: Option<String>,
}

/// A loan to be recorded.
#[derive(Clone, Debug)]
pub struct LoanRecord {
    /// Which loan.
    pub id: LoanId,
    /// What was known when it was granted, in the order of [`Feature::ALL`].
    pub features: [Option<f64>; FEATURE_COUNT],
    /// Who borrows.
    pub borrower_address: Option<Address>,
    /// Who lends.
    pub lender_address: Option<Address>,
    /// When it was granted.
    pub timestamp: Option<DateTime<Utc>>,
    /// How it ended.
    pub outcome: Outcome,
    /// All other members, a JSON object.
    pub metadata: String,
}

impl LoanRecord {
    /// Checks an object.
    ///
    /// # Errors
    /// The first member that breaks its rule.
    pub fn parse(members: Members) -> Result<Self, FieldError> {
        let mut rest = Rest(members);
        let id = rest.take("loan_id", LOAN_ID, loan_id)?.ok_or(FieldError::Missing { field: "loan_id" })?;
        let mut features = [None; FEATURE_COUNT];
        for feature in Feature::ALL {
            let text = rest.0.remove(feature.name());
            features[feature as usize] = text.map(|text| feature.read(text.get())).transpose()?;
        }
        Ok(Self {
            id,
            features,
            borrower_address: rest.take("borrower_address", ADDRESS, address)?,
            lender_address: rest.take("lender_address", ADDRESS, address)?,
            timestamp: rest.take("timestamp", TIMESTAMP, timestamp)?,
            outcome: rest.outcome()?,
            metadata: rest.metadata()?,
        })
    }
}

/// How a recorded loan ended.
#[derive(Clone, Debug)]
pub struct OutcomeUpdate {
    /// Which loan.
    pub id: LoanId,
    /// How it ended; says at least one thing.
    pub outcome: Outcome,
    /// All other members of the outcome, a JSON object.
    pub metadata: String,
}

impl OutcomeUpdate {
    /// Checks an object with `loan_id` and `outcome`.
    ///
    /// # Errors
    /// The first member that breaks its rule.
    pub fn parse(members: Members) -> Result<Self, FieldError> {
        let mut rest = Rest(members);
        let id = rest.take("loan_id", LOAN_ID, loan_id)?.ok_or(FieldError::Missing { field: "loan_id" })?;
        let members = rest.take("outcome", OBJECT, |value| serde_json::from_str(value.get()).ok())?;
        let mut members = Rest(members.ok_or(FieldError::Missing { field: "outcome" })?);
        let outcome = members.outcome()?;
        if outcome == Outcome::default() {
            return Err(wrong("outcome", OUTCOME));
        }
        Ok(Self { id, outcome, metadata: members.metadata()? })
    }
}

pub(crate) const ADDRESS: &str = "0x and 40 hex digits, in one case or with a right EIP-55 checksum";
const DAYS: &str = "a number of days, not negative";
const LABEL: &str = "0 or 1";
const LOAN_ID: &str = "a text of 1 to 128 printable characters, or a whole number";
const METADATA: &str = "JSON that can be stored: finite numbers, no \\u0000, not nested 128 deep";
const OBJECT: &str = "an object";
const OUTCOME: &str = "an object with default, actual_repayment_time or loan_status";
const STATUS: &str = "a text of 1 to 64 printable characters";
const TIMESTAMP: &str = "a time after RFC 3339, or unix seconds";

pub(crate) fn wrong(field: &str, expected: &'static str) -> FieldError {
    FieldError::Wrong { field: field.to_owned(), expected }
}

/// The members that have not been taken yet.
pub(crate) struct Rest(pub(crate) Members);

impl Rest {
    pub(crate) fn take<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&RawValue) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        match self.0.remove(field).filter(|value| value.get() != "null") {
            Some(value) => parse(&value).map(Some).ok_or_else(|| wrong(field, expected)),
            None => Ok(None),
        }
    }

    fn outcome(&mut self) -> Result<Outcome, FieldError> {
        Ok(Outcome {
            default: self.take("default", LABEL, label)?,
            actual_repayment_time: self.take("actual_repayment_time", DAYS, days)?,
            loan_status: self.take("loan_status", STATUS, |value| printable(value, LONGEST_STATUS))?,
        })
    }

    /// What is left, as one JSON object. The text of each value stays as it came: parsing and writing it again
    /// would round numbers above 2⁵³.
    fn metadata(self) -> Result<String, FieldError> {
        for (name, text) in &self.0 {
            let storable = serde_json::from_str::<Storable>(text.get()).is_ok() && numbers_fit(text.get());
            if name.contains('\0') || !storable {
                return Err(wrong(&name.replace('\0', "\u{fffd}"), METADATA));
            }
        }
        Ok(to_raw_value(&self.0).expect("BUG: texts by name are JSON").get().to_owned())
    }
}

fn loan_id(value: &RawValue) -> Option<LoanId> {
    let number = value.get();
    let whole = number.len() <= LONGEST_ID && number.bytes().all(|digit| digit.is_ascii_digit());
    if whole { Some(LoanId(number.to_owned())) } else { printable(value, LONGEST_ID).map(LoanId) }
}

pub(crate) fn printable(value: &RawValue, longest: usize) -> Option<String> {
    let text: String = serde_json::from_str(value.get()).ok()?;
    let length = text.chars().count();
    ((1..=longest).contains(&length) && !text.chars().any(char::is_control)).then_some(text)
}

pub(crate) fn address(value: &RawValue) -> Option<Address> {
    let text: String = serde_json::from_str(value.get()).ok()?;
    Address::parse(&text)
}

fn timestamp(value: &RawValue) -> Option<DateTime<Utc>> {
    if let Ok(seconds) = serde_json::from_str::<f64>(value.get()) {
        // Postgres keeps microseconds.
        let in_range = (0.0..LATEST_SECONDS).contains(&seconds);
        return in_range.then(|| DateTime::from_timestamp_micros((seconds * 1e6).round() as i64)).flatten();
    }
    let text: String = serde_json::from_str(value.get()).ok()?;
    Some(DateTime::parse_from_rfc3339(&text).ok()?.to_utc())
}

fn label(value: &RawValue) -> Option<bool> {
    let label: f64 = serde_json::from_str(value.get()).ok()?;
    (label == 0.0 || label == 1.0).then_some(label == 1.0)
}

fn days(value: &RawValue) -> Option<f64> {
    let days: f64 = serde_json::from_str(value.get()).ok()?;
    (days.is_finite() && days >= 0.0).then_some(days)
}
