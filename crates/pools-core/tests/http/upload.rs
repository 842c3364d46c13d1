//! Bodies that are read while they are sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use pools_core::http::{HttpError, HttpPool, RequestBuilder, SourceError, UploadError, multipart::Form};
use testkit::{End, Reply, UpstreamOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpSocket,
    task::JoinSet,
    time::Instant,
};

use crate::support::{BOUND, LIMIT, closed, get, ms, pool, until_idle};

const ITEM: usize = 64 * 1024;

/// How many items of a stream are in memory, and the most that ever were.
#[derive(Debug, Default)]
struct Alive {
    now: AtomicU64,
    peak: AtomicU64,
}

struct Item(Vec<u8>, Arc<Alive>);

impl AsRef<[u8]> for Item {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.1.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A file that is never in memory as a whole.
fn file(items: u64, alive: &Arc<Alive>) -> impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static {
    let alive = Arc::clone(alive);
    stream::iter(0..items).map(move |n| {
        let now = alive.now.fetch_add(1, Ordering::SeqCst) + 1;
        alive.peak.fetch_max(now, Ordering::SeqCst);
        Ok(Bytes::from_owner(Item(vec![b'a' + (n % 26) as u8; ITEM], Arc::clone(&alive))))
    })
}

fn pieces<const N: usize>(
    pieces: [&'static str; N],
) -> impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static {
    stream::iter(pieces.map(|piece| Ok(Bytes::from(piece))))
}

#[tokio::test]
async fn http_48_ten_megabytes_are_uploaded_in_constant_memory_with_an_exact_length() {
    const ITEMS: u64 = 160;
    let server = testkit::upstream(|_| Reply::ok("stored")).await;
    let http = pool(|_| {});
    let alive = Arc::new(Alive::default());
    for _ in 0..2 {
        let content = file(ITEMS, &alive);
        let form = Form::new()
            .text("pinataMetadata", "{\"name\":\"a\"}")
            .file("file", "a \"b\"\r\n.bin", "application/octet-stream", ITEMS * ITEM as u64, content)
            .text("last", "1");
        let response = http.post(&server.url()).multipart(form).send().await.unwrap();
        assert_eq!(response.bytes(LIMIT).await.unwrap(), "stored");
        until_idle(&http, 1).await;
    }
    // hyper holds at most 16 pieces and 400 kB; the whole would be 160.
    let peak = alive.peak.load(Ordering::SeqCst);
    assert!(peak <= 32, "{peak} items of 64 kB in memory");
    assert_eq!(alive.now.load(Ordering::SeqCst), 0);
    assert_eq!((server.accepted(), server.requests()), (1, 2));
    for request in server.seen() {
        assert_eq!(request.header("content-length").unwrap(), request.body.len().to_string());
        assert!(request.header("transfer-encoding").is_none());
        let boundary = request.header("content-type").unwrap().split_once("boundary=").unwrap().1;
        let (head, rest) = split(&request.body, b"\r\n\r\na");
        let expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"pinataMetadata\"\r\n\r\n{{\"name\":\"a\"}}\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a %22b%22%0D%0A.bin\"\r\n\
             Content-Type: application/octet-stream"
        );
        assert_eq!(String::from_utf8_lossy(head), expected);
        let tail = format!(
            "\r\n--{boundary}\r\nContent-Disposition: form-data; name=\"last\"\r\n\r\n1\r\n--{boundary}--\r\n"
        );
        assert_eq!(rest.len() - "\r\n\r\n".len(), ITEMS as usize * ITEM + tail.len());
        assert!(rest.ends_with(tail.as_bytes()));
    }
}

/// Up to the first occurrence, and from it on.
fn split<'a>(bytes: &'a [u8], at: &[u8]) -> (&'a [u8], &'a [u8]) {
    bytes.split_at(bytes.windows(at.len()).position(|window| window == at).unwrap())
}

/// The error of an upload, after which its connection is closed; the pool goes on.
async fn refused(build: impl FnOnce(RequestBuilder) -> RequestBuilder) -> HttpError {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|config| config.max_sockets = 1);
    get(&http, &server.url()).await.unwrap();
    let request = http.request(::http::Method::PUT, &server.url());
    let error = build(request).send().await.unwrap_err();
    until_idle(&http, 0).await;
    testkit::until(BOUND, || server.open() == 0).await;
    // The connection ends by itself or is closed by us, whoever is first.
    let closes = closed(&http, "unfinished") + closed(&http, "broken");
    assert_eq!((server.requests(), closes), (1, 1), "taken for a whole request, or kept");
    assert_eq!(get(&http, &server.url()).await.unwrap(), "a");
    assert_eq!(server.accepted(), 2);
    error
}

#[tokio::test]
async fn http_48_a_body_that_fails_or_is_not_as_long_as_it_said_is_a_typed_error_and_never_a_whole_request() {
    let error = refused(|request| request.stream(10, pieces(["abc", "def"]))).await;
    let HttpError::Upload { cause: UploadError::Short { declared: 10, got: 6 }, .. } = error else {
        panic!("{error:?}")
    };
    let error = refused(|request| request.stream(5, pieces(["abc", "def"]))).await;
    assert!(matches!(error, HttpError::Upload { cause: UploadError::Long { declared: 5 }, .. }), "{error:?}");
    // Exactly at the declared end.
    let error = refused(|request| request.stream(3, pieces(["abc", "", "d"]))).await;
    assert!(matches!(error, HttpError::Upload { cause: UploadError::Long { declared: 3 }, .. }), "{error:?}");
    let broken = pieces(["abc"]).chain(stream::iter([Err("disk on fire".into())]));
    let error = refused(|request| request.stream(10, broken)).await;
    let HttpError::Upload { cause: UploadError::Source(cause), at } = error else { panic!("{error:?}") };
    assert_eq!((cause.to_string().as_str(), at.attempt), ("disk on fire", 1));
}

#[tokio::test]
async fn http_48_empty_bodies_and_empty_items_are_sent_as_they_are() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    let send = async |request: RequestBuilder| request.send().await?.bytes(9).await;
    send(http.post(&server.url()).stream(0, pieces(["", ""]))).await.unwrap();
    send(http.post(&server.url()).stream(2, pieces(["", "a", "", "b", ""]))).await.unwrap();
    let error = send(http.post(&server.url()).stream(0, pieces(["x"]))).await.unwrap_err();
    assert!(matches!(error, HttpError::Request { what: "body", .. }), "{error:?}");
    let seen = server.seen();
    let lengths: Vec<_> = seen.iter().map(|request| request.header("content-length").unwrap()).collect();
    assert_eq!((lengths, &seen[1].body[..]), (vec!["0", "2"], &b"ab"[..]));
    until_idle(&http, 1).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn http_48_a_stream_that_was_begun_is_not_sent_again() {
    let server = testkit::upstream(|request| match (request.connection, request.nth) {
        (1, 2) => Reply::none(End::Close),
        _ => Reply::ok("a"),
    })
    .await;
    let http = pool(|_| {});
    get(&http, &server.url()).await.unwrap();
    let put = http.request(::http::Method::PUT, &server.url());
    let error = put.stream(3, pieces(["abc"])).send().await.unwrap_err();
    assert!(matches!(error, HttpError::Stale { .. }), "{error:?}");
    until_idle(&http, 0).await;
    assert_eq!((server.accepted(), server.requests()), (1, 2));
}

#[tokio::test]
async fn http_48_a_streamed_upload_that_is_refused_early_sees_the_refusal_and_is_read_no_further() {
    for end in [End::Hang, End::Stop] {
        let options = UpstreamOptions { answer_early: true, ..Default::default() };
        let server =
            testkit::upstream_with(options, move |_| Reply::new(413).body("too much").then(end)).await;
        let http = pool(|config| config.max_sockets = 1);
        let alive = Arc::new(Alive::default());
        let content = file(1 << 20, &alive);
        let response =
            http.post(&server.url()).stream(ITEM as u64 * (1 << 20), content).send().await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.bytes(9).await.unwrap(), "too much");
        until_idle(&http, 0).await;
        testkit::until(BOUND, || alive.now.load(Ordering::SeqCst) == 0).await;
        let peak = alive.peak.load(Ordering::SeqCst);
        assert!(peak <= 32, "{end:?}: {peak} items of 64 kB in memory");
    }
}

/// A source that sends something and then nothing any more.
fn stalled() -> impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static {
    pieces(["abc"]).chain(stream::pending())
}

#[tokio::test]
async fn http_48_a_source_that_stalls_is_silence_and_a_cancelled_upload_frees_its_place() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http: HttpPool = pool(|config| (config.max_sockets, config.timeout) = (1, ms(200)));
    let error = http.post(&server.url()).stream(10, stalled()).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    until_idle(&http, 0).await;
    let upload = http.post(&server.url()).stream(10, stalled()).send();
    assert!(tokio::time::timeout(ms(50), upload).await.is_err());
    until_idle(&http, 0).await;
    assert_eq!(get(&http, &server.url()).await.unwrap(), "a");
    assert_eq!(server.requests(), 1);
}

/// A server of one connection that reads slowly for that long, about 5 MB a second, and then goes on as it shall.
fn slow_reader(slowly: Duration, goes_on: bool, length: u64) -> (String, JoinSet<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    // What the kernel takes in one's stead would be read at once.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut socket = BufReader::new(listener.accept().await.unwrap().0);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let (started, mut left, mut piece) = (Instant::now(), length, vec![0; 256 * 1024]);
        while started.elapsed() < slowly {
            tokio::time::sleep(ms(50)).await;
            left -= socket.read(&mut piece).await.unwrap() as u64;
        }
        while goes_on && left > 0 {
            left -= socket.read(&mut piece).await.unwrap() as u64;
        }
        if goes_on {
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstored").await.unwrap();
        }
        // The connection stays.
        std::future::pending().await
    });
    (url, tasks)
}

#[tokio::test]
async fn http_50_an_upload_that_moves_is_not_silence_whoever_is_slow() {
    const ITEMS: u64 = 512;
    let (timeout, slowly) = (Duration::from_secs(1), ms(2_500));
    let alive = Arc::new(Alive::default());
    let by_reader = async {
        let (url, _server) = slow_reader(slowly, true, ITEMS * ITEM as u64);
        let http = pool(|config| config.timeout = timeout);
        let sent = http.post(&url).stream(ITEMS * ITEM as u64, file(ITEMS, &alive)).send().await;
        assert_eq!(sent.unwrap().bytes(9).await.unwrap(), "stored");
        until_idle(&http, 1).await;
    };
    let by_source = async {
        let server = testkit::upstream(|_| Reply::ok("stored")).await;
        let http = pool(|config| config.timeout = timeout);
        let trickle = stream::iter(0..25).then(async |_| {
            tokio::time::sleep(ms(100)).await;
            Ok(Bytes::from_static(b"a"))
        });
        let sent = http.post(&server.url()).stream(25, trickle).send().await;
        assert_eq!(sent.unwrap().bytes(9).await.unwrap(), "stored");
        until_idle(&http, 1).await;
        assert_eq!((server.accepted(), server.requests()), (1, 1));
    };
    let started = Instant::now();
    tokio::join!(by_reader, async {
        by_source.await;
        assert!(started.elapsed() >= slowly, "it was not slow");
    });
    assert!(started.elapsed() >= slowly, "it was not slow");
    assert_eq!(alive.now.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn http_50_an_upload_that_stalls_midway_is_silence_and_its_place_is_free() {
    // More than the kernel's buffers take.
    const ITEMS: u64 = 512;
    let (url, _server) = slow_reader(ms(300), false, ITEMS * ITEM as u64);
    let http = pool(|config| (config.max_sockets, config.timeout) = (1, ms(500)));
    let (alive, taken) = (Arc::new(Alive::default()), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&taken);
    let content = file(ITEMS, &alive).inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let started = Instant::now();
    let sent = http.post(&url).stream(ITEMS * ITEM as u64, content).send();
    let error = tokio::time::timeout(BOUND, sent).await.expect("it hangs").unwrap_err();
    assert!(matches!(error, HttpError::Head { .. }) && error.is_timeout(), "{error:?}");
    assert!(started.elapsed() >= ms(500), "not silent for so long");
    until_idle(&http, 0).await;
    let taken = taken.load(Ordering::SeqCst);
    assert!((1..ITEMS).contains(&taken), "{taken} of {ITEMS} items were sent");
    testkit::until(BOUND, || alive.now.load(Ordering::SeqCst) == 0).await;
    let peak = alive.peak.load(Ordering::SeqCst);
    assert!(peak <= 32, "{peak} items of 64 kB in memory");

    // The same from the beginning, and the pool goes on.
    let options = UpstreamOptions { answer_early: true, ..Default::default() };
    let server = testkit::upstream_with(options, |request| match &*request.method {
        "POST" => Reply::none(End::Stop),
        _ => Reply::ok("next"),
    })
    .await;
    let body = vec![b'x'; ITEM * ITEMS as usize];
    let error = http.post(&server.url()).body(body).send().await.unwrap_err();
    assert!(matches!(error, HttpError::Head { .. }) && error.is_timeout(), "{error:?}");
    assert_eq!(get(&http, &server.url()).await.unwrap(), "next");
    until_idle(&http, 1).await;
    assert_eq!((server.accepted(), closed(&http, "unfinished")), (2, 2));
}
