//! What the routes may do with recorded loans, database or not.

use super::{
    error::LoanError,
    model::{LoanRecord, OutcomeUpdate},
    store::{LoanStore, Said, Statistics},
};
use crate::risk::service::RiskService;

/// Records loans. Clones share the store.
#[derive(Clone, Debug)]
pub struct LoanService {
    store: Option<LoanStore>,
    risk: RiskService,
}

impl LoanService {
    /// Without a store every question is answered with [`LoanError::NotConfigured`].
    /// What `risk` says of a loan is kept with it.
    pub fn new(store: Option<LoanStore>, risk: RiskService) -> Self {
        Self { store, risk }
    }

    fn store(&self) -> Result<&LoanStore, LoanError> {
        self.store.as_ref().ok_or(LoanError::NotConfigured)
    }

    /// Records a loan, or adds to what is known of it. Returns whether it is new.
    ///
    /// # Errors
    /// There is no database, or it is away.
    pub async fn record(&self, loan: &LoanRecord) -> Result<bool, LoanError> {
        Ok(self.store()?.record(loan, self.said_of(loan)).await?)
    }

    /// Nothing of a loan without a feature; absent ones count as 0, as in a prediction.
    fn said_of(&self, loan: &LoanRecord) -> Option<Said> {
        loan.features.iter().any(Option::is_some).then_some(())?;
        let in_use = self.risk.in_use().ok()?;
        let features = loan.features.map(Option::unwrap_or_default);
        let probability = in_use.predict(&features).default_probability;
        Some(Said { probability, version: in_use.trained.model.version() })
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
