//! ml-api's matching book.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    error::MatchingError,
    model::{BookId, LendingOffer, LoanRequest, Pair},
};
use crate::ml::{
    client::{Answer, MlClient},
    error::MlError,
};

/// The book, wherever it is kept.
#[derive(Clone, Debug)]
pub struct BookClient(MlClient);

impl BookClient {
    /// The book of this ml-api.
    pub fn new(ml: MlClient) -> Self {
        Self(ml)
    }

    /// Opens a request, or replaces its terms; ml-api's message.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn put_request(&self, request: &LoanRequest) -> Result<Value, MatchingError> {
        self.put("requests", &request.loan_id, request).await
    }

    /// Opens an offer, or replaces its terms; ml-api's message.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn put_offer(&self, offer: &LendingOffer) -> Result<Value, MatchingError> {
        self.put("offers", &offer.offer_id, offer).await
    }

    /// Takes both sides; `None` when the book has changed, so that they no longer fit.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn take(&self, pair: &Pair) -> Result<Option<Value>, MatchingError> {
        let body = serde_json::to_vec(pair).map_err(MlError::Answer)?;
        let answer = self.0.post("/matches", body.into()).await?;
        if matches!(answer.status.as_u16(), 404 | 409) {
            return Ok(None);
        }
        Ok(read::<Value>(answer)?.get("match").cloned())
    }

    /// Every open request, by ascending risk, as ml-api shows it.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn requests(&self) -> Result<Vec<Value>, MatchingError> {
        self.list("/requests", "requests").await
    }

    /// Every open offer, the oldest first, as ml-api shows it.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn offers(&self) -> Result<Vec<Value>, MatchingError> {
        self.list("/offers", "offers").await
    }

    /// How many matches there are, and the latest ten.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn matches(&self) -> Result<(u64, Vec<Value>), MatchingError> {
        let mut body: Value = read(self.0.get("/matches").await?)?;
        let total = body["total"].as_u64().unwrap_or(0);
        Ok((total, typed(body["matches"].take())?))
    }

    async fn put(&self, list: &str, id: &BookId, order: &impl Serialize) -> Result<Value, MatchingError> {
        let id = id.to_string();
        let path = format!("/{list}/{}", utf8_percent_encode(&id, NON_ALPHANUMERIC));
        let body = serde_json::to_vec(order).map_err(MlError::Answer)?;
        read(self.0.put(&path, body.into()).await?)
    }

    async fn list(&self, path: &str, member: &str) -> Result<Vec<Value>, MatchingError> {
        let mut body: Value = read(self.0.get(path).await?)?;
        typed(body[member].take())
    }
}

/// Rows as they are shown, read as what they stand for.
///
/// # Errors
/// ml-api answered something else.
pub fn orders<T: DeserializeOwned>(rows: &[Value]) -> Result<Vec<T>, MatchingError> {
    rows.iter().map(|row| T::deserialize(row).map_err(|cause| MlError::Answer(cause).into())).collect()
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, MatchingError> {
    if !answer.status.is_success() {
        return Err(MatchingError::Refused(Box::new(answer)));
    }
    serde_json::from_slice(&answer.body).map_err(|cause| MlError::Answer(cause).into())
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, MatchingError> {
    serde_json::from_value(value).map_err(|cause| MlError::Answer(cause).into())
}
