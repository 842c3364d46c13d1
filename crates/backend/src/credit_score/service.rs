//! Scores, cached; many of them until one deadline.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use pools_core::{
    cache::{Cache, CacheKey, Cached, LoadError, Namespace, Policy, Source as Level},
    resilience::deadline,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::model::{Category, Parts, parts, score};
use crate::{
    address::WalletAddress,
    wallet::{error::WalletError, model::Analysis, service::WalletService},
};

const SCORES: Namespace = Namespace::new("credit_score", 1);
/// Wallets of a batch that are looked at at once: enough to keep Etherscan's rate busy, few enough to be done one by one.
const AT_ONCE: usize = 8;
/// Of a request without a deadline.
const PATIENCE: Duration = Duration::from_secs(30);

/// A score and what it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// 300..850.
    pub score: u32,
    /// What it is called.
    pub category: Category,
    /// 0..1 each.
    pub parts: Parts,
    /// What it was made from.
    pub analysis: Analysis,
}

/// Why there is no score.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// Nothing is known of the wallet.
    #[error(transparent)]
    Wallet(Arc<WalletError>),
    /// It was not done by the deadline of the whole request.
    #[error("not done within the time for the whole request")]
    Late,
    /// Working it out panicked; the panic is in the log.
    #[error("working out the score panicked")]
    Panicked,
}

/// What keeps a score out of the cache.
enum NotKept {
    /// Something failed, and the rest is good for one answer.
    Partial(Box<Scored>),
    Wallet(Arc<WalletError>),
}

/// Scores wallets. Clones share everything.
#[derive(Clone, Debug)]
pub struct ScoreService {
    wallets: WalletService,
    cache: Cache,
    ttl: Duration,
}

impl ScoreService {
    /// `ttl` is `CREDIT_SCORE_TTL`.
    pub fn new(wallets: WalletService, cache: Cache, ttl: Duration) -> Self {
        Self { wallets, cache, ttl }
    }

    /// Refuses where no source is configured at all.
    ///
    /// # Errors
    /// [`WalletError::NotConfigured`].
    pub fn check_configured(&self) -> Result<(), WalletError> {
        self.wallets.check_configured()
    }

    /// The score of a wallet.
    ///
    /// # Errors
    /// [`ScoreError`], by the request's deadline at the latest.
    pub async fn score(&self, wallet: WalletAddress) -> Result<Cached<Scored>, ScoreError> {
        in_time(self.cached(wallet).boxed()).await?
    }

    /// A score that leaves the loans out, not cached itself.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    pub async fn score_without_loans(&self, wallet: WalletAddress) -> Result<Scored, ScoreError> {
        let wallets = &self.wallets;
        let analysis = async { wallets.analyse(wallet, &wallets.network().await, false).await };
        let analysis = in_time(analysis.boxed()).await?;
        scored(analysis.map_err(|cause| ScoreError::Wallet(Arc::new(cause)))?)
    }

    /// The scores of many wallets, in their order.
    pub async fn scores(&self, wallets: &[WalletAddress]) -> Vec<Result<Cached<Scored>, ScoreError>> {
        let scores = wallets.iter().map(|wallet| self.score(*wallet).boxed());
        stream::iter(scores).buffered(AT_ONCE).collect().await
    }

    async fn cached(&self, wallet: WalletAddress) -> Result<Cached<Scored>, ScoreError> {
        let network = self.wallets.network().await;
        let key = CacheKey::new(SCORES).part(&network.name).address(wallet.lower());
        let wallets = self.wallets.clone();
        let load = async move {
            let analysis = wallets.analyse(wallet, &network, true).await;
            let analysis = analysis.map_err(|cause| NotKept::Wallet(Arc::new(cause)))?;
            let is_whole = analysis.is_whole();
            // An analysis without a part was an error above.
            let Ok(scored) = scored(analysis) else {
                return Err(NotKept::Wallet(Arc::new(WalletError::NotConfigured)));
            };
            if is_whole { Ok(scored) } else { Err(NotKept::Partial(Box::new(scored))) }
        };
        match self.cache.get_or_load(&key, &Policy::new(self.ttl), load.boxed()).await {
            Ok(cached) => Ok(cached),
            Err(LoadError::Failed(why)) => match &*why {
                NotKept::Partial(scored) => {
                    Ok(Cached { value: (**scored).clone(), source: Level::Loaded, age: Duration::ZERO })
                }
                NotKept::Wallet(cause) => Err(ScoreError::Wallet(Arc::clone(cause))),
            },
            Err(_) => Err(ScoreError::Panicked),
        }
    }
}

/// What is done by the request's deadline. The parts of an analysis end a little earlier, so that those that are there can be
/// put together.
async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, ScoreError> {
    let end = deadline::current().unwrap_or_else(|| Instant::now() + PATIENCE);
    deadline::within(end, deadline::ROUND_OFF, work).await.ok_or(ScoreError::Late)
}

fn scored(analysis: Analysis) -> Result<Scored, ScoreError> {
    let parts = parts(&analysis);
    let nothing = || ScoreError::Wallet(Arc::new(WalletError::NotConfigured));
    let score = score(&parts).ok_or_else(nothing)?;
    Ok(Scored { score, category: Category::of(score), parts, analysis })
}
