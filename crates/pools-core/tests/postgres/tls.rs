//! Connections over TLS, with certificates made for the test: rustls refuses an authority's own as a server's.

use std::path::PathBuf;

use pools_core::{
    pool::Pool,
    postgres::{PgConfig, PgError, PgPool},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testkit::{Postgres, PostgresOptions, ServerTls};
use tokio::time::timeout;

use crate::{at, backend_pid, exactly, ms, open, secs, settled};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server whose certificate, signed by `authority`, is made out to `name`.
async fn server_named(authority: &Authority, name: &str) -> Postgres {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let tls = ServerTls { certificate: leaf.pem(), key: key.serialize_pem() };
    testkit::postgres_with(PostgresOptions { tls: Some(tls), ..Default::default() }).await
}

/// A file that lives as long as the server beside whose data it lies.
fn roots(server: &Postgres, authority: &Authority) -> String {
    let path: PathBuf = server.socket_dir().join("roots.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    path.display().to_string()
}

fn with(server: &Postgres, parameters: &str) -> PgConfig {
    at(&format!("{}?{parameters}", server.url()))
}

async fn encrypted(pool: &PgPool) -> bool {
    let lease = pool.acquire().await.unwrap();
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    lease.query_one(sql, &[]).await.unwrap().get(0)
}

async fn reason(config: PgConfig) -> String {
    open(config).acquire().await.expect_err("a connection that must not be").reason()
}

#[tokio::test]
async fn pg_25_each_mode_of_the_url_encrypts_and_verifies_as_much_as_it_says() {
    let trusted = authority("trusted");
    let server = server_named(&trusted, "127.0.0.1").await;
    let roots = roots(&server, &trusted);
    assert!(!encrypted(&open(with(&server, "sslmode=disable"))).await);
    for parameters in [
        "application_name=default",
        "sslmode=prefer",
        "sslmode=require",
        &format!("sslmode=require&sslrootcert={roots}"),
        &format!("sslmode=verify-ca&sslrootcert={roots}"),
        &format!("sslmode=verify-full&sslrootcert={roots}"),
    ] {
        assert!(encrypted(&open(with(&server, parameters))).await, "{parameters}");
    }
}

#[tokio::test]
async fn pg_25_a_certificate_of_somebody_else_is_refused_with_that_reason() {
    let (trusted, other) = (authority("trusted"), authority("other"));
    let server = server_named(&trusted, "127.0.0.1").await;
    let roots = roots(&server, &other);
    for mode in ["require", "verify-ca", "verify-full"] {
        let reason = reason(with(&server, &format!("sslmode={mode}&sslrootcert={roots}"))).await;
        assert!(reason.contains("invalid peer certificate"), "{mode}: {reason}");
    }
    // Without a file, the authorities that browsers trust.
    for mode in ["verify-ca", "verify-full"] {
        let reason = reason(with(&server, &format!("sslmode={mode}"))).await;
        assert!(reason.contains("invalid peer certificate"), "{mode}: {reason}");
    }
}

#[tokio::test]
async fn pg_25_a_certificate_for_another_name_passes_verify_ca_and_not_verify_full() {
    let trusted = authority("trusted");
    let server = server_named(&trusted, "db.example").await;
    let roots = roots(&server, &trusted);
    let reason = reason(with(&server, &format!("sslmode=verify-full&sslrootcert={roots}"))).await;
    assert!(reason.contains("not valid for") && reason.contains("db.example"), "{reason}");
    assert!(encrypted(&open(with(&server, &format!("sslmode=verify-ca&sslrootcert={roots}")))).await);
    // The name is the host's; `hostaddr` only says where it is.
    let named = server.url().replace("127.0.0.1", "db.example");
    let url = format!("{named}?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={roots}");
    assert!(encrypted(&open(at(&url))).await);
}

#[tokio::test]
async fn pg_25_the_log_in_is_bound_to_the_certificate() {
    let trusted = authority("trusted");
    let server = server_named(&trusted, "127.0.0.1").await;
    let pool = open(with(&server, "sslmode=require&channel_binding=require"));
    assert!(encrypted(&pool).await);
    let reason = reason(with(&server, "sslmode=disable&channel_binding=require")).await;
    assert!(reason.contains("channel binding"), "{reason}");
}

#[tokio::test]
async fn pg_25_what_was_left_behind_is_cancelled_and_rolled_back_over_tls_too() {
    let trusted = authority("trusted");
    let server = server_named(&trusted, "127.0.0.1").await;
    let pool = open(PgConfig { size: 1, overflow: 0, ..with(&server, "sslmode=require") });
    leave_things_behind(&pool).await;
    pool.drain(tokio::time::Instant::now() + secs(10)).await;
    assert_eq!(server.all_connections().await, 0);
}

#[tokio::test]
async fn pg_30_what_was_left_behind_is_cancelled_and_rolled_back_over_a_unix_socket_too() {
    let server = testkit::postgres().await;
    let directory = server.socket_dir().display().to_string().replace('/', "%2F");
    let url = format!("postgres://postgres@{directory}:{}/app", server.port());
    let pool = open(PgConfig { url: Some(url.as_str().into()), ..exactly(1, &server) });
    leave_things_behind(&pool).await;
}

/// The wire observer tells from what it sees: a running statement, an open and a failed transaction.
async fn leave_things_behind(pool: &PgPool) {
    let pid = backend_pid(pool).await;
    for _ in 0..3 {
        let lease = pool.acquire().await.unwrap();
        assert!(timeout(ms(50), lease.query("SELECT pg_sleep(60)", &[])).await.is_err());
        drop(lease);
        for sql in ["BEGIN; SELECT 1", "BEGIN; SELECT 1/0"] {
            let lease = pool.acquire().await.unwrap();
            assert_eq!(lease.batch_execute(sql).await.is_err(), sql.contains("1/0"));
            drop(lease);
        }
        let lease = pool.acquire().await.unwrap();
        lease.batch_execute("VACUUM pg_class").await.expect("still inside somebody's transaction");
        drop(lease);
    }
    settled(pool).await;
    assert_eq!(backend_pid(pool).await, pid, "closed instead of cleaned");
    assert_eq!(pool.snapshot().totals.opened, 1);
}

#[tokio::test]
async fn pg_11_a_statement_without_an_answer_is_given_up_over_tcp_tls_and_a_unix_socket_alike() {
    let trusted = authority("trusted");
    let server = server_named(&trusted, "127.0.0.1").await;
    let directory = server.socket_dir().display().to_string().replace('/', "%2F");
    let unix = at(&format!("postgres://postgres@{directory}:{}/app", server.port()));
    let ways = [with(&server, "sslmode=disable"), with(&server, "sslmode=require"), unix];
    // The server would end it after 1 s, and 5 s more are for the network.
    let limits = |config| PgConfig { size: 1, overflow: 0, statement_timeout: secs(1), ..config };
    let pools = ways.map(|config| open(limits(config)));
    let leases = futures_util::future::try_join_all(pools.iter().map(PgPool::acquire)).await.unwrap();
    server.freeze();
    let asked = futures_util::future::join_all(leases.iter().map(|lease| lease.query("SELECT 1", &[])));
    let answers = timeout(secs(60), asked).await.expect("waited for without a limit");
    assert!(answers.iter().all(|answer| matches!(answer, Err(PgError::Stalled { .. }))), "{answers:?}");
    drop((answers, leases));
    for pool in &pools {
        settled(pool).await;
        assert_eq!(pool.stats().total_connections, 0, "a hung connection was kept");
    }
    server.thaw();
    for pool in &pools {
        testkit::until_async(secs(20), async || pool.acquire().await.is_ok()).await;
    }
}
