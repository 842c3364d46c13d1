use std::sync::Mutex;

use super::*;

async fn soon(gate: &Admission) -> Result<Place<'_>, Refused> {
    gate.enter(Instant::now(), Instant::now() + Duration::from_secs(1)).await
}

#[tokio::test(start_paused = true)]
async fn waiters_enter_in_order_and_a_newcomer_does_not_overtake() {
    let gate = Arc::new(Admission::new(1, 10));
    let inside = soon(&gate).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let waiters: Vec<_> = (0..5)
        .map(|number| {
            let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
            tokio::spawn(async move {
                let _permit = soon(&gate).await.unwrap();
                order.lock().unwrap().push(number);
            })
        })
        .collect();
    testkit::until(Duration::from_secs(1), || gate.waiting() == 5).await;
    drop(inside);
    assert!(gate.try_enter().unwrap().is_none(), "a newcomer overtook");
    for waiter in waiters {
        waiter.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!((gate.inside(), gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_the_deadline_holds() {
    let gate = Admission::new(1, 1);
    let _inside = soon(&gate).await.unwrap();
    let (timed_out, queue_full) = tokio::join!(soon(&gate), soon(&gate));
    assert_eq!(timed_out.unwrap_err(), Refused::TimedOut { waited: Duration::from_secs(1) });
    assert_eq!(queue_full.unwrap_err(), Refused::QueueFull { waiting: 1 });
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_costs_the_next_nothing() {
    let gate = Admission::new(1, 10);
    let inside = soon(&gate).await.unwrap();
    {
        let mut cancelled = Box::pin(soon(&gate));
        assert!(futures_util::poll!(&mut cancelled).is_pending());
        assert_eq!(gate.waiting(), 1);
    }
    assert_eq!(gate.waiting(), 0);
    drop(inside);
    assert!(gate.try_enter().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn places_taken_away_while_in_use_are_owed_and_given_back_ones_pay() {
    let gate = Admission::new(3, 10);
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(soon(&gate).await.unwrap());
    }
    gate.resize(1);
    assert_eq!((gate.limit(), gate.inside()), (1, 3));
    inside.pop();
    inside.pop();
    assert!(gate.try_enter().unwrap().is_none(), "a place that exists no more was given out");
    inside.pop();
    inside.push(gate.try_enter().unwrap().expect("one place is left"));
    gate.resize(0);
    gate.resize(2);
    inside.push(gate.try_enter().unwrap().expect("the debt was forgiven, and one place added"));
    assert!(gate.try_enter().unwrap().is_none());
    inside.clear();
    assert_eq!((gate.limit(), gate.inside()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_place_goes_to_whoever_has_waited_longest() {
    let gate = Admission::new(0, 10);
    let mut first = Box::pin(soon(&gate));
    assert!(futures_util::poll!(&mut first).is_pending());
    gate.resize(1);
    assert!(gate.try_enter().unwrap().is_none(), "a newcomer overtook");
    drop(first.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_it_is_resized_under_load_every_place_is_there_in_the_end() {
    let gate = Arc::new(Admission::new(4, 1_000));
    let users: Vec<_> = (0..32)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                for _ in 0..200 {
                    let permit =
                        gate.enter(Instant::now(), Instant::now() + Duration::from_secs(30)).await.unwrap();
                    tokio::task::yield_now().await;
                    drop(permit);
                }
            })
        })
        .collect();
    for round in 0..500_u32 {
        gate.resize(round % 7);
        tokio::task::yield_now().await;
    }
    gate.resize(5);
    for user in users {
        user.await.expect("a waiter was lost");
    }
    let all: Vec<_> = std::iter::from_fn(|| gate.try_enter().unwrap()).collect();
    assert_eq!((all.len(), gate.inside()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn closing_refuses_waiters_and_newcomers() {
    let gate = Admission::new(1, 10);
    let _inside = soon(&gate).await.unwrap();
    let waiting = soon(&gate);
    let (refused, ()) = tokio::join!(waiting, async { gate.close() });
    assert_eq!(refused.unwrap_err(), Refused::Closed);
    assert_eq!(soon(&gate).await.unwrap_err(), Refused::Closed);
}

/// Everything at once: entering, giving up at any point, places that come and go. In the end all places are there,
/// nobody is left in the queue, and never were more inside than there were places at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_up_at_whatever_point_takes_no_place_along() {
    for keepers in [0, 1, 200] {
        everything_at_once(keepers).await;
    }
}

/// With so many timekeepers, one after the other: what one leaves behind, each waiter does for itself.
async fn everything_at_once(keepers: u32) {
    const MOST: u32 = 6;
    let gate = Arc::new(Admission::new(4, 1_000));
    let mut keeper = None;
    let inside = Arc::new(AtomicU32::new(0));
    let users: Vec<_> = (0..32)
        .map(|user| {
            let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
            tokio::spawn(async move {
                let mut served = 0;
                for round in 0..300_u64 {
                    let now = Instant::now();
                    let patience = Duration::from_micros((user + round) % 5 * 20);
                    let entered = match user % 4 {
                        0 | 2 => gate.enter(now, now + Duration::from_secs(30)).await.ok(),
                        // Refused at its own deadline, or dropped.
                        1 => gate.enter(now, now + patience * 20).await.ok(),
                        _ => {
                            let entering = gate.enter(now, now + Duration::from_secs(30));
                            tokio::time::timeout(patience, entering).await.ok().and_then(Result::ok)
                        }
                    };
                    let Some(place) = entered else { continue };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < MOST, "more inside than places");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                    served += 1;
                }
                served
            })
        })
        .collect();
    for round in 0..500_u32 {
        gate.resize(1 + round % MOST);
        if round < keepers {
            let new = tokio::spawn(gate.timekeeper());
            keeper.replace(new).inspect(tokio::task::JoinHandle::abort);
        }
        tokio::task::yield_now().await;
    }
    gate.resize(5);
    for (user, served) in futures_util::future::join_all(users).await.into_iter().enumerate() {
        assert!(user % 2 == 1 || served.unwrap() == 300, "a waiter was lost");
    }
    let all: Vec<_> = std::iter::from_fn(|| gate.try_enter().unwrap()).collect();
    assert_eq!((all.len(), gate.inside(), gate.waiting()), (5, 5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timekeeper_ends_each_wait_in_time_whatever_the_order_of_the_deadlines() {
    let gate = Arc::new(Admission::new(1, 10));
    let keeper = tokio::spawn(gate.timekeeper());
    let inside = soon(&gate).await.unwrap();
    let wait = async |milliseconds: u64| {
        let started = Instant::now();
        let refused = gate.enter(started, started + Duration::from_millis(milliseconds)).await.unwrap_err();
        (refused, started.elapsed().as_millis())
    };
    for _ in 0..2 {
        let waited = tokio::join!(wait(500), wait(30), wait(100), wait(1_000), wait(0));
        for ((refused, took), expected) in
            [(waited.0, 500), (waited.1, 30), (waited.2, 100), (waited.3, 1_000), (waited.4, 0)]
        {
            // Tokio's timers are precise to a millisecond.
            assert!(matches!(refused, Refused::TimedOut { .. }) && (expected..=expected + 2).contains(&took));
        }
    }
    drop(inside);
    drop(soon(&gate).await.expect("nobody waits any more"));
    drop(gate);
    keeper.await.expect("its gate is gone");
}

#[tokio::test(start_paused = true)]
async fn when_the_timekeeper_dies_everybody_keeps_the_time_alone() {
    let gate = Arc::new(Admission::new(1, 10));
    let keeper = tokio::spawn(gate.timekeeper());
    let inside = soon(&gate).await.unwrap();
    let started = Instant::now();
    let (refused, ()) = tokio::join!(soon(&gate), async {
        testkit::until(Duration::from_secs(1), || gate.waiting() == 1).await;
        keeper.abort();
    });
    assert!(matches!(refused, Err(Refused::TimedOut { .. })));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // And so does who comes later.
    let late = tokio::time::timeout(Duration::from_secs(10), soon(&gate)).await;
    assert!(late.expect("it waits without a limit").is_err());
    drop(inside);
    assert_eq!((gate.inside(), gate.waiting()), (0, 0));
}

/// What goes from hand to hand with its place, and gives that up when it is dropped.
#[derive(Debug)]
struct Baton(Arc<Admission<Baton>>);

impl Drop for Baton {
    fn drop(&mut self) {
        self.0.leave();
    }
}

async fn take(gate: &Arc<Admission<Baton>>, patience: Duration) -> Result<Baton, Refused> {
    let now = Instant::now();
    Ok(match gate.enter_or_take(now, now + patience).await? {
        Entered::Place(place) => {
            place.keep();
            Baton(Arc::clone(gate))
        }
        Entered::Handed(baton) => baton,
    })
}

#[tokio::test]
async fn what_is_handed_on_is_for_the_first_in_line_and_of_one_who_is_gone_it_is_dropped() {
    let gate = Arc::new(Admission::handing_on(1, 10));
    let patience = Duration::from_secs(60);
    let baton = take(&gate, patience).await.unwrap();
    let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(take(&gate, patience))).collect();
    for waiter in &mut waiters {
        assert!(futures_util::poll!(waiter).is_pending());
    }
    assert!(gate.is_waited_for() && gate.hand(baton).is_ok());
    let second = waiters.remove(1);
    assert!(futures_util::poll!(&mut waiters[1]).is_pending(), "it went past the first");
    // The first has it, the second goes away: the third is next.
    let baton = waiters.remove(0).await.unwrap();
    drop(second);
    assert!(gate.hand(baton).is_ok());
    // He goes away before he knows.
    drop(waiters);
    assert_eq!((gate.inside(), gate.waiting()), (0, 0));
    let baton = take(&gate, patience).await.unwrap();
    assert!(gate.hand(baton).is_err(), "nobody waits");
    assert_eq!(gate.inside(), 0);
}

#[tokio::test]
async fn a_place_that_is_owed_is_not_handed_on() {
    let gate = Arc::new(Admission::handing_on(1, 10));
    let baton = take(&gate, Duration::from_secs(60)).await.unwrap();
    let mut waiter = Box::pin(take(&gate, Duration::from_secs(60)));
    assert!(futures_util::poll!(&mut waiter).is_pending());
    gate.resize(0);
    let baton = gate.hand(baton).expect_err("one more inside than there are places");
    drop(baton);
    assert!(futures_util::poll!(&mut waiter).is_pending());
    gate.resize(1);
    drop(waiter.await.unwrap());
    assert_eq!((gate.inside(), gate.waiting()), (0, 0));
}

/// As [`everything_at_once`], with places that are handed on or left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_handed_to_whomever_no_place_is_lost() {
    const MOST: u32 = 6;
    let gate = Arc::new(Admission::handing_on(4, 1_000));
    let keeper = tokio::spawn(gate.timekeeper());
    let inside = Arc::new(AtomicU32::new(0));
    let users: Vec<_> = (0..32)
        .map(|user| {
            let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
            tokio::spawn(async move {
                let (mut served, long) = (0, Duration::from_secs(30));
                for round in 0..300_u64 {
                    let patience = Duration::from_micros((user + round) % 5 * 20);
                    let entered = match user % 4 {
                        0 | 2 => take(&gate, long).await.ok(),
                        1 => take(&gate, patience * 20).await.ok(),
                        _ => {
                            tokio::time::timeout(patience, take(&gate, long)).await.ok().and_then(Result::ok)
                        }
                    };
                    let Some(baton) = entered else { continue };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < MOST, "more inside than places");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    served += 1;
                    match round % 3 {
                        0 => drop(baton),
                        _ => drop(gate.hand(baton)),
                    }
                }
                served
            })
        })
        .collect();
    for round in 0..500_u32 {
        gate.resize(1 + round % MOST);
        tokio::task::yield_now().await;
    }
    gate.resize(5);
    for (user, served) in futures_util::future::join_all(users).await.into_iter().enumerate() {
        assert!(user % 2 == 1 || served.unwrap() == 300, "a waiter was lost");
    }
    let all: Vec<_> = std::iter::from_fn(|| gate.try_enter().unwrap()).collect();
    assert_eq!((all.len(), gate.inside(), gate.waiting()), (5, 5, 0));
    keeper.abort();
}
