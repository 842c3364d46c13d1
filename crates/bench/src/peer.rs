//! Peers in other languages: a program that answers each line of its input with a line of JSON.
//!
//! ```text
//!  installed once (target/peers) ──► started ──► request, answer, request, answer … ──► input closed ──► gone
//! ```
//!
//! Such a program ends when its input does, so that nothing outlives a benchmark that is killed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{Fault, home, say};

/// No request takes longer than a run and its preparation.
const PATIENCE: Duration = Duration::from_secs(120);
/// A download that stalls must not stall the benchmark.
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);

/// A running peer.
#[derive(Debug)]
pub(crate) struct Peer {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Peer {
    /// Starts `peers/{script}` with the packages of `peers/requirements.txt`, in an environment of its own.
    pub(crate) async fn python(script: &str) -> Result<Self, Fault> {
        let python = python("python", "requirements.txt").await?;
        Self::start(Command::new(python).arg(program(script)))
    }

    /// Starts `peers/{script}` with the interpreter of another environment.
    pub(crate) fn of(python: &Path, script: &str) -> Result<Self, Fault> {
        Self::start(Command::new(python).arg(program(script)))
    }

    /// Starts `peers/{script}` with the packages of `peers/package.json`.
    pub(crate) async fn node(script: &str) -> Result<Self, Fault> {
        Self::start(Command::new("node").arg(self::node(script).await?))
    }

    /// Starts any program that speaks this language.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Fault> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| format!("{program}: {error}"))?;
        let input = child.stdin.take().expect("BUG: it is piped");
        let output = BufReader::new(child.stdout.take().expect("BUG: it is piped")).lines();
        Ok(Self { input, output, child })
    }

    /// Sends a request and waits for its answer; `{"error": …}` is a fault.
    pub(crate) async fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T, Fault> {
        self.input.write_all(format!("{request}\n").as_bytes()).await?;
        let line = timeout(PATIENCE, self.output.next_line()).await??;
        let answer: Value = serde_json::from_str(&line.ok_or("it ended without an answer")?)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.into()),
            None => Ok(serde_json::from_value(answer)?),
        }
    }

    /// Its number, as long as it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it end, and ends it if it does not.
    pub(crate) async fn end(self) {
        let Self { input, output, mut child } = self;
        drop((input, output));
        if timeout(Duration::from_secs(5), child.wait()).await.is_err() {
            // Already gone is as good.
            drop(child.kill().await);
        }
    }
}

/// The path of `peers/{script}`, whose packages of `peers/package.json` are installed.
pub(crate) async fn node(script: &str) -> Result<PathBuf, Fault> {
    let list = program("package.json");
    if !is_newer(&home().join("peers/node_modules/.package-lock.json"), &list) {
        say("installing the Node peers");
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]);
        install(npm.current_dir(home().join("peers"))).await?;
    }
    Ok(program(script))
}

/// The program built from `peers/{source}`, which needs nothing but Go's own library.
pub(crate) async fn go(source: &str, name: &str) -> Result<PathBuf, Fault> {
    let (source, made) = (program(source), home().join("target/peers").join(name));
    if !is_newer(&made, &source) {
        say("building the Go peers");
        install(Command::new("go").arg("build").arg("-o").arg(&made).arg(&source)).await?;
    }
    Ok(made)
}

/// The interpreter of an environment with the packages of `peers/{requirements}`.
pub(crate) async fn python(environment: &str, requirements: &str) -> Result<PathBuf, Fault> {
    let folder = home().join("target/peers").join(environment);
    let python = folder.join("bin/python");
    let list = program(requirements);
    if !is_newer(&folder.join("installed"), &list) {
        say("installing the Python peers");
        install(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&list);
        install(&mut pip).await?;
        std::fs::write(folder.join("installed"), "")?;
    }
    Ok(python)
}

fn program(script: &str) -> PathBuf {
    home().join("peers").join(script)
}

/// Whether `made` exists and is not older than what it was made from.
fn is_newer(made: &Path, source: &Path) -> bool {
    let time = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    time(made).is_some_and(|made| time(source).is_some_and(|source| made >= source))
}

async fn install(command: &mut Command) -> Result<(), Fault> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(INSTALL_PATIENCE, run).await?.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let wrote = String::from_utf8_lossy(&output.stderr);
    let last = wrote.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(format!("could not be installed: {program}: {last}").into())
}
