//! What happens when a connection cannot be opened, and how it is opened when it can.

use pools_core::{
    health::HealthState,
    pool::Pool,
    postgres::{OpenError, PgConfig, PgError, PgPool, SqlState, UrlFault},
};
use tokio::{net::TcpListener, time::Instant};

use crate::{at, backend_pid, exactly, ms, open, ready, secs, settled};

async fn refusal(url: &str) -> (PgError, PgPool) {
    let pool = open(at(url));
    let started = Instant::now();
    let error = pool.acquire().await.unwrap_err();
    assert!(started.elapsed() < secs(5), "hidden for {:?}", started.elapsed());
    assert!(matches!(error, PgError::Open { .. }) && error.is_unavailable(), "{error:?}");
    (error, pool)
}

#[tokio::test]
async fn pg_05_the_real_reason_comes_at_once() {
    let nobody = format!("postgres://app:x@127.0.0.1:{}/app", testkit::free_port());
    let (refused, pool) = refusal(&nobody).await;
    assert!(refused.reason().contains("Connection refused"), "{}", refused.reason());
    let health = pool.health();
    assert_eq!(health.state, HealthState::Down);
    assert!(health.reason.unwrap().contains("Connection refused"));
    assert_eq!(pool.stats().status, "unavailable");

    let server = testkit::postgres().await;
    let (password, _pool) = refusal(&server.url().replace("app-password", "wrong")).await;
    assert_eq!(password.sqlstate(), Some(&SqlState::INVALID_PASSWORD), "{}", password.reason());
    let (database, _pool) = refusal(&format!("{}_not", server.url())).await;
    assert_eq!(database.sqlstate(), Some(&SqlState::INVALID_CATALOG_NAME), "{}", database.reason());
    let url = server.create_role_with_limit("nobody", 0).await;
    let (full, _pool) = refusal(&url).await;
    assert_eq!(full.sqlstate(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{}", full.reason());
    assert!(full.is_busy());
}

#[tokio::test]
async fn pg_05_a_missing_or_bad_url_is_said_when_the_pool_is_made() {
    let absent = PgPool::open(PgConfig::default()).unwrap_err();
    assert!(matches!(absent, PgError::Url { fault: UrlFault::Absent }));
    assert_eq!(absent.to_string(), "DATABASE_URL is not set");
}

#[tokio::test]
async fn pg_06_thirty_callers_on_a_server_that_never_answers_all_end_within_the_connect_time_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    thirty_end_in_time(silent.local_addr().unwrap()).await;
}

#[tokio::test]
async fn pg_06_so_do_they_where_not_even_the_connection_is_taken() {
    let black_hole = testkit::black_hole().await;
    thirty_end_in_time(black_hole.addr()).await;
}

async fn thirty_end_in_time(address: std::net::SocketAddr) {
    let url = format!("postgres://app:x@{address}/app");
    let pool = open(PgConfig { connect_timeout: secs(5), ..at(&url) });
    // The second round begins with the failures of the first.
    for _ in 0..2 {
        let started = Instant::now();
        let callers: Vec<_> = (0..30).map(|_| tokio::spawn(pool.acquire())).collect();
        for caller in callers {
            match caller.await.unwrap().unwrap_err() {
                PgError::Open { cause: OpenError::TimedOut { .. }, .. } => {}
                other => panic!("{}", other.reason()),
            }
        }
        // One after the other, or place after place, it would be ten and more.
        assert!(started.elapsed() < ms(5_500), "{:?}", started.elapsed());
    }
    settled(&pool).await;
    assert_eq!(pool.stats().total_connections, 0);
}

#[tokio::test]
async fn pg_06_a_hanging_connect_does_not_hold_up_who_needs_none() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { pre_ping: false, ..exactly(2, &server) });
    ready(&pool).await;
    let first = pool.acquire().await.unwrap();
    server.freeze();
    let mut hanging = Box::pin(pool.acquire());
    assert!(tokio::time::timeout(ms(100), &mut hanging).await.is_err());
    drop(first);
    let other = tokio::time::timeout(secs(5), pool.acquire()).await;
    server.thaw();
    drop(other.expect("stuck behind a hanging connect").unwrap());
}

#[tokio::test]
async fn pg_06_a_connection_whose_caller_went_away_goes_to_the_next() {
    let server = testkit::postgres().await;
    let pool = open(exactly(1, &server));
    ready(&pool).await;
    for round in 2..8 {
        pool.invalidate();
        testkit::until(secs(20), || pool.stats().total_connections == 0).await;
        let mut acquiring = Box::pin(pool.acquire());
        while futures_util::poll!(&mut acquiring).is_pending() && pool.snapshot().opening() == 0 {
            tokio::task::yield_now().await;
        }
        drop(acquiring);
        testkit::until(secs(20), || pool.stats().checked_in == 1).await;
        assert_eq!(pool.snapshot().totals.opened, round);
    }
    backend_pid(&pool).await;
    assert_eq!(pool.snapshot().totals.opened, 7, "it was not the one that had been opened for others");
}

#[tokio::test]
async fn pg_25_a_server_without_tls_is_used_plainly_unless_the_url_requires_it() {
    let server = testkit::postgres().await;
    for mode in ["disable", "prefer"] {
        let pool = open(at(&format!("{}?sslmode={mode}", server.url())));
        backend_pid(&pool).await;
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let (error, _pool) = refusal(&format!("{}?sslmode={mode}", server.url())).await;
        assert!(error.reason().contains("the server does not offer TLS"), "{}", error.reason());
    }
}

#[tokio::test]
async fn pg_30_a_unix_socket_works() {
    let server = testkit::postgres().await;
    let directory = server.socket_dir().display().to_string().replace('/', "%2F");
    let pool = open(at(&format!("postgres://postgres@{directory}:{}/app", server.port())));
    let lease = pool.acquire().await.unwrap();
    let address = lease.query_one("SELECT inet_client_addr() IS NULL", &[]).await.unwrap();
    assert!(address.get::<_, bool>(0));
    // Cancelling goes through the socket too.
    let pid: i32 = lease.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    drop(tokio::time::timeout(ms(50), lease.query("SELECT pg_sleep(60)", &[])).await);
    drop(lease);
    settled(&pool).await;
    assert_eq!(backend_pid(&pool).await, pid);
}

/// A URL of several servers, in this order.
fn several(ports: &[u16], parameters: &str) -> String {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://app:app-password@{}/app{parameters}", hosts.join(","))
}

async fn port_of(pool: &PgPool) -> u16 {
    let lease = pool.acquire().await.unwrap_or_else(|error| panic!("{}", error.reason()));
    let port: i32 = lease.query_one("SELECT inet_server_port()", &[]).await.unwrap().get(0);
    u16::try_from(port).unwrap()
}

#[tokio::test]
async fn pg_30_of_several_hosts_the_first_that_lets_us_in_is_taken() {
    let (first, second) = tokio::join!(testkit::postgres(), testkit::postgres());
    let url = several(&[first.port(), second.port()], "");
    let pool = open(PgConfig { connect_timeout: secs(4), ..at(&url) });
    assert_eq!(port_of(&pool).await, first.port());
    first.stop(testkit::Stop::Fast).await;
    testkit::until(secs(20), || pool.stats().checked_in == 0 || pool.health().state == HealthState::Up).await;
    assert_eq!(port_of(&pool).await, second.port());
    // Cancelling goes to the host that was taken.
    let lease = pool.acquire().await.unwrap();
    let pid: i32 = lease.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    drop(tokio::time::timeout(ms(50), lease.query("SELECT pg_sleep(60)", &[])).await);
    drop(lease);
    settled(&pool).await;
    assert_eq!(backend_pid(&pool).await, pid);
}

#[tokio::test]
async fn pg_30_a_first_host_that_hangs_leaves_time_for_the_next() {
    let server = testkit::postgres().await;
    let black_hole = testkit::black_hole().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for first in [black_hole.port(), silent.local_addr().unwrap().port()] {
        let url = several(&[first, server.port()], "");
        let pool = open(PgConfig { connect_timeout: secs(6), ..at(&url) });
        assert_eq!(port_of(&pool).await, server.port());
    }
}

#[tokio::test]
async fn pg_30_target_session_attrs_picks_the_host_that_may_be_written_to() {
    let settings = vec![("default_transaction_read_only".to_owned(), "on".to_owned())];
    let options = testkit::PostgresOptions { settings, ..Default::default() };
    let (standby, primary) = tokio::join!(testkit::postgres_with(options), testkit::postgres());
    let ports = [standby.port(), primary.port()];
    assert_eq!(
        port_of(&open(at(&several(&ports, "?target_session_attrs=read-write")))).await,
        primary.port()
    );
    assert_eq!(port_of(&open(at(&several(&ports, "?target_session_attrs=read-only")))).await, standby.port());
    assert_eq!(port_of(&open(at(&several(&ports, "?target_session_attrs=any")))).await, standby.port());
    let (error, _pool) = refusal(&several(&ports[..1], "?target_session_attrs=read-write")).await;
    assert!(error.reason().contains("does not allow writes"), "{}", error.reason());
}

#[tokio::test]
async fn pg_32_the_minimum_is_opened_without_traffic_and_kept() {
    let server = testkit::postgres().await;
    let pool = open(PgConfig { min_idle: 5, ..at(&server.url()) });
    testkit::until(secs(20), || pool.stats().checked_in == 5).await;
    server.kill_backends().await;
    testkit::until_async(secs(20), async || server.connections("pools-core").await == 5).await;
}

#[tokio::test]
async fn pg_06_closing_the_connection_before_is_part_of_the_time_to_open_one() {
    let server = testkit::postgres().await;
    let proxy = testkit::proxy(server.port()).await;
    let limits =
        PgConfig { recycle: secs(1), pre_ping: false, connect_timeout: secs(4), ..exactly(1, &server) };
    let pool = open(PgConfig { url: Some(proxy.through(&server.url()).into()), ..limits });
    backend_pid(&pool).await;
    tokio::time::sleep(ms(1_050)).await;
    proxy.set(testkit::Mode::BlackHole);
    let started = Instant::now();
    let error = pool.acquire().await.unwrap_err();
    assert!(matches!(error, PgError::Open { cause: OpenError::TimedOut { .. }, .. }), "{}", error.reason());
    assert!(started.elapsed() < ms(4_400), "{:?}", started.elapsed());
}
