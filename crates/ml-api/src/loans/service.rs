//! What the routes may do with recorded loans, database or not.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    error::LoanError,
    model::{LoanRecord, OutcomeUpdate},
    store::{LoanStore, Statistics},
};

/// How often it is looked whether the schema is due; while it is not, that costs one atomic read.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after a migration that failed: soon enough to be used within 2 s of its cause's end.
const RETRY: Duration = Duration::from_secs(1);

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

    /// Whether nothing that was configured is missing.
    pub fn is_ready(&self) -> bool {
        self.store.as_ref().is_none_or(LoanStore::has_schema)
    }

    /// Keeps the schema in place until `stopping` resolves.
    ///
    /// # Cancel safety
    /// Stopped in the middle of a migration, that is rolled back by the server.
    pub async fn keep_schema(self, stopping: impl Future<Output = ()>) {
        let Some(store) = self.store else { return };
        tokio::select! {
            () = stopping => {}
            () = keep_schema(&store) => {}
        }
    }
}

async fn keep_schema(store: &LoanStore) {
    let mut told = None;
    loop {
        let fault = store.tend().await.err().map(|error| error.reason());
        if fault.is_some() && fault != told {
            tracing::warn!(cause = fault, "the schema cannot be brought up to date; trying again");
        }
        let pause = if fault.is_some() { RETRY } else { LOOK };
        told = fault;
        sleep(pause).await;
    }
}
