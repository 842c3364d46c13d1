//! What happens without traffic: health is looked after, superfluous connections go, spare ones come.
//!
//! ```text
//!  down ──probe every half second, at most one second each──► up ──every 15 s, on an idle connection──► up
//!    ▲                                                        │
//!    └──────────── probe fails ◄── a connection ended ◄───────┘
//! ```
//!
//! A probe is an ordinary checkout inside the bound. When all places are taken it is left out: the callers who
//! have them find out by themselves.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Shared,
    checkout::checkout,
    conn::Conn,
    errand::Errand,
    error::PgError,
    held::{Held, Inside},
    state::Bounds,
    watch::watch,
};

const DOWN_PAUSE: Duration = Duration::from_millis(500);
const UP_PAUSE: Duration = Duration::from_secs(15);
/// Longest single probe. With the pause, a server that appears is noticed within two seconds even if an attempt
/// was hanging (a lost SYN is repeated by the kernel after 1, 3 and 7 s only).
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Connections end in crowds: look once for all of them.
const CROWD: Duration = Duration::from_millis(20);

pub(super) fn start(pool: &Arc<Shared>) {
    let (weak, wake, stopping) = (Arc::downgrade(pool), Arc::clone(&pool.wake), pool.tasks.stopping());
    pool.spawn("supervisor", async move {
        tokio::select! {
            () = supervise(weak, wake) => {}
            () = stopping => {}
        }
    });
    let (weak, stopping) = (Arc::downgrade(pool), pool.tasks.stopping());
    pool.spawn("watch", async move {
        tokio::select! {
            () = watch(weak) => {}
            () = stopping => {}
        }
    });
    let (timekeeper, stopping) = (pool.gate.timekeeper(), pool.tasks.stopping());
    pool.spawn("timekeeper", async move {
        tokio::select! {
            () = timekeeper => {}
            () = stopping => {}
        }
    });
    if pool.config.overflow_linger.is_zero() {
        return;
    }
    let (weak, surplus, stopping) = (Arc::downgrade(pool), Arc::clone(&pool.surplus), pool.tasks.stopping());
    pool.spawn("overflow", async move {
        tokio::select! {
            () = shed(weak, surplus) => {}
            () = stopping => {}
        }
    });
}

async fn supervise(pool: Weak<Shared>, wake: Arc<tokio::sync::Notify>) {
    let mut woken = true;
    loop {
        let Some(pool) = pool.upgrade() else { return };
        let pause = pool.tend(woken).await;
        drop(pool);
        woken = tokio::select! {
            () = sleep(pause) => false,
            () = wake.notified() => {
                sleep(CROWD).await;
                true
            }
        };
    }
}

async fn shed(pool: Weak<Shared>, surplus: Arc<tokio::sync::Notify>) {
    loop {
        let next = match pool.upgrade() {
            Some(pool) => pool.shed(),
            None => return,
        };
        match next {
            // A little later than due, so that those given back together also go together.
            Some(due) => sleep_until(due.max(Instant::now() + CROWD)).await,
            None => surplus.notified().await,
        }
    }
}

/// Checks a connection out for the pool itself.
async fn hold(inside: Inside, limit: Duration) -> Result<Held, PgError> {
    let errand = Errand { caller: None, began: Instant::now(), limit };
    let (parts, since) = checkout(inside, errand).await?;
    Ok(Held::new(parts, since))
}

impl Shared {
    /// Returns when to come again.
    async fn tend(self: &Arc<Self>, woken: bool) -> Duration {
        if woken || !self.health.is_up() || self.state.lock().counts().idle > 0 {
            self.probe().await;
        }
        if !self.health.is_up() {
            return DOWN_PAUSE;
        }
        if let Err(error) = self.top_up(self.config.connect_timeout).await {
            tracing::debug!(pool = "postgres", error = error.reason(), "the minimum is not reached");
        }
        UP_PAUSE
    }

    async fn probe(self: &Arc<Self>) {
        let Ok(Some(inside)) = self.try_enter() else { return };
        match hold(inside, PROBE_LIMIT.min(self.config.connect_timeout)).await {
            Ok(held) => {
                self.health.up();
                // By this task alone. One that fails is made again by the next probe.
                if !self.capacity_checked.load(Ordering::Relaxed) && self.check_capacity(held.conn()).await {
                    self.capacity_checked.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => tracing::debug!(pool = "postgres", error = error.reason(), "probe failed"),
        }
    }

    /// Opens connections until there are `DB_MIN_IDLE`, each in at most `limit`.
    pub(super) async fn top_up(self: &Arc<Self>, limit: Duration) -> Result<(), PgError> {
        // After a resize there may be less room than that: what is above `size` would go again.
        let wanted = self.config.min_idle.min(self.state.lock().bounds().size);
        if self.state.lock().counts().live() >= wanted {
            return Ok(());
        }
        let mut held: Vec<Held> = Vec::new();
        for _ in 0..wanted {
            // Without a place, callers have them all, and open what they need.
            let Some(inside) = self.try_enter()? else { break };
            held.push(hold(inside, limit).await?);
        }
        Ok(())
    }

    /// Warns when the server has less room than this pool and those of its replicas may take. Returns whether that is
    /// known now.
    async fn check_capacity(&self, conn: &Conn) -> bool {
        // Behind a proxy it is the proxy that has the connections.
        if self.config.transaction_pooling {
            return true;
        }
        let sql = "SELECT current_setting('max_connections')::int4, \
                   current_setting('superuser_reserved_connections')::int4";
        let Ok(rows) = conn.query(sql, &[]).await else { return false };
        let Some(row) = rows.first() else { return false };
        let (max, reserved): (i32, i32) = (row.get(0), row.get(1));
        if let Some(excess) = excess(self.state.lock().bounds(), self.config.replicas, max, reserved) {
            tracing::warn!(pool = "postgres", "{excess}");
        }
        true
    }
}

/// The arithmetic, when it does not come out.
fn excess(bounds: Bounds, replicas: u32, max: i32, reserved: i32) -> Option<String> {
    let Bounds { size, overflow } = bounds;
    let wanted = i64::from(bounds.all()) * i64::from(replicas);
    let room = i64::from(max) - i64::from(reserved);
    let one = format!("DB_POOL_SIZE {size} + DB_MAX_OVERFLOW {overflow}");
    let all = if replicas == 1 { one } else { format!("({one}) * DB_REPLICAS {replicas}") };
    (wanted > room).then(|| {
        format!(
            "{all} = {wanted} connections, but the server has room for {room}: \
             max_connections {max} - superuser_reserved_connections {reserved}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_29_replicas_share_the_servers_room() {
        let bounds = Bounds { size: 10, overflow: 20 };
        assert_eq!(excess(bounds, 1, 100, 3), None);
        assert_eq!(excess(bounds, 3, 93, 3), None, "90 fit into 90");
        let text = excess(bounds, 4, 100, 3).expect("120 do not fit into 97");
        assert_eq!(
            text,
            "(DB_POOL_SIZE 10 + DB_MAX_OVERFLOW 20) * DB_REPLICAS 4 = 120 connections, but the server has room \
             for 97: max_connections 100 - superuser_reserved_connections 3"
        );
    }
}
