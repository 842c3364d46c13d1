//! Which tokens a wallet has had, and which it holds.

use std::collections::BTreeMap;

use pools_core::chain::{Address, U256};
use serde::{Deserialize, Serialize};

/// Symbols of coins that follow the dollar.
const STABLECOINS: [&str; 10] =
    ["USDT", "USDC", "DAI", "BUSD", "TUSD", "USDP", "GUSD", "FRAX", "LUSD", "PYUSD"];

/// One entry of `tokentx`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// Unix seconds.
    pub at: u64,
    /// Who gave.
    pub from: Address,
    /// Who took.
    pub to: Address,
    /// In the token's base unit.
    pub value: U256,
    /// The token.
    pub contract: Address,
    /// What the token calls itself.
    pub symbol: String,
}

/// A token that a wallet has given or taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Where it is.
    pub contract: Address,
    /// What it calls itself.
    pub symbol: String,
    /// Unix seconds; none if it was only given, as far as is listed.
    pub first_received: Option<u64>,
    /// What came less what went.
    pub net: U256,
}

/// Every token of the transfers, by address.
pub fn tokens(wallet: Address, transfers: &[Transfer]) -> Vec<Token> {
    let mut found: BTreeMap<Address, (Token, U256, U256)> = BTreeMap::new();
    for transfer in transfers {
        let (token, came, went) = found.entry(transfer.contract).or_insert_with(|| {
            let token = Token {
                contract: transfer.contract,
                symbol: transfer.symbol.clone(),
                first_received: None,
                net: U256::zero(),
            };
            (token, U256::zero(), U256::zero())
        });
        if transfer.to == wallet {
            *came = came.saturating_add(transfer.value);
            let first = token.first_received.map_or(transfer.at, |first| first.min(transfer.at));
            token.first_received = Some(first);
        }
        if transfer.from == wallet {
            *went = went.saturating_add(transfer.value);
        }
    }
    let nets =
        found.into_values().map(|(token, came, went)| Token { net: came.saturating_sub(went), ..token });
    nets.collect()
}

/// How it is known what a wallet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balances {
    /// Every token was asked.
    Chain,
    /// Those that the node knows were asked.
    Both,
    /// What came less what went.
    Transfers,
}

/// A wallet's tokens, in sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holdings {
    /// Tokens that were ever given or taken.
    pub known: u64,
    /// Those with a balance.
    pub held: u64,
    /// Stablecoins among these.
    pub stable: u64,
    /// Unix seconds at which the held ones were first received, on average; none where that is not listed.
    pub mean_first_received: Option<f64>,
    /// How the balances are known.
    pub balances: Balances,
    /// Whether older transfers are missing.
    pub truncated: bool,
}

impl Holdings {
    /// `asked` has the node's answer for each token, if it has one; else the transfers tell.
    pub fn of(tokens: &[Token], asked: Option<&[Option<bool>]>, truncated: bool) -> Self {
        let answer = |index: usize| asked.and_then(|asked| asked.get(index).copied().flatten());
        let is_held = |index: usize, token: &Token| answer(index).unwrap_or(!token.net.is_zero());
        let numbered = tokens.iter().enumerate();
        let held: Vec<_> =
            numbered.filter_map(|(index, token)| is_held(index, token).then_some(token)).collect();
        let stable = held.iter().filter(|token| STABLECOINS.contains(&token.symbol.as_str()));
        let received: Vec<_> = held.iter().filter_map(|token| token.first_received).collect();
        let sum: f64 = received.iter().copied().map(super::seconds).sum();
        let mean = (!received.is_empty()).then(|| sum / super::seconds(received.len() as u64));
        Self {
            known: tokens.len() as u64,
            held: held.len() as u64,
            stable: stable.count() as u64,
            mean_first_received: mean,
            balances: match asked {
                Some(asked) if asked.iter().all(Option::is_some) => Balances::Chain,
                Some(_) => Balances::Both,
                None => Balances::Transfers,
            },
            truncated,
        }
    }

    /// Stablecoins' share of what is held.
    pub fn stablecoin_ratio(&self) -> f64 {
        if self.held == 0 { 0.0 } else { super::seconds(self.stable) / super::seconds(self.held) }
    }

    /// Days since each held token was first received, on average; 0 if unknown.
    pub fn mean_holding_days(&self, now: u64) -> f64 {
        let since = |first: f64| (super::seconds(now) - first).max(0.0) / super::DAY;
        self.mean_first_received.map_or(0.0, since)
    }

    /// 0 for nothing, 1 from ten tokens on.
    pub fn diversity(&self) -> f64 {
        (super::seconds(self.held) / 10.0).min(1.0)
    }
}
