//! What the chain pool counts, and how it shows it.

use serde::Serialize;

use crate::stats::{Sample, SampleKind};

/// Calls asked for by callers. Counter.
const CALLS: &str = "pools_chain_calls_total";
/// POSTs sent, probes not counted. Counter.
const POSTS: &str = "pools_chain_posts_total";
/// Callers that shared another's identical read. Counter.
const SHARED: &str = "pools_chain_shared_reads_total";
/// Things that went wrong and were dealt with. Counter. Label: `event`.
const EVENTS: &str = "pools_chain_events_total";
/// Providers. Gauge.
const PROVIDERS: &str = "pools_chain_providers";

/// Counters of one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// POSTs sent.
    pub(super) posts: u64,
    /// Calls in them.
    pub(super) calls: u64,
    /// Callers that joined an identical read.
    pub(super) shared: u64,
    /// `eth_chainId` probes answered or failed.
    pub(super) probes: u64,
    /// Calls nobody waited for any more when their turn came.
    pub(super) unsent: u64,
    /// Replies with an unknown id, or with one answered before.
    pub(super) strays: u64,
    /// Calls without a usable reply in an answer.
    pub(super) missing: u64,
    /// Batches refused and halved.
    pub(super) split: u64,
    /// Answers that said to slow down.
    pub(super) limited: u64,
    /// POSTs without a usable answer.
    pub(super) failed: u64,
    /// Calls sent again after a failure.
    pub(super) retried: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { posts, calls, shared, probes, unsent, strays, missing, split, limited, failed, retried } =
            other;
        self.posts += posts;
        self.calls += calls;
        self.shared += shared;
        self.probes += probes;
        self.unsent += unsent;
        self.strays += strays;
        self.missing += missing;
        self.split += split;
        self.limited += limited;
        self.failed += failed;
        self.retried += retried;
    }

    pub(super) fn samples(&self, providers: usize) -> Vec<Sample> {
        let counter = |name, help, value: u64| Sample {
            name,
            help,
            kind: SampleKind::Counter,
            labels: Vec::new(),
            value: value as f64,
        };
        let event = |event, value: u64| Sample {
            labels: vec![("event", event)],
            ..counter(EVENTS, "What went wrong with JSON-RPC answers and was dealt with.", value)
        };
        let providers =
            Sample { kind: SampleKind::Gauge, ..counter(PROVIDERS, "Providers.", providers as u64) };
        vec![
            providers,
            counter(CALLS, "JSON-RPC calls sent.", self.calls),
            counter(POSTS, "POSTs they were sent in.", self.posts),
            counter(SHARED, "Callers that shared an identical read.", self.shared),
            event("unsent", self.unsent),
            event("stray_reply", self.strays),
            event("missing_reply", self.missing),
            event("batch_split", self.split),
            event("slow_down", self.limited),
            event("post_failed", self.failed),
            event("retried", self.retried),
        ]
    }
}

/// The `blockchain` object of the stats page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainStats {
    /// How many providers there are.
    pub active_providers: usize,
    /// Their endpoints as printed, the preferred of each first.
    pub providers: Vec<String>,
}
