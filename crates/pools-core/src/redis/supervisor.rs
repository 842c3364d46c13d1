//! The task that owns the shared connection: opens it, pings it, closes it when condemned, tries again for ever.
//!
//! Only this task opens on the shared lane, one connection at a time, and it waits for the old socket to be closed
//! first: there is never a second one. Callers see its work through [`State`](super::state::State) only.

use std::sync::Arc;

use tokio::{
    select,
    time::{Instant, interval_at, sleep},
};

use super::{Request, Shared, error::Reason, manager::Link, state::Retry};
use crate::stats::CloseReason;

/// Runs until the pool is drained or its last handle dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    // Whatever it waits for, stopping may interrupt it: dropping a link closes its socket.
    stop.run_until_cancelled(shared.supervise()).await;
    shared.state.lock().close();
}

impl Shared {
    async fn supervise(&self) {
        loop {
            let pause = match self.open_shared().await {
                Ok(link) => self.serve(link).await,
                Err(reason) => self.open_failed(reason),
            };
            sleep(pause).await;
        }
    }

    async fn open_shared(&self) -> Result<Link, Reason> {
        let begun = Instant::now();
        let opened = self.manager.open(&self.shared_census, None).await;
        self.recorder.open_ended(opened.is_ok(), begun.elapsed());
        opened
    }

    fn open_failed(&self, reason: Reason) -> std::time::Duration {
        let mut state = self.state.lock();
        let Retry { pause, news, exhausted } = state.open_failed(reason.clone());
        self.health.down(&reason);
        drop(state);
        if news {
            tracing::warn!(pool = "redis", server = self.server, %reason, retry_in = ?pause, "cannot connect");
        }
        if exhausted {
            tracing::warn!(pool = "redis", server = self.server, %reason, "retries spent; probing every second from now on");
        }
        self.first.send_if_modified(|first| first.is_none() && first.replace(Err(reason)).is_none());
        pause
    }

    /// Keeps the connection until it ends or is condemned; returns the pause before the next attempt.
    async fn serve(&self, mut link: Link) -> std::time::Duration {
        {
            let mut state = self.state.lock();
            state.connected(link.conn.clone(), Instant::now());
            self.health.up();
        }
        self.first.send_if_modified(|first| first.is_none() && first.replace(Ok(())).is_none());
        let ended = self.watch(&mut link).await;
        let pause = {
            let mut state = self.state.lock();
            let pause = state.lost(ended.then_some(Reason::Lost), Instant::now());
            self.health.down(state.last_error());
            pause
        };
        self.recorder.closed(if ended { CloseReason::Peer } else { CloseReason::Broken });
        if !ended {
            link.close().await;
        }
        pause
    }

    /// Pings on time and on suspicion. Returns whether the peer hung up; if not, the connection is condemned.
    async fn watch(&self, link: &mut Link) -> bool {
        let mut ping = ::redis::Cmd::new();
        ping.arg("PING");
        let mut ticks = interval_at(Instant::now() + self.ping_interval, self.ping_interval);
        loop {
            select! {
                () = link.ended() => return true,
                _ = ticks.tick() => {}
                () = self.look.notified() => {}
            }
            // A wake-up that was about an earlier connection costs this one a PING.
            if self.state.lock().is_condemned() {
                return false;
            }
            // Its end, like that of every command, is told to the state; a silent one wakes this loop again.
            let _answered = self.call(Request::One(&ping)).await;
        }
    }
}
