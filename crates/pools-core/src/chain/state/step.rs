//! What goes into the batcher, and what comes out of it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::chain::entry::{Answer, Kind};

/// What the configuration says.
#[derive(Clone, Debug)]
pub(in crate::chain) struct Tuning {
    pub(in crate::chain) max_calls: usize,
    pub(in crate::chain) stall: Duration,
    pub(in crate::chain) idle_probe: Duration,
    pub(in crate::chain) fixed_network: bool,
}

/// A call to be queued.
#[derive(Debug)]
pub(in crate::chain) struct NewCall {
    pub(in crate::chain) text: Arc<str>,
    pub(in crate::chain) kind: Kind,
    pub(in crate::chain) deadline: Instant,
    pub(in crate::chain) attempt: Duration,
}

/// A POST to be sent.
#[derive(Debug)]
pub(in crate::chain) struct Post {
    pub(in crate::chain) endpoint: usize,
    pub(in crate::chain) body: Vec<u8>,
    pub(in crate::chain) first_id: u64,
    pub(in crate::chain) sent: Instant,
    pub(in crate::chain) deadline: Instant,
    pub(in crate::chain) reads_only: bool,
    pub(in crate::chain) slots: Vec<usize>,
    /// How long the call that waited longest had to.
    pub(in crate::chain) waited: Duration,
    pub(super) tried: u64,
}

/// What is to be done now.
#[derive(Debug, Default)]
pub(in crate::chain) struct Step {
    pub(in crate::chain) posts: Vec<Post>,
    /// Endpoints to send an `eth_chainId` to.
    pub(in crate::chain) probes: Vec<usize>,
    pub(in crate::chain) answers: Vec<(Vec<oneshot::Sender<Answer>>, Answer)>,
    /// Step again then, if nothing happens before.
    pub(in crate::chain) wake: Option<Instant>,
}

impl Step {
    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Calls that go together, with the endpoints (as bits) that have failed them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) slots: Vec<usize>,
    pub(super) tried: u64,
}
