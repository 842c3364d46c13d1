//! What only shows from inside.

use std::{
    panic::Location,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use testkit::Mode;
use tokio::time::{Instant, timeout};

use super::{Lease, PgConfig, PgError, PgPool, lane::Vacancy};
use crate::{health::HealthState, pool::Pool};

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

/// Everything is idle, and nothing seated any more.
async fn all_in_bb8(pool: &PgPool, all: u32) {
    testkit::until(Duration::from_secs(20), || {
        pool.0.unseat();
        let state = pool.0.slots.state();
        (state.connections, state.idle_connections) == (all, all)
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
    let mut both = [pid(&first).await, pid(&second).await];
    bb8_has(&pool, 2, 0).await;
    drop((first, second));
    // The latest is seated. Its slot is bb8's all the same.
    bb8_has(&pool, 2, 1).await;

    let taken = pool.0.slots.get_owned().await.unwrap();
    assert!(taken.conn.is_some(), "an idle slot of bb8's without a connection");
    let one = pool.acquire().await.unwrap();
    assert!(both.contains(&pid(&one).await), "a connection was had from elsewhere than bb8");
    let other = timeout(Duration::from_millis(300), pool.acquire()).await;
    assert!(other.is_err(), "a connection was had although bb8 has none, or one more was opened");

    drop(taken);
    let other = pool.acquire().await.unwrap();
    let mut now = [pid(&one).await, pid(&other).await];
    now.sort_unstable();
    both.sort_unstable();
    assert_eq!(now, both, "not the connection that bb8 was given back");
}

fn exactly(size: u32, url: &str) -> PgPool {
    let config = PgConfig { url: Some(url.into()), size, overflow: 0, ..PgConfig::default() };
    PgPool::open(config).unwrap()
}

fn closed(pool: &PgPool, reason: &str) -> u64 {
    let closed = pool.snapshot().totals.closed;
    closed.iter().find(|(name, _)| *name == reason).expect("an unknown reason").1
}

/// While bb8's queue is swept it has nothing to give, although everything that is idle still exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_01_who_comes_while_idle_connections_are_swept_waits_for_them_and_opens_none_beside_them() {
    let server = testkit::postgres().await;
    let pool = exactly(2, &server.url());
    let (first, second) = tokio::try_join!(pool.acquire(), pool.acquire()).unwrap();
    let both = [pid(&first).await, pid(&second).await];
    drop((first, second));
    all_in_bb8(&pool, 2).await;

    let comer = OnceLock::new();
    let bb8 = || pool.0.slots.state();
    let during = |_: &super::conn::Conn| {
        if bb8().idle_connections == 0 && comer.set(tokio::spawn(pool.acquire())).is_ok() {
            // It has looked into some empty slots, or done what it must not.
            let (end, made) =
                (Instant::now() + Duration::from_secs(20), bb8().statistics.connections_created);
            while bb8().statistics.connections_created < made + 5 && pool.snapshot().opening() == 0 {
                assert!(Instant::now() < end, "it does not even look");
                std::thread::yield_now();
            }
            assert_eq!(pool.0.state.lock().counts().all(), 2, "one more beside those that are idle");
        }
        false
    };
    tokio::task::block_in_place(|| assert!(pool.0.take_idle(during).is_empty()));
    let lease = comer.into_inner().expect("the queue was swept").await.unwrap().unwrap();
    assert!(both.contains(&pid(&lease).await), "one was opened for it");
    assert_eq!(pool.snapshot().totals.opened, 2);
}

/// A holder has checked it in, and has not yet given it to bb8.
#[tokio::test]
async fn pg_19_a_connection_on_its_way_to_bb8_when_all_are_invalidated_does_not_stay_there() {
    let server = testkit::postgres().await;
    let pool = exactly(1, &server.url());
    // From then on the pool looks at it by itself every 15 s only.
    testkit::until(Duration::from_secs(20), || pool.health().state == HealthState::Up).await;
    all_in_bb8(&pool, 1).await;
    let on_its_way = pool.0.slots.get_owned().await.unwrap();
    pool.invalidate();
    assert_eq!(pool.stats().checked_in, 1, "condemned where nobody can close it");
    drop(on_its_way);
    testkit::until(Duration::from_secs(8), || closed(&pool, "invalidated") == 1).await;
}

/// The network says nothing of its end, so that the check is what finds it.
#[tokio::test]
async fn pg_08_a_killed_backend_is_found_by_the_check_and_replaced_in_the_same_slot() {
    let server = testkit::postgres().await;
    let proxy = testkit::proxy(server.port()).await;
    let pool = exactly(1, &proxy.through(&server.url()));
    let dead = pid(&pool.acquire().await.unwrap()).await;
    all_in_bb8(&pool, 1).await;
    proxy.set(Mode::BlackHole);
    server.admin_query(&format!("SELECT pg_terminate_backend({dead}, 5000)")).await;
    let acquiring = tokio::spawn(pool.acquire());
    let made = pool.0.slots.state().statistics.connections_created;
    testkit::until(Duration::from_secs(20), || closed(&pool, "check_failed") == 1).await;
    proxy.set(Mode::Pass);
    let lease = acquiring.await.unwrap().expect("the caller sees no error");
    assert_ne!(pid(&lease).await, dead);
    let slots = pool.0.slots.state();
    assert_eq!((slots.statistics.connections_created, slots.connections), (made, 1), "another slot");
    assert_eq!(closed(&pool, "check_failed"), 1);
}

#[tokio::test]
async fn pg_32_a_minimum_above_the_size_is_refused_with_both_numbers() {
    let url = Some("postgres://app@localhost/app".into());
    let config = PgConfig { url, size: 4, min_idle: 5, ..PgConfig::default() };
    let error = PgPool::open(config).unwrap_err();
    assert!(matches!(error, PgError::MinIdle { min_idle: 5, size: 4 }));
    assert_eq!(error.to_string(), "DB_MIN_IDLE 5 is more than DB_POOL_SIZE 4");
}

/// Somebody waits for the only connection, and has it before he is polled.
#[tokio::test]
async fn pg_04_a_connection_goes_from_hand_to_hand_past_bb8_while_callers_wait() {
    let server = testkit::postgres().await;
    let pool = exactly(1, &server.url());
    testkit::until(Duration::from_secs(20), || pool.health().state == HealthState::Up).await;
    let lease = pool.acquire().await.unwrap();
    let first = pid(&lease).await;
    let asked = || pool.0.slots.state().statistics.get_started;
    let before = asked();
    let mut waiting = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(lease);
    let stats = pool.stats();
    assert_eq!((stats.checked_in, stats.checked_out), (0, 1), "it was idle in between");
    let lease = waiting.await.unwrap();
    assert_eq!((pid(&lease).await, asked()), (first, before));
    assert_eq!(pool.snapshot().holders.len(), 1);
    assert!(gathers(&lease), "he waited, so what those who wait send is written together");

    // One who goes away before he knows of it leaves it to the others.
    let mut gone = Box::pin(pool.acquire());
    let mut waiting = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut gone).is_pending() && futures_util::poll!(&mut waiting).is_pending());
    drop(lease);
    drop(gone);
    let lease = waiting.await.unwrap();
    assert_eq!((pid(&lease).await, asked()), (first, before));
    let mut gone = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut gone).is_pending());
    drop((lease, gone));
    all_in_bb8(&pool, 1).await;
    let stats = pool.stats();
    assert_eq!((stats.checked_in, stats.checked_out, stats.total_connections), (1, 0, 1));
    assert!(!gathers(&pool.acquire().await.unwrap()), "nobody waits");
}

/// Between a look at the members and the acquire for a vacant one, another caller's acquire may begin and end.
#[tokio::test]
async fn pg_23_who_comes_late_to_a_place_of_the_lane_that_was_vacant_goes_where_the_others_went() {
    let server = testkit::postgres().await;
    let pool = exactly(2, &server.url());
    let (seen, lane) = (Instant::now(), pool.lane());
    let carrier = lane.carrier("SELECT 1").await.unwrap();
    let Vacancy::Filled(late) = lane.join(0, seen) else { panic!("it would take a connection more") };
    assert!(Arc::ptr_eq(&late, &carrier));
    // The pool's own look at the server ends by itself.
    testkit::until(Duration::from_secs(20), || pool.stats().checked_out == 1).await;
}

fn gathers(lease: &Lease) -> bool {
    lease.conn().link.wire.gathers()
}

/// Past the gate and bb8's queue, and found by all who look for what is idle.
#[tokio::test]
async fn what_was_given_back_last_stays_at_hand_with_its_slot_and_place() {
    let server = testkit::postgres().await;
    let pool = exactly(2, &server.url());
    testkit::until(Duration::from_secs(20), || pool.health().state == HealthState::Up).await;
    let (first, second) = tokio::try_join!(pool.acquire(), pool.acquire()).unwrap();
    let (older, latest) = (pid(&first).await, pid(&second).await);
    drop(first);
    drop(second);
    assert_eq!((pool.stats().checked_in, pool.0.gate.inside()), (2, 1), "both are idle, one has a place");
    let asked = || pool.0.slots.state().statistics.get_started;
    let before = asked();
    for _ in 0..3 {
        assert_eq!(pid(&pool.acquire().await.unwrap()).await, latest);
    }
    assert_eq!(asked(), before, "bb8 was asked");
    let (first, second) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    assert_eq!((pid(&first).await, pid(&second).await), (latest, older), "the latest first");
    drop((first, second));

    // Who looks for idle connections finds all of them.
    pool.invalidate();
    testkit::until(Duration::from_secs(8), || closed(&pool, "invalidated") == 2).await;
    testkit::until(Duration::from_secs(8), || pool.0.gate.inside() == 0).await;
}

#[tokio::test]
async fn pg_04_nobody_waits_for_the_place_of_what_is_seated() {
    let server = testkit::postgres().await;
    let pool = exactly(1, &server.url());
    testkit::until(Duration::from_secs(20), || pool.health().state == HealthState::Up).await;
    let bound = Duration::from_secs(5);
    // It may be seated just after a caller has found the seat empty.
    drop(pool.acquire().await.unwrap());
    assert_eq!(pool.0.gate.inside(), 1, "it is not seated");
    let late = Arc::clone(&pool.0).wait(Instant::now(), Location::caller());
    drop(timeout(bound, late).await.expect("he waits for the place of an idle connection").unwrap());
    testkit::until(bound, || pool.0.gate.inside() == 0).await;

    // Places that are taken away are not kept by it either, nor does it come there meanwhile.
    drop(pool.acquire().await.unwrap());
    assert!(pool.pause(Instant::now() + bound).await);
    assert_eq!(pool.0.gate.inside(), 0);
    pool.resume();
    let lease = pool.acquire().await.unwrap();
    assert!(!pool.pause(Instant::now()).await, "one is out");
    drop(lease);
    assert_eq!((pool.0.gate.inside(), pool.stats().checked_in), (0, 1));
    pool.resume();
    assert_eq!(timeout(bound, pool.acquire()).await.unwrap().map(drop).ok(), Some(()));
}

/// It has no reference to the pool.
#[tokio::test]
async fn a_pool_that_is_dropped_closes_what_is_seated() {
    let server = testkit::postgres().await;
    let pool = exactly(1, &server.url());
    testkit::until(Duration::from_secs(20), || pool.health().state == HealthState::Up).await;
    drop(pool.acquire().await.unwrap());
    assert_eq!((pool.0.gate.inside(), server.all_connections().await), (1, 1));
    drop(pool);
    testkit::until_async(Duration::from_secs(20), async || server.all_connections().await == 0).await;
}

#[tokio::test]
async fn pg_08_one_that_ends_on_its_way_from_hand_to_hand_is_replaced_without_a_check() {
    let server = testkit::postgres().await;
    let config = PgConfig {
        url: Some(server.url().into()),
        size: 1,
        overflow: 0,
        pre_ping: false,
        ..PgConfig::default()
    };
    let pool = PgPool::open(config).unwrap();
    let lease = pool.acquire().await.unwrap();
    let dead = pid(&lease).await;
    let mut waiting = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(lease);
    let link = pool.0.state.lock().links().pop().expect("it is on its way");
    server.admin_query(&format!("SELECT pg_terminate_backend({dead}, 5000)")).await;
    testkit::until(Duration::from_secs(20), || link.ended.load(Ordering::Acquire)).await;
    let lease = waiting.await.expect("a new one");
    assert_ne!(pid(&lease).await, dead);
    assert_eq!(closed(&pool, "peer"), 1);
    assert_eq!(pool.stats().total_connections, 1);
}
