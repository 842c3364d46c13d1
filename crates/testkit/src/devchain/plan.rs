//! `deploy/anvil/seed.md`, step by step. The page is the plan; this file follows it and keeps its words.

#![expect(clippy::inconsistent_digit_grouping, reason = "hundredths stand behind the last underscore")]

use pools_core::chain::{
    Address, Token, U256, checksummed, contract_address, encode_values, parse_address, to_hex,
};
use serde_json::{Value, json};

use super::{DevchainError, Role, SeededToken, ledger::Ledger};

/// What `deploy/anvil/compile.mjs` made.
const ARTIFACTS: &str = include_str!("../../../../deploy/anvil/artifacts.json");

/// The price that the last call of the plan sets.
const LAST_PRICE: u64 = 1_000_000_000;
const HOUR: u64 = 3_600;
const YEAR: u64 = 31_536_000;
/// The CID of an empty document.
const DOCUMENT: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

/// Loan by loan, what it is an example of.
pub(super) const ROLES: [(u64, Role); 15] = [
    (1, Role::Repaid),
    (2, Role::Defaulted),
    (3, Role::FundingFailed),
    (4, Role::Overdue),
    (5, Role::Overdue),
    (6, Role::StalePrice),
    (7, Role::Overdue),
    (8, Role::Requested),
    (9, Role::Requested),
    (10, Role::Cancelled),
    (11, Role::Healthy),
    (12, Role::Healthy),
    (13, Role::Healthy),
    (14, Role::UnderCollateralised),
    (15, Role::UnderCollateralised),
];

/// Tokens by their number in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lent {
    Eth,
    Usd,
    Gov,
    Old,
}

impl Lent {
    fn decimals(self) -> u32 {
        match self {
            Self::Eth | Self::Gov => 18,
            Self::Usd => 6,
            Self::Old => 8,
        }
    }

    /// Hundredths of a whole token in base units.
    fn cents(self, cents: u64) -> U256 {
        U256::from(cents) * U256::exp10(self.decimals() as usize - 2)
    }
}

/// Where everything is: account 0 deploys first and in this order.
pub(super) struct Contracts {
    feeds: [Address; 4],
    tokens: [Address; 3],
    pub(super) loanverse: Address,
}

impl Contracts {
    pub(super) fn of(ledger: &Ledger) -> Self {
        let at = |nonce| contract_address(ledger.accounts[0], nonce);
        Self { feeds: [at(0), at(1), at(2), at(3)], tokens: [at(4), at(5), at(6)], loanverse: at(7) }
    }

    pub(super) fn tokens(&self) -> Vec<SeededToken> {
        let addresses = [None].into_iter().chain(self.tokens.map(Some));
        let rows = ["ETH", "tUSD", "tGOV", "tOLD"].into_iter().zip(addresses).zip(self.feeds);
        let token = |(id, ((symbol, address), feed)): (u64, ((&'static str, Option<Address>), Address))| {
            SeededToken { id, symbol, address: address.map(checksummed), feed: checksummed(feed) }
        };
        (0..).zip(rows).map(token).collect()
    }

    fn usd(&self) -> Address {
        self.tokens[0]
    }
}

/// Whether the last call of the plan was made.
pub(super) async fn is_carried_out(ledger: &Ledger, contracts: &Contracts) -> Result<bool, DevchainError> {
    if !ledger.has_code(contracts.loanverse).await? || !ledger.has_code(contracts.feeds[2]).await? {
        return Ok(false);
    }
    let price =
        ledger.read(contracts.feeds[2], "function price() view returns (uint256)", Vec::new()).await?;
    Ok(price == number(LAST_PRICE))
}

pub(super) async fn carry_out(
    ledger: &Ledger,
    contracts: &Contracts,
    progress: &(impl Fn(&str) + Send),
) -> Result<(), DevchainError> {
    let plan = Plan { ledger, contracts };
    progress("1/6 contracts");
    plan.deploy().await?;
    progress("2/6 tokens");
    plan.tokens().await?;
    progress("3/6 loans of one hour");
    plan.loans_of_an_hour().await?;
    progress("4/6 two hours pass");
    plan.two_hours_pass().await?;
    progress("5/6 loans of a year");
    plan.loans_of_a_year().await?;
    progress("6/6 tGOV falls");
    plan.set_price(2, LAST_PRICE).await
}

/// Gives a liquidator other than account 9 what that one has.
pub(super) async fn equip(
    ledger: &Ledger,
    contracts: &Contracts,
    liquidator: &str,
    progress: &(impl Fn(&str) + Send),
) -> Result<(), DevchainError> {
    let bad = || DevchainError::Bad { what: format!("address of the liquidator: {liquidator}") };
    let liquidator = parse_address(liquidator).ok_or_else(bad)?;
    let balance_of = "function balanceOf(address) view returns (uint256)";
    let owned = ledger.read(contracts.usd(), balance_of, vec![Token::Address(liquidator)]).await?;
    if owned == number(0) {
        progress("tUSD for the liquidator");
        (Plan { ledger, contracts }).mint(contracts.usd(), liquidator, Lent::Usd).await?;
    }
    if ledger.balance(liquidator).await?.is_zero() {
        progress("ETH for the liquidator");
        ledger.pay(liquidator, Lent::Eth.cents(100_00)).await?;
    }
    Ok(())
}

struct Plan<'a> {
    ledger: &'a Ledger,
    contracts: &'a Contracts,
}

/// A row of the tables of loans; amounts are hundredths of a whole token.
struct Loan {
    id: u64,
    from: usize,
    lent: Lent,
    amount: u64,
    collateral: Lent,
    value: u64,
    rate: u64,
    contributions: &'static [(usize, u64)],
}

impl Plan<'_> {
    async fn deploy(&self) -> Result<(), DevchainError> {
        let feeds = [
            ("ETH / USD", 300_000_000_000),
            ("tUSD / USD", 100_000_000),
            ("tGOV / USD", 2_000_000_000),
            ("tOLD / USD", 500_000_000_u64),
        ];
        for (name, price) in feeds {
            self.create("PriceFeed", &[text(name), number(price)]).await?;
        }
        let tokens =
            [("Test Dollar", "tUSD", 6), ("Test Governance", "tGOV", 18), ("Test Abandoned", "tOLD", 8_u64)];
        for (name, symbol, decimals) in tokens {
            self.create("TestToken", &[text(name), text(symbol), number(decimals)]).await?;
        }
        self.create("Loanverse", &[Token::Address(self.contracts.feeds[0])]).await
    }

    async fn create(&self, contract: &str, arguments: &[Token]) -> Result<(), DevchainError> {
        let artifacts: Value = serde_json::from_str(ARTIFACTS).expect("BUG: artifacts.json is JSON");
        let code = artifacts["contracts"][contract]["bytecode"].as_str();
        let code = code.ok_or_else(|| DevchainError::Bad { what: format!("artefact {contract}") })?;
        let arguments = to_hex(&encode_values(arguments));
        let code = format!("{code}{}", arguments.trim_start_matches("0x"));
        self.ledger.create(&format!("deploying {contract}"), code).await
    }

    async fn tokens(&self) -> Result<(), DevchainError> {
        let Contracts { feeds, tokens, loanverse } = self.contracts;
        for (token, feed) in tokens.iter().zip(&feeds[1..]) {
            let args = vec![Token::Address(*token), Token::Address(*feed)];
            self.ledger.call(0, *loanverse, "function addToken(address,address)", args, U256::zero()).await?;
        }
        let account = |index: usize| self.ledger.accounts[index];
        for index in [1, 2, 3, 4, 5, 6, 7, 9] {
            self.mint(tokens[0], account(index), Lent::Usd).await?;
        }
        for (token, of) in [(tokens[1], Lent::Gov), (tokens[2], Lent::Old)] {
            for index in 1..=4 {
                self.mint(token, account(index), of).await?;
            }
        }
        let borrowers = (1..=4).flat_map(|from| tokens.map(|token| (from, token)));
        for (from, token) in borrowers.chain((5..=7).map(|from| (from, tokens[0]))) {
            let args = vec![Token::Address(*loanverse), Token::Uint(U256::MAX)];
            self.ledger.call(from, token, "function approve(address,uint256)", args, U256::zero()).await?;
        }
        Ok(())
    }

    /// A million whole tokens.
    async fn mint(&self, token: Address, to: Address, of: Lent) -> Result<(), DevchainError> {
        let args = vec![Token::Address(to), Token::Uint(of.cents(1_000_000_00))];
        self.ledger.call(0, token, "function mint(address,uint256)", args, U256::zero()).await
    }

    async fn loans_of_an_hour(&self) -> Result<(), DevchainError> {
        use Lent::{Eth, Old, Usd};
        self.lend(HOUR, row(1, 1, (Eth, 2_00), (Usd, 0), 500, &[(5, 2_00)])).await?;
        self.act(1, "repayLoan(uint256)", &[1], 2_20).await?;
        self.lend(HOUR, row(2, 2, (Eth, 1_00), (Usd, 0), 800, &[(6, 1_00)])).await?;
        self.lend(HOUR, row(3, 2, (Eth, 4_00), (Usd, 0), 600, &[(5, 1_00)])).await?;
        self.lend(HOUR, row(4, 3, (Eth, 2_00), (Usd, 0), 1000, &[(5, 1_50), (6, 50)])).await?;
        self.act(3, "repayLoan(uint256)", &[4], 50).await?;
        let contributions = &[(6, 1_000_00), (7, 1_500_00)];
        self.lend(HOUR, row(5, 4, (Usd, 2_500_00), (Eth, 1_50), 1200, contributions)).await?;
        self.lend(HOUR, row(6, 3, (Eth, 1_00), (Old, 0), 900, &[(7, 1_00)])).await?;
        self.lend(HOUR, row(7, 1, (Eth, 1_00), (Usd, 0), 700, &[(5, 1_00)])).await?;
        self.act(1, "proposeExtension(uint256,uint256)", &[7, 604_800], 0).await
    }

    async fn two_hours_pass(&self) -> Result<(), DevchainError> {
        self.ledger.call(0, self.contracts.feeds[3], "function freeze()", Vec::new(), U256::zero()).await?;
        self.ledger.node("evm_increaseTime", json!([2 * HOUR])).await?;
        self.ledger.node("evm_mine", json!([])).await?;
        self.act(0, "markFundingFailed(uint256)", &[3], 0).await?;
        self.act(8, "liquidate(uint256)", &[2], 1_08).await
    }

    async fn loans_of_a_year(&self) -> Result<(), DevchainError> {
        use Lent::{Eth, Gov, Usd};
        self.lend(YEAR, row(8, 1, (Eth, 3_00), (Usd, 0), 650, &[(6, 1_00)])).await?;
        self.lend(YEAR, row(9, 2, (Usd, 6_000_00), (Eth, 4_00), 750, &[])).await?;
        self.lend(YEAR, row(10, 2, (Eth, 1_00), (Usd, 0), 550, &[(7, 50)])).await?;
        self.act(2, "cancelLoan(uint256)", &[10], 0).await?;
        self.lend(YEAR, row(11, 1, (Eth, 5_00), (Usd, 0), 450, &[(5, 2_00), (6, 3_00)])).await?;
        self.lend(YEAR, row(12, 4, (Usd, 9_000_00), (Eth, 5_00), 850, &[(7, 9_000_00)])).await?;
        let contributions = &[(5, 600_00), (6, 600_00)];
        self.lend(YEAR, row(13, 3, (Usd, 1_200_00), (Eth, 90), 950, contributions)).await?;
        self.act(3, "proposeExtension(uint256,uint256)", &[13, 2_592_000], 0).await?;
        let vote = vec![number(13), Token::Bool(true)];
        let signature = "function voteOnExtension(uint256,bool)";
        self.ledger.call(5, self.contracts.loanverse, signature, vote, U256::zero()).await?;
        self.lend(YEAR, row(14, 4, (Eth, 2_00), (Gov, 0), 1100, &[(6, 2_00)])).await?;
        self.lend(YEAR, row(15, 3, (Usd, 4_000_00), (Gov, 0), 1300, &[(7, 4_000_00)])).await
    }

    async fn set_price(&self, feed: usize, price: u64) -> Result<(), DevchainError> {
        let feed = self.contracts.feeds[feed];
        self.ledger.call(0, feed, "function setPrice(uint256)", vec![number(price)], U256::zero()).await
    }

    /// Requests a loan and contributes to it.
    async fn lend(&self, duration: u64, loan: Loan) -> Result<(), DevchainError> {
        let amount = loan.lent.cents(loan.amount);
        let args = vec![
            number(loan.lent as u64),
            number(loan.collateral as u64),
            Token::Uint(amount),
            number(loan.rate),
            number(duration),
            Token::Uint(amount / 10),
            number(duration),
            number(100),
            text(DOCUMENT),
        ];
        let request =
            "function requestLoan(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,string)";
        let value = loan.collateral.cents(loan.value);
        self.ledger.call(loan.from, self.contracts.loanverse, request, args, value).await?;
        for (lender, part) in loan.contributions {
            let part = loan.lent.cents(*part);
            let args = vec![number(loan.id), Token::Uint(part)];
            let value = if loan.lent == Lent::Eth { part } else { U256::zero() };
            let contribute = "function contributeLoan(uint256,uint256)";
            self.ledger.call(*lender, self.contracts.loanverse, contribute, args, value).await?;
        }
        Ok(())
    }

    /// A call of the contract with numbers only; `value` in hundredths of an ETH.
    async fn act(
        &self,
        from: usize,
        signature: &str,
        numbers: &[u64],
        value: u64,
    ) -> Result<(), DevchainError> {
        let args = numbers.iter().copied().map(number).collect();
        let signature = format!("function {signature}");
        self.ledger.call(from, self.contracts.loanverse, &signature, args, Lent::Eth.cents(value)).await
    }
}

fn row(
    id: u64,
    from: usize,
    (lent, amount): (Lent, u64),
    (collateral, value): (Lent, u64),
    rate: u64,
    contributions: &'static [(usize, u64)],
) -> Loan {
    Loan { id, from, lent, amount, collateral, value, rate, contributions }
}

fn number(number: impl Into<U256>) -> Token {
    Token::Uint(number.into())
}

fn text(text: &str) -> Token {
    Token::String(text.to_owned())
}
