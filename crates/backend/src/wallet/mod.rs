//! What a wallet has done and holds: the inputs of the credit score.
//!
//! ```text
//!                 ┌─ history  (cached) ◄─ Etherscan: txlist, txlistinternal
//!  analyse ───────┼─ holdings (cached) ◄─ Etherscan: tokentx, then balanceOf of each token (one batch, one block)
//!   all at once   ├─ account           ◄─ node: eth_getTransactionCount, eth_getBalance
//!                 └─ lending           ◄─ the contract, by the block's own cache
//! ```
//!
//! **Network.** Etherscan is asked about `ETHERSCAN_CHAIN_ID`; without it, about the chain of `RPC_URL`, or mainnet as
//! long as no node has named its chain. A development chain, which Etherscan cannot know, counts as a fork of mainnet.
//! Only a node of that same chain is asked about the account; without one, its number of transactions follows from the
//! newest nonce, its balances from the transfers, where Etherscan listed all. A token of which the node knows no contract
//! is judged by its transfers, too.
//!
//! **What is missing** is left out and `sources` says why: nothing is guessed. Refusals, broken answers and time-outs
//! are never cached; an analysis that failed in part leaves the parts that did not fail in the cache.
//!
//! **Limits.** Etherscan lists the newest 10,000 of each kind, in one call; a longer history is marked `truncated`. Every
//! part ends by the caller's deadline. What is cached is a summary of less than a kilobyte, however long the history.
//!
//! **Cancel safety.** A caller may go at any point; a load that others wait for is done by one of them.
//!
//! **Not here**: prices, NFTs, other explorers.

mod answer;
pub mod client;
pub mod error;
pub mod etherscan;
pub mod model;
pub mod routes;
pub mod service;
