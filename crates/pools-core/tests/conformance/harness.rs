//! What a promise needs to know of a pool and its server.

use std::{fmt::Debug, sync::Arc, time::Duration};

use pools_core::{pool::Pool, stats::Snapshot};

/// Hang guard of every wait in this suite.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Places of the pools under test.
pub(crate) const LIMIT: u32 = 4;

/// One pool with [`LIMIT`] places and the real or scripted server behind it.
pub(crate) trait Harness: Sized + Send + Sync + 'static {
    /// The pool's own error.
    type Error: Debug + Send + 'static;

    /// Connections that the pool keeps beside its places, such as a shared lane.
    const BESIDE: u32 = 0;

    /// Whether the pool's counters of opened and closed are connections of its own.
    const CONNECTS: bool = true;

    /// A fresh server and a pool on it whose callers wait for a place for `wait` at most.
    fn start(wait: Duration) -> impl Future<Output = Self> + Send;

    /// The pool as the registry sees it.
    fn pool(&self) -> Arc<dyn Pool>;

    /// Holds one place for `hold`.
    fn work(&self, hold: Duration) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether the error says that no place became free in time.
    fn is_wait_timeout(error: &Self::Error) -> bool;

    /// Whether the error says that the pool is closed.
    fn is_closed(error: &Self::Error) -> bool;

    /// Connections of the pool open now, by the server's own count.
    fn server_count(&self) -> impl Future<Output = u32> + Send;

    /// Ends every connection from the server's side.
    fn kill_connections(&self) -> impl Future<Output = ()> + Send;

    /// Connections that stay open however long the pool is idle.
    const IDLE_FLOOR: u32;

    /// The pool's picture.
    fn snapshot(&self) -> Snapshot {
        self.pool().snapshot()
    }

    /// Places taken.
    fn in_use(&self) -> u32 {
        self.snapshot().in_use()
    }
}

/// Runs each test of a promise for each pool.
#[macro_export]
macro_rules! for_each_pool {
    ($($test:ident),+ $(,)?) => {
        $(
            mod $test {
                use $crate::harnesses;

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn http() {
                    super::$test::<harnesses::Http>().await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn chain() {
                    super::$test::<harnesses::Chain>().await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn redis() {
                    super::$test::<harnesses::Redis>().await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    super::$test::<harnesses::Postgres>().await;
                }
            }
        )+
    };
}
