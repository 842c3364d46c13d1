//! The body of `/predict/batch`: `{"loans": […]}`, read row by row so that one bad row fails alone.
//!
//! ```text
//!  body ──JsonBody<Batch<Rows>>──► rows
//!    └─ a row that the parser can make no value of (422): once more ──JsonBody<Batch<RowsAlone>>──► rows
//! ```

use std::{cell::RefCell, convert::identity, fmt, marker::PhantomData, pin::Pin, rc::Rc};

use actix_web::{
    FromRequest, HttpRequest, ResponseError, dev::Payload, error::PayloadError, http::StatusCode, web::Bytes,
};
use futures_util::{Stream, TryStreamExt, stream};
use pools_core::web::{JsonBody, Problem};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::RowInput;

/// Rows in one request. A row of `{}` is two bytes but answers with half a kilobyte, so that the body's 10 MiB
/// alone would let a caller ask for gigabytes.
pub const MAX_ROWS: usize = 10_000;

/// The rows of a request, if they are there.
#[derive(Debug)]
pub struct BatchBody(pub Option<Vec<RowInput>>);

impl FromRequest for BatchBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        // The pieces are shared with the reader, not copied.
        let kept = Rc::<RefCell<Vec<Bytes>>>::default();
        let keep = Rc::clone(&kept);
        let pieces = payload.take().inspect_ok(move |piece| keep.borrow_mut().push(piece.clone()));
        let together = JsonBody::<Batch<Rows>>::from_request(request, &mut body(pieces));
        let request = request.clone();
        Box::pin(async move {
            match together.await {
                Ok(JsonBody(batch)) => Ok(Self(batch.loans.map(|Rows(rows)| rows))),
                Err(problem) if problem.status_code() == StatusCode::UNPROCESSABLE_ENTITY => {
                    let pieces = stream::iter(kept.take().into_iter().map(Ok));
                    let alone = JsonBody::<Batch<RowsAlone>>::from_request(&request, &mut body(pieces));
                    Ok(Self(alone.await?.0.loans.map(|RowsAlone(rows)| rows)))
                }
                Err(problem) => Err(problem),
            }
        })
    }
}

fn body(pieces: impl Stream<Item = Result<Bytes, PayloadError>> + 'static) -> Payload {
    Payload::Stream { payload: Box::pin(pieces) }
}

/// The body: an object, of which only `loans` is read.
struct Batch<R> {
    loans: Option<R>,
}

impl<'de, R: Deserialize<'de>> Deserialize<'de> for Batch<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BatchVisitor(PhantomData))
    }
}

/// A derived one would take an array of its members for the object.
struct BatchVisitor<R>(PhantomData<R>);

impl<'de, R: Deserialize<'de>> Visitor<'de> for BatchVisitor<R> {
    type Value = Batch<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with loans")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Batch<R>, A::Error> {
        let mut loans = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == "loans" {
                loans = map.next_value::<Option<R>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Batch { loans })
    }
}

/// The rows of a batch, in order.
struct Rows(Vec<RowInput>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor(identity)).map(Self)
    }
}

/// The same rows, each found in the text before it is read: that costs a second look at each byte, but what is wrong
/// with one row is known of that row alone.
struct RowsAlone(Vec<RowInput>);

impl<'de> Deserialize<'de> for RowsAlone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let alone = |text: &'de RawValue| RowInput::alone(text.get());
        deserializer.deserialize_seq(RowsVisitor(alone)).map(Self)
    }
}

struct RowsVisitor<T>(fn(T) -> RowInput);

impl<'de, T: Deserialize<'de>> Visitor<'de> for RowsVisitor<T> {
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
            rows.push((self.0)(row));
        }
        Ok(rows)
    }
}
