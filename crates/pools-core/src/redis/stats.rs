//! What the pool shows: the body of `/api/pools/stats` and the common [`Snapshot`].

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Shared, state::Standing};
use crate::{
    pool::PoolKind,
    stats::{Label, Sample, SampleKind, Snapshot, Target},
};

/// Commands on the shared lane by how they ended. Counter. Label: `result`.
pub const COMMANDS: &str = "pools_redis_commands_total";
/// Commands on the shared lane without an answer yet. Gauge.
pub const IN_FLIGHT: &str = "pools_redis_commands_in_flight";

/// The pool at one moment, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisStats {
    /// Whether a command would be sent.
    pub connected: bool,
    /// `up`, `degraded` or `down`.
    pub state: Standing,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why it is down; absent while it is up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The server, without secrets.
    pub server: String,
    /// Connections made on the shared lane since the start.
    pub connects: u64,
    /// Commands on the shared lane without an answer yet.
    pub commands_in_flight: u32,
    /// Connections by what they are for.
    pub connections: Connections,
}

/// Open connections.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// On the shared lane: 0 or 1.
    pub shared: u32,
    /// Dedicated ones in use.
    pub leased: u32,
    /// Dedicated ones that nobody uses.
    pub idle: u32,
    /// Callers waiting for a dedicated one.
    pub waiting: u32,
    /// Most connections in all.
    pub limit: u32,
}

impl Shared {
    pub(crate) fn stats(&self) -> RedisStats {
        let [shared, dedicated] = self.targets();
        let state = self.state.lock();
        RedisStats {
            connected: state.is_up(),
            state: state.standing(),
            since: state.since(),
            last_error: (!state.is_up()).then(|| state.last_error().to_string()),
            server: self.server.clone(),
            connects: state.generation(),
            commands_in_flight: state.in_flight(),
            connections: Connections {
                shared: shared.live(),
                leased: dedicated.in_use,
                idle: dedicated.idle,
                waiting: dedicated.waiting,
                limit: self.limit(),
            },
        }
    }

    fn targets(&self) -> [Target; 2] {
        let busy = self.state.lock().in_flight() > 0;
        let (opening, live) = self.shared_census.get();
        let shared = Target {
            name: "shared".to_owned(),
            limit: 1,
            in_use: if busy { live } else { 0 },
            idle: if busy { 0 } else { live },
            opening,
            waiting: 0,
        };
        let (opening, live) = self.lanes.census.get();
        // A lease whose socket has ended already is not in use any more.
        let in_use = self.lanes.leased().min(live);
        let dedicated = Target {
            name: "dedicated".to_owned(),
            limit: self.lanes.limit(),
            in_use,
            idle: live - in_use,
            opening,
            waiting: self.lanes.waiting(),
        };
        [shared, dedicated]
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            pool: PoolKind::Redis,
            health: self.health.get(),
            limit: self.limit(),
            targets: self.targets().into(),
            holders: self.lanes.holders.list(),
            totals: self.recorder.totals(),
            samples: self.samples(),
        }
    }

    fn limit(&self) -> u32 {
        1 + self.lanes.limit()
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
    fn samples(&self) -> Vec<Sample> {
        let state = self.state.lock();
        let commands = state.commands.counts().map(|(end, count)| Sample {
            name: COMMANDS,
            help: "Commands on the shared lane by how they ended.",
            kind: SampleKind::Counter,
            labels: vec![("result", end.as_str())],
            value: count as f64,
        });
        let in_flight = Sample {
            name: IN_FLIGHT,
            help: "Commands on the shared lane without an answer yet.",
            kind: SampleKind::Gauge,
            labels: Vec::new(),
            value: f64::from(state.in_flight()),
        };
        commands.chain([in_flight]).collect()
    }
}
