//! Development only: each test gets real servers of its own, and servers that misbehave on demand.
//!
//! ```no_run
//! # async fn example() {
//! let postgres = testkit::postgres().await; // A fresh server, gone at the end of the test.
//! postgres.freeze();
//! postgres.thaw();
//! testkit::until_async(std::time::Duration::from_secs(5), async || {
//!     postgres.connections("my-pool").await == 0
//! })
//! .await;
//! # }
//! ```
//!
//! | to test against | take |
//! |---|---|
//! | the real thing | [`postgres`], [`redis`], [`anvil`] |
//! | Postgres behind a proxy that pools by transaction | [`pgbouncer`] |
//! | an HTTP server that errs | [`upstream`] with a [`Reply`] for each request |
//! | Pinata, Gemini, Etherscan, ml-api | [`pinata()`], [`gemini()`], [`etherscan()`], [`ml_api()`]: as documented, and with their real errors |
//! | a JSON-RPC node that errs | [`rpc_node`] with a [`Fault`] for each POST |
//! | a DNS server | [`dns()`] with a [`DnsAnswer`] for each name |
//! | a bad network | [`proxy`] in front of any of them, [`black_hole`] where connecting hangs |
//! | a chain with contract and loans | [`anvil`] and `devchain::deploy` (feature `devchain`) |
//! | a program of the workspace | [`service`], [`free_port`] |
//! | a condition, not a sleep | [`until`], [`until_async`] |
//!
//! Needs Linux, `setpriv` and `setsid` (util-linux), and the servers themselves: Postgres, Redis and, for
//! anvil, npm. Everything listens on loopback only and is removed with the value that stands for it, also
//! when a test panics or its process is killed.
//!
//! Apart from `devchain`, testkit knows nothing of the pools: it must be usable to test them from outside.

mod anvil;
mod counts;
#[cfg(feature = "devchain")]
pub mod devchain;
mod dns;
pub mod etherscan;
pub mod gemini;
mod listening;
pub mod ml_api;
mod pgbouncer;
pub mod pinata;
mod port;
mod postgres;
mod process;
mod proxy;
mod redis;
mod reply;
mod request;
mod rpc_node;
mod scratch;
mod service;
mod until;
mod upstream;

pub use anvil::{Anvil, AnvilOptions, anvil, anvil_with};
pub use dns::{Dns, DnsAnswer, DnsQuestion, dns};
pub use etherscan::{Etherscan, etherscan};
pub use gemini::{Gemini, gemini};
pub use ml_api::{MlApi, ml_api};
pub use pgbouncer::{PgBouncer, pgbouncer};
pub use pinata::{Pinata, pinata, pinata_with};
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions, ServerTls, Stop, postgres, postgres_with};
pub use proxy::{BlackHole, Mode, Proxy, black_hole, proxy};
pub use redis::{Redis, RedisClient, RedisOptions, redis, redis_with};
pub use reply::{End, Reply};
pub use rpc_node::{Entry, Fault, Post, Refusal, RpcError, RpcNode, rpc_node};
pub use service::{Service, Signal, service};
pub use until::{until, until_async};
pub use upstream::{Accept, Request, Upstream, UpstreamOptions, upstream, upstream_with};
