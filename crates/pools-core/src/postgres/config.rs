//! Knobs of the Postgres pool.

use std::time::Duration;

use crate::{
    redact::SecretString,
    settings::{choice, count, flag, millis, optional_secret, seconds, text},
};

crate::settings! {
    /// Knobs of the Postgres pool; names and numbers are those of SQLAlchemy's `QueuePool`.
    pub struct PgConfig in "Postgres pool" {
        /// `postgresql://user:password@host:port/database`. Without it there is no database and the features
        /// that need one answer 503.
        pub url: Option<SecretString> = optional_secret("DATABASE_URL", "URL");
        /// Connections that are kept (QueuePool's `pool_size`).
        pub size: u32 = count("DB_POOL_SIZE", "connections", 10, 1..=10_000);
        /// Connections above `DB_POOL_SIZE` that may be opened under load (QueuePool's `max_overflow`).
        pub overflow: u32 = count("DB_MAX_OVERFLOW", "connections", 20, 0..=10_000);
        /// Processes that share the server, each with a pool of this size: what they may take together is compared
        /// with the server's `max_connections`, and a warning says so if it is too much.
        pub replicas: u32 = count("DB_REPLICAS", "processes", 1, 1..=1_000);
        /// Longest wait for a place in the pool (QueuePool's `timeout`). 0 tries once.
        pub timeout: Duration = seconds("DB_POOL_TIMEOUT", 30, 0..=3_600);
        /// Callers that may wait for a place. Beyond it an acquire fails at once: a longer queue would only
        /// hold requests whose clients have gone.
        pub queue: u32 = count("DB_POOL_QUEUE", "callers", 1_000, 0..=100_000);
        /// A connection older than this is replaced on checkout (QueuePool's `recycle`).
        pub recycle: Duration = seconds("DB_POOL_RECYCLE", 3_600, 1..=604_800);
        /// Check a connection before it is handed out (QueuePool's `pre_ping`).
        pub pre_ping: bool = flag("DB_PRE_PING", true);
        /// Skip that check for connections used within this time (HikariCP's bypass); 0 checks always.
        pub pre_ping_idle: Duration = millis("DB_PRE_PING_IDLE_MS", 0, 0..=600_000);
        /// Longest time to open a connection: TCP, TLS and log in.
        pub connect_timeout: Duration = seconds("DB_CONNECT_TIMEOUT", 10, 1..=600);
        /// The server cancels a statement that runs longer.
        pub statement_timeout: Duration = seconds("DB_STATEMENT_TIMEOUT", 30, 1..=86_400);
        /// The server cancels a statement that waits longer for a lock; 0 waits as long as the statement may.
        pub lock_timeout: Duration = seconds("DB_LOCK_TIMEOUT", 10, 0..=86_400);
        /// The server ends a session that does nothing inside a transaction for so long, and frees its locks.
        pub idle_in_transaction_timeout: Duration =
            seconds("DB_IDLE_IN_TRANSACTION_TIMEOUT", 60, 0..=86_400);
        /// Prepared statements kept per connection; 0 keeps none.
        pub statement_cache: u32 = count("DB_STATEMENT_CACHE", "statements", 256, 0..=10_000);
        /// Name of the sessions in `pg_stat_activity`, unless the URL has an `application_name`.
        pub application_name: String = text("DB_APPLICATION_NAME", "name", "pools-core");
        /// A lease held longer is reported with the line that acquired it.
        pub leak_after: Duration = seconds("DB_LEAK_AFTER", 60, 1..=86_400);
        /// Connections out of `DB_POOL_SIZE` that carry pipelined single statements.
        pub pipeline_connections: u32 = count("DB_PIPELINE_CONNECTIONS", "connections", 2, 0..=64);
        /// How long an idle connection above `DB_POOL_SIZE` may wait for a caller. 0 closes it on return,
        /// QueuePool's exact rule.
        pub overflow_linger: Duration = seconds("DB_OVERFLOW_LINGER", 1, 0..=60);
        /// Keep trying to connect for this long before an acquire fails; 0 fails at once.
        pub connect_retry_for: Duration = seconds("DB_CONNECT_RETRY_FOR", 0, 0..=3_600);
        /// Connections opened before the service is ready, and kept.
        pub min_idle: u32 = count("DB_MIN_IDLE", "connections", 0, 0..=10_000);
        /// What a returned connection is cleaned of: `rollback` ends an open transaction, which costs nothing when
        /// there is none; `full` also undoes `SET`, `LISTEN`, advisory locks, cursors and temporary tables, for a
        /// round trip per lease that ran a statement.
        pub reset: &'static str = choice("DB_RESET", "rollback", &["rollback", "full"]);
        /// `DATABASE_URL` leads to a proxy that pools by transaction, such as PgBouncer: no statement stays
        /// prepared, no lane, no session settings (set time-outs on the role instead), and an abandoned statement's
        /// connection is discarded, since a cancel could hit another client behind the same server process.
        pub transaction_pooling: bool = flag("DB_TRANSACTION_POOLING", false);
        /// An acquire that took longer is logged with its line and the longest holder; 0 logs none. A second is
        /// far above a healthy wait, and far below `DB_POOL_TIMEOUT`.
        pub slow_acquire: Duration = millis("DB_SLOW_ACQUIRE_MS", 1_000, 0..=3_600_000);
        /// A statement that took longer is logged, without its parameters; 0 logs none.
        pub slow_statement: Duration = millis("DB_SLOW_STATEMENT_MS", 1_000, 0..=3_600_000);
    }
}
