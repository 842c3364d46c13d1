//! The body of `/predict/batch`: `{"loans": […]}`, read row by row so that one bad row fails alone.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::RowInput;

/// Rows in one request. A row of `{}` is two bytes but answers with half a kilobyte, so that the body's 10 MiB
/// alone would let a caller ask for gigabytes.
pub const MAX_ROWS: usize = 10_000;

/// The body: an object, of which only `loans` is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The rows, if they are there.
    pub loans: Option<Rows>,
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BatchVisitor)
    }
}

/// A derived one would take an array of its members for the object.
struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with loans")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Batch, A::Error> {
        let mut loans = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == "loans" {
                loans = map.next_value::<Option<Rows>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Batch { loans })
    }
}

/// The rows of a batch, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows(pub Vec<RowInput>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor).map(Self)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Vec<RowInput>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of loans")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = seq.next_element()? {
            if rows.len() == MAX_ROWS {
                return Err(Error::custom(format_args!("more than {MAX_ROWS} loans")));
            }
            rows.push(row);
        }
        Ok(rows)
    }
}
