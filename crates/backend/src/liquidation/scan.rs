//! One pass over every loan.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use pools_core::chain::{PendingTx, U256};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    client::{LiquidatorClient, PayError},
    model::{self, Verdict},
};
use crate::contracts::{
    client::{Asset, ContractClient, Head},
    error::ContractError,
    model::Loan,
};

/// Loans read at once: large enough for full batches, small enough that a million loans fit into memory.
const CHUNK: u64 = 1_000;

/// What a scan found and did; `lastScan` of the status.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScanReport {
    /// The block that everything was read at.
    pub block: u64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub duration_ms: u64,
    /// Loans read, of whatever status.
    pub loans_read: u64,
    /// Loans that were to be liquidated.
    pub candidates: u64,
    /// Ids of the loans that were.
    pub liquidated: Vec<String>,
    /// Loans that could not be read, judged or paid.
    pub skipped: Vec<Skipped>,
}

/// A loan left alone, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Its id.
    pub loan_id: String,
    /// Why.
    pub reason: String,
}

/// A loan to be paid.
struct Candidate {
    loan: Loan,
    debt: U256,
}

/// What one scan works with.
#[derive(Debug)]
pub struct Scan<'a> {
    /// Reads.
    pub contract: &'a ContractClient,
    /// Pays.
    pub liquidator: &'a LiquidatorClient,
    /// Transactions of earlier scans whose end is unknown, by loan.
    pub unsettled: &'a mut HashMap<U256, PendingTx>,
}

impl Scan<'_> {
    /// Reads every loan at one block, judges, and pays what is to be paid. `stopping` is asked between two loans.
    ///
    /// # Errors
    /// The node failed before any loan was judged; one loan's failure is in the report instead.
    pub async fn run(mut self, stopping: impl Fn() -> bool) -> Result<ScanReport, ContractError> {
        let (begun, started_at) = (Instant::now(), Utc::now());
        let head = self.contract.head().await?;
        let mut report = ScanReport {
            block: head.number,
            started_at,
            duration_ms: 0,
            loans_read: 0,
            candidates: 0,
            liquidated: Vec::new(),
            skipped: Vec::new(),
        };
        self.settle(&mut report).await;
        let candidates = self.find(head, &mut report).await?;
        report.candidates = candidates.len() as u64;
        for candidate in candidates {
            if stopping() {
                report.skip(candidate.loan.id, "the service is shutting down");
                continue;
            }
            self.pay(candidate, head, &mut report).await;
        }
        report.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// Looks up transactions of earlier scans.
    async fn settle(&mut self, report: &mut ScanReport) {
        for (loan, pending) in std::mem::take(self.unsettled) {
            match self.liquidator.settled(&pending).await {
                Some(true) => report.liquidated.push(loan.to_string()),
                Some(false) => {}
                None => {
                    self.unsettled.insert(loan, pending);
                }
            }
        }
    }

    async fn find(&self, head: Head, report: &mut ScanReport) -> Result<Vec<Candidate>, ContractError> {
        let end = self.contract.next_loan_id(head).await?;
        let mut candidates = Vec::new();
        for start in (1..end).step_by(usize::try_from(CHUNK).unwrap_or(usize::MAX)) {
            let ids = start..end.min(start + CHUNK);
            let loans = self.contract.loans(ids.clone(), head).await;
            let mut running = Vec::new();
            for (id, loan) in ids.zip(loans) {
                match loan {
                    Ok(loan) => {
                        report.loans_read += 1;
                        running.extend(loan.status.is_running().then_some(loan));
                    }
                    Err(cause) => report.skip(id.into(), &explain(&cause)),
                }
            }
            candidates.extend(self.judge(running, head, report).await);
        }
        Ok(candidates)
    }

    async fn judge(&self, running: Vec<Loan>, head: Head, report: &mut ScanReport) -> Vec<Candidate> {
        let values = self.contract.usd_values(&running.iter().collect::<Vec<_>>(), head).await;
        let mut candidates = Vec::new();
        for (loan, values) in running.into_iter().zip(values) {
            match model::judge(&loan, head.timestamp, &values) {
                Verdict::Leave => {}
                Verdict::Skip { reason } => report.skip(loan.id, &reason),
                Verdict::Liquidate { .. } if self.unsettled.contains_key(&loan.id) => {
                    report.skip(loan.id, "an earlier transaction for it is not mined yet");
                }
                Verdict::Liquidate { debt } => candidates.push(Candidate { loan, debt }),
            }
        }
        candidates
    }

    async fn pay(&mut self, Candidate { loan, debt }: Candidate, head: Head, report: &mut ScanReport) {
        let paid = match self.contract.asset(loan.token_id, head).await {
            Ok(Asset::Eth) => self.liquidator.pay_eth(loan.id, debt).await,
            Ok(Asset::Erc20(token)) => self.liquidator.pay_erc20(loan.id, token, debt).await,
            Err(cause) => return report.skip(loan.id, &explain(&cause)),
        };
        match paid {
            Ok(()) => {
                tracing::info!(loan = %loan.id, %debt, "liquidated");
                report.liquidated.push(loan.id.to_string());
            }
            Err(cause) => {
                report.skip(loan.id, &cause.to_string());
                if let PayError::Unknown { step: "liquidate", pending } = cause {
                    self.unsettled.insert(loan.id, *pending);
                }
            }
        }
    }
}

impl ScanReport {
    fn skip(&mut self, loan: U256, reason: &str) {
        tracing::warn!(%loan, reason, "loan left alone");
        self.skipped.push(Skipped { loan_id: loan.to_string(), reason: reason.to_owned() });
    }
}

fn explain(error: &ContractError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
