//! Who is measured, and how each is started: a fresh process per run, on a core of its own.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::{
    client::Kind,
    server::{Accepted, Ports},
};
use crate::{Fault, peer, peer::Peer, runs::Runs, say};

pub(super) const RAW: &str = "raw keep-alive loop";
pub(super) const BARE: &str = "bare hyper connection, no pool";
pub(super) const OURS: &str = "ours";
pub(super) const UPSTREAM: &str = "ours, an upstream's policy";
pub(super) const NO_RETRY: &str = "ours, no retry";
pub(super) const UNPOOLED: &str = "ours, a pool per request";
pub(super) const LEGACY: &str = "hyper-util legacy";
pub(super) const REQWEST: &str = "reqwest";
pub(super) const GO: &str = "Go net/http";
pub(super) const UNDICI: &str = "undici Pool";
pub(super) const AXIOS: &str = "axios, Node's agent";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Rust(Kind),
    Go,
    Undici,
    Axios,
}

impl Subject {
    /// Ours among the others, so that each has a peer close by in time.
    pub(super) const ALL: &[Self] = &[
        Self::Undici,
        Self::Rust(Kind::Raw),
        Self::Rust(Kind::Bare),
        Self::Rust(Kind::Ours),
        Self::Rust(Kind::Legacy),
        Self::Rust(Kind::OursUpstream),
        Self::Rust(Kind::Reqwest),
        Self::Go,
        Self::Axios,
    ];
    /// Those that no ratio needs are left out.
    pub(super) const SOME: &[Self] = &[
        Self::Undici,
        Self::Rust(Kind::Raw),
        Self::Rust(Kind::Bare),
        Self::Rust(Kind::Ours),
        Self::Rust(Kind::Legacy),
        Self::Rust(Kind::OursUpstream),
        Self::Go,
    ];
    pub(super) const FEW: &[Self] =
        &[Self::Undici, Self::Rust(Kind::Raw), Self::Rust(Kind::Ours), Self::Rust(Kind::Legacy), Self::Go];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rust(Kind::Raw) => RAW,
            Self::Rust(Kind::Bare) => BARE,
            Self::Rust(Kind::Ours) => OURS,
            Self::Rust(Kind::OursUpstream) => UPSTREAM,
            Self::Rust(Kind::OursNoRetry) => NO_RETRY,
            Self::Rust(Kind::OursUnpooled) => UNPOOLED,
            Self::Rust(Kind::Legacy) => LEGACY,
            Self::Rust(Kind::Reqwest) => REQWEST,
            Self::Go => GO,
            Self::Undici => UNDICI,
            Self::Axios => AXIOS,
        }
    }

    /// Seconds until it has connected and its code is compiled.
    pub(super) fn warm_up(self) -> f64 {
        match self {
            Self::Rust(_) | Self::Go => 0.5,
            Self::Undici | Self::Axios => 1.0,
        }
    }
}

/// What came of a few requests, one after the other.
#[derive(Debug, Deserialize)]
pub(super) struct Got {
    pub(super) answers: Vec<(u16, String)>,
    pub(super) millis: Vec<f64>,
}

/// The server, and the means to start each subject.
pub(super) struct Subjects {
    server: Peer,
    pub(super) ports: Ports,
    /// With the authority's certificate.
    folder: TempDir,
    ours: PathBuf,
    node: Option<PathBuf>,
    go: Option<PathBuf>,
    cores: Option<Cores>,
}

/// One for the server, one for whoever is measured.
#[derive(Debug, Clone)]
struct Cores {
    server: String,
    client: String,
}

impl Subjects {
    /// Starts the server and installs the peers in other languages; those that cannot be are noted in `runs`.
    pub(super) async fn prepare(runs: &mut Runs) -> Result<Self, Fault> {
        let node = peer::node("http.mjs").await;
        if let Err(fault) = &node {
            runs.fail(UNDICI, fault.to_string());
            runs.fail(AXIOS, fault.to_string());
        }
        let go = peer::go("http.go", "http-go").await;
        if let Err(fault) = &go {
            runs.fail(GO, fault.to_string());
        }
        let cores = Cores::of_this_process();
        if cores.is_none() {
            say("no taskset, or one core only: client and server are not kept apart");
        }
        let ours = std::env::current_exe()?;
        let on = cores.as_ref().map(|cores| cores.server.as_str());
        let mut server = Peer::start(on_core(on, &ours).arg("http-server"))?;
        let ports: Ports = server.ask(&json!({ "do": "ports" })).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("ca.pem"), &ports.ca)?;
        Ok(Self { server, ports, folder, ours, node: node.ok(), go: go.ok(), cores })
    }

    /// A fresh process.
    pub(super) fn start(&self, subject: Subject) -> Result<Peer, Fault> {
        let missing = "it is not installed";
        let on = self.cores.as_ref().map(|cores| cores.client.as_str());
        let mut command = match subject {
            Subject::Rust(kind) => {
                let kind = kind.to_possible_value().expect("BUG: none is hidden");
                let mut command = on_core(on, &self.ours);
                command.args(["http-client", kind.get_name()]);
                command
            }
            Subject::Go => on_core(on, self.go.as_ref().ok_or(missing)?),
            Subject::Undici | Subject::Axios => {
                let kind = if subject == Subject::Undici { "undici" } else { "axios" };
                let mut command = on_core(on, &PathBuf::from("node"));
                command.arg(self.node.as_ref().ok_or(missing)?).arg(kind);
                command
            }
        };
        Peer::start(command.arg(self.folder.path().join("ca.pem")))
    }

    /// Connections that were made over HTTP/2 since it was last asked.
    pub(super) async fn accepted(&mut self) -> Result<u64, Fault> {
        let Accepted { accepted } = self.server.ask(&json!({ "do": "accepted" })).await?;
        Ok(accepted)
    }

    pub(super) async fn end(self) {
        self.server.end().await;
    }
}

impl Cores {
    /// The first and the last that this process may use.
    fn of_this_process() -> Option<Self> {
        let tool = std::process::Command::new("taskset").arg("--version").output();
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
        let mut cores = allowed.split([',', '-']);
        let (first, last) = (cores.next()?, cores.next_back()?);
        tool.ok().map(|_| Self { server: first.to_owned(), client: last.to_owned() })
    }
}

fn on_core(core: Option<&str>, program: &PathBuf) -> Command {
    match core {
        Some(core) => {
            // It becomes the program: same process, same number.
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", core]).arg(program);
            command
        }
        None => Command::new(program),
    }
}
