//! The guide's picture of the pool: Node's agent, seen from outside.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::stats::Target;

/// More hosts than this are not shown: a scan over thousands must not make the stats page unreadable.
const SHOWN: usize = 100;

/// `http` of `GET /api/pools/stats`. Hosts without an entry have none of what the map counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpStats {
    /// Most connections to one host and port.
    pub max_sockets: u32,
    /// Most idle connections kept to one host and port.
    pub max_free_sockets: u32,
    /// Connections in use or being opened, by `host:port`.
    pub sockets: BTreeMap<String, u32>,
    /// Idle connections, by `host:port`.
    pub free_sockets: BTreeMap<String, u32>,
    /// Requests that wait for a connection, by `host:port`.
    pub requests: BTreeMap<String, u32>,
}

impl HttpStats {
    pub(super) fn new(max_sockets: u32, max_free_sockets: u32, mut targets: Vec<Target>) -> Self {
        // Whoever is busy is looked for; idle connections come after.
        let busy = |target: &Target| (target.in_use + target.opening + target.waiting, target.idle);
        targets.sort_by_key(|target| std::cmp::Reverse(busy(target)));
        targets.truncate(SHOWN);
        Self {
            max_sockets,
            max_free_sockets,
            sockets: by_host(&targets, |target| target.in_use + target.opening),
            free_sockets: by_host(&targets, |target| target.idle),
            // A request with a dial of its own counts as a connection, as in Node.
            requests: by_host(&targets, |target| target.waiting.saturating_sub(target.opening)),
        }
    }
}

/// Plain and TLS connections to the same `host:port` are added up.
fn by_host(targets: &[Target], count: impl Fn(&Target) -> u32) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for target in targets.iter().filter(|target| count(target) > 0) {
        *counts.entry(target.name.clone()).or_default() += count(target);
    }
    counts
}
