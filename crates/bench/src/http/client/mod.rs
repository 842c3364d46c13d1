//! A subject in Rust: a process of its own, pinned by whoever starts it, that obeys a line of JSON at a time.
//!
//! Its runtime has one thread, as a worker of the services has. Subjects in other languages (peers/http.mjs, peers/http.go) obey the
//! same orders.

mod bare;
mod legacy;
mod ours;
mod raw;
mod reqwest;

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use self::{
    bare::Bare,
    legacy::Legacy,
    ours::{Ours, Retry, Unpooled, Upstreamed},
    raw::Raw,
    reqwest::Reqwest,
};
use crate::{Fault, load::drive_each};

/// Which subject, and whom it trusts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    kind: Kind,
    /// The authority's certificate.
    ca: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Raw,
    Bare,
    Ours,
    OursUpstream,
    OursNoRetry,
    OursUnpooled,
    Legacy,
    Reqwest,
}

/// What a subject is told to do.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Order {
    /// One request after the other: what came, and after how many milliseconds.
    Get { url: String, count: u32 },
    /// A closed loop.
    Load { url: String, tasks: u32, seconds: f64, body: String },
    /// So many requests, each after a pause of up to 20 ms: how many failed.
    Errors { url: String, tasks: u32, requests: u32, body: String },
    /// So many requests at once, without a connection: how many were answered.
    Cold { url: String, tasks: u32, body: String },
}

/// Status and body.
type Answer = (u16, Bytes);

/// Asks for one URL.
trait Client: Clone + Send + Sync + 'static {
    /// The client for one more task: the same, unless a task has its own connection.
    fn for_task(&self) -> Self {
        self.clone()
    }

    fn get(&self) -> impl Future<Output = Result<Answer, Fault>> + Send;
}

/// Obeys until the input ends.
pub(super) fn run(args: &Args) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for line in io::stdin().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let done = runtime.block_on(args.obey(order));
        let answer = done.unwrap_or_else(|fault| json!({ "error": with_causes(&*fault) }));
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

impl Args {
    async fn obey(&self, order: Order) -> Result<Value, Fault> {
        let (Order::Get { url, .. }
        | Order::Load { url, .. }
        | Order::Errors { url, .. }
        | Order::Cold { url, .. }) = &order;
        let url = url.clone();
        let tls = trust(&self.ca)?;
        match self.kind {
            Kind::Raw => obey(Raw::new(&url, tls)?, order).await,
            Kind::Bare => obey(Bare::new(&url, tls)?, order).await,
            Kind::Ours => obey(Ours::new(url, tls, Retry::Stale), order).await,
            Kind::OursNoRetry => obey(Ours::new(url, tls, Retry::Never), order).await,
            Kind::OursUpstream => obey(Upstreamed::new(&url, tls)?, order).await,
            Kind::OursUnpooled => obey(Unpooled::new(url, tls), order).await,
            Kind::Legacy if url.starts_with("https:") => obey(legacy::over_tls(&url, tls)?, order).await,
            Kind::Legacy => obey(Legacy::plain(&url)?, order).await,
            Kind::Reqwest => obey(Reqwest::new(&url, tls)?, order).await,
        }
    }
}

async fn obey<C: Client>(client: C, order: Order) -> Result<Value, Fault> {
    match order {
        Order::Get { count, .. } => get(client, count).await,
        Order::Load { tasks, seconds, body, .. } => {
            let tally = drive_each(tasks, Duration::from_secs_f64(seconds), |_| {
                let (client, body) = (client.for_task(), Arc::<str>::from(body.as_str()));
                move |_| expect(client.clone(), Arc::clone(&body))
            });
            Ok(serde_json::to_value(tally.await?)?)
        }
        Order::Errors { tasks, requests, body, .. } => errors(client, tasks, requests, body.into()).await,
        Order::Cold { tasks, body, .. } => {
            let (mut asked, body) = (JoinSet::new(), Arc::<str>::from(body));
            for _ in 0..tasks {
                asked.spawn(expect(client.for_task(), Arc::clone(&body)));
            }
            for done in asked.join_all().await {
                done?;
            }
            Ok(json!({ "answered": tasks }))
        }
    }
}

async fn get<C: Client>(client: C, count: u32) -> Result<Value, Fault> {
    let (mut answers, mut millis) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let started = Instant::now();
        let (status, body) = client.get().await?;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
        answers.push((status, String::from_utf8(body.into())?));
    }
    Ok(json!({ "answers": answers, "millis": millis }))
}

async fn errors<C: Client>(client: C, tasks: u32, requests: u32, body: Arc<str>) -> Result<Value, Fault> {
    let (taken, mut asking) = (Arc::new(AtomicU32::new(0)), JoinSet::new());
    for _ in 0..tasks {
        let (client, taken, body) = (client.for_task(), Arc::clone(&taken), Arc::clone(&body));
        asking.spawn(async move {
            let mut failed = Vec::new();
            loop {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return failed;
                }
                sleep(Duration::from_micros(pause_micros(number))).await;
                failed.extend(expect(client.clone(), Arc::clone(&body)).await.err());
            }
        });
    }
    let failed: Vec<Fault> = asking.join_all().await.into_iter().flatten().collect();
    let first = failed.first().map(|fault| with_causes(&**fault));
    Ok(json!({ "requests": requests, "errors": failed.len(), "first": first }))
}

/// The same in every language.
fn pause_micros(number: u32) -> u64 {
    u64::from(number) * 7_919 % 20_001
}

async fn expect<C: Client>(client: C, body: Arc<str>) -> Result<(), Fault> {
    match client.get().await? {
        (200, found) if found == body.as_bytes() => Ok(()),
        (status, found) => Err(format!("{status}: {}", String::from_utf8_lossy(&found)).into()),
    }
}

/// Trust in the authority alone, HTTP/2 where a server speaks it.
fn trust(ca: &Path) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn with_causes(fault: &dyn Error) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
