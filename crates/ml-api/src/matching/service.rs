//! What the routes may do with the book, database or not.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    error::{MatchingError, Side},
    model::{BookId, LendingOffer, LoanRequest, MatchOrder},
    store::{Listed, Made, MatchingStore, Open, Recent},
};

/// How often expired sides are removed. They are in no list and no match before that.
const TIDY: Duration = Duration::from_secs(60);
/// Pause when Postgres could not be asked.
const RETRY: Duration = Duration::from_secs(1);

/// The matching book. Clones share the store.
#[derive(Clone, Debug)]
pub struct MatchingService {
    store: Option<MatchingStore>,
}

impl MatchingService {
    /// Without a store every question is answered with [`MatchingError::NotConfigured`].
    pub fn new(store: Option<MatchingStore>) -> Self {
        Self { store }
    }

    fn store(&self) -> Result<&MatchingStore, MatchingError> {
        self.store.as_ref().ok_or(MatchingError::NotConfigured)
    }

    /// Opens a request for 24 hours, or replaces its terms. Returns whether it is new.
    ///
    /// # Errors
    /// It is matched, or there is no database, or that is away.
    pub async fn put_request(&self, request: &LoanRequest) -> Result<bool, MatchingError> {
        self.store()?.put_request(request).await
    }

    /// Opens an offer for 24 hours, or replaces its terms. Returns whether it is new.
    ///
    /// # Errors
    /// As [`put_request`](Self::put_request).
    pub async fn put_offer(&self, offer: &LendingOffer) -> Result<bool, MatchingError> {
        self.store()?.put_offer(offer).await
    }

    /// Removes one side that has no match.
    ///
    /// # Errors
    /// As [`put_request`](Self::put_request), or it is unknown.
    pub async fn remove(&self, side: Side, id: &BookId) -> Result<(), MatchingError> {
        self.store()?.remove(side, id).await
    }

    /// Open requests, by ascending risk.
    ///
    /// # Errors
    /// There is no database, or it is away.
    pub async fn requests(&self) -> Result<Listed<Open<LoanRequest>>, MatchingError> {
        self.store()?.requests().await
    }

    /// Open offers, the oldest first.
    ///
    /// # Errors
    /// As [`requests`](Self::requests).
    pub async fn offers(&self) -> Result<Listed<Open<LendingOffer>>, MatchingError> {
        self.store()?.offers().await
    }

    /// Takes both sides, or neither.
    ///
    /// # Errors
    /// The book does not allow it, or there is no database, or that is away.
    pub async fn make(&self, order: &MatchOrder) -> Result<Made, MatchingError> {
        self.store()?.make(order).await
    }

    /// Removes what expired long ago until `stopping` resolves. Any number of replicas may do so together.
    pub async fn keep_tidy(self, stopping: impl Future<Output = ()>) {
        let Some(store) = self.store else { return };
        let tidying = async {
            loop {
                let pause = match store.tidy().await {
                    Ok(0) => TIDY,
                    Ok(removed) => {
                        tracing::info!(removed, "expired requests and offers removed");
                        TIDY
                    }
                    // The pool tells of a database that is away.
                    Err(fault) => {
                        tracing::debug!(cause = &fault as &dyn std::error::Error, "the book is not tidied");
                        RETRY
                    }
                };
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = stopping => {}
            () = tidying => {}
        }
    }

    /// How many matches there are, and the latest.
    ///
    /// # Errors
    /// As [`requests`](Self::requests).
    pub async fn recent(&self) -> Result<Recent, MatchingError> {
        self.store()?.recent().await
    }
}
