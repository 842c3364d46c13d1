//! The scripted JSON-RPC node, the fault proxy and the address where connecting hangs.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Fault, Mode, Refusal, Reply, RpcError, RpcNode, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const BOUND: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(60);

async fn post(node: &RpcNode, body: Value) -> (String, String) {
    let body = body.to_string();
    let length = body.len();
    let request = format!("POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut answer = String::new();
    let mut socket = TcpStream::connect(node.addr()).await.expect("the node listens");
    socket.write_all(request.as_bytes()).await.expect("the node reads");
    socket.read_to_string(&mut answer).await.expect("the node answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("there is a head");
    (head.to_owned(), body.to_owned())
}

fn call(id: u64, method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": []})
}

#[tokio::test]
async fn a_node_answers_counts_and_misbehaves_as_told() {
    let node = testkit::rpc_node(|method, _| match method {
        "bad" => Err(RpcError::new(3, "execution reverted")),
        method => Ok(json!(method)),
    })
    .await;
    let batch = json!([call(1, "a"), call(2, "bad"), call(3, "a")]);
    let ids = |body: &str| -> Vec<Value> {
        let answers: Vec<Value> = serde_json::from_str(body).unwrap();
        answers.into_iter().map(|answer| answer["id"].clone()).collect()
    };

    let (_, body) = post(&node, batch.clone()).await;
    assert_eq!(ids(&body), [1, 2, 3]);
    assert!(body.contains("execution reverted"));
    node.misbehave(|_| Fault::Reordered);
    assert_eq!(ids(&post(&node, batch.clone()).await.1), [3, 2, 1]);
    node.misbehave(|_| Fault::Duplicated(0));
    assert_eq!(ids(&post(&node, batch.clone()).await.1), [1, 2, 3, 1]);
    node.misbehave(|_| Fault::Missing(1));
    assert_eq!(ids(&post(&node, batch.clone()).await.1), [1, 3]);
    node.misbehave(|_| Fault::RefusedOver { limit: 2, refusal: Refusal::Status(413) });
    assert!(post(&node, batch.clone()).await.0.starts_with("HTTP/1.1 413"));
    node.misbehave(|_| Fault::TooManyRequests { retry_after: Some(1) });
    assert!(post(&node, batch).await.0.contains("retry-after: 1"));
    node.behave();
    assert_eq!(post(&node, call(9, "a")).await.1, r#"{"id":9,"jsonrpc":"2.0","result":"a"}"#);

    assert_eq!((node.requests(), node.entries(), node.calls("bad")), (7, 19, 6));
}

#[tokio::test]
async fn a_proxy_passes_delays_holds_and_resets() {
    let upstream = testkit::upstream(|_| Reply::ok("x")).await;
    let proxy = testkit::proxy(upstream.addr().port()).await;
    assert_eq!(proxy.through(&upstream.url()), format!("http://127.0.0.1:{}", proxy.port()));
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let mut answer = [0; 256];
    let request = b"GET / HTTP/1.1\r\n\r\n";

    socket.write_all(request).await.unwrap();
    assert!(timeout(BOUND, socket.read(&mut answer)).await.unwrap().unwrap() > 0);

    proxy.set(Mode::Delay { up: SOON, down: SOON });
    let started = Instant::now();
    socket.write_all(request).await.unwrap();
    assert!(timeout(BOUND, socket.read(&mut answer)).await.unwrap().unwrap() > 0);
    assert!(started.elapsed() >= 2 * SOON);

    proxy.set(Mode::BlackHole);
    socket.write_all(request).await.unwrap();
    assert!(timeout(SOON, socket.read(&mut answer)).await.is_err());
    assert_eq!(upstream.requests(), 2);
    proxy.set(Mode::Pass);
    assert!(timeout(BOUND, socket.read(&mut answer)).await.unwrap().unwrap() > 0);

    proxy.reset_all();
    assert!(timeout(BOUND, socket.read(&mut answer)).await.unwrap().is_err());
    until(BOUND, || proxy.open() == 0 && upstream.open() == 0).await;
    proxy.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", proxy.port())).await.is_err());
}

#[tokio::test]
async fn connecting_to_a_black_hole_hangs() {
    let hole = testkit::black_hole().await;
    assert!(timeout(Duration::from_millis(300), TcpStream::connect(hole.addr())).await.is_err());
}
