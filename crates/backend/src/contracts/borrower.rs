//! What the contract knows of a borrower, and how it is shown.

use pools_core::chain::{Address, Token, U256, checksummed};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::{Loan, Status};

/// The contract's own account of a borrower; fields and units are the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditRecord {
    /// The contract's score, 300..850; 0 for somebody who never had a loan funded.
    pub score: U256,
    /// Loans that were funded.
    pub total_loans: U256,
    /// Of these, paid back.
    pub repaid_loans: U256,
    /// Of these, liquidated.
    pub defaulted_loans: U256,
    /// USD with 8 decimals.
    pub total_borrowed: U256,
    /// USD with 8 decimals.
    pub total_repaid: U256,
    /// Unix seconds; 0 for never.
    pub last_updated: U256,
}

impl CreditRecord {
    /// From the seven values of `creditScores(address)`. `None` when they are not such values.
    pub fn from_tokens(tokens: Vec<Token>) -> Option<Self> {
        let mut values = tokens.into_iter();
        let mut next = || values.next().and_then(Token::into_uint);
        Some(Self {
            score: next()?,
            total_loans: next()?,
            repaid_loans: next()?,
            defaulted_loans: next()?,
            total_borrowed: next()?,
            total_repaid: next()?,
            last_updated: next()?,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "score": self.score.to_string(),
            "totalLoansCount": self.total_loans.to_string(),
            "repaidLoansCount": self.repaid_loans.to_string(),
            "defaultedLoansCount": self.defaulted_loans.to_string(),
            "totalBorrowed": self.total_borrowed.to_string(),
            "totalRepaid": self.total_repaid.to_string(),
            "lastUpdated": self.last_updated.to_string(),
        })
    }
}

/// A loan that was paid back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepaidLoan {
    /// Its id.
    pub id: U256,
    /// Unix seconds.
    pub funded_at: u64,
    /// Seconds.
    pub duration: u64,
}

/// A borrower in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lending {
    /// The contract.
    pub contract: Address,
    /// Loans that were funded.
    pub total: u64,
    /// Of these, paid back.
    pub repaid: u64,
    /// Of these, liquidated.
    pub defaulted: u64,
    /// Those paid back, each.
    pub repaid_loans: Vec<RepaidLoan>,
}

/// A borrower as both features want it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Borrower {
    /// As the API shows it.
    pub body: Value,
    /// In numbers.
    pub lending: Lending,
}

impl Borrower {
    /// `loans` and `shown` are the same loans in the same order.
    pub fn new(
        address: Address,
        contract: Address,
        record: &CreditRecord,
        loans: &[Loan],
        shown: &[Value],
    ) -> Self {
        let repaid = loans.iter().filter(|loan| loan.status == Status::Repaid);
        let lending = Lending {
            contract,
            total: whole(record.total_loans),
            repaid: whole(record.repaid_loans),
            defaulted: whole(record.defaulted_loans),
            repaid_loans: repaid.map(repaid_loan).collect(),
        };
        let body = json!({
            "address": checksummed(address),
            "creditScore": record.to_json(),
            "loans": shown,
            "totals": totals(record, loans),
        });
        Self { body, lending }
    }
}

fn totals(record: &CreditRecord, loans: &[Loan]) -> Value {
    let with = |of: fn(Status) -> bool| loans.iter().filter(|loan| of(loan.status)).count();
    json!({
        "loans": loans.len(),
        "requested": with(|status| status == Status::Requested),
        "active": with(Status::is_running),
        "repaid": with(|status| status == Status::Repaid),
        "defaulted": with(|status| status == Status::Defaulted),
        "borrowedUSD": usd(record.total_borrowed),
        "repaidUSD": usd(record.total_repaid),
    })
}

fn repaid_loan(loan: &Loan) -> RepaidLoan {
    RepaidLoan { id: loan.id, funded_at: whole(loan.funded_at), duration: whole(loan.duration) }
}

/// A count or a time, which no real chain lets grow beyond 64 bits.
fn whole(number: U256) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// USD with 8 decimals as a number.
pub fn usd(amount: U256) -> f64 {
    // Decimal digits of 256 bits are always a float.
    amount.to_string().parse::<f64>().map_or(f64::MAX, |units| units / 1e8)
}
