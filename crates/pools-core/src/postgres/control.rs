//! What an operator does to a pool while it works.
//!
//! ```text
//!  resize: bounds (under the state's lock, so that whoever checks in next sees them) ─► idle ones beyond them close
//!          └► gate: new places to the waiters, or a debt that those who leave pay
//!  pause:  gate without places; a debt for those that are out ─► resume: the bounds' places again
//! ```

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Shared, error::PgError, state::Bounds};
use crate::stats::CloseReason;

/// Pause of [`Shared::warm`] after a failed attempt.
const AGAIN: Duration = Duration::from_millis(250);

impl Shared {
    pub(super) fn resize(self: &Arc<Self>, bounds: Bounds) {
        assert!((1..=10_000).contains(&bounds.size) && bounds.overflow <= 10_000, "a pool of {bounds:?}");
        let doomed = {
            let mut state = self.state.lock();
            let doomed = state.resize(bounds, self.config.overflow_linger.is_zero());
            // Under the same lock as a pause and its end, so that the gate always has the last one's places.
            if !state.is_paused() && bounds.all() > self.gate.limit() {
                self.gate.resize(bounds.all());
            }
            doomed
        };
        // Before the free places are gone: closing needs them, and pays with them.
        self.retire(doomed, CloseReason::MaxFree);
        {
            let state = self.state.lock();
            if !state.is_paused() {
                self.gate.resize(state.bounds().all());
            }
        }
        self.unseat();
        self.tell_surplus();
    }

    /// Nobody needs to come back for what is idle beyond `size` to be noticed.
    fn tell_surplus(&self) {
        if self.state.lock().has_surplus() {
            self.surplus.notify_one();
        }
    }

    pub(super) async fn pause(&self, deadline: Instant) -> bool {
        {
            let mut state = self.state.lock();
            state.pause(true);
            self.gate.resize(0);
        }
        self.unseat();
        timeout_at(deadline, self.quiet()).await.is_ok()
    }

    /// Nothing is out or on its way.
    async fn quiet(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changes.watch());
            changed.as_mut().enable();
            let counts = self.state.lock().counts();
            if counts.all() == counts.idle {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn resume(self: &Arc<Self>) {
        let doomed = {
            let mut state = self.state.lock();
            state.pause(false);
            let bounds = state.bounds();
            self.gate.resize(bounds.all());
            // What a resize during the pause had no places to close.
            state.resize(bounds, self.config.overflow_linger.is_zero())
        };
        self.retire(doomed, CloseReason::MaxFree);
        self.tell_surplus();
    }

    pub(super) fn invalidate(self: &Arc<Self>) {
        let idle = {
            let mut state = self.state.lock();
            state.next_epoch();
            state.longest_idle()
        };
        self.retire(idle.into_iter().map(|(_, id)| id).collect(), CloseReason::Invalidated);
    }

    pub(super) async fn warm(self: &Arc<Self>, deadline: Instant) -> Result<(), PgError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Err(fault) = self.top_up(left.min(self.config.connect_timeout)).await else { return Ok(()) };
            if Instant::now() + AGAIN >= deadline || matches!(fault, PgError::Closed) {
                return Err(fault);
            }
            sleep(AGAIN).await;
        }
    }
}
