//! The resolver against a DNS server on loopback, with files of the test's own.

use std::{fs, sync::atomic::AtomicUsize};

use testkit::DnsAnswer;

use super::*;

/// Hang guard.
const BOUND: Duration = Duration::from_secs(20);

struct Setup {
    server: testkit::Dns,
    dns: Dns,
    folder: std::path::PathBuf,
    system: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `text` is the `resolv.conf`, if there is one. The system's resolver knows `printer` alone.
async fn setup(text: Option<&str>, change: impl FnOnce(&mut HttpConfig)) -> Setup {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let server = testkit::dns().await;
    let number = NUMBER.fetch_add(1, Relaxed);
    let folder = std::env::temp_dir().join(format!("pools-core-dns-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (resolv_conf, hosts) = (folder.join("resolv.conf"), folder.join("hosts"));
    if let Some(text) = text {
        fs::write(&resolv_conf, text).unwrap();
    }
    fs::write(&hosts, "127.0.0.9 Filed # and nothing else\n").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let system: Resolver = Arc::new(move |host, port| {
        counter.fetch_add(1, Relaxed);
        let found = (host == "printer").then(|| vec![SocketAddr::from(([127, 0, 0, 7], port))]);
        async move { found.ok_or(io::ErrorKind::NotFound.into()) }.boxed()
    });
    let mut config = HttpConfig {
        dns_servers: vec![server.addr()],
        connect_timeout: Duration::from_secs(20),
        ..HttpConfig::default()
    };
    change(&mut config);
    let tasks = Tasks::new();
    let dns = Dns::with_files((&resolv_conf, &hosts), &config, tasks.clone(), system);
    Setup { server, dns, folder, system: asked, tasks }
}

impl Setup {
    async fn find(&self, host: &str) -> io::Result<Vec<String>> {
        let found = self.dns.find(host, 80).await?;
        Ok(found.iter().map(|address| address.ip().to_string()).collect())
    }

    fn outcome(&self, name: &str) -> u64 {
        let counts = &self.dns.0.counts;
        let counter = match name {
            "local" => &counts.local,
            "cached" => &counts.cached,
            "answered" => &counts.answered,
            "stale" => &counts.stale,
            "unknown" => &counts.unknown,
            "asked" => &counts.asked,
            _ => &counts.failed,
        };
        counter.load(Relaxed)
    }
}

fn v4(last: u8, ttl: u32) -> DnsAnswer {
    DnsAnswer::Addresses(vec![Ipv4Addr::new(127, 0, 0, last).into()], ttl)
}

#[tokio::test]
async fn http_32_numbers_localhost_and_the_hosts_file_need_no_server() {
    let setup = setup(None, |_| {}).await;
    assert_eq!(setup.find("127.0.0.3").await.unwrap(), ["127.0.0.3"]);
    assert_eq!(setup.find("::1").await.unwrap(), ["::1"]);
    assert_eq!(setup.find("LocalHost").await.unwrap(), ["127.0.0.1", "::1"]);
    assert_eq!(setup.find("api.localhost").await.unwrap(), ["127.0.0.1", "::1"]);
    assert_eq!(setup.find("filed").await.unwrap(), ["127.0.0.9"]);
    // A changed file counts at once.
    fs::write(setup.folder.join("hosts"), "127.0.0.19 filed\n::2 filed\n").unwrap();
    assert_eq!(setup.find("FILED").await.unwrap(), ["127.0.0.19", "::2"]);
    assert_eq!((setup.outcome("local"), setup.server.names().len()), (6, 0));
}

#[tokio::test]
async fn http_32_both_families_are_found_and_the_one_without_an_address_costs_nothing() {
    let setup = setup(None, |_| {}).await;
    setup.server.set(
        "both.test",
        DnsAnswer::Addresses(vec!["::5".parse().unwrap(), "127.0.0.5".parse().unwrap()], 60),
    );
    setup.server.set("six.test", DnsAnswer::Addresses(vec!["::6".parse().unwrap()], 60));
    setup.server.set("mute.test", DnsAnswer::SilentAboutV6(Box::new(v4(4, 60))));
    assert_eq!(setup.find("both.test").await.unwrap(), ["127.0.0.5", "::5"]);
    assert_eq!(setup.find("six.test.").await.unwrap(), ["::6"]);
    // A server that swallows questions for AAAA holds nobody up for a whole time-out.
    let found = timeout(Duration::from_secs(4), setup.find("mute.test")).await;
    assert_eq!(found.expect("the other family was waited for").unwrap(), ["127.0.0.4"]);
}

#[tokio::test]
async fn http_32_fifty_who_need_a_name_ask_once_and_one_who_leaves_takes_nothing_along() {
    let setup = setup(None, |_| {}).await;
    setup.server.set("cold.test", DnsAnswer::Silence);
    // The first, who began to ask, goes away before there is an answer.
    tokio::select! {
        _ = setup.find("cold.test") => panic!("nobody has answered"),
        () = testkit::until(BOUND, || setup.server.asked("cold.test") == 1) => {}
    }
    setup.server.set("cold.test", v4(1, 60));
    let fifty = futures_util::future::join_all((0..50).map(|_| setup.find("cold.test"))).await;
    assert!(fifty.iter().all(|found| found.as_ref().unwrap() == &["127.0.0.1"]));
    assert_eq!((setup.server.asked("cold.test"), setup.outcome("asked")), (1, 1));
    assert_eq!(setup.find("cold.test").await.unwrap(), ["127.0.0.1"]);
    assert_eq!((setup.server.asked("cold.test"), setup.outcome("cached")), (1, 1));
    assert_eq!(setup.dns.0.cache.lock().len(), 1);
}

#[tokio::test]
async fn http_32_search_domains_and_ndots_count_as_in_resolv_conf() {
    let text = "search ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    let setup = setup(Some(text), |_| {}).await;
    setup.server.set("db.ns.svc.cluster.local", v4(1, 60));
    setup.server.set("db.other.svc.cluster.local", v4(2, 60));
    setup.server.set("api.example.com", v4(3, 60));
    setup.server.set("api.example.com.svc.cluster.local", DnsAnswer::Code(2));
    assert_eq!(setup.find("db").await.unwrap(), ["127.0.0.1"]);
    assert_eq!(setup.server.names(), ["db.ns.svc.cluster.local"]);
    assert_eq!(setup.find("db.other").await.unwrap(), ["127.0.0.2"]);
    // Four dots are fewer than five: completed first. That one of the domains fails does not hide the name.
    assert_eq!(setup.find("api.example.com").await.unwrap(), ["127.0.0.3"]);
    assert_eq!(setup.server.names().last().unwrap(), "api.example.com");
    let before = setup.server.names().len();
    assert_eq!(setup.find("api.example.com.").await.unwrap(), ["127.0.0.3"]);
    assert_eq!(setup.server.names().len(), before + 1, "a name with its last dot is complete");

    // What another resolv.conf says counts from the next lookup on.
    fs::write(setup.folder.join("resolv.conf"), "search elsewhere.test\n").unwrap();
    setup.server.set("late.elsewhere.test", v4(8, 60));
    assert_eq!(setup.find("late").await.unwrap(), ["127.0.0.8"]);
}

#[tokio::test]
async fn http_32_without_servers_the_system_is_asked_for_each_dial() {
    let setup = setup(None, |config| config.dns_servers.clear()).await;
    for _ in 0..2 {
        assert_eq!(setup.find("printer").await.unwrap(), ["127.0.0.7"]);
    }
    let error = setup.find("nobody").await.unwrap_err();
    assert_eq!((error.kind(), setup.system.load(Relaxed)), (io::ErrorKind::NotFound, 3));
    // A file that appears is used.
    fs::write(setup.folder.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    assert!(setup.dns.0.servers.get().await.is_some());
}

#[tokio::test]
async fn http_32_what_dns_does_not_know_is_asked_of_the_system_and_not_again_for_a_while() {
    let setup = setup(None, |_| {}).await;
    for _ in 0..3 {
        assert_eq!(setup.find("printer").await.unwrap(), ["127.0.0.7"]);
        let error = setup.find("nobody.test").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("DNS does not know"), "{error}");
    }
    // A refusal is kept for a second at least.
    assert!(setup.server.asked("printer") < 3 && setup.server.asked("nobody.test") < 3);
    assert_eq!(setup.outcome("unknown"), 3);
}

#[tokio::test]
async fn http_32_a_server_that_fails_is_an_error_and_one_that_is_mended_is_found_again() {
    let setup = setup(None, |_| {}).await;
    setup.server.set("ill.test", DnsAnswer::Code(2));
    let error = setup.find("ill.test").await.unwrap_err();
    assert!(error.to_string().contains("the DNS servers cannot answer"), "{error}");
    assert_eq!(setup.system.load(Relaxed), 0, "what DNS may know is not asked of others");
    setup.server.set("ill.test", v4(1, 60));
    testkit::until_async(BOUND, async || setup.find("ill.test").await.is_ok()).await;
}

#[tokio::test]
async fn http_32_an_old_address_is_used_while_no_server_answers_and_not_when_the_name_is_gone() {
    let setup = setup(None, |config| config.dns_max_ttl = Duration::from_secs(1)).await;
    setup.server.set("old.test", v4(1, 3_600));
    assert_eq!(setup.find("old.test").await.unwrap(), ["127.0.0.1"]);
    setup.server.set_all(Some(DnsAnswer::Code(2)));
    testkit::until_async(BOUND, async || {
        assert_eq!(setup.find("old.test").await.unwrap(), ["127.0.0.1"]);
        setup.outcome("stale") >= 2
    })
    .await;
    assert_eq!(setup.outcome("asked"), 2, "each dial was held up by a server that fails");
    // It answers again: the refusal is believed.
    setup.server.set_all(Some(DnsAnswer::Unknown(1)));
    testkit::until_async(BOUND, async || setup.find("old.test").await.is_err()).await;
}

#[tokio::test]
async fn http_32_a_caller_with_an_old_address_does_not_wait_for_a_silent_server() {
    let setup = setup(None, |config| config.dns_max_ttl = Duration::from_secs(1)).await;
    setup.server.set("old.test", v4(1, 3_600));
    setup.find("old.test").await.unwrap();
    setup.server.set_all(Some(DnsAnswer::Silence));
    testkit::until_async(BOUND, async || {
        let found = timeout(Duration::from_secs(8), setup.find("old.test")).await;
        assert_eq!(found.expect("it waited for the whole lookup").unwrap(), ["127.0.0.1"]);
        setup.outcome("stale") >= 2
    })
    .await;
}

#[tokio::test]
async fn a_lookup_that_is_cut_fails_and_does_not_stand_in_the_way_of_the_next() {
    let setup = setup(None, |_| {}).await;
    setup.server.set("slow.test", DnsAnswer::Silence);
    let (found, ()) = tokio::join!(setup.find("slow.test"), async {
        testkit::until(BOUND, || setup.server.asked("slow.test") == 1).await;
        setup.tasks.shutdown(Instant::now()).await;
    });
    assert!(found.unwrap_err().to_string().contains("broken off"));
    assert!(matches!(
        setup.dns.0.cache.lock().look(&"slow.test".into(), Instant::now(), || panic!("asked")),
        Look::Refused(_)
    ));
}
