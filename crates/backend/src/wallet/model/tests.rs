//! Hand-computed inputs of the score.

use pools_core::chain::{Address, U256, keccak};

use super::*;
use crate::contracts::borrower::{Lending, RepaidLoan};

const DAY: u64 = 86_400;
const NOW: u64 = 1_000 * DAY;

fn account(last: u64) -> Address {
    Address::from_low_u64_be(last)
}

fn wallet() -> Address {
    account(1)
}

fn ether(tenths: u64) -> U256 {
    U256::exp10(17) * tenths
}

/// A plain transfer out of the wallet.
fn sent(at: u64, nonce: u64) -> Transaction {
    Transaction {
        at,
        from: wallet(),
        to: Some(account(2)),
        value: ether(10),
        data: Vec::new(),
        failed: false,
        nonce: Some(nonce),
        fee: U256::exp10(16),
    }
}

fn received(at: u64) -> Transaction {
    Transaction { from: account(2), to: Some(wallet()), value: ether(50), nonce: Some(77), ..sent(at, 0) }
}

fn call(at: u64, target: u64, selector: [u8; 4]) -> Transaction {
    Transaction { to: Some(account(target)), value: U256::zero(), data: selector.to_vec(), ..sent(at, 9) }
}

#[test]
fn failed_transactions_count_for_the_nonce_and_the_fee_only() {
    let failed = Transaction { failed: true, ..sent(NOW - DAY, 5) };
    let history = History::of(wallet(), &[received(NOW - 11 * DAY), sent(NOW - 6 * DAY, 4), failed], false);
    assert_eq!((history.count, history.volume), (2, ether(60)));
    assert_eq!((history.oldest, history.newest), (Some(NOW - 11 * DAY), Some(NOW - 6 * DAY)));
    assert_eq!(history.signed, Some(6), "the failed one used nonce 5");
    // 5 ETH in, 1 ETH out, two fees of 0.01 ETH.
    assert_eq!(history.balance, Some(ether(40) - U256::exp10(16) * 2));
}

#[test]
fn pace_is_measured_between_the_oldest_and_now_and_between_neighbours() {
    let history = History::of(
        wallet(),
        &[sent(NOW - 10 * DAY, 0), sent(NOW - 8 * DAY, 1), sent(NOW - 4 * DAY, 2)],
        false,
    );
    assert_eq!(history.per_day(NOW), 0.3);
    assert_eq!(history.mean_gap_hours(), 72.0);
    let today = History::of(wallet(), &[sent(NOW - 60, 0), sent(NOW - 30, 1)], false);
    assert_eq!(today.per_day(NOW), 2.0, "the first day counts whole");
    let one = History::of(wallet(), &[sent(NOW, 0)], false);
    assert_eq!((one.mean_gap_hours(), History::default().per_day(NOW)), (0.0, 0.0));
}

#[test]
fn calls_are_counted_with_their_targets_and_their_farming() {
    let farm = [0xb6, 0xb5, 0x5f, 0x25];
    let swap = [1, 2, 3, 4];
    let creation = Transaction { to: None, ..call(NOW - 50 * DAY, 0, [0x60, 0x80, 0x60, 0x40]) };
    let calls = [call(NOW - 40 * DAY, 5, farm), call(NOW, 5, swap), call(NOW, 6, swap), creation];
    let history = History::of(wallet(), &calls, false);
    assert_eq!((history.calls, history.farming, history.protocols), (4, 1, 2));
    let defi = DefiBehavior::new(&history, NOW);
    assert_eq!((defi.yield_farming_activity, defi.defi_experience), (0.25, 50.0));
    let none = DefiBehavior::new(&History::of(wallet(), &[sent(NOW, 0)], false), NOW);
    assert_eq!((none.smart_contract_calls, none.yield_farming_activity, none.defi_experience), (0, 0.0, 0.0));
}

#[test]
fn a_truncated_history_gives_no_balance_but_the_newest_nonce() {
    let history = History::of(wallet(), &[sent(NOW, 41), received(NOW)], true);
    assert_eq!((history.signed, history.balance), (Some(42), None));
    assert_eq!(History::of(wallet(), &[received(NOW)], true).signed, None);
    assert_eq!(History::of(wallet(), &[received(NOW)], false).signed, Some(0));
}

fn transfer(at: u64, token: u64, symbol: &str, from: Address, to: Address, value: u64) -> Transfer {
    Transfer { at, from, to, value: value.into(), contract: account(token), symbol: symbol.to_owned() }
}

#[test]
fn what_is_held_is_what_the_node_says_else_what_came_less_what_went() {
    let (me, other) = (wallet(), account(2));
    let transfers = [
        transfer(NOW - 10 * DAY, 10, "USDC", other, me, 5),
        transfer(NOW - 30 * DAY, 10, "USDC", other, me, 5),
        transfer(NOW - 20 * DAY, 10, "USDC", me, other, 9),
        transfer(NOW - 50 * DAY, 11, "GOV", other, me, 7),
        transfer(NOW - 40 * DAY, 11, "GOV", me, other, 7),
        transfer(NOW - 70 * DAY, 12, "MEME", other, me, 1),
    ];
    let tokens = tokens(me, &transfers);
    assert_eq!(tokens.len(), 3);
    let by_transfers = Holdings::of(&tokens, None, false);
    assert_eq!((by_transfers.held, by_transfers.stable, by_transfers.balances), (2, 1, Balances::Transfers));
    assert_eq!(by_transfers.stablecoin_ratio(), 0.5);
    assert_eq!(by_transfers.mean_holding_days(NOW), 50.0, "30 and 70 days");
    let by_node = Holdings::of(&tokens, Some(&[Some(true), Some(true), Some(false)]), false);
    assert_eq!((by_node.known, by_node.held, by_node.balances), (3, 2, Balances::Chain));
    assert_eq!(by_node.mean_holding_days(NOW), 40.0, "30 and 50 days");
    assert_eq!(by_node.diversity(), 0.2);
    let by_both = Holdings::of(&tokens, Some(&[Some(false), Some(true), None]), false);
    assert_eq!(
        (by_both.held, by_both.balances),
        (2, Balances::Both),
        "GOV as the node says, MEME as it came"
    );
    let empty = Holdings::of(&[], None, false);
    assert_eq!((empty.stablecoin_ratio(), empty.mean_holding_days(NOW), empty.diversity()), (0.0, 0.0, 0.0));
}

#[test]
fn volatility_goes_by_the_eth_balance() {
    let holdings = Holdings::of(&[], None, false);
    let one = U256::one();
    let steps = [
        (U256::zero(), 0.8),
        (ether(1) - one, 0.8),
        (ether(1), 0.6),
        (ether(10) - one, 0.6),
        (ether(10), 0.4),
        (ether(100) - one, 0.4),
        (ether(100), 0.3),
    ];
    for (balance, expected) in steps {
        assert_eq!(PortfolioStability::new(&holdings, balance, NOW).volatility_index, expected, "{balance}");
    }
}

#[test]
fn volume_is_told_in_eth() {
    let history = History::of(wallet(), &[sent(NOW, 0), received(NOW)], false);
    assert_eq!(TransactionMetrics::new(&history, 3, NOW).total_volume, 6.0);
}

#[test]
fn a_loan_was_repaid_when_the_wallet_called_repay_loan_last() {
    let selector: [u8; 4] = keccak(b"repayLoan(uint256)").as_bytes()[..4].try_into().unwrap();
    let repay = |at: u64, contract: u64, loan: u64| {
        let mut argument = [0; 32];
        U256::from(loan).to_big_endian(&mut argument);
        let data = [&selector[..], &argument].concat();
        Transaction { data, ..call(at, contract, selector) }
    };
    let failed = Transaction { failed: true, ..repay(NOW + 900, 9, 7) };
    let elsewhere = repay(NOW + 950, 8, 7);
    let history =
        History::of(wallet(), &[repay(NOW + 100, 9, 7), failed, elsewhere, repay(NOW + 500, 9, 7)], false);
    let loan = |id: u64, duration| RepaidLoan { id: id.into(), funded_at: NOW, duration };
    let lending =
        |repaid_loans| Lending { contract: account(9), total: 3, repaid: 2, defaulted: 1, repaid_loans };
    let known = LendingHistory::new(&lending(vec![loan(7, 1_000), loan(6, 1_000)]), &history.repayments);
    assert_eq!((known.total_loans, known.repaid_loans, known.defaulted_loans), (3, 2, 1));
    assert_eq!(known.avg_repayment_time, 0.5, "loan 6 is unknown and left out");
    let unknown = LendingHistory::new(&lending(vec![loan(6, 1_000)]), &history.repayments);
    assert_eq!(unknown.avg_repayment_time, 0.0);
}
