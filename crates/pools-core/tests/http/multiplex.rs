//! HTTP/2: many requests on one connection.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use futures_util::future::join_all;
use pools_core::{
    http::{HttpError, HttpPool},
    pool::Pool,
};
use tokio::time::Instant;

use crate::{
    frames::{Act, INTERNAL, Options, REFUSED, h2_server},
    support::{BOUND, LIMIT, closed, counts, get, ms, post, until_idle},
};

const SOON: Act = Act::Answer(Duration::from_millis(30), "body");

/// Requests under way on shared connections, as the metric has it.
fn streams(http: &HttpPool) -> f64 {
    let samples = http.snapshot().samples;
    samples.iter().find(|sample| sample.name == "pools_http_streams").unwrap().value
}

async fn all(http: &HttpPool, url: &str, requests: usize) {
    for answer in join_all((0..requests).map(|_| get(http, url))).await {
        assert_eq!(answer.unwrap(), "body");
    }
}

#[tokio::test]
async fn http_41_fifty_cold_requests_share_one_connection() {
    let server = h2_server(Options::default(), |seen| match seen.number {
        ..50 => Act::Hold,
        50 => Act::AnswerAll("body"),
        _ => SOON,
    })
    .await;
    let http = server.pool(50).build();
    all(&http, &server.url(), 50).await;
    assert_eq!((server.seen(), server.counts.peak.load(SeqCst)), ((1, 50), 50));
    until_idle(&http, 1).await;
    assert_eq!(streams(&http), 0.0);
    all(&http, &server.url(), 5).await;
    until_idle(&http, 1).await;
    assert_eq!(server.seen(), (1, 55));
    drop(http);
    testkit::until(BOUND, || server.counts.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn http_41_before_the_servers_settings_nobody_is_sent_on_trust() {
    for settings_after in [Duration::ZERO, ms(50)] {
        let options = Options { limit: Some(5), settings_after, ..Options::default() };
        let server = h2_server(options, |_| SOON).await;
        let http = server.pool(1).build();
        all(&http, &server.url(), 12).await;
        assert_eq!((server.counts.excess.load(SeqCst), server.seen()), (0, (1, 12)));
        assert!(server.counts.peak.load(SeqCst) <= 5);
        until_idle(&http, 1).await;
    }
}

#[tokio::test]
async fn http_41_more_than_the_limit_use_another_connection_or_wait() {
    let server = h2_server(Options::default(), |_| SOON).await;
    let http = server.pool(2).max_streams(1_000).build();
    all(&http, &server.url(), 300).await;
    assert_eq!(server.counts.excess.load(SeqCst), 0);
    assert!(server.counts.peak.load(SeqCst) <= 100);
    assert_eq!(server.seen(), (2, 300));
    until_idle(&http, 2).await;
    // Our own limit holds where the server has none.
    let server = h2_server(Options { limit: None, ..Options::default() }, |_| SOON).await;
    let http = server.pool(1).max_streams(7).build();
    all(&http, &server.url(), 20).await;
    assert_eq!(server.seen(), (1, 20));
    assert!(server.counts.peak.load(SeqCst) <= 7);
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_41_goaway_sends_those_it_leaves_out_again_and_lets_the_others_finish() {
    let server = h2_server(Options::default(), |seen| match (seen.connection, seen.stream) {
        (1, 1) => SOON,
        (1, 9) => Act::GoAway { last: 5, answer: Some(ms(100)) },
        (1, _) => Act::Hold,
        _ => SOON,
    })
    .await;
    let http = server.pool(50).build();
    all(&http, &server.url(), 1).await;
    // Streams 3 to 9, of which 7 and 9 are left out. Not idempotent: sent again all the same, and once.
    let answers = join_all((0..4).map(|_| post(&http, &server.url()))).await;
    let mut answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    answers.sort();
    assert_eq!(answers, ["body", "body", "late", "late"]);
    assert_eq!(server.seen(), (2, 7));
    until_idle(&http, 1).await;
    assert_eq!(closed(&http, "not_reusable"), 1);
    testkit::until(BOUND, || server.counts.open.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn http_41_what_goaway_does_not_leave_out_may_have_been_done_and_is_not_sent_again() {
    let server = h2_server(Options::default(), |seen| match (seen.connection, seen.stream) {
        (1, 1) => SOON,
        // Leaves, and closes without the answers that it owes.
        (1, 9) => Act::GoAway { last: 5, answer: None },
        (1, _) => Act::Hold,
        _ => SOON,
    })
    .await;
    let http = server.pool(50).build();
    all(&http, &server.url(), 1).await;
    let answers = join_all((0..4).map(|_| post(&http, &server.url()))).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len(), server.seen()), (2, 2, (2, 7)));
    for error in bad {
        assert!(matches!(error, Err(HttpError::Stale { .. })), "{error:?}");
    }
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_41_refused_streams_are_sent_again_and_not_for_ever() {
    let server = h2_server(Options::default(), |seen| match seen.number {
        1 | 3 => Act::Reset(REFUSED),
        _ => SOON,
    })
    .await;
    let http = server.pool(50).build();
    assert_eq!(post(&http, &server.url()).await.unwrap(), "body");
    assert_eq!(post(&http, &server.url()).await.unwrap(), "body");
    assert_eq!(server.seen(), (1, 4));
    until_idle(&http, 1).await;
    let server = h2_server(Options::default(), |_| Act::Reset(REFUSED)).await;
    let http = server.pool(50).build();
    let error = post(&http, &server.url()).await.unwrap_err();
    let HttpError::Refused { at, .. } = &error else { panic!("{error:?}") };
    assert_eq!((at.attempt, server.seen()), (4, (1, 4)));
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_41_another_reset_is_the_error_of_that_request_alone() {
    let server = h2_server(Options::default(), |seen| match seen.number {
        2 => Act::Reset(INTERNAL),
        _ => Act::Answer(ms(100), "body"),
    })
    .await;
    let http = server.pool(50).build();
    let (one, two, three) =
        tokio::join!(get(&http, &server.url()), get(&http, &server.url()), get(&http, &server.url()),);
    let (bad, good): (Vec<_>, Vec<_>) = [one, two, three].into_iter().partition(Result::is_err);
    assert_eq!((good.len(), bad.len()), (2, 1));
    assert!(matches!(bad[0], Err(HttpError::Reset { .. })), "{bad:?}");
    until_idle(&http, 1).await;
    assert_eq!(server.seen(), (1, 3));
}

#[tokio::test]
async fn http_41_a_peer_that_answers_no_ping_is_dead_and_its_connection_closes() {
    let options = Options { answers_pings: false, ..Options::default() };
    let server = h2_server(options, |seen| match seen.connection {
        1 => Act::Hold,
        _ => SOON,
    })
    .await;
    let http = server.pool(50).ping(ms(100), ms(100)).build();
    let started = Instant::now();
    let (one, two) = tokio::join!(post(&http, &server.url()), post(&http, &server.url()));
    assert!(one.is_err() && two.is_err() && started.elapsed() >= ms(200));
    testkit::until(BOUND, || server.counts.open.load(SeqCst) == 0).await;
    until_idle(&http, 0).await;
    // Nobody is on it any more, and what comes next has a new one.
    all(&http, &server.url(), 3).await;
    assert_eq!(server.seen(), (2, 5));
    // With requests under way and PINGs answered, silence is no death.
    let server = h2_server(Options::default(), |_| Act::Answer(ms(500), "body")).await;
    let http = server.pool(50).ping(ms(50), ms(200)).build();
    all(&http, &server.url(), 3).await;
}

#[tokio::test]
async fn http_41_a_lost_connection_is_a_stale_one_for_all_that_may_be_repeated() {
    let server = h2_server(Options::default(), |seen| match (seen.connection, seen.stream) {
        (1, 1) => SOON,
        (1, 9) => Act::Close,
        (1, _) => Act::Hold,
        _ => SOON,
    })
    .await;
    let http = server.pool(50).build();
    all(&http, &server.url(), 1).await;
    all(&http, &server.url(), 4).await;
    assert_eq!(server.seen(), (2, 9));
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_41_a_request_given_up_is_reset_and_the_others_go_on() {
    let server = h2_server(Options::default(), |seen| match seen.number {
        1 => Act::Hold,
        2 => Act::Begin("some"),
        _ => SOON,
    })
    .await;
    let http = server.pool(50).build();
    assert!(tokio::time::timeout(ms(100), get(&http, &server.url())).await.is_err());
    testkit::until(BOUND, || server.counts.resets.load(SeqCst) == 1).await;
    let mut response = http.get(&server.url()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "some");
    let stats = http.stats();
    assert_eq!((streams(&http), counts(&http), stats.sockets.into_values().sum()), (1.0, (1, 0, 0, 0), 1));
    all(&http, &server.url(), 3).await;
    drop(response);
    testkit::until(BOUND, || server.counts.resets.load(SeqCst) == 2).await;
    until_idle(&http, 1).await;
    assert_eq!((server.seen(), streams(&http)), ((1, 5), 0.0));
    // A body that stalls ends by its own silence, however busy the connection is.
    let error = http.get(&server.url()).head_timeout(ms(1)).send().await.unwrap_err();
    assert!(matches!(error, HttpError::Head { .. }), "{error:?}");
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_41_uploads_share_a_connection() {
    let server = h2_server(Options::default(), |_| SOON).await;
    let http = server.pool(50).build();
    let body = vec![b'x'; 1 << 20];
    let uploads = (0..3).map(|_| http.post(&server.url()).body(body.clone()).send());
    for response in join_all(uploads).await {
        let response = response.unwrap();
        assert_eq!(response.version(), ::http::Version::HTTP_2);
        assert_eq!(response.bytes(LIMIT).await.unwrap(), "body");
    }
    assert_eq!((server.seen(), server.counts.uploaded.load(SeqCst)), ((1, 3), 3 << 20));
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_41_a_drain_lets_streams_finish_and_leaves_no_socket() {
    let server = h2_server(Options::default(), |_| Act::Answer(ms(100), "body")).await;
    let (http, url) = (server.pool(50).build(), server.url());
    let draining = async {
        testkit::until(BOUND, || streams(&http) == 3.0).await;
        http.drain(Instant::now() + BOUND).await
    };
    let (_, drained) = tokio::join!(all(&http, &url, 3), draining);
    assert!(drained.cut.is_empty(), "{drained:?}");
    testkit::until(BOUND, || server.counts.open.load(SeqCst) == 0).await;
    until_idle(&http, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_27_random_cancels_on_shared_connections_lose_no_place_and_pass_no_limit() {
    let options = Options { limit: Some(10), ..Options::default() };
    let server = h2_server(options, |seen| match seen.number % 97 {
        0 => Act::GoAway { last: seen.stream, answer: Some(ms(1)) },
        1 => Act::Close,
        2 => Act::Reset(REFUSED),
        n => Act::Answer(Duration::from_micros(n * 20), "body"),
    })
    .await;
    let http = server.pool(3).build();
    let callers = (0..60).map(|_| async {
        for _ in 0..50 {
            let patience = Duration::from_micros(fastrand::u64(0..6_000));
            let _cancelled_or_not = tokio::time::timeout(patience, get(&http, &server.url())).await;
            let (in_use, idle, opening, _) = counts(&http);
            assert!(in_use + idle + opening <= 3 && streams(&http) <= 30.0);
        }
    });
    join_all(callers).await;
    assert_eq!(server.counts.excess.load(SeqCst), 0, "more requests than the server allows");
    testkit::until(BOUND, || counts(&http).0 == 0 && streams(&http) == 0.0).await;
    let mut answered = 0;
    for answer in join_all((0..50).map(|_| get(&http, &server.url()))).await {
        // One of them may meet the close of this script.
        answered += usize::from(answer.is_ok());
    }
    assert!(answered >= 30, "{answered}");
    testkit::until(BOUND, || counts(&http).0 == 0 && counts(&http).3 == 0 && streams(&http) == 0.0).await;
}

#[tokio::test]
async fn http_41_a_server_without_http_2_is_asked_once_and_then_dialled_as_usual() {
    let server = testkit::upstream(|_| testkit::Reply::ok("body").delay(ms(50))).await;
    let front = crate::tls::front(server.addr(), |_| {}).await;
    let http = crate::support::builder(|_| {}).tls(front.client(&[b"h2", b"http/1.1"])).build();
    all(&http, &format!("https://localhost:{}/", front.port()), 8).await;
    assert_eq!(server.accepted(), 8);
    until_idle(&http, 8).await;
}
