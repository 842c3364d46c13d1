//! The product's own programs, built as they are shipped.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::{Fault, home, say};

/// The path of the service's release build.
pub(crate) async fn build(package: &str) -> Result<PathBuf, Fault> {
    say(&format!("building {package}"));
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--message-format=json", "--package", package]);
    cargo.arg("--manifest-path").arg(home().join("../../Cargo.toml"));
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = built.find_map(|message| {
        let ours = message["target"]["name"] == package;
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    program.ok_or_else(|| format!("{package} could not be built").into())
}
