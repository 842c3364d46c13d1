//! What the tests of this binary share.

use std::time::Duration;

use pools_core::{
    http::{HttpConfig, HttpError, HttpPool, HttpPoolBuilder, RequestBuilder},
    pool::Pool,
};

/// Hang guard.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// No body of these tests is longer.
pub(crate) const LIMIT: usize = 16 << 20;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A pool with the defaults, changed by `change`.
pub(crate) fn pool(change: impl FnOnce(&mut HttpConfig)) -> HttpPool {
    builder(change).build()
}

pub(crate) fn builder(change: impl FnOnce(&mut HttpConfig)) -> HttpPoolBuilder {
    let mut config = HttpConfig::default();
    change(&mut config);
    HttpPool::builder(config)
}

/// GET, the body as text.
#[track_caller]
pub(crate) fn get(
    http: &HttpPool,
    url: &str,
) -> impl Future<Output = Result<String, HttpError>> + Send + use<> {
    text(http.get(url))
}

/// POST, the body as text.
#[track_caller]
pub(crate) fn post(
    http: &HttpPool,
    url: &str,
) -> impl Future<Output = Result<String, HttpError>> + Send + use<> {
    text(http.post(url).body("sent"))
}

async fn text(request: RequestBuilder) -> Result<String, HttpError> {
    let body = request.send().await?.bytes(LIMIT).await?;
    Ok(String::from_utf8(body.to_vec()).expect("the servers of these tests send text"))
}

/// In use, idle, being opened, waiting.
pub(crate) fn counts(http: &HttpPool) -> (u32, u32, u32, u32) {
    let snapshot = http.snapshot();
    (snapshot.in_use(), snapshot.idle(), snapshot.opening(), snapshot.waiting())
}

/// Waits until nobody uses, opens or waits for a connection and `idle` are idle.
pub(crate) async fn until_idle(http: &HttpPool, idle: u32) {
    testkit::until(BOUND, || counts(http) == (0, idle, 0, 0)).await;
    assert!(http.snapshot().holders.is_empty(), "a lease without an owner");
}

/// Connections closed for this reason.
pub(crate) fn closed(http: &HttpPool, reason: &str) -> u64 {
    let totals = http.snapshot().totals;
    totals.closed.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
}

/// Requests sent again on a fresh connection.
pub(crate) fn stale_retries(http: &HttpPool) -> u64 {
    let samples = http.snapshot().samples;
    let sample = samples.iter().find(|sample| sample.name == "pools_http_stale_retries_total");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    sample.map_or(0, |sample| sample.value as u64)
}

/// Sockets of this process to that port, as the kernel counts them.
pub(crate) fn kernel_sockets(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    // Columns: index, local, remote, state; 01 is ESTABLISHED. Sockets that only wait out TIME_WAIT belong to nobody.
    let remote = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(2).is_some_and(|to| to.ends_with(&remote)) && row[3] == "01").count()
}
