use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn gate(per_second: u32, burst: u32) -> RateGate {
    RateGate::new(Rate { per_second, burst }, 100)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// When each of `calls` got its turn, in milliseconds; each is answered `takes` after it was sent.
async fn turns(gate: &RateGate, calls: u32, takes: Duration) -> Vec<u128> {
    let began = Instant::now();
    let calls = (0..calls).map(|_| async move {
        let mut turn = gate.turn(later()).await.unwrap();
        let at = began.elapsed().as_millis();
        turn.sent();
        tokio::time::sleep(takes).await;
        turn.answered();
        at
    });
    futures_util::future::join_all(calls).await
}

#[tokio::test(start_paused = true)]
async fn a_second_sees_no_more_than_its_calls_and_they_are_in_order() {
    let near = turns(&gate(3, 3), 8, ms(0)).await;
    assert_eq!(near, [0, 0, 0, 1000, 1000, 1000, 2000, 2000]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_one_spaces_the_calls_evenly() {
    let near = turns(&gate(3, 1), 5, ms(0)).await;
    // The timer of tokio counts milliseconds and rounds up.
    assert_eq!(near, [0, 334, 668, 1002, 1336]);
}

#[tokio::test(start_paused = true)]
async fn a_call_counts_until_a_second_after_it_arrived_for_certain() {
    assert_eq!(turns(&gate(1, 1), 3, ms(100)).await, [0, 1100, 2200]);
    // However late the answer, it was there a quarter of a second after it was sent.
    assert_eq!(turns(&gate(1, 1), 3, ms(9_000)).await, [0, 1250, 2500]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_cannot_come_in_time_is_refused_at_once_and_the_others_keep_theirs() {
    let gate = gate(2, 2);
    gate.turn(later()).await.unwrap().answered();
    gate.turn(later()).await.unwrap().answered();
    let began = Instant::now();
    let mut third = Box::pin(gate.turn(later()));
    let mut fourth = Box::pin(gate.turn(later()));
    assert!(futures_util::poll!(&mut third).is_pending() && futures_util::poll!(&mut fourth).is_pending());
    let late = gate.turn(began + ms(1_999)).await.unwrap_err();
    assert_eq!(late, Late { waiting: 2, turn_in: ms(2_000) });
    assert_eq!(began.elapsed(), ms(0), "it waited");
    let (third, fourth) = (third.await.unwrap(), fourth.await.unwrap());
    assert_eq!(began.elapsed(), ms(1_000));
    drop((third, fourth));
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_ends_at_its_deadline_when_those_before_it_dawdle() {
    let gate = gate(1, 1);
    let dawdler = gate.turn(later()).await.unwrap();
    let began = Instant::now();
    assert!(gate.turn(began + ms(1_500)).await.is_err());
    assert_eq!((began.elapsed(), gate.waiting()), (ms(1_500), 0));
    drop(dawdler);
    gate.turn(later()).await.unwrap().answered();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_turn_and_a_caller_who_left_cost_the_next_nothing() {
    let gate = gate(1, 1);
    drop(gate.turn(later()).await.unwrap());
    let turn = gate.turn(later()).await.unwrap();
    {
        let mut leaves = Box::pin(gate.turn(later()));
        assert!(futures_util::poll!(&mut leaves).is_pending());
    }
    let mut next = Box::pin(gate.turn(later()));
    assert!(futures_util::poll!(&mut next).is_pending());
    let began = Instant::now();
    drop(turn);
    let _turn = next.await.unwrap();
    assert_eq!((began.elapsed(), gate.waiting()), (ms(0), 0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let gate = RateGate::new(Rate::per_second(1), 1);
    let _turn = gate.turn(later()).await.unwrap();
    let mut waits = Box::pin(gate.turn(later()));
    assert!(futures_util::poll!(&mut waits).is_pending());
    assert_eq!(gate.turn(later()).await.unwrap_err().waiting, 1);
}
