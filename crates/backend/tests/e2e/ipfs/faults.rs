//! Pinata's errors, limits, health and secrets, as a caller sees them.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::{
    End, Reply, UpstreamOptions,
    pinata::{JWT, PinataFault},
};
use tokio::time::Instant;

use super::{CID, MIB, Raw, backend, code, form, pdf, upload};
use crate::stack::{BOUND, Backend};

#[tokio::test(flavor = "multi_thread")]
async fn each_of_pinatas_errors_is_told_apart() {
    let pinata = testkit::pinata().await;
    let html = || Reply::new(200).header("content-type", "text/html").body("<html>maintenance</html>");
    let cases = [
        (PinataFault::RateLimited(Some(7)), 429, "upstream_rate_limited", Some("7")),
        (PinataFault::OverPlan, 503, "upstream_quota_exceeded", None),
        (PinataFault::Html(500), 502, "upstream_failed", None),
        (PinataFault::Answer(html()), 502, "upstream_failed", None),
        (PinataFault::CutAt(10), 502, "upstream_failed", None),
        (PinataFault::Late(Duration::from_secs(60)), 504, "upstream_timeout", None),
        (PinataFault::Answer(Reply::none(End::Reset)), 502, "upstream_failed", None),
        (PinataFault::Answer(Reply::ok("{}")), 502, "upstream_failed", None),
    ];
    for v3 in [false, true] {
        for (fault, status, expected, retry_after) in &cases {
            // One each, or the breaker would answer in the end.
            let impatient = [("HTTP_TIMEOUT_MS", "1000")];
            let is_late = matches!(fault, PinataFault::Late(_));
            let backend = backend(&pinata, v3, if is_late { &impatient } else { &[] }).await;
            pinata.misbehave(fault.clone());
            let uploaded = upload(&backend, form("a.pdf", "application/pdf", &pdf(MIB))).await;
            let shown = backend.must_get(&format!("/api/ipfs/metadata/{CID}")).await;
            for answer in [uploaded, shown] {
                assert_eq!(code(&answer), (*status, *expected), "{fault:?}: {}", answer.text);
                let header = answer.headers.get("retry-after").map(|value| value.to_str().unwrap());
                assert_eq!(header, *retry_after, "{fault:?}");
            }
            pinata.behave();
        }
        let wrong: &[(&str, &str)] =
            if v3 { &[("PINATA_JWT", "wrong")] } else { &[("PINATA_SECRET_KEY", "wrong")] };
        let backend = backend(&pinata, v3, wrong).await;
        let refused = upload(&backend, form("a.pdf", "application/pdf", &pdf(900))).await;
        assert_eq!(code(&refused), (502, "upstream_bad_key"), "{}", refused.text);
        assert!(refused.body["detail"].as_str().unwrap().contains(wrong[0].0), "{}", refused.text);
    }
    assert!(pinata.pinned().iter().all(|file| file.content.len() == MIB), "half a document was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_the_file_is_read_ends_the_upload_at_once() {
    let early = UpstreamOptions { answer_early: true, ..UpstreamOptions::default() };
    let pinata = testkit::pinata_with(early).await;
    pinata.misbehave(PinataFault::RateLimited(None));
    let backend = backend(&pinata, true, &[]).await;
    let mut client = Raw::begin(&backend, 8 * MIB).await;
    client.send(&pdf(MIB)).await;
    // The browser has not sent the rest, and gets its answer.
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("upstream_rate_limited"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_rate_limit_a_bad_document_is_told_and_a_good_one_goes_nowhere() {
    let pinata = testkit::pinata().await;
    let limited = [("RATE_LIMIT", "on"), ("RATE_LIMIT_COSTLY_REQUESTS", "1")];
    let backend = backend(&pinata, true, &limited).await;
    let good = || form("a.pdf", "application/pdf", &pdf(MIB));
    assert_eq!(upload(&backend, good()).await.status, 200);
    let bad = upload(&backend, form("a.zip", "application/zip", &pdf(900))).await;
    assert_eq!(code(&bad), (415, "unsupported_media_type"), "{}", bad.text);
    let again = upload(&backend, good()).await;
    assert_eq!(again.status, 429, "{}", again.text);
    assert!(again.headers.contains_key("retry-after"), "{:?}", again.headers);
    assert_eq!((pinata.requests(), pinata.pinned().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_the_account_holds_for_uploads_and_all_other_calls_together() {
    let pinata = testkit::pinata().await;
    let backend = backend(&pinata, true, &[("PINATA_RATE_PER_SECOND", "3")]).await;
    let path = format!("/api/ipfs/metadata/{CID}");
    let document = pdf(900);
    let uploads = (0..4).map(|_| upload(&backend, form("a.pdf", "application/pdf", &document)));
    let others = (0..4).map(|_| backend.must_get(&path));
    let (uploaded, shown) = futures_util::join!(join_all(uploads), join_all(others));
    assert!(uploaded.iter().chain(&shown).all(|answer| answer.status == 200), "{uploaded:?} {shown:?}");
    assert_eq!((pinata.requests(), pinata.busiest_second()), (8, 3));
}

/// Begins an upload and sends the rest of it once `pause` has passed.
async fn slow_upload(backend: &Backend, pause: Duration) -> String {
    let (document, began) = (pdf(MIB), Instant::now());
    let mut client = Raw::begin(backend, document.len()).await;
    client.send(&document[..MIB / 2]).await;
    testkit::until(BOUND, || began.elapsed() > pause).await;
    client.send(&document[MIB / 2..]).await;
    client.send(Raw::after().as_bytes()).await;
    client.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_has_the_time_of_uploads_and_not_that_of_other_requests() {
    let pinata = testkit::pinata().await;
    let patient = backend(&pinata, true, &[("REQUEST_TIMEOUT", "1")]).await;
    let answer = slow_upload(&patient, Duration::from_secs(2)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let impatient = backend(&pinata, true, &[("PINATA_UPLOAD_TOTAL_TIMEOUT_MS", "1000")]).await;
    let mut client = Raw::begin(&impatient, 2 * MIB).await;
    client.send(&pdf(MIB)).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    pinata.misbehave(PinataFault::Late(Duration::from_secs(60)));
    let late = upload(&impatient, form("a.pdf", "application/pdf", &pdf(900))).await;
    assert_eq!(code(&late), (504, "upstream_timeout"), "{}", late.text);
    assert_eq!(pinata.pinned().len(), 2, "the slow one, and the one whose receipt was late");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_what_pinata_said_last() {
    let pinata = testkit::pinata().await;
    let good = backend(&pinata, true, &[]).await;
    assert_eq!(good.health_of("pinata").await, "up", "asked when nobody knew");
    let asked = pinata.requests();
    assert_eq!(good.health_of("pinata").await, "up");
    assert_eq!(pinata.requests(), asked, "asked although it was known");
    pinata.stop().await;
    let path = format!("/api/ipfs/metadata/{CID}");
    assert_eq!(code(&good.must_get(&path).await), (503, "upstream_unavailable"));
    assert_eq!(good.health_of("pinata").await, "down");
    assert_eq!(good.must_get("/health").await.body["status"], "degraded");
    pinata.start().await;
    testkit::until_async(BOUND, async || good.health_of("pinata").await == "up").await;

    let bad = backend(&pinata, false, &[("PINATA_API_KEY", "wrong")]).await;
    assert_eq!(bad.health_of("pinata").await, "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_printed_nowhere_and_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwt");
    std::fs::write(&file, format!("{JWT}\n")).unwrap();
    let pinata = testkit::pinata().await;
    let url = pinata.url();
    let backend = Backend::start(&[
        ("PINATA_URL", &url),
        ("PINATA_UPLOAD_URL", &url),
        ("PINATA_JWT_FILE", file.to_str().unwrap()),
        ("LOG_LEVEL", "trace"),
    ])
    .await;
    let mut seen = upload(&backend, form("a.pdf", "application/pdf", &pdf(900))).await.text;
    pinata.misbehave(PinataFault::Html(500));
    seen += &upload(&backend, form("a.pdf", "application/pdf", &pdf(900))).await.text;
    for path in ["/health", "/metrics", "/api/pools/stats"] {
        seen += &backend.must_get(path).await.text;
    }
    seen += &backend.process.lines().join("\n");
    assert_eq!(pinata.pinned().len(), 1);
    assert!(!seen.contains(JWT), "the token was printed");
}
