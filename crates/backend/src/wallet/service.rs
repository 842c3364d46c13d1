//! What is known of a wallet, part by part, each from its own source and each missing on its own.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::FutureExt;
use pools_core::{
    cache::{Cache, CacheKey, Cached, Namespace, Policy, Source as Level},
    chain::ChainError,
    resilience::deadline,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    client::{Account, NodeClient},
    error::{ListError, WalletError, shared},
    etherscan::EtherscanClient,
    model::{
        Analysis, Balances, DefiBehavior, History, Holdings, LendingHistory, PortfolioStability, Source,
        Sources, Status, TransactionMetrics, tokens,
    },
};
use crate::{
    address::WalletAddress,
    contracts::{borrower::Lending, error::ContractError, service::ContractService},
};

const HISTORY: Namespace = Namespace::new("tx_history", 1);
const BALANCES: Namespace = Namespace::new("token_balances", 1);

/// Asked about where no node says otherwise.
const MAINNET: u64 = 1;
/// Chains that Etherscan cannot know. They count as forks of mainnet, whose history they then share.
const DEVELOPMENT: [u64; 2] = [1_337, 31_337];
/// Networks by name; any other is called by its id.
const NETWORKS: [(u64, &str); 8] = [
    (MAINNET, "mainnet"),
    (11_155_111, "sepolia"),
    (560_048, "hoodi"),
    (10, "optimism"),
    (56, "bsc"),
    (137, "polygon"),
    (8_453, "base"),
    (42_161, "arbitrum"),
];

/// The network that a wallet is looked for on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    chain_id: u64,
    /// Its name in cache keys and answers.
    pub name: String,
    /// Whether the node serves it.
    has_node: bool,
}

/// How long lists stay in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Ttls {
    /// `TX_HISTORY_TTL`.
    pub history: Duration,
    /// `TOKEN_BALANCES_TTL`.
    pub balances: Duration,
}

/// Analyses wallets. Clones share everything.
#[derive(Clone, Debug)]
pub struct WalletService {
    etherscan: Option<EtherscanClient>,
    node: NodeClient,
    contracts: ContractService,
    cache: Cache,
    ttls: Ttls,
    /// `ETHERSCAN_CHAIN_ID`, where it is set.
    chain_id: Option<u64>,
}

/// A list from the cache or from Etherscan, or why there is none.
type List<T> = Result<Cached<T>, Arc<ListError>>;

/// What was found out; an absent list was never to be had.
struct Found {
    network: Network,
    history: Option<List<History>>,
    holdings: Option<List<Holdings>>,
    account: Option<Result<Account, ChainError>>,
    lending: Result<Cached<Lending>, Source>,
}

impl WalletService {
    /// `chain_id` is that of `ETHERSCAN_CHAIN_ID`, where it is set.
    pub fn new(
        etherscan: Option<EtherscanClient>,
        node: NodeClient,
        contracts: ContractService,
        cache: Cache,
        ttls: Ttls,
        chain_id: Option<u64>,
    ) -> Self {
        Self { etherscan, node, contracts, cache, ttls, chain_id }
    }

    /// Refuses where no source is configured at all.
    ///
    /// # Errors
    /// [`WalletError::NotConfigured`].
    pub fn check_configured(&self) -> Result<(), WalletError> {
        let any = self.etherscan.is_some() || self.contracts.is_configured();
        if any { Ok(()) } else { Err(WalletError::NotConfigured) }
    }

    /// Which network is asked about.
    pub async fn network(&self) -> Network {
        let mut of_node = self.node.chain_id().await;
        if self.chain_id.is_none() {
            of_node = of_node.map(|id| if DEVELOPMENT.contains(&id) { MAINNET } else { id });
        }
        let chain_id = self.chain_id.or(of_node).unwrap_or(MAINNET);
        let named = NETWORKS.iter().find(|(id, _)| *id == chain_id);
        let name = named.map_or_else(|| chain_id.to_string(), |(_, name)| (*name).to_owned());
        Network { chain_id, name, has_node: of_node == Some(chain_id) }
    }

    /// What is known of a wallet; with `lending`, of its loans as well.
    ///
    /// # Errors
    /// [`WalletError`], when not one part is known.
    pub async fn analyse(
        &self,
        wallet: WalletAddress,
        network: &Network,
        lending: bool,
    ) -> Result<Analysis, WalletError> {
        self.check_configured()?;
        // On the heap, here and below: all of it in one future is more than a thread's stack, unoptimised.
        let (history, holdings, account, lending) = tokio::join!(
            self.history(wallet, network).boxed(),
            self.holdings(wallet, network).boxed(),
            self.account(wallet, network).boxed(),
            async {
                let missing = Source::missing(Status::NotRequested, None);
                if lending { self.lending(wallet).await } else { Err(missing) }
            }
            .boxed(),
        );
        let found = Found { network: network.clone(), history, holdings, account, lending };
        let analysis = found.analysis(wallet, u64::try_from(Utc::now().timestamp()).unwrap_or(0));
        if analysis.is_empty() {
            let reasons = analysis.sources.all().map(|source| source.reason.clone());
            let mut reasons: Vec<_> = reasons.into_iter().flatten().collect();
            reasons.dedup();
            return Err(WalletError::NoSource { reasons: reasons.join("; ") });
        }
        Ok(analysis)
    }

    async fn history(&self, wallet: WalletAddress, network: &Network) -> Option<List<History>> {
        let etherscan = self.etherscan.clone()?;
        let (chain, address) = (network.chain_id, wallet.get());
        let load = async move {
            let (mut signed, internal) =
                tokio::try_join!(etherscan.transactions(chain, address), etherscan.internal(chain, address))
                    .map_err(ListError::Etherscan)?;
            signed.rows.extend(internal.rows);
            Ok(History::of(address, &signed.rows, signed.truncated || internal.truncated))
        };
        Some(self.cached(HISTORY, wallet, network, self.ttls.history, load).await)
    }

    async fn holdings(&self, wallet: WalletAddress, network: &Network) -> Option<List<Holdings>> {
        let etherscan = self.etherscan.clone()?;
        let (chain, address) = (network.chain_id, wallet.get());
        let node = network.has_node.then(|| self.node.clone());
        let load = async move {
            let listed = etherscan.transfers(chain, address).await.map_err(ListError::Etherscan)?;
            let tokens = tokens(address, &listed.rows);
            let Some(node) = node else { return Ok(Holdings::of(&tokens, None, listed.truncated)) };
            let contracts: Vec<_> = tokens.iter().map(|token| token.contract).collect();
            match node.holds(address, &contracts).await {
                Ok(held) => Ok(Holdings::of(&tokens, Some(&held), listed.truncated)),
                Err(cause) => {
                    let holdings = Holdings::of(&tokens, None, listed.truncated);
                    Err(ListError::Unconfirmed { holdings, cause })
                }
            }
        };
        Some(self.cached(BALANCES, wallet, network, self.ttls.balances, load).await)
    }

    async fn account(&self, wallet: WalletAddress, network: &Network) -> Option<Result<Account, ChainError>> {
        // Alone it is no part.
        let is_wanted = network.has_node && self.etherscan.is_some();
        if is_wanted { Some(self.node.account(wallet.get()).await) } else { None }
    }

    async fn lending(&self, wallet: WalletAddress) -> Result<Cached<Lending>, Source> {
        let late = || unavailable("the contract was not read in time".to_owned());
        let borrower = deadline::in_time(self.contracts.borrower(wallet.get())).await.ok_or_else(late)?;
        let missing = |error: ContractError| {
            let status = if error.is_not_configured() { Status::NotConfigured } else { Status::Unavailable };
            Source::missing(status, Some(error.reason()))
        };
        let Cached { value, source, age } = borrower.map_err(missing)?;
        Ok(Cached { value: value.lending, source, age })
    }

    async fn cached<T>(
        &self,
        namespace: Namespace,
        wallet: WalletAddress,
        network: &Network,
        ttl: Duration,
        load: impl Future<Output = Result<T, ListError>> + Send + 'static,
    ) -> List<T>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let key = CacheKey::new(namespace).part(&network.name).address(wallet.lower());
        let policy = Policy::new(ttl);
        // Who waits for somebody else's load has a deadline too.
        let list = deadline::in_time(self.cache.get_or_load(&key, &policy, load.boxed())).await;
        list.ok_or_else(|| Arc::new(ListError::Late))?.map_err(shared)
    }
}

impl Found {
    fn analysis(&self, wallet: WalletAddress, now: u64) -> Analysis {
        let (transaction_metrics, transactions) = split(self.transactions(now));
        let (portfolio_stability, portfolio) = split(self.portfolio(now));
        let (lending_history, lending) = split(self.loans());
        let (defi_behavior, defi) = split(self.defi(now));
        Analysis {
            wallet_address: wallet.to_string(),
            transaction_metrics,
            portfolio_stability,
            lending_history,
            defi_behavior,
            sources: Sources {
                transaction_metrics: transactions,
                portfolio_stability: portfolio,
                lending_history: lending,
                defi_behavior: defi,
            },
        }
    }

    fn transactions(&self, now: u64) -> Part<TransactionMetrics> {
        let history = self.known_history()?;
        let mut source = self.listed(history, history.value.truncated);
        let count = match &self.account {
            Some(Ok(account)) => {
                source.from.push("chain".to_owned());
                account.signed
            }
            other => {
                source.reason = node_failure(other.as_ref());
                let unknown = "no node says how many transactions it signed, and none is listed";
                history.value.signed.ok_or_else(|| unavailable(unknown.to_owned()))?
            }
        };
        Ok((TransactionMetrics::new(&history.value, count, now), source))
    }

    fn portfolio(&self, now: u64) -> Part<PortfolioStability> {
        let list = self.holdings.as_ref().ok_or_else(no_key)?;
        let (holdings, mut source) = match list {
            Ok(cached) => (&cached.value, self.listed(cached, cached.value.truncated)),
            Err(error) => match &**error {
                ListError::Unconfirmed { holdings, .. } => {
                    let mut source = self.source("etherscan");
                    source.truncated = holdings.truncated;
                    source.reason = Some(error.reason());
                    (holdings, source)
                }
                error => return Err(unavailable(error.reason())),
            },
        };
        let balance = match &self.account {
            Some(Ok(account)) => Ok(account.balance),
            other => {
                source.reason = source.reason.or_else(|| node_failure(other.as_ref()));
                let history = self.known_history()?;
                let unknown = "no node says its balance, and the list of transactions is not whole";
                history.value.balance.ok_or_else(|| unavailable(unknown.to_owned()))
            }
        }?;
        let account_known = matches!(self.account, Some(Ok(_)));
        let is_asked = account_known || holdings.balances != Balances::Transfers;
        let is_inferred = !account_known || holdings.balances != Balances::Chain;
        let used = [("chain", is_asked), ("transfers", is_inferred)].into_iter().filter(|(_, used)| *used);
        source.from.extend(used.map(|(name, _)| name.to_owned()));
        Ok((PortfolioStability::new(holdings, balance, now), source))
    }

    fn loans(&self) -> Part<LendingHistory> {
        let lending = self.lending.as_ref().map_err(Source::clone)?;
        let mut source = Source { network: None, ..self.source("chain") };
        level(&mut source, lending);
        let repayments = match &self.history {
            Some(Ok(history)) if !lending.value.repaid_loans.is_empty() => {
                source.from.push("etherscan".to_owned());
                history.value.repayments.as_slice()
            }
            _ => &[],
        };
        Ok((LendingHistory::new(&lending.value, repayments), source))
    }

    fn defi(&self, now: u64) -> Part<DefiBehavior> {
        let history = self.known_history()?;
        Ok((DefiBehavior::new(&history.value, now), self.listed(history, history.value.truncated)))
    }

    fn known_history(&self) -> Result<&Cached<History>, Source> {
        let list = self.history.as_ref().ok_or_else(no_key)?;
        list.as_ref().map_err(|error| unavailable(error.reason()))
    }

    fn source(&self, from: &str) -> Source {
        let network = Some(self.network.name.clone());
        Source { from: vec![from.to_owned()], network, ..Source::missing(Status::Ok, None) }
    }

    fn listed<T>(&self, cached: &Cached<T>, truncated: bool) -> Source {
        let mut source = Source { truncated, ..self.source("etherscan") };
        level(&mut source, cached);
        source
    }
}

/// A part, or why it is missing.
type Part<T> = Result<(T, Source), Source>;

fn split<T>(part: Part<T>) -> (Option<T>, Source) {
    match part {
        Ok((value, source)) => (Some(value), source),
        Err(source) => (None, source),
    }
}

fn level<T>(source: &mut Source, cached: &Cached<T>) {
    let name = level_name(cached.source);
    source.cache = Some(name.to_owned());
    source.age_seconds = (cached.source != Level::Loaded).then_some(cached.age.as_secs());
}

/// A level of the cache, in answers.
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::Loaded => "loaded",
        Level::Level1 => "memory",
        Level::Redis => "redis",
        Level::Stale => "stale",
    }
}

fn node_failure(account: Option<&Result<Account, ChainError>>) -> Option<String> {
    match account {
        Some(Err(cause)) => Some(format!("the chain cannot be read: {cause}")),
        Some(Ok(_)) | None => None,
    }
}

fn no_key() -> Source {
    Source::missing(Status::NotConfigured, Some("ETHERSCAN_API_KEY is not set".to_owned()))
}

fn unavailable(reason: String) -> Source {
    Source::missing(Status::Unavailable, Some(reason))
}
