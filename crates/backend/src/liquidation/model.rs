//! Which loans may be liquidated. Pure: the scan reads, this decides.

use pools_core::chain::U256;

use crate::contracts::model::{Loan, UsdValues};

/// What to do with a loan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Healthy, or no longer running.
    Leave,
    /// Overdue or under-collateralised: pay `debt`, take the collateral.
    Liquidate {
        /// In the token's base unit.
        debt: U256,
    },
    /// Something about it cannot be known: leave it alone and say so.
    Skip {
        /// Why.
        reason: String,
    },
}

/// Decides about one running loan at block time `now`. Both values must be known, past due or not: a price that
/// cannot be read is no licence to take somebody's collateral.
pub fn judge(loan: &Loan, now: u64, values: &Result<UsdValues, String>) -> Verdict {
    if !loan.status.is_running() {
        return Verdict::Leave;
    }
    let values = match values {
        Ok(values) => values,
        Err(reason) => return Verdict::Skip { reason: reason.clone() },
    };
    if !loan.is_past_due(now) && !values.is_under(loan.liquidation_threshold) {
        return Verdict::Leave;
    }
    match loan.debt() {
        Some(debt) if !debt.is_zero() => Verdict::Liquidate { debt },
        Some(_) => Verdict::Skip { reason: "nothing is owed".to_owned() },
        None => Verdict::Skip { reason: "the debt does not fit into 256 bits".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::model::Status;

    const DUE: u64 = 1_000_000;

    fn loan() -> Loan {
        let zero = U256::zero();
        Loan {
            id: 1.into(),
            borrower: Default::default(),
            token_id: zero,
            collateral_token_id: 1.into(),
            amount: 1_000.into(),
            amount_funded: 1_000.into(),
            collateral_amount: 1_500.into(),
            interest_rate: 500.into(),
            duration: 3_600.into(),
            min_contribution: zero,
            funding_deadline: zero,
            created_at: zero,
            funded_at: zero,
            due_date: DUE.into(),
            status: Status::Funded,
            ipfs_document_hash: String::new(),
            risk_score: zero,
            liquidation_threshold: 120.into(),
            total_repaid: 50.into(),
            early_repayment_penalty: zero,
        }
    }

    fn worth(loan: u64, collateral: u64) -> Result<UsdValues, String> {
        Ok(UsdValues { loan: loan.into(), collateral: collateral.into() })
    }

    #[test]
    fn an_overdue_loan_is_liquidated_after_the_grace_and_not_before() {
        let healthy = worth(100, 150);
        assert_eq!(judge(&loan(), DUE + 30, &healthy), Verdict::Leave);
        assert_eq!(judge(&loan(), DUE + 31, &healthy), Verdict::Liquidate { debt: 1_000.into() });
    }

    #[test]
    fn collateral_below_the_loans_own_threshold_is_liquidated_and_at_it_is_not() {
        assert_eq!(judge(&loan(), DUE, &worth(100, 120)), Verdict::Leave);
        assert_eq!(judge(&loan(), DUE, &worth(100, 119)), Verdict::Liquidate { debt: 1_000.into() });
    }

    #[test]
    fn a_price_that_cannot_be_read_saves_even_an_overdue_loan() {
        let verdict = judge(&loan(), DUE + 31, &Err("stale price".to_owned()));
        assert_eq!(verdict, Verdict::Skip { reason: "stale price".to_owned() });
    }

    #[test]
    fn a_loan_that_does_not_run_is_left_alone_and_one_in_voting_is_not() {
        for status in [Status::Requested, Status::Repaid, Status::Defaulted, Status::Cancelled] {
            assert_eq!(judge(&Loan { status, ..loan() }, DUE + 31, &worth(100, 1)), Verdict::Leave);
        }
        let voting = Loan { status: Status::Voting, ..loan() };
        assert!(matches!(judge(&voting, DUE + 31, &worth(100, 150)), Verdict::Liquidate { .. }));
    }

    #[test]
    fn the_debt_is_amount_and_interest_less_what_was_repaid() {
        assert_eq!(loan().debt(), Some(1_000.into()));
        let huge = Loan { amount: U256::MAX, ..loan() };
        assert!(matches!(judge(&huge, DUE + 31, &worth(100, 150)), Verdict::Skip { .. }));
    }
}
