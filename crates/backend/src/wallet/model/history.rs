//! What a wallet's transactions add up to.

use std::collections::HashSet;

use pools_core::chain::{Address, U256};
use serde::{Deserialize, Serialize};

/// Selectors of deposits, withdrawals, stakes, unstakes and harvests.
const FARMING: [[u8; 4]; 5] = [
    [0xb6, 0xb5, 0x5f, 0x25],
    [0x2e, 0x1a, 0x7d, 0x4d],
    [0xa6, 0x94, 0xfc, 0x3a],
    [0x2e, 0x17, 0xde, 0x78],
    [0x46, 0x41, 0x25, 0x7d],
];
/// The selector of `repayLoan(uint256)`.
const REPAY_LOAN: [u8; 4] = [0xab, 0x7b, 0x1c, 0x89];
/// Repayments that are remembered: a borrower with more of them has no need for another bonus.
const REPAYMENTS: usize = 100;

/// One entry of `txlist` or `txlistinternal`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// Unix seconds.
    pub at: u64,
    /// Who sent it.
    pub from: Address,
    /// Who received it; none for the creation of a contract.
    pub to: Option<Address>,
    /// Wei.
    pub value: U256,
    /// What it calls, by its first bytes; empty for a plain transfer.
    pub data: Vec<u8>,
    /// Whether it was reverted.
    pub failed: bool,
    /// How many its sender had signed before; none for an internal one.
    pub nonce: Option<u64>,
    /// Wei that its sender paid for gas; zero for an internal one.
    pub fee: U256,
}

/// A call of `repayLoan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repayment {
    /// Of this contract.
    pub contract: Address,
    /// For this loan.
    pub loan: U256,
    /// Unix seconds.
    pub at: u64,
}

/// Every transaction of a wallet that did not fail, in sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// How many.
    pub count: u64,
    /// Wei that moved, in both directions.
    pub volume: U256,
    /// Unix seconds of the oldest.
    pub oldest: Option<u64>,
    /// Unix seconds of the newest.
    pub newest: Option<u64>,
    /// How many carried calldata.
    pub calls: u64,
    /// How many of these farmed.
    pub farming: u64,
    /// Distinct targets of these.
    pub protocols: u64,
    /// Unix seconds of the first of these.
    pub first_call: Option<u64>,
    /// How many transactions the wallet has signed; unknown when none of a truncated list is its own.
    pub signed: Option<u64>,
    /// What its ETH balance follows from the transfers to be; unknown when the list is truncated.
    pub balance: Option<U256>,
    /// Loans that it paid back, the newest first.
    pub repayments: Vec<Repayment>,
    /// Whether older transactions are missing.
    pub truncated: bool,
}

impl History {
    /// The sum of both lists. `truncated`: older entries exist.
    pub fn of(wallet: Address, transactions: &[Transaction], truncated: bool) -> Self {
        let good = || transactions.iter().filter(|transaction| !transaction.failed);
        let calls = || good().filter(|transaction| !transaction.data.is_empty());
        let targets: HashSet<_> = calls().filter_map(|call| call.to).collect();
        let nonces = transactions.iter().filter(|own| own.from == wallet).filter_map(|own| own.nonce);
        let newest_nonce = nonces.max();
        let signed = newest_nonce.map(|nonce| nonce + 1);
        Self {
            count: good().count() as u64,
            volume: good().fold(U256::zero(), |sum, one| sum.saturating_add(one.value)),
            oldest: good().map(|one| one.at).min(),
            newest: good().map(|one| one.at).max(),
            calls: calls().count() as u64,
            farming: calls().filter(|call| is_farming(&call.data)).count() as u64,
            protocols: targets.len() as u64,
            first_call: calls().map(|call| call.at).min(),
            signed: if truncated { signed } else { Some(signed.unwrap_or(0)) },
            balance: (!truncated).then(|| balance(wallet, transactions)),
            repayments: repayments(wallet, calls()),
            truncated,
        }
    }

    /// Hours between neighbours, on average; 0 with fewer than two.
    pub fn mean_gap_hours(&self) -> f64 {
        let (Some(oldest), Some(newest), 2..) = (self.oldest, self.newest, self.count) else { return 0.0 };
        super::seconds(newest - oldest) / 3_600.0 / super::seconds(self.count - 1)
    }

    /// Transactions per day since the oldest, which counts as a day old at least.
    pub fn per_day(&self, now: u64) -> f64 {
        let Some(oldest) = self.oldest else { return 0.0 };
        super::seconds(self.count) / super::days(oldest, now).max(1.0)
    }

    /// Share of the calls that farm.
    pub fn farming_share(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { super::seconds(self.farming) / super::seconds(self.calls) }
    }
}

fn is_farming(data: &[u8]) -> bool {
    data.get(..4).is_some_and(|selector| FARMING.iter().any(|known| known == selector))
}

/// What came less what went and what gas cost. Money that no list shows, such as block rewards, is missing from it.
fn balance(wallet: Address, transactions: &[Transaction]) -> U256 {
    let (mut came, mut went) = (U256::zero(), U256::zero());
    for transaction in transactions {
        let moved = if transaction.failed { U256::zero() } else { transaction.value };
        if transaction.to == Some(wallet) {
            came = came.saturating_add(moved);
        }
        if transaction.from == wallet {
            went = went.saturating_add(moved).saturating_add(transaction.fee);
        }
    }
    came.saturating_sub(went)
}

fn repayments<'a>(wallet: Address, calls: impl Iterator<Item = &'a Transaction>) -> Vec<Repayment> {
    let repayment = |call: &Transaction| {
        let loan = call.data.strip_prefix(&REPAY_LOAN)?.get(..32)?;
        let own = call.from == wallet;
        own.then_some(Repayment { contract: call.to?, loan: U256::from_big_endian(loan), at: call.at })
    };
    let mut found: Vec<_> = calls.filter_map(repayment).collect();
    found.sort_by_key(|repayment| std::cmp::Reverse(repayment.at));
    found.truncate(REPAYMENTS);
    found
}
