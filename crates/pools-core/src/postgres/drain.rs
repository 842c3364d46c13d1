//! The end of a pool.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Shared, held::GRACE};
use crate::{holders::Leases, pool::Drained, stats::CloseReason};

impl Shared {
    pub(super) async fn drain(self: &Arc<Self>, deadline: Instant) -> Drained {
        self.gate.close();
        self.state.lock().drain();
        let empty = timeout_at(deadline, self.emptied()).await.is_ok();
        let mut cut = Vec::new();
        if !empty {
            cut.extend(self.list().iter().map(ToString::to_string));
            self.cut_all().await;
        }
        // What was asked to close is given its moment even when the deadline has passed.
        let end = deadline.max(Instant::now() + GRACE);
        cut.extend(self.tasks.shutdown(end).await.into_iter().map(|task| format!("task {task}")));
        self.links.shutdown(end).await;
        Drained { cut }
    }

    /// Closes what is idle, and again whenever something comes back, until nothing is left.
    async fn emptied(self: &Arc<Self>) {
        loop {
            let mut changed = std::pin::pin!(self.changes.watch());
            changed.as_mut().enable();
            for (conn, slot) in self.take_idle(|_| true) {
                self.state.lock().condemn(conn.id);
                let pool = Arc::clone(self);
                self.spawn("close", async move {
                    pool.close(conn, CloseReason::Drained).await;
                    drop(slot);
                });
            }
            let counts = self.state.lock().counts();
            if counts.all() + counts.detached == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Stops what runs on the server and closes every socket, whoever holds it. A server process that only
    /// lost its socket would go on with its statement.
    async fn cut_all(&self) {
        let links = self.state.lock().links();
        // Behind a proxy a cancel might hit somebody else.
        let busy = links.iter().filter(|link| link.wire.busy() && !self.config.transaction_pooling);
        let cancels = busy.map(|link| link.token.cancel());
        // One that fails leaves nothing else to try; the socket is closed in any case.
        drop(timeout(GRACE / 2, join_all(cancels)).await);
        for link in links {
            link.cut();
        }
    }
}
