//! The invariants of `docs/ARCHITECTURE.md` that can be read off the sources.

#![allow(clippy::unwrap_used, reason = "a panic is a failure")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A rule: files it covers, words they must not hold, and why.
struct Rule {
    covers: fn(&str) -> bool,
    forbids: &'static [&'static str],
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        covers: |path| path.contains("/backend/src/") || path.contains("/ml-api/src/"),
        forbids: &["bb8", "tokio_postgres", "redis::Client", "hyper", "ethers_core", "ethers_signers"],
        reason: "the pools' drivers are used by pools-core and not around it",
    },
    Rule {
        covers: |path| {
            path.contains("/pools-core/src/")
                && !path.ends_with("/chain/codec.rs")
                && !path.ends_with("/chain/signer.rs")
        },
        forbids: &["ethers_core", "ethers_signers"],
        reason: "ethers is named in the chain pool's codec and signer files only",
    },
    Rule {
        covers: |path| path.contains("/pools-core/src/") && !path.contains("/pools-core/src/web/"),
        forbids: &["actix"],
        reason: "pools-core knows no web framework outside web/",
    },
    Rule {
        covers: |path| path.ends_with("/state.rs"),
        forbids: &["async ", ".await", "Instant::now", "sleep(", "spawn("],
        reason: "state machines are synchronous: no clock, no I/O",
    },
    Rule {
        covers: |path| !path.contains("/pools-core/") && path.ends_with("/model.rs"),
        forbids: &["tokio", "Pool", "actix"],
        reason: "a model is pure",
    },
    Rule {
        covers: |path| path.ends_with("/service.rs"),
        forbids: &["actix"],
        reason: "a service does not know HTTP",
    },
    Rule {
        covers: |path| !path.ends_with("/main.rs") && !path.contains("/testkit/"),
        forbids: &["env::var", "env::vars", "env::args"],
        reason: "only main.rs touches the process environment",
    },
    Rule {
        covers: |path| path.contains("/pools-core/src/redis/") || path.contains("/pools-core/src/postgres/"),
        forbids: &["crate::http", "crate::chain"],
        reason: "no pool imports another pool, except that chain sends through http",
    },
    Rule {
        covers: |path| path.contains("/pools-core/src/http/"),
        forbids: &["crate::chain", "crate::redis", "crate::postgres"],
        reason: "no pool imports another pool, except that chain sends through http",
    },
    Rule {
        covers: |path| path.contains("/pools-core/src/chain/"),
        forbids: &["crate::redis", "crate::postgres"],
        reason: "no pool imports another pool, except that chain sends through http",
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lines of product code: no comments, and nothing from the first `#[cfg(test)]` on.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines =
        text.lines().enumerate().take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn the_sources_keep_the_invariants() {
    let mut files = Vec::new();
    for krate in ["pools-core", "backend", "ml-api", "testkit"] {
        sources(&root().join("crates").join(krate).join("src"), &mut files);
    }
    assert!(files.len() > 40, "the sources were not found");
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let path = format!("/{}", file.strip_prefix(root()).unwrap().display());
        let text = fs::read_to_string(file).unwrap();
        for rule in RULES.iter().filter(|rule| (rule.covers)(&path)) {
            for (number, line) in code(&text) {
                for word in rule.forbids.iter().filter(|word| line.contains(**word)) {
                    broken.push(format!("{path}:{}: {word}: {}", number + 1, rule.reason));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_pool_folder_uses_the_same_file_names() {
    const NAMES: [&str; 8] =
        ["mod.rs", "config.rs", "manager.rs", "state.rs", "lease.rs", "error.rs", "stats.rs", "tests.rs"];
    for pool in ["http", "chain", "redis", "postgres"] {
        let folder = root().join("crates/pools-core/src").join(pool);
        for name in ["mod.rs", "config.rs", "manager.rs", "state.rs", "error.rs", "stats.rs"] {
            assert!(folder.join(name).is_file(), "{pool} has no {name}; the common names are {NAMES:?}");
        }
    }
}
