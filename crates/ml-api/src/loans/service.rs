//! What the routes may do with recorded loans, database or not.

use super::{
    error::LoanError,
    model::{LoanRecord, OutcomeUpdate},
    store::{LoanStore, Statistics},
};

/// Records loans. Clones share the store.
#[derive(Clone, Debug)]
pub struct LoanService {
    store: Option<LoanStore>,
}

impl LoanService {
    /// Without a store every question is answered with [`LoanError::NotConfigured`].
    pub fn new(store: Option<LoanStore>) -> Self {
        Self { store }
    }

    fn store(&self) -> Result<&LoanStore, LoanError> {
        self.store.as_ref().ok_or(LoanError::NotConfigured)
    }

    /// Records a loan, or adds to what is known of it. Returns whether it is new.
    ///
    /// # Errors
    /// There is no database, or it is away.
    pub async fn record(&self, loan: &LoanRecord) -> Result<bool, LoanError> {
        Ok(self.store()?.record(loan).await?)
    }

    /// Records how a loan ended.
    ///
    /// # Errors
    /// As [`record`](Self::record), or the loan is unknown.
    pub async fn update(&self, update: &OutcomeUpdate) -> Result<(), LoanError> {
        match self.store()?.update(update).await? {
            true => Ok(()),
            false => Err(LoanError::Unknown),
        }
    }

    /// Counts what was recorded.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub async fn statistics(&self) -> Result<Statistics, LoanError> {
        Ok(self.store()?.statistics().await?)
    }
}
