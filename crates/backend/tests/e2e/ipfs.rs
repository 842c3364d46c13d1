//! `/api/ipfs/*`: documents through the service to a Pinata that speaks both of its APIs.

mod faults;

use bytes::Bytes;
use http::Method;
use pools_core::http::{RequestBuilder, multipart::Form};
use serde_json::json;
use testkit::{
    Pinata,
    pinata::{API_KEY, JWT, SECRET_KEY},
    until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::stack::{ADMIN, Answer, BOUND, Backend};

const UPLOAD: &str = "/api/ipfs/upload";
const MIB: usize = 1024 * 1024;
const CID: &str = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPVLT";

/// A backend with this Pinata, by keys or by token.
async fn backend(pinata: &Pinata, v3: bool, more: &[(&str, &str)]) -> Backend {
    let url = pinata.url();
    let mut variables = vec![("PINATA_URL", url.as_str()), ("PINATA_UPLOAD_URL", url.as_str())];
    match v3 {
        true => variables.push(("PINATA_JWT", JWT)),
        false => variables.extend([("PINATA_API_KEY", API_KEY), ("PINATA_SECRET_KEY", SECRET_KEY)]),
    }
    variables.retain(|(name, _)| more.iter().all(|(given, _)| given != name));
    variables.extend_from_slice(more);
    Backend::start(&variables).await
}

/// Content of a type, with a body that differs from byte to byte.
fn content(start: &[u8], length: usize) -> Bytes {
    let rest = (0..length.saturating_sub(start.len())).map(|at| (at % 251) as u8);
    start.iter().copied().chain(rest).collect()
}

fn pdf(length: usize) -> Bytes {
    content(b"%PDF-1.7\n", length)
}

fn form(name: &str, kind: &str, content: &Bytes) -> Form {
    let (length, content) = (content.len() as u64, content.clone());
    Form::new().file("document", name, kind, length, futures_util::stream::once(async { Ok(content) }))
}

async fn upload(backend: &Backend, form: Form) -> Answer {
    answered(backend.request(Method::POST, UPLOAD).multipart(form)).await
}

/// The answer, or why there is none.
async fn answered(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = String::from_utf8(response.bytes(MIB).await.expect("a whole answer").to_vec()).unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
}

async fn unpin(backend: &Backend, cid: &str) -> Answer {
    let request = backend.request(Method::DELETE, &format!("/api/ipfs/unpin/{cid}"));
    let request = request.header("authorization", &format!("Bearer {ADMIN}"));
    backend.send(request).await.expect("the removal is answered")
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_pinned_byte_for_byte_shown_and_removed_through_either_api() {
    for v3 in [false, true] {
        let pinata = testkit::pinata().await;
        let backend = backend(&pinata, v3, &[]).await;
        let documents = [
            ("contract.pdf", "application/pdf", pdf(3 * MIB)),
            ("photo.jpg", "image/jpeg", content(&[0xff, 0xd8, 0xff, 0xe0], 70_000)),
            ("scan \"1\".png", "image/png", content(b"\x89PNG\r\n\x1a\n", 600)),
            ("größe.txt", "text/plain", Bytes::from("Sicherheit: 120 %\r\n".repeat(9_000))),
            ("x.txt", "text/plain", Bytes::from("x")),
        ];
        for (place, (name, kind, content)) in documents.iter().enumerate() {
            let answer = upload(&backend, form(name, kind, content)).await;

            assert_eq!(answer.status, 200, "{name}: {}", answer.text);
            let kept = pinata.pinned().pop().unwrap();
            assert!(kept.content == *content, "{name}: other bytes arrived");
            assert_eq!((kept.v3, kept.content_type.as_str()), (v3, *kind));
            assert_eq!(kept.name, name.replace('"', "%22"));
            let expected = json!({
                "ipfsHash": kept.cid, "size": content.len(), "mimeType": kind,
                "fileName": name.replace('"', "%22"),
                "url": format!("https://gateway.pinata.cloud/ipfs/{}", kept.cid),
            });
            assert_eq!(answer.body, expected);
            assert_eq!(pinata.uploads(), place + 1);
        }
        let sent = pinata.seen().into_iter().find(|request| request.method == "POST").unwrap();
        assert_eq!(sent.header("content-length"), Some(sent.body.len().to_string().as_str()));
        assert_eq!(sent.target, if v3 { "/v3/files" } else { "/pinning/pinFileToIPFS" });
        let first = pinata.pinned().remove(0);
        let said = first.field(if v3 { "name" } else { "pinataMetadata" }).unwrap();
        assert!(said.contains("contract.pdf"), "{said}");

        let path = format!("/api/ipfs/metadata/{}", first.cid);
        let shown = backend.must_get(&path).await.body;
        assert_eq!((&shown["status"], &shown["ipfsHash"]), (&json!("pinned"), &json!(first.cid)));
        assert_eq!(shown["size"], first.content.len());
        assert_eq!(shown["metadata"]["name"], "contract.pdf");
        assert!(chrono::DateTime::parse_from_rfc3339(shown["pinDate"].as_str().unwrap()).is_ok(), "{shown}");
        assert!(shown["url"].as_str().unwrap().ends_with(&first.cid), "{shown}");

        let removed = unpin(&backend, &first.cid).await;
        assert_eq!(removed.status, 200, "{}", removed.text);
        assert!(removed.body["message"].as_str().unwrap().contains(&first.cid));
        assert_eq!(pinata.pinned().len(), documents.len() - 1);
        assert_eq!(code(&unpin(&backend, &first.cid).await), (404, "not_found"));
        let gone = backend.must_get(&path).await.body;
        assert_eq!(
            (&gone["status"], &gone["size"], &gone["url"]),
            (&json!("not_found"), &json!(null), &json!(null))
        );

        let host = pinata.addr().to_string();
        let stats = backend.must_get("/api/pools/stats").await.body["http"].clone();
        let open = ["sockets", "freeSockets"].map(|map| stats[map][&host].as_u64().unwrap_or(0));
        assert!(open[0] + open[1] > 0, "no entry for Pinata: {stats}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_other_api_and_of_longer_ids_are_not_taken_for_this_one() {
    let pinata = testkit::pinata().await;
    let (legacy, v3) = (pinata.pin(false, "a", "aaa"), pinata.pin(true, "b", "bbb"));
    let by_keys = backend(&pinata, false, &[]).await;
    let by_token = backend(&pinata, true, &[]).await;
    let status = async |backend: &Backend, cid: &str| {
        let answer = backend.must_get(&format!("/api/ipfs/metadata/{cid}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(&by_keys, &legacy.cid).await, "pinned");
    assert_eq!(status(&by_keys, &v3.cid).await, "not_found");
    assert_eq!(status(&by_token, &legacy.cid).await, "not_found");
    assert_eq!(status(&by_token, &v3.cid.to_uppercase()).await, "pinned");
    // Twice the same content is two files under one id, and both go.
    pinata.pin(true, "b again", "bbb");
    assert_eq!(unpin(&by_token, &v3.cid).await.status, 200);
    assert_eq!(pinata.pinned().len(), 1);
}

/// A client that decides byte by byte what it sends.
struct Raw(TcpStream);

const BOUNDARY: &str = "----raw-boundary";

impl Raw {
    /// Sends the head of an upload and the beginning of its form.
    async fn begin(backend: &Backend, file: usize) -> Self {
        let before = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"document\"; filename=\"a.pdf\"\r\n\
             Content-Type: application/pdf\r\n\r\n"
        );
        let length = before.len() + file + Self::after().len();
        let mut raw = Self::head(backend, &format!("Content-Length: {length}\r\n")).await;
        raw.send(before.as_bytes()).await;
        raw
    }

    async fn head(backend: &Backend, more: &str) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", backend.port)).await.unwrap();
        let mut raw = Self(socket);
        let head = format!(
            "POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n{more}\r\n"
        );
        raw.send(head.as_bytes()).await;
        raw
    }

    fn after() -> String {
        format!("\r\n--{BOUNDARY}--\r\n")
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Everything until a whole answer has come.
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&answer).into_owned();
                if text.contains("\r\n\r\n") && text.trim_end().ends_with('}') {
                    return text;
                }
                assert!(self.0.read_buf(&mut answer).await.unwrap() > 0, "closed after {text:?}");
            }
        };
        tokio::time::timeout(BOUND, read).await.expect("an answer comes")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_sent_on_while_it_comes() {
    let pinata = testkit::pinata().await;
    let backend = backend(&pinata, true, &[]).await;
    let document = pdf(4 * MIB);
    let mut client = Raw::begin(&backend, document.len()).await;
    for quarter in 0..4 {
        let at = quarter * MIB;
        client.send(&document[at..at + MIB]).await;
        // All but what is on its way. Pinata has it while the browser still holds the rest back.
        until(BOUND, || pinata.received() as usize > at + MIB - 300_000).await;
        assert_eq!(pinata.uploads(), 0);
    }
    client.send(Raw::after().as_bytes()).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(pinata.pinned()[0].content == document);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_goes_away_ends_the_upload_and_nothing_is_pinned() {
    for v3 in [false, true] {
        let pinata = testkit::pinata().await;
        let backend = backend(&pinata, v3, &[]).await;
        let document = pdf(8 * MIB);
        let mut client = Raw::begin(&backend, document.len()).await;
        client.send(&document[..2 * MIB]).await;
        until(BOUND, || pinata.received() as usize > MIB).await;
        drop(client);
        until(BOUND, || pinata.open() == 0).await;
        assert_eq!((pinata.uploads(), pinata.pinned().len()), (0, 0));
        // Its place is free again, and the service works on.
        assert_eq!(upload(&backend, form("b.pdf", "application/pdf", &pdf(MIB))).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_stops_sending_is_told_so_and_pinata_is_not_blamed() {
    let pinata = testkit::pinata().await;
    let backend = backend(&pinata, true, &[("HTTP_TIMEOUT_MS", "1000")]).await;
    assert_eq!(backend.health_of("pinata").await, "up");
    let mut client = Raw::begin(&backend, 2 * MIB).await;
    client.send(&pdf(MIB)).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    assert_eq!((backend.health_of("pinata").await, pinata.uploads()), ("up".to_owned(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_over_ten_mebibytes_is_refused_without_the_rest() {
    let pinata = testkit::pinata().await;
    let backend = backend(&pinata, true, &[]).await;
    // Told by its length: not a byte of the form is waited for.
    let mut client = Raw::head(&backend, &format!("Content-Length: {}\r\n", 20 * MIB)).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("payload_too_large"), "{answer}");
    assert_eq!(pinata.requests(), 0);
    // One byte too long: it is seen when it comes, and the upload that has begun is cut.
    let answer = upload(&backend, form("a.pdf", "application/pdf", &pdf(10 * MIB + 1))).await;
    assert_eq!(code(&answer), (413, "payload_too_large"), "{}", answer.text);
    assert_eq!(answer.body["field"], "document");
    until(BOUND, || pinata.in_flight() == 0).await;
    assert_eq!((pinata.uploads(), pinata.pinned().len()), (0, 0));
    let answer = upload(&backend, form("a.pdf", "application/pdf", &pdf(10 * MIB))).await;
    assert_eq!(answer.status, 200, "exactly 10 MiB: {}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_uploads_take_memory_for_pieces_not_for_documents() {
    const UPLOADS: usize = 16;
    let pinata = testkit::pinata().await;
    // Without optimisation and beside other tests it may take long.
    let backend = backend(&pinata, true, &[("REQUEST_TIMEOUT", "300")]).await;
    let document = pdf(10 * MIB);
    assert_eq!(upload(&backend, form("a.pdf", "application/pdf", &document)).await.status, 200);
    let before = peak_memory(&backend);
    let uploads = (0..UPLOADS).map(|_| async {
        let answer = upload(&backend, form("a.pdf", "application/pdf", &document)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    });
    futures_util::future::join_all(uploads).await;
    let grown = peak_memory(&backend) - before;
    println!("{UPLOADS} uploads of 10 MiB at once: peak memory grew by {grown} KiB");
    assert!(grown < UPLOADS * 10 * 1024 / 4, "peak memory grew by {grown} KiB");
    let pinned = pinata.pinned();
    assert!(pinned.len() == UPLOADS + 1 && pinned.iter().all(|file| file.content == document));
}

/// The most memory the process ever had, in KiB.
fn peak_memory(backend: &Backend) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", backend.process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_document_is_called_is_checked_against_what_it_is() {
    let pinata = testkit::pinata().await;
    let backend = backend(&pinata, false, &[]).await;
    let png = content(b"\x89PNG\r\n\x1a\n", 2_000);
    let late_nul = Bytes::from([&b"words ".repeat(200_000)[..], b"\0"].concat());
    let cases = [
        ("application/zip", content(b"PK\x03\x04", 900)),
        ("text/html", Bytes::from("<html></html>")),
        ("application/octet-stream", pdf(900)),
        ("application/pdf", png.clone()),
        ("image/jpeg", png.clone()),
        ("image/png", pdf(900)),
        ("image/png", Bytes::from("just words")),
        ("text/plain", png),
        ("text/plain", Bytes::from("<!DOCTYPE html><script>alert(1)</script>")),
        ("text/plain", Bytes::from_static(b"caf\xe9")),
        ("text/plain", late_nul),
    ];
    for (kind, content) in cases {
        let answer = upload(&backend, form("a", kind, &content)).await;
        assert_eq!(code(&answer), (415, "unsupported_media_type"), "{kind}: {}", answer.text);
        assert_eq!(answer.body["field"], "document", "{kind}");
    }
    until(BOUND, || pinata.in_flight() == 0).await;
    assert_eq!((pinata.uploads(), pinata.pinned().len()), (0, 0), "a refused document was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_come_in_their_order_with_and_without_a_key() {
    let pinata = testkit::pinata().await;
    let configured = backend(&pinata, true, &[]).await;
    let bare = Backend::start(&[]).await;
    let good = || form("a.pdf", "application/pdf", &pdf(900));
    let part = |name: &str, body: &str| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{body}\r\n")
    };
    let end = format!("--{BOUNDARY}--\r\n");
    let written = |backend: &Backend, body: String| {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        backend.request(Method::POST, UPLOAD).header("content-type", &kind).body(body)
    };
    for backend in [&configured, &bare] {
        let send = answered;
        let post = || backend.request(Method::POST, UPLOAD);
        let json = send(post().json(&json!({}))).await;
        assert_eq!(code(&json), (415, "unsupported_media_type"));
        let mixed = post().header("content-type", &format!("multipart/mixed; boundary={BOUNDARY}")).body("x");
        assert_eq!(code(&send(mixed).await), (415, "unsupported_media_type"));
        let other = upload(backend, form("a.zip", "application/zip", &pdf(900))).await;
        assert_eq!(code(&other), (415, "unsupported_media_type"));
        let large = upload(backend, form("a.pdf", "application/pdf", &pdf(10 * MIB + 1))).await;
        assert_eq!(code(&large), (413, "payload_too_large"), "{}", large.text);
        let no_boundary = post().header("content-type", "multipart/form-data").body("x");
        assert_eq!(code(&send(no_boundary).await), (400, "bad_request"));
        for broken in ["nonsense".to_owned(), part("document", "x"), part("document", "x") + "--"] {
            let answer = send(written(backend, broken.clone())).await;
            assert_eq!(code(&answer), (400, "bad_request"), "{broken:?}: {}", answer.text);
        }
        let faults = [part("other", "x") + &end, part("document", "") + &end];
        let twice = part("document", "x") + &part("document", "y") + &end;
        for form in faults.into_iter().chain([twice]) {
            let answer = send(written(backend, form.clone())).await;
            assert_eq!(code(&answer), (422, "invalid_field"), "{form}: {}", answer.text);
            assert_eq!(answer.body["field"], "document");
        }
        let mut chunked = Raw::head(backend, "Transfer-Encoding: chunked\r\n").await;
        let body = part("document", "words") + &end;
        chunked.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await;
        let answer = chunked.answer().await;
        assert!(answer.starts_with("HTTP/1.1 411") && answer.contains("length_required"), "{answer}");
    }
    let with_fields = part("note", "first") + &part("document", "words") + &part("tag", "last") + &end;
    assert_eq!(configured.send(written(&configured, with_fields)).await.unwrap().status, 200);
    assert_eq!(pinata.pinned()[0].content, "words");
    let missing = upload(&bare, good()).await;
    assert_eq!(code(&missing), (503, "upstream_not_configured"));
    assert!(missing.body["detail"].as_str().unwrap().contains("PINATA_JWT"), "{}", missing.text);
    let half = Backend::start(&[("PINATA_API_KEY", "k")]).await;
    let detail = upload(&half, good()).await.body["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("PINATA_SECRET_KEY"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_content_id_reaches_pinata_and_only_an_admin_removes() {
    let pinata = testkit::pinata().await;
    let backend = backend(&pinata, false, &[]).await;
    let bad = [
        "hello",
        "Qm123",
        "..%2F..%2Fdata%2FpinList",
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPVLT%3Fa=b",
        "%00",
    ];
    for cid in bad {
        for (method, path) in [(Method::GET, "metadata"), (Method::DELETE, "unpin")] {
            let request = backend.request(method, &format!("/api/ipfs/{path}/{cid}"));
            let answer = backend.send(request).await.unwrap();
            assert_eq!(code(&answer), (400, "bad_request"), "{cid}: {}", answer.text);
            assert_eq!(answer.body["field"], "cid", "{cid}");
        }
    }
    let path = format!("/api/ipfs/unpin/{CID}");
    let anybody = backend.send(backend.request(Method::DELETE, &path)).await.unwrap();
    assert_eq!(code(&anybody), (401, "unauthorised"));
    assert_eq!(backend.must_get(&path).await.status, 405);
    assert_eq!(pinata.requests(), 0);
    assert_eq!(code(&unpin(&backend, CID).await), (404, "not_found"));
    let bare = Backend::start(&[("ADMIN_TOKEN", "")]).await;
    assert_eq!(code(&unpin(&bare, CID).await), (503, "upstream_not_configured"));
    let bare = Backend::start(&[]).await;
    for answer in [unpin(&bare, CID).await, bare.must_get(&format!("/api/ipfs/metadata/{CID}")).await] {
        assert_eq!(code(&answer), (503, "upstream_not_configured"));
    }
}
