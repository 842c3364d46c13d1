//! The 22 features, declared once: their order is the order of every array and of the CSV columns.
//!
//! A row arrives as a JSON object. An absent feature counts as 0 and is named in the answer; anything that is
//! there but is no finite number is an error that names the field. Members that are no features are ignored.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// One feature. `feature as usize` is its place in [`Features`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Feature { $($(#[$doc])* $variant,)+ }

        impl Feature {
            /// All features, in order.
            pub const ALL: [Self; FEATURE_COUNT] = [$(Self::$variant,)+];

            /// The name in JSON and in the CSV header.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The feature of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }

        /// How many features a row has.
        pub const FEATURE_COUNT: usize = [$($name,)+].len();
    };
}

features! {
    /// Transactions ever sent.
    TxCount = "tx_count",
    /// Sum of the values moved, in ETH.
    TotalVolume = "total_volume",
    /// Transactions per day.
    AvgFrequency = "avg_frequency",
    /// Mean gap between transactions, in hours.
    AvgTimeBetween = "avg_time_between",
    /// Stablecoins' share of the held tokens, 0..1.
    StablecoinRatio = "stablecoin_ratio",
    /// Mean days a token has been held.
    AvgHoldingPeriod = "avg_holding_period",
    /// Volatility of what is held, 0..1.
    VolatilityIndex = "volatility_index",
    /// How widely the holdings are spread, 0..1.
    DiversityScore = "diversity_score",
    /// Loans ever taken.
    TotalLoans = "total_loans",
    /// Loans paid back.
    RepaidLoans = "repaid_loans",
    /// Loans defaulted on.
    DefaultedLoans = "defaulted_loans",
    /// Mean days until a loan was paid back; 0 without one.
    AvgRepaymentTime = "avg_repayment_time",
    /// Distinct protocols used.
    ProtocolCount = "protocol_count",
    /// Share of calls that are yield farming, 0..1.
    YieldFarmingActivity = "yield_farming_activity",
    /// Transactions with calldata.
    SmartContractCalls = "smart_contract_calls",
    /// Days since the first of those.
    DefiExperience = "defi_experience",
    /// What is borrowed, in ETH.
    LoanAmount = "loan_amount",
    /// What secures it, in ETH.
    CollateralAmount = "collateral_amount",
    /// Loan divided by collateral.
    LoanToCollateralRatio = "loan_to_collateral_ratio",
    /// How long the loan runs, in days.
    DurationDays = "duration_days",
    /// Interest, in basis points.
    InterestRate = "interest_rate",
    /// Age of the account, in days.
    AccountAgeDays = "account_age_days",
}

/// One row of feature values, in the order of [`Feature::ALL`].
pub type Features = [f64; FEATURE_COUNT];

/// A loan whose end is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    /// What was known when it was granted.
    pub features: Features,
    /// Whether it defaulted: the label.
    pub default: bool,
}

/// A row that can be predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRow {
    /// The values; 0 where the feature was absent.
    pub values: Features,
    /// The absent ones, in order.
    pub missing_features: Vec<&'static str>,
}

/// Why a row cannot be predicted (422).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The row itself is something else.
    #[error("a loan must be an object of features, not {found}")]
    NotAnObject {
        /// What stands there.
        found: JsonKind,
    },
    /// A feature is something else.
    #[error("{field}: must be a number, not {found}")]
    NotANumber {
        /// The feature.
        field: &'static str,
        /// What stands there.
        found: JsonKind,
    },
    /// A number too large for a double.
    #[error("{field}: must be a finite number")]
    NotFinite {
        /// The feature.
        field: &'static str,
    },
}

impl RowError {
    /// The feature at fault, if it is one and not the row.
    pub const fn field(&self) -> Option<&'static str> {
        match self {
            Self::NotAnObject { .. } => None,
            Self::NotANumber { field, .. } | Self::NotFinite { field } => Some(field),
        }
    }
}

/// The kinds of JSON values, for error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl JsonKind {
    /// The kind of one complete JSON value: its first byte tells.
    pub fn of(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::Text,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for JsonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

impl Feature {
    /// Its value, from the text of one complete JSON value.
    ///
    /// # Errors
    /// The text is another kind of value, or a number too large for a double.
    pub fn read(self, text: &str) -> Result<f64, RowError> {
        match JsonKind::of(text) {
            // JSON's numbers are a part of what Rust parses; 1e999 becomes infinite.
            JsonKind::Number => self.finite(text.parse().unwrap_or(f64::NAN)),
            found => Err(RowError::NotANumber { field: self.name(), found }),
        }
    }

    fn finite(self, value: f64) -> Result<f64, RowError> {
        if value.is_finite() { Ok(value) } else { Err(RowError::NotFinite { field: self.name() }) }
    }
}

impl FeatureRow {
    /// Reads the features from a parsed object.
    ///
    /// For a request body use [`RowInput`]: the JSON parser behind `Value` refuses `1e999` as bad syntax and cannot
    /// say which field it stood in.
    ///
    /// # Errors
    /// The first feature, in order, that is there and is no finite number.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, RowError> {
        let mut cells = Cells::default();
        for feature in Feature::ALL {
            match object.get(feature.name()) {
                Some(Value::Number(number)) => cells.put(feature, number.as_f64().unwrap_or(f64::NAN))?,
                Some(other) => {
                    return Err(RowError::NotANumber { field: feature.name(), found: kind_of(other) });
                }
                None => {}
            }
        }
        Ok(cells.finish())
    }
}

fn kind_of(value: &Value) -> JsonKind {
    match value {
        Value::Null => JsonKind::Null,
        Value::Bool(_) => JsonKind::Boolean,
        Value::Number(_) => JsonKind::Number,
        Value::String(_) => JsonKind::Text,
        Value::Array(_) => JsonKind::Array,
        Value::Object(_) => JsonKind::Object,
    }
}

/// What stood where a row was due, checked while it was read from JSON text.
///
/// Reading one fails only on bad syntax (400); a bad field is a value, so that one bad row of a batch fails
/// alone. No map of the object is built: that costs more than the prediction.
///
/// Only for JSON text (`serde_json::from_slice`, `from_str`), not for `from_reader` or `from_value`, because numbers are
/// read from the text itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RowInput(
    /// The row, or why it is none.
    pub Result<FeatureRow, RowError>,
);

impl RowInput {
    /// Reads the text of one complete JSON value. None fails: what the parser can make no value of, such as `1e999`, is no
    /// object either.
    pub fn alone(text: &str) -> Self {
        let found = JsonKind::of(text);
        serde_json::from_str(text).unwrap_or(Self(Err(RowError::NotAnObject { found })))
    }
}

impl<'de> Deserialize<'de> for RowInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RowVisitor).map(Self)
    }
}

/// A row that is being read: which features have been seen is a bit each.
struct Cells {
    values: Features,
    seen: u32,
}

impl Default for Cells {
    fn default() -> Self {
        Self { values: [0.0; FEATURE_COUNT], seen: 0 }
    }
}

impl Cells {
    fn put(&mut self, feature: Feature, value: f64) -> Result<(), RowError> {
        self.values[feature as usize] = feature.finite(value)?;
        self.seen |= 1 << feature as usize;
        Ok(())
    }

    fn finish(self) -> FeatureRow {
        let absent = |feature: &Feature| self.seen & (1 << *feature as usize) == 0;
        let missing_features = Feature::ALL.into_iter().filter(absent).map(Feature::name).collect();
        FeatureRow { values: self.values, missing_features }
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Result<FeatureRow, RowError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of features")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut cells = Cells::default();
        let mut fault = None;
        // Read to the end even after a fault: what follows must still be JSON.
        while let Some(feature) = map.next_key_seed(FeatureName)? {
            let Some(feature) = feature else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let text = map.next_value::<&'de RawValue>()?.get();
            if let Err(error) = feature.read(text).and_then(|value| cells.put(feature, value)) {
                fault.get_or_insert(error);
            }
        }
        Ok(fault.map_or_else(|| Ok(cells.finish()), Err))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(RowError::NotAnObject { found: JsonKind::Array }))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(RowError::NotAnObject { found: JsonKind::Null }))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(RowError::NotAnObject { found: JsonKind::Boolean }))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(RowError::NotAnObject { found: JsonKind::Number }))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err(RowError::NotAnObject { found: JsonKind::Number }))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(RowError::NotAnObject { found: JsonKind::Number }))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(RowError::NotAnObject { found: JsonKind::Text }))
    }
}

/// Reads a member's name without keeping it.
struct FeatureName;

impl<'de> DeserializeSeed<'de> for FeatureName {
    type Value = Option<Feature>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // As text, a name that is no Unicode would be an error; as bytes it is no feature, and ignored like any other.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for FeatureName {
    type Value = Option<Feature>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(std::str::from_utf8(name).ok().and_then(Feature::from_name))
    }
}
