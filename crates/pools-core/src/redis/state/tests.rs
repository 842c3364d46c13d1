use super::*;

const DEADLINE: Duration = Duration::from_millis(250);

fn epoch() -> (Instant, DateTime<Utc>) {
    (Instant::now(), Utc::now())
}

fn state() -> State<&'static str> {
    State::new(3, DEADLINE, 100, epoch())
}

fn connected() -> (State<&'static str>, Instant) {
    let (mut state, now) = (state(), Instant::now());
    state.connected("conn", now);
    (state, now)
}

#[test]
fn the_second_silence_in_a_row_is_down_and_an_answer_between_forgives() {
    let (mut state, start) = connected();
    let at = |millis| start + Duration::from_millis(millis);
    let mut ended = |end, sent, now| {
        let (_, generation) = state.enter().expect("it is up");
        let look = state.leave(generation, end, at(sent), at(now));
        (look, state.standing(), state.is_condemned())
    };
    assert_eq!(ended(End::TimedOut, 1, 251), (true, Standing::Degraded, false));
    assert_eq!(ended(End::Answered, 252, 253), (false, Standing::Up, false));
    assert_eq!(ended(End::TimedOut, 300, 550), (true, Standing::Degraded, false));
    assert_eq!(ended(End::TimedOut, 551, 801), (true, Standing::Down, true));
    assert!(matches!(state.enter(), Err(RedisError::Down { last_error: Reason::Silent(_), .. })));
}

#[test]
fn a_slow_command_is_no_sign_when_later_ones_were_answered() {
    let (mut state, start) = connected();
    for _ in 0..5 {
        let (_, generation) = state.enter().unwrap();
        state.enter().unwrap();
        let answered = start + Duration::from_millis(10);
        state.leave(generation, End::Answered, start, answered);
        assert!(!state.leave(generation, End::TimedOut, start, start + DEADLINE));
    }
    assert_eq!((state.standing(), state.in_flight()), (Standing::Up, 0));
}

#[test]
fn what_is_told_of_an_earlier_connection_does_not_hurt_the_present_one() {
    let (mut state, start) = connected();
    let old: Vec<u64> = (0..5).map(|_| state.enter().unwrap().1).collect();
    state.lost(Some(Reason::Lost), start);
    state.connected("next", start);
    for generation in old {
        assert!(!state.leave(generation, End::TimedOut, start, start + DEADLINE));
    }
    assert_eq!((state.standing(), state.is_condemned()), (Standing::Up, false));
}

#[test]
fn retries_back_off_then_one_notice_then_probing_every_second_for_ever() {
    let mut state = state();
    let retries: Vec<Retry> = (0..100).map(|_| state.open_failed(Reason::ConnectionRefused)).collect();
    assert!(retries[..3].iter().all(|retry| retry.pause <= Duration::from_millis(400)), "{retries:?}");
    assert!(retries[3..].iter().all(|retry| retry.pause == PROBE_PAUSE));
    assert_eq!(retries.iter().filter(|retry| retry.exhausted).count(), 1);
    assert_eq!(retries.iter().filter(|retry| retry.news).count(), 1);
}

#[test]
fn a_wrong_password_is_tried_again_every_thirty_seconds_only() {
    let mut state = state();
    for _ in 0..20 {
        assert_eq!(state.open_failed(Reason::WrongPassword).pause, Duration::from_secs(30));
    }
}

#[test]
fn a_connection_that_lasts_no_second_is_a_failed_attempt() {
    let (mut state, start) = connected();
    let pauses: Vec<_> = (0..4)
        .map(|_| {
            state.connected("conn", start);
            state.lost(Some(Reason::Lost), start + Duration::from_millis(10))
        })
        .collect();
    assert!(pauses.iter().all(|pause| *pause >= FIRST_PAUSE / 10), "{pauses:?}");
    state.connected("conn", start);
    assert_eq!(state.lost(None, start + Duration::from_secs(2)), Duration::ZERO);
}

#[test]
fn read_only_condemns_the_connection_once_and_spares_the_next_while_it_is_young() {
    let (mut state, start) = connected();
    let refused_after = |state: &mut State<_>, seconds| {
        let (_, generation) = state.enter().unwrap();
        state.leave(generation, End::ReadOnly, start, start + Duration::from_secs(seconds))
    };
    assert!(refused_after(&mut state, 1));
    assert!(state.is_condemned());
    state.lost(None, start + Duration::from_secs(1));
    state.connected("next", start + Duration::from_secs(1));
    assert!(!refused_after(&mut state, 2), "reads are stopped again and again");
    assert!(refused_after(&mut state, 7));
}

#[test]
fn more_commands_than_allowed_are_refused_and_not_queued() {
    let mut state = State::new(3, DEADLINE, 2, epoch());
    state.connected("conn", Instant::now());
    state.enter().unwrap();
    state.enter().unwrap();
    assert!(matches!(state.enter(), Err(RedisError::Busy { in_flight: 2 })));
}
