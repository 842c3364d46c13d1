//! Bodies that were compressed for the wire.

use bytes::Bytes;
use compression_codecs::{
    BrotliEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder,
    brotli::params::EncoderParams,
    core::{
        Level,
        util::{PartialBuffer, WriteBuffer},
    },
    flate::params::FlateEncoderParams,
};
use pools_core::http::{HttpError, HttpPool};
use testkit::{End, Reply, Upstream};

use crate::support::{BOUND, LIMIT, counts, get, pool, until_idle};

fn encode(mut encoder: impl EncodeV2, body: &[u8]) -> Bytes {
    let mut encoded = vec![0; body.len() + 1_000];
    let mut output = WriteBuffer::new_initialized(&mut encoded);
    let mut input = PartialBuffer::new(body);
    while !input.unwritten().is_empty() {
        encoder.encode(&mut input, &mut output).unwrap();
    }
    while !encoder.finish(&mut output).unwrap() {}
    let length = output.written_len();
    encoded.truncate(length);
    encoded.into()
}

fn gzip(body: &[u8]) -> Bytes {
    encode(GzipEncoder::new(FlateEncoderParams::from(Level::Default)), body)
}

fn all_encodings(body: &[u8]) -> [(&'static str, Bytes); 4] {
    [
        ("gzip", gzip(body)),
        ("deflate", encode(ZlibEncoder::new(FlateEncoderParams::from(Level::Default)), body)),
        ("br", encode(BrotliEncoder::new(EncoderParams::default()), body)),
        ("zstd", encode(ZstdEncoder::new(3), body)),
    ]
}

/// Something that compresses, but not to nothing.
fn text(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(b'a'..b'h')).take(length).collect()
}

async fn serving(encoding: &'static str, body: Bytes) -> Upstream {
    testkit::upstream(move |request| {
        let chunks = body.chunks(1_000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
        match &*request.target {
            "/chunks" => Reply::new(200).chunks(chunks).header("content-encoding", encoding),
            _ => Reply::ok(body.clone()).header("content-encoding", encoding),
        }
    })
    .await
}

#[tokio::test]
async fn http_37_every_encoding_is_asked_for_and_decoded() {
    let body = text(100_000);
    for (encoding, encoded) in all_encodings(&body) {
        let server = serving(encoding, encoded).await;
        let http = pool(|_| {});
        for path in ["/whole", "/chunks"] {
            let response = http.get(&format!("{}{path}", server.url())).send().await.unwrap();
            let headers = response.headers().clone();
            assert!(!headers.contains_key("content-encoding") && !headers.contains_key("content-length"));
            assert_eq!(response.bytes(body.len()).await.unwrap(), body, "{encoding} {path}");
            until_idle(&http, 1).await;
        }
        assert_eq!(server.seen()[0].header("accept-encoding"), Some("gzip, deflate, br, zstd"));
        assert_eq!((server.accepted(), server.requests()), (1, 2));
    }
}

/// Sends one request; the error of its body, read up to `limit` decoded bytes.
async fn undecodable(http: &HttpPool, server: &Upstream, path: &str, limit: usize) -> HttpError {
    let response = http.get(&format!("{}{path}", server.url())).send().await.unwrap();
    // A length, since a wrong success could be a gigabyte in the message.
    response.bytes(limit).await.map(|body| body.len()).unwrap_err()
}

#[tokio::test]
async fn http_37_a_truncated_body_is_an_error_wherever_it_was_cut() {
    let body = text(20_000);
    for (encoding, encoded) in all_encodings(&body) {
        for cut in [1, 5, encoded.len() / 2, encoded.len() - 1] {
            // Complete as HTTP has it, which only the encoding can tell.
            let server = serving(encoding, encoded.slice(..cut)).await;
            let http = pool(|_| {});
            for path in ["/whole", "/chunks"] {
                let error = undecodable(&http, &server, path, LIMIT).await;
                let HttpError::Encoding { coding, cause, .. } = &error else { panic!("{error:?}") };
                assert_eq!((*coding, cause.kind()), (encoding, std::io::ErrorKind::UnexpectedEof), "{cut}");
                testkit::until(BOUND, || counts(&http).0 == 0).await;
            }
        }
    }
}

#[tokio::test]
async fn http_37_a_damaged_body_is_an_error_and_its_connection_is_free_or_closed() {
    let mut damaged = gzip(&text(200_000)).to_vec();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xAA);
    let server = serving("gzip", damaged.into()).await;
    let http = pool(|config| config.max_sockets = 1);
    for path in ["/whole", "/chunks"] {
        let error = undecodable(&http, &server, path, LIMIT).await;
        assert!(matches!(error, HttpError::Encoding { coding: "gzip", .. }), "{error:?}");
        testkit::until(BOUND, || counts(&http).0 == 0).await;
    }
    // Something behind the end is not part of the body.
    let server = serving("gzip", [gzip(b"abc"), Bytes::from_static(b"garbage")].concat().into()).await;
    let error = undecodable(&http, &server, "/whole", LIMIT).await;
    assert!(matches!(error, HttpError::Encoding { .. }), "{error:?}");
    testkit::until(BOUND, || counts(&http).0 == 0).await;
}

#[tokio::test]
async fn http_37_a_bomb_is_stopped_at_the_cap() {
    const LIMIT: usize = 1 << 20;
    // A thousand times as long when decoded; decoding it whole would take seconds and a lot of memory.
    let member = gzip(&vec![0; 16 << 20]);
    let bomb: Bytes = std::iter::repeat_n(member, 64).collect::<Vec<_>>().concat().into();
    let server = serving("gzip", bomb).await;
    let http = pool(|config| config.max_sockets = 1);
    let error = undecodable(&http, &server, "/whole", LIMIT).await;
    assert!(matches!(error, HttpError::TooLarge { limit: LIMIT, .. }), "{error:?}");
    until_idle(&http, 0).await;
    testkit::until(BOUND, || server.open() == 0).await;
    // Piece by piece, no piece is large.
    let mut response = http.get(&server.url()).send().await.unwrap();
    for _ in 0..100 {
        assert!(response.chunk().await.unwrap().unwrap().len() <= 8 * 1024);
    }
    drop(response);
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_37_several_members_are_one_body_and_no_body_is_no_error() {
    let both: Bytes = [gzip(b"abc"), gzip(b"def")].concat().into();
    let server = testkit::upstream(move |request| {
        let reply = match &*request.target {
            "/both" => Reply::new(200).chunks(both.chunks(7).map(Bytes::copy_from_slice)),
            "/empty" => Reply::new(200).chunks::<Bytes>([]),
            "/304" => Reply::new(304),
            _ => Reply::ok(""),
        };
        reply.header("content-encoding", "gzip")
    })
    .await;
    let http = pool(|_| {});
    assert_eq!(get(&http, &format!("{}/both", server.url())).await.unwrap(), "abcdef");
    for path in ["/empty", "/304", "/"] {
        assert_eq!(get(&http, &format!("{}{path}", server.url())).await.unwrap(), "", "{path}");
    }
    until_idle(&http, 1).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn http_37_who_wants_it_as_it_comes_gets_it_so() {
    let encoded = gzip(b"abc");
    let server = serving("gzip", encoded.clone()).await;
    let http = pool(|_| {});
    let request = || http.get(&server.url());
    for request in [
        request().undecoded(),
        request().header("accept-encoding", "gzip"),
        request().header("range", "bytes=0-99"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert_eq!(response.bytes(LIMIT).await.unwrap(), encoded);
    }
    let asked: Vec<_> = server.seen().iter().map(|seen| seen.header("accept-encoding").is_some()).collect();
    assert_eq!(asked, [false, true, false]);
    // Nobody asked for this one.
    let server = testkit::upstream(|_| Reply::ok("abc").header("content-encoding", "rot13, gzip")).await;
    assert_eq!(get(&http, &server.url()).await.unwrap(), "abc");
}

#[tokio::test]
async fn http_37_a_connection_lost_in_an_encoded_body_is_reported_as_that() {
    let encoded = gzip(&text(50_000));
    let server = testkit::upstream(move |_| {
        Reply::ok(encoded.clone()).header("content-encoding", "gzip").cut_at(9_000, End::Close)
    })
    .await;
    let http = pool(|_| {});
    let error = undecodable(&http, &server, "/", LIMIT).await;
    assert!(matches!(error, HttpError::Truncated { .. }), "{error:?}");
    until_idle(&http, 0).await;
}
