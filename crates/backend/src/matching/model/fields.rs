//! The members of an order, each checked as it is read. The rules are ml-api's.

use std::fmt;

use pools_core::chain::U256;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::address::WalletAddress;

const LONGEST_ID: usize = 128;
const LONGEST_TOKEN: usize = 64;
const HIGHEST_RATE: u64 = 1_000_000;
/// 100 years.
const LONGEST_DURATION: u64 = 3_155_760_000;
const HIGHEST_RISK: f64 = 1_000.0;

/// Text of 1 to `longest` printable characters, or a whole number.
fn name(value: Value, longest: usize) -> Option<String> {
    match value {
        Value::String(text) => {
            let good = (1..=longest).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            good.then_some(text)
        }
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        _ => None,
    }
}

macro_rules! member {
    ($(#[doc = $doc:literal])+ $name:ident($inner:ty) is $($also:ident)*: $expected:literal, $parse:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Deserialize $(, $also)*)]
        #[serde(try_from = "Value")]
        pub struct $name($inner);

        impl TryFrom<Value> for $name {
            type Error = &'static str;

            fn try_from(value: Value) -> Result<Self, Self::Error> {
                let parse: fn(Value) -> Option<$inner> = $parse;
                parse(value).map(Self).ok_or(concat!("must be ", $expected))
            }
        }
    };
}

macro_rules! texts {
    ($($name:ident),+) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )+ };
}

member! {
    /// Names a request or an offer.
    BookId(String) is Eq: "a text of 1 to 128 printable characters, or a whole number", |value| name(value, LONGEST_ID)
}

member! {
    /// Names a token.
    TokenType(String) is Eq PartialOrd Ord: "a text of 1 to 64 printable characters, or a whole number",
    |value| name(value, LONGEST_TOKEN)
}

texts!(BookId, TokenType);

impl TokenType {
    /// Whether it is ETH, by its symbol or by its number in the contract.
    pub fn is_eth(&self) -> bool {
        self.0 == "0" || self.0.eq_ignore_ascii_case("eth")
    }
}

member! {
    /// A uint256 above 0, in decimal: an amount in the token's base unit.
    Amount(U256) is Copy Eq PartialOrd: "a text of decimal digits, 1 to 2^256-1, without leading zeros", |value| {
        let text = value.as_str()?;
        let digits = text.bytes().all(|digit| digit.is_ascii_digit()) && !text.starts_with('0');
        U256::from_dec_str(text).ok().filter(|amount| digits && !amount.is_zero())
    }
}

impl Amount {
    /// The number.
    pub fn get(self) -> U256 {
        self.0
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

member! {
    /// A yearly rate.
    BasisPoints(u32) is Copy PartialOrd: "a whole number of basis points, 0 to 1000000",
    |value| u32::try_from(value.as_u64().filter(|rate| *rate <= HIGHEST_RATE)?).ok()
}

impl BasisPoints {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Serialize for BasisPoints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

member! {
    /// How long a loan runs.
    Seconds(u64) is Copy PartialOrd: "a whole number of seconds, 1 to 3155760000",
    |value| value.as_u64().filter(|seconds| (1..=LONGEST_DURATION).contains(seconds))
}

impl Seconds {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

member! {
    /// How risky a borrower is.
    Risk(f64) is Copy: "a number, 0 to 1000", |value| value.as_f64().filter(|risk| (0.0..=HIGHEST_RISK).contains(risk))
}

impl Risk {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Serialize for Risk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

member! {
    /// A borrower or a lender.
    Party(WalletAddress) is Eq: "an address: 0x and 40 hex digits; in mixed case its EIP-55 checksum must be right",
    |value| WalletAddress::parse(value.as_str()?)
}

impl Serialize for Party {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
