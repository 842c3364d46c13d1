//! Proxies between us and the host.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use pools_core::{
    http::{HttpConfig, HttpError, HttpPool, OpenError, ProxyError},
    redact::SecretString,
};
use rcgen::CertificateParams;
use testkit::Reply;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    support::{BOUND, builder, get, until_idle},
    tls::{Front, front},
};

const HOST: &str = "proxied.example";

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Connect,
    Socks { password: bool },
}

/// Leads everybody to one address, whatever they ask for, and remembers what they asked.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn proxy(manner: Manner, leads_to: SocketAddr) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, open) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicU64>::default());
    let (told, opens) = (Arc::clone(&asked), Arc::clone(&open));
    #[expect(clippy::disallowed_methods, reason = "a server of the test, aborted with it")]
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            opens.fetch_add(1, SeqCst);
            let (told, opens) = (Arc::clone(&told), Arc::clone(&opens));
            connections.spawn(async move {
                let asked = match manner {
                    Manner::Connect => connect(&mut socket).await,
                    Manner::Socks { password } => socks(&mut socket, password).await,
                };
                if let Ok(asked) = asked {
                    let refused = manner == Manner::Connect && !asked.contains("proxy-authorization: Basic ");
                    told.lock().push(asked);
                    if refused {
                        let answer = b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n";
                        let _gone = socket.write_all(answer).await;
                    } else {
                        if manner == Manner::Connect {
                            socket.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                        }
                        let mut upstream = TcpStream::connect(leads_to).await.unwrap();
                        let _ended = tokio::io::copy_bidirectional(&mut socket, &mut upstream).await;
                    }
                }
                opens.fetch_sub(1, SeqCst);
            });
        }
    });
    Proxy { address, asked, open, accepting }
}

async fn connect(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    Ok(head.replace("Proxy-Authorization", "proxy-authorization"))
}

/// RFC 1928 and 1929, as far as a client asks for a name.
async fn socks(socket: &mut TcpStream, password: bool) -> std::io::Result<String> {
    assert_eq!(socket.read_u8().await?, 5);
    let mut methods = vec![0; socket.read_u8().await?.into()];
    socket.read_exact(&mut methods).await?;
    let method = if password { 2 } else { 0 };
    assert!(methods.contains(&method));
    socket.write_all(&[5, method]).await?;
    let mut asked = String::new();
    if password {
        assert_eq!(socket.read_u8().await?, 1);
        for _ in 0..2 {
            let mut word = vec![0; socket.read_u8().await?.into()];
            socket.read_exact(&mut word).await?;
            asked += &format!("{}@", String::from_utf8(word).unwrap());
        }
        socket.write_all(&[1, 0]).await?;
    }
    let mut request = [0; 4];
    socket.read_exact(&mut request).await?;
    match request[3] {
        1 => asked += &std::net::Ipv4Addr::from(socket.read_u32().await?).to_string(),
        _ => {
            let mut name = vec![0; socket.read_u8().await?.into()];
            socket.read_exact(&mut name).await?;
            asked += &String::from_utf8(name).unwrap();
        }
    }
    asked += &format!(":{}", socket.read_u16().await?);
    socket.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
    Ok(asked)
}

fn through(change: impl FnOnce(&mut HttpConfig), tls: Option<&Front>) -> HttpPool {
    let builder = builder(change).resolver(Arc::new(|_, port| {
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) })
    }));
    match tls {
        Some(front) => builder.tls(front.client(&[])).build(),
        None => builder.build(),
    }
}

fn secret(url: String) -> Option<SecretString> {
    Some(SecretString::from(url))
}

fn proxy_error(error: HttpError) -> ProxyError {
    let HttpError::Open { cause: OpenError::Proxy(cause), .. } = error else { panic!("{error:?}") };
    cause
}

async fn tls_front(upstream: SocketAddr) -> Front {
    front(upstream, |params| *params = CertificateParams::new(vec![HOST.to_owned()]).unwrap()).await
}

#[tokio::test]
async fn http_45_an_http_proxy_is_told_whole_urls_and_no_proxy_is_obeyed() {
    let proxy = testkit::upstream(|request| Reply::ok(format!("proxy {}", request.target))).await;
    let direct = testkit::upstream(|_| Reply::ok("direct")).await;
    let port = direct.addr().port();
    let address = proxy.addr();
    let http = through(
        |config| {
            config.http_proxy = secret(format!("http://user:p%40ss@{address}"));
            config.no_proxy = Some("inside.example, 10.0.0.0/8".to_owned());
        },
        None,
    );
    for _ in 0..2 {
        let answer = get(&http, &format!("http://{HOST}:81/a?b")).await.unwrap();
        assert_eq!(answer, format!("proxy http://{HOST}:81/a?b"));
    }
    let seen = proxy.seen();
    // user:p@ss
    assert_eq!(seen[0].header("proxy-authorization"), Some("Basic dXNlcjpwQHNz"));
    assert_eq!(seen[0].header("host"), Some("proxied.example:81"));
    for host in ["inside.example", "deep.inside.example", "127.0.0.1", "localhost"] {
        assert_eq!(get(&http, &format!("http://{host}:{port}/")).await.unwrap(), "direct", "{host}");
    }
    assert_eq!(http.stats().free_sockets.get("proxied.example:81"), Some(&1), "{:?}", http.stats());
    assert_eq!((proxy.accepted(), proxy.requests()), (1, 2));
    let text = format!(
        "{http:?} {:?}",
        HttpConfig { http_proxy: secret("http://a:hush@b".into()), ..HttpConfig::default() }
    );
    assert!(!text.contains("hush"), "{text}");
}

#[tokio::test]
async fn http_45_a_tunnel_leads_to_tls_and_407_is_a_typed_error() {
    let server = testkit::upstream(|_| Reply::ok("inside")).await;
    let front = tls_front(server.addr()).await;
    let proxy = proxy(Manner::Connect, front.address()).await;
    let with = |credentials: &str| {
        let url = format!("http://{credentials}{}", proxy.address);
        through(|config| config.https_proxy = secret(url), Some(&front))
    };
    let http = with("user:password@");
    for _ in 0..2 {
        assert_eq!(get(&http, &format!("https://{HOST}/")).await.unwrap(), "inside");
    }
    until_idle(&http, 1).await;
    assert!(proxy.asked.lock()[0].starts_with("CONNECT proxied.example:443 HTTP/1.1\r\n"));
    assert_eq!(proxy.asked.lock().len(), 1);
    let strangers = with("");
    let error = get(&strangers, &format!("https://{HOST}/")).await.unwrap_err();
    assert!(matches!(proxy_error(error), ProxyError::Credentials));
    until_idle(&strangers, 0).await;
    let stubborn = testkit::upstream(|_| Reply::new(503).body("no")).await;
    let url = stubborn.url();
    let refused = through(|config| config.https_proxy = secret(url), Some(&front));
    let error = proxy_error(get(&refused, &format!("https://{HOST}/")).await.unwrap_err());
    assert!(matches!(error, ProxyError::Status(status) if status == 503), "{error:?}");
    testkit::until(BOUND, || stubborn.open() == 0).await;
    drop(http);
    testkit::until(BOUND, || proxy.open.load(SeqCst) == 0).await;
    assert_eq!((server.accepted(), server.requests()), (1, 2));
}

#[tokio::test]
async fn http_45_socks_5_works_by_name_and_by_address_with_a_password_and_without() {
    let server = testkit::upstream(|_| Reply::ok("inside")).await;
    let front = tls_front(server.addr()).await;
    let cases = [
        ("socks5h://", false, server.addr(), "http", "proxied.example:80"),
        ("socks5://", false, server.addr(), "http", "127.0.0.1:80"),
        ("socks5h://user:word@", true, front.address(), "https", "user@word@proxied.example:443"),
    ];
    for (scheme, password, leads_to, target, asked) in cases {
        let proxy = proxy(Manner::Socks { password }, leads_to).await;
        let url = format!("{scheme}{}", proxy.address);
        let http = through(|config| config.all_proxy = secret(url), Some(&front));
        for _ in 0..2 {
            assert_eq!(get(&http, &format!("{target}://{HOST}/")).await.unwrap(), "inside", "{asked}");
        }
        until_idle(&http, 1).await;
        assert_eq!(*proxy.asked.lock(), [asked]);
        drop(http);
        testkit::until(BOUND, || proxy.open.load(SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn http_45_a_proxy_that_is_down_or_no_proxy_is_an_error_and_never_gone_around() {
    let gone = testkit::upstream(|_| Reply::ok("")).await;
    let address = gone.addr();
    gone.stop().await;
    let http = through(|config| config.all_proxy = secret(format!("http://{address}")), None);
    let error = get(&http, &format!("http://{HOST}/")).await.unwrap_err();
    let ProxyError::Open(cause) = proxy_error(error) else { panic!("not about the proxy") };
    assert!(matches!(*cause, OpenError::Refused(_)), "{cause:?}");
    for bad in ["ftp://proxy.example", "https://proxy.example", "://"] {
        let http = through(|config| config.https_proxy = secret(bad.to_owned()), None);
        let error = get(&http, &format!("https://{HOST}/")).await.unwrap_err();
        assert!(matches!(proxy_error(error), ProxyError::Setting { variable: "HTTPS_PROXY" }), "{bad}");
        until_idle(&http, 0).await;
    }
}
