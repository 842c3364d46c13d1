//! Etherscan over the HTTP pool: `ETHERSCAN_RPS` calls in any one second, in order of arrival, within the limits of [`EtherscanPolicy`].
//!
//! A call refused for its speed is made again after a pause, twice at most: somebody else may use the same key. No
//! other refusal is repeated. What the HTTP pool's policy repeats (5xx, resets) takes its turn like any call.
//!
//! **Cancel safety.** Dropped, a call leaves its queue. **Panic**: nothing is held. **Shutdown**: the pool's.

use std::time::Duration;

use futures_util::FutureExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pools_core::{
    chain::Address,
    health::HealthState,
    http::{HttpError, HttpPool, Policy, Upstream},
    redact::{ExposeSecret, SecretString},
    resilience::{Backoff, Rate, deadline},
    settings::{count, optional_secret, text},
    tasks::Tasks,
};
use tokio::time::{Instant, sleep};

use super::{
    answer::{Refusal, TransactionRow, TransferRow, rows},
    model::{Transaction, Transfer},
};
use crate::third_party::{ThirdPartyError, Verdict};

pools_core::settings! {
    /// Knobs of the calls to Etherscan.
    pub struct EtherscanConfig in "Etherscan" {
        /// The whole endpoint of the V2 API.
        pub url: String = text("ETHERSCAN_URL", "URL", "https://api.etherscan.io/v2/api");
        /// Key of the account. Without it nothing is asked, and what depends on it is left out.
        pub key: Option<SecretString> = optional_secret("ETHERSCAN_API_KEY", "key");
        /// Most calls in any one second: 3 with a free key, 5 to 30 with a paid one.
        pub rps: u32 = count("ETHERSCAN_RPS", "calls", 3, 1..=1_000);
        /// The network that is asked about, such as 1 for mainnet. 0 is that of `RPC_URL`, or mainnet as long as no node
        /// has named its chain; a development chain (1337, 31337) counts as a fork of mainnet. A network that is named
        /// here is asked of a node only if that serves it.
        pub chain_id: u32 = count("ETHERSCAN_CHAIN_ID", "chain id", 0, 0..=u32::MAX);
    }
}

pools_core::policy_settings! {
    /// What the calls to Etherscan may take.
    pub struct EtherscanPolicy in "Etherscan: limits of its calls" for "ETHERSCAN" = limits();
}

fn limits() -> Policy {
    // A long list takes it many seconds to find.
    Policy { head_timeout: Duration::from_secs(20), ..Policy::default() }
}

/// Its name in errors and logs.
const NAME: &str = "Etherscan";
/// Most rows of one list: no page reaches beyond.
const WINDOW: usize = 10_000;
/// Largest answer: 10,000 rows with two kilobytes of calldata each and more.
const LIMIT: usize = 32 << 20;
/// How often a call is made that is refused for its speed.
const ATTEMPTS: u32 = 3;

/// A list, and whether it goes on where Etherscan does not.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<T> {
    /// The newest first.
    pub rows: Vec<T>,
    /// Whether older rows may exist.
    pub truncated: bool,
}

/// Etherscan, as this service sees it. Clones share the rate.
#[derive(Clone, Debug)]
pub struct EtherscanClient {
    upstream: Upstream,
    key: SecretString,
    verdict: Verdict,
}

impl EtherscanClient {
    /// `None` without a key.
    ///
    /// # Errors
    /// `ETHERSCAN_URL` is no URL.
    pub fn new(
        http: HttpPool,
        config: &EtherscanConfig,
        policy: &EtherscanPolicy,
        jobs: &Tasks,
    ) -> Result<Option<Self>, HttpError> {
        let Some(key) = config.key.clone() else { return Ok(None) };
        let policy = Policy { rate: Some(Rate::per_second(config.rps)), ..policy.policy() };
        let upstream = Upstream::new(http, "etherscan", &config.url, policy)?;
        Ok(Some(Self { upstream, key, verdict: Verdict::new(NAME, jobs) }))
    }

    /// Up until a call said otherwise, then by the last one.
    pub fn health(&self) -> HealthState {
        match self.verdict.last() {
            Some(false) => HealthState::Down,
            Some(true) | None => HealthState::Up,
        }
    }

    /// What an account signed and received.
    ///
    /// # Errors
    /// [`ThirdPartyError`].
    pub async fn transactions(
        &self,
        chain: u64,
        of: Address,
    ) -> Result<Listed<Transaction>, ThirdPartyError> {
        self.list(chain, "txlist", of, read_transactions).await
    }

    /// What contracts sent to and from an account.
    ///
    /// # Errors
    /// [`ThirdPartyError`].
    pub async fn internal(&self, chain: u64, of: Address) -> Result<Listed<Transaction>, ThirdPartyError> {
        self.list(chain, "txlistinternal", of, read_transactions).await
    }

    /// Tokens that an account gave and took.
    ///
    /// # Errors
    /// [`ThirdPartyError`].
    pub async fn transfers(&self, chain: u64, of: Address) -> Result<Listed<Transfer>, ThirdPartyError> {
        self.list(chain, "tokentx", of, read_transfers).await
    }

    async fn list<T: Send>(
        &self,
        chain: u64,
        action: &str,
        of: Address,
        read: fn(&[u8]) -> Result<Vec<T>, Refusal>,
    ) -> Result<Listed<T>, ThirdPartyError> {
        let query = format!(
            "?chainid={chain}&module=account&action={action}&address={of:?}&startblock=0&endblock=99999999\
             &page=1&offset={WINDOW}&sort=desc&apikey={}",
            utf8_percent_encode(self.key.expose_secret(), NON_ALPHANUMERIC)
        );
        let rows = self.patiently(&query, read).boxed().await;
        self.verdict.judge(&rows);
        rows.map(|rows| Listed { truncated: rows.len() >= WINDOW, rows })
    }

    async fn patiently<T: Send>(
        &self,
        query: &str,
        read: fn(&[u8]) -> Result<Vec<T>, Refusal>,
    ) -> Result<Vec<T>, ThirdPartyError> {
        let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        loop {
            let result = self.once(query, read).await;
            let Err(ThirdPartyError::RateLimited { .. }) = result else { return result };
            let pause = pauses.fail();
            let too_late = deadline::current().is_some_and(|end| Instant::now() + pause >= end);
            if pauses.failures() >= ATTEMPTS || too_late {
                return result;
            }
            sleep(pause).await;
        }
    }

    async fn once<T: Send>(
        &self,
        query: &str,
        read: fn(&[u8]) -> Result<Vec<T>, Refusal>,
    ) -> Result<Vec<T>, ThirdPartyError> {
        let http = |cause| ThirdPartyError::Http { upstream: NAME, cause };
        let response = self.upstream.get(query).send().await.map_err(http)?;
        let status = response.status().as_u16();
        let body = response.bytes(LIMIT).await.map_err(http)?;
        match status {
            200 => read(&body).map_err(|refusal| self.error(refusal)),
            429 => Err(ThirdPartyError::RateLimited { upstream: NAME, retry_after: None }),
            status => Err(ThirdPartyError::Status { upstream: NAME, status, reason: None }),
        }
    }

    fn error(&self, refusal: Refusal) -> ThirdPartyError {
        let upstream = NAME;
        match refusal {
            Refusal::TooFast => ThirdPartyError::RateLimited { upstream, retry_after: None },
            Refusal::UsedUp => ThirdPartyError::Quota { upstream, retry_after: None, passes: true },
            Refusal::Key => ThirdPartyError::BadKey { upstream, setting: "ETHERSCAN_API_KEY" },
            Refusal::Other(text) => {
                // It repeats what it was sent in some of its refusals.
                let reason = Some(text.replace(self.key.expose_secret(), "***"));
                ThirdPartyError::Status { upstream, status: 200, reason }
            }
            Refusal::Unreadable(why) => ThirdPartyError::Answer { upstream, why },
        }
    }
}

const BAD_ROW: Refusal = Refusal::Unreadable("a row is not as documented");

fn read_transactions(body: &[u8]) -> Result<Vec<Transaction>, Refusal> {
    rows::<TransactionRow<'_>>(body)?.iter().map(|row| row.read().ok_or(BAD_ROW)).collect()
}

fn read_transfers(body: &[u8]) -> Result<Vec<Transfer>, Refusal> {
    rows::<TransferRow<'_>>(body)?.iter().map(|row| row.read().ok_or(BAD_ROW)).collect()
}
