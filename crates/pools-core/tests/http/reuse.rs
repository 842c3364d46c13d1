//! Which connections are used again, and which are not.

use pools_core::pool::Pool;
use serde_json::json;
use testkit::Reply;

use crate::support::{BOUND, LIMIT, closed, counts, get, ms, pool, until_idle};

#[tokio::test]
async fn requests_in_a_row_share_one_connection_and_stats_say_so() {
    let server = testkit::upstream(|request| Reply::ok(request.target.clone())).await;
    let http = pool(|_| {});
    for n in 0..5 {
        assert_eq!(get(&http, &format!("{}/{n}?q", server.url())).await.unwrap(), format!("/{n}?q"));
    }
    until_idle(&http, 1).await;
    assert_eq!(server.accepted(), 1);
    let host = server.addr().to_string();
    let stats = serde_json::to_value(http.stats()).unwrap();
    let expected = json!({
        "maxSockets": 50, "maxFreeSockets": 10, "sockets": {}, "freeSockets": {host: 1}, "requests": {},
    });
    assert_eq!(stats, expected);
    assert_eq!(http.snapshot().totals.opened, 1);
}

#[tokio::test]
async fn json_goes_out_and_comes_back() {
    let server = testkit::upstream(|request| Reply::json(request.body.clone())).await;
    let http = pool(|_| {});
    let sent = json!({"jsonrpc": "2.0", "params": [1, "zwei"]});
    let response = http.post(&server.url()).json(&sent).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert_eq!(response.json::<serde_json::Value>(LIMIT).await.unwrap(), sent);
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.header("content-type"), seen.header("host")),
        (Some("application/json"), Some(&*server.addr().to_string()))
    );
    let error = http.get(&server.url()).send().await.unwrap().json::<u8>(LIMIT).await.unwrap_err();
    assert!(matches!(error, pools_core::http::HttpError::Json { .. }), "{error:?}");
}

#[tokio::test]
async fn http_06_an_idle_connection_that_the_server_closes_leaves_without_a_request() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    get(&http, &server.url()).await.unwrap();
    until_idle(&http, 1).await;
    server.close_idle();
    until_idle(&http, 0).await;
    assert!(http.stats().free_sockets.is_empty());
    assert_eq!(closed(&http, "peer"), 1);
    testkit::until(BOUND, || server.open() == 0).await;
    get(&http, &server.url()).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn http_49_an_idle_connection_is_closed_when_its_time_is_over() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|config| config.keep_alive = ms(100));
    get(&http, &server.url()).await.unwrap();
    assert_eq!(counts(&http).1, 1);
    until_idle(&http, 0).await;
    assert_eq!(closed(&http, "idle"), 1);
    testkit::until(BOUND, || server.open() == 0).await;
}
