//! JSON that Postgres' jsonb has a place for, checked without building it: ten megabytes of `[0,0,…]` would be 160
//! as values.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Digits behind the point that Postgres' numeric keeps, and before it.
const MOST_DECIMALS: i64 = 16_383;
const MOST_DIGITS: i64 = 131_072;

/// Whether Postgres' numeric, which jsonb keeps numbers in, has room for each number of a JSON text.
pub(super) fn numbers_fit(json: &str) -> bool {
    let (mut in_text, mut escaped, mut number) = (false, false, String::new());
    for character in json.chars().chain([' ']) {
        if in_text {
            (in_text, escaped) = (escaped || character != '"', !escaped && character == '\\');
            continue;
        }
        match character {
            '0'..='9' | '.' | 'e' | 'E' | '+' | '-' => number.push(character),
            _ if !fits(&number) => return false,
            _ => {
                number.clear();
                in_text = character == '"';
            }
        }
    }
    true
}

fn fits(number: &str) -> bool {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len() as i64);
    // Without digits it is the end of `true`. An exponent that no i64 holds is beyond either bound.
    let room = |exponent: i64| decimals.saturating_sub(exponent) <= MOST_DECIMALS && exponent <= MOST_DIGITS;
    digits.is_empty() || exponent.parse().is_ok_and(room)
}

/// A JSON value without NUL characters; what else jsonb refuses, the parser refuses before.
pub(super) struct Storable;

impl<'de> Deserialize<'de> for Storable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Storable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without NUL characters")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self, E> {
        if text.contains('\0') { Err(E::custom("a NUL character")) } else { Ok(self) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_more_decimals_than_numeric_keeps_does_not_fit_wherever_it_stands() {
        let decimals = format!("0.{}1", "0".repeat(16_383));
        for json in
            ["1e-16384", "[true,{\"a\":1.5E-16383}]", "-1e-99999999999999999999", "0e-20000", &decimals]
        {
            assert!(!numbers_fit(json), "{json:.40}");
        }
        for json in ["1e-16383", "1e308", "[false,null,-0.5e+3]", r#""1e-99999""#, r#"["\"1e-99999", 1]"#] {
            assert!(numbers_fit(json), "{json}");
        }
    }
}
