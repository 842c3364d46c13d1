//! What only shows from inside.

use std::time::Duration;

use super::{Lease, PgConfig, PgPool};

async fn pid(lease: &Lease) -> i32 {
    lease.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Whether bb8 has so many slots, and so many of them free.
async fn bb8_has(pool: &PgPool, all: u32, idle: u32) {
    testkit::until(Duration::from_secs(20), || {
        let state = pool.0.slots.state();
        (state.connections, state.idle_connections) == (all, idle)
    })
    .await;
}

/// Without bb8 there is no idle connection to be had: what is taken from it is out of everybody's reach, and what
/// is put back there is found.
#[tokio::test]
async fn the_slots_live_in_bb8_and_a_connection_whose_slot_is_taken_from_it_cannot_be_acquired() {
    let server = testkit::postgres().await;
    let config = PgConfig { url: Some(server.url().into()), size: 2, overflow: 0, ..PgConfig::default() };
    let pool = PgPool::open(config).unwrap();
    let (first, second) = tokio::try_join!(pool.acquire(), pool.acquire()).unwrap();
    let both = [pid(&first).await, pid(&second).await];
    bb8_has(&pool, 2, 0).await;
    drop((first, second));
    bb8_has(&pool, 2, 2).await;

    let taken = pool.0.slots.get_owned().await.unwrap();
    assert!(taken.conn.is_some(), "an idle slot of bb8's without a connection");
    let (one, other) = tokio::try_join!(pool.acquire(), pool.acquire()).unwrap();
    let now = [pid(&one).await, pid(&other).await];
    let known = now.iter().filter(|pid| both.contains(pid)).count();
    assert_eq!(known, 1, "a connection was had from elsewhere than bb8");

    // The one that is out of reach; after these two have gone it is the only one left.
    one.invalidate();
    other.invalidate();
    bb8_has(&pool, 1, 0).await;
    drop(taken);
    bb8_has(&pool, 1, 1).await;
    let back = pid(&pool.acquire().await.unwrap()).await;
    assert!(both.contains(&back) && !now.contains(&back), "not the connection that bb8 was given back");
}
