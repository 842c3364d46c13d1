//! The batcher without a network: times and outcomes are chosen, and what it does is looked at.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::{
    endpoint::Endpoint,
    entry::{Answer, Kind, Secrets},
    error::ChainError,
    reply::{Fault, Reply},
    state::{NewCall, Outcome, Post, ProbeOutcome, SLOTS, State, Step, Tuning},
};

const MS: Duration = Duration::from_millis(1);

fn state(endpoints: usize, now: Instant) -> State {
    let tuning =
        Tuning { max_calls: 10, stall: 10 * MS, idle_probe: Duration::from_secs(4), fixed_network: true };
    let all = (0..endpoints).map(|n| Endpoint::new(format!("http://node-{n}").into(), 10, now)).collect();
    State::new(tuning, all, vec![Secrets::default(); endpoints])
}

/// A state whose endpoints have all named chain 1.
fn ready(endpoints: usize, now: Instant) -> State {
    let mut state = state(endpoints, now);
    for index in state.step(now).probes {
        state.probed(index, now, ProbeOutcome::ChainId(1), now);
    }
    state
}

fn submit(state: &mut State, text: &str, kind: Kind, now: Instant) -> oneshot::Receiver<Answer> {
    let call = NewCall {
        text: text.into(),
        kind,
        deadline: now + Duration::from_secs(30),
        attempt: Duration::from_secs(10),
    };
    state.submit(call, now).expect("there is room").0
}

fn read(state: &mut State, n: usize, now: Instant) -> oneshot::Receiver<Answer> {
    submit(state, &format!("\"method\":\"eth_call\",\"params\":[{n}]"), Kind::Read, now)
}

fn deliver(step: &mut Step) {
    for (waiters, answer) in step.answers.drain(..) {
        waiters.into_iter().for_each(|waiter| drop(waiter.send(answer.clone())));
    }
}

fn answered(post: &Post) -> Outcome {
    let replies = post.slots.iter().map(|_| Reply::Result(Bytes::from_static(b"1"))).collect();
    Outcome::Replies { replies, strays: 0 }
}

#[test]
fn a_lone_call_goes_at_once_and_followers_gather_until_all_is_back_or_the_batch_is_full_or_the_stall_is_over()
{
    let now = Instant::now();
    let mut state = ready(1, now);
    let mut waiting = vec![read(&mut state, 0, now)];
    let mut first = state.step(now);
    assert_eq!(first.posts.len(), 1);

    waiting.extend((1..4).map(|n| read(&mut state, n, now)));
    let step = state.step(now + MS);
    assert!(step.posts.is_empty(), "it did not gather");
    assert_eq!(step.wake, Some(now + 10 * MS));
    let stalled = state.step(now + 10 * MS).posts.remove(0);
    assert_eq!(stalled.slots.len(), 3, "the stall was over");

    let later = now + 11 * MS;
    waiting.extend((4..13).map(|n| read(&mut state, n, later)));
    assert!(state.step(later).posts.is_empty());
    waiting.push(read(&mut state, 13, later));
    let full = state.step(later).posts.remove(0);
    assert_eq!(full.slots.len(), 10, "a full batch did not go");

    let mut out: Vec<_> = first.posts.drain(..).chain([stalled, full]).collect();
    waiting.push(read(&mut state, 14, later));
    while let Some(post) = out.pop() {
        assert!(state.step(later).posts.is_empty(), "sent although something is out");
        let outcome = answered(&post);
        state.finish(post, outcome, later, &mut first);
    }
    assert_eq!(state.step(later).posts[0].slots.len(), 1, "nothing was out");
}

#[test]
fn an_answer_from_before_a_write_is_not_shared_with_those_who_ask_after_it() {
    let now = Instant::now();
    let mut state = ready(1, now);
    let _old = read(&mut state, 7, now);
    let mut out = state.step(now);
    let _write = submit(&mut state, "\"method\":\"eth_sendRawTransaction\",\"params\":[]", Kind::Write, now);
    let mut written = state.step(now + 10 * MS);
    let post = written.posts.remove(0);
    let outcome = answered(&post);
    state.finish(post, outcome, now, &mut written);

    let mut new = read(&mut state, 7, now);
    let post = out.posts.remove(0);
    let outcome = answered(&post);
    state.finish(post, outcome, now, &mut out);
    deliver(&mut out);
    assert!(new.try_recv().is_err(), "it got the answer from before the write");
    assert_eq!(state.step(now).posts[0].slots.len(), 1);
}

#[test]
fn reads_behind_a_failure_go_elsewhere_and_writes_that_may_have_arrived_do_not() {
    let now = Instant::now();
    let mut state = ready(2, now);
    let mut one = read(&mut state, 1, now);
    let mut other =
        submit(&mut state, "\"method\":\"eth_sendRawTransaction\",\"params\":[]", Kind::Write, now);
    let mut step = state.step(now);
    let post = step.posts.remove(0);
    assert_eq!((post.endpoint, post.slots.len(), post.reads_only), (0, 2, false));
    let error = ChainError::BadReply { url: Arc::from("http://node-0"), what: "noise" };
    state.finish(post, Outcome::Failed { error, sent: true }, now, &mut step);
    deliver(&mut step);
    assert!(matches!(other.try_recv(), Ok(Err(ChainError::BadReply { .. }))));
    assert!(one.try_recv().is_err());
    let again = state.step(now).posts;
    assert_eq!((again[0].endpoint, again[0].slots.len()), (1, 1));
}

#[test]
fn a_less_preferred_endpoint_does_not_decide_which_chain_is_right() {
    let now = Instant::now();
    let mut state = state(2, now);
    assert_eq!(state.step(now).probes, [0, 1]);
    state.probed(1, now, ProbeOutcome::ChainId(5), now);
    let _waits = read(&mut state, 1, now);
    assert!(state.step(now).posts.is_empty(), "sent before the preferred one was heard");
    state.probed(0, now, ProbeOutcome::ChainId(1), now);
    assert_eq!(state.chain_id, Some(1));
    assert_eq!(state.step(now).posts[0].endpoint, 0);
}

#[test]
fn on_random_walks_every_call_is_answered_once_and_no_endpoint_gets_too_much() {
    for seed in 0..300 {
        walk(&mut fastrand::Rng::with_seed(seed));
    }
}

/// Calls, cancels and outcomes in random order; then everything answers and everybody must be served.
fn walk(random: &mut fastrand::Rng) {
    let mut now = Instant::now();
    let endpoints = random.usize(1..4);
    let mut state = ready(endpoints, now);
    let mut out: Vec<Post> = Vec::new();
    let mut waiting: Vec<oneshot::Receiver<Answer>> = Vec::new();
    for round in 0..400 {
        now += MS * random.u32(0..8);
        let calm = round >= 300;
        let mut step = Step::default();
        match random.u8(0..10) {
            0..4 if !calm => {
                let n = random.usize(0..60);
                let kind = if random.u8(0..8) == 0 { Kind::Write } else { Kind::Read };
                waiting.push(submit(&mut state, &format!("{kind:?} {n}"), kind, now));
            }
            4 if !calm && !waiting.is_empty() => {
                let gone = random.usize(0..waiting.len());
                drop(waiting.swap_remove(gone));
            }
            _ if !out.is_empty() => {
                let post = out.swap_remove(random.usize(0..out.len()));
                let outcome = if calm { answered(&post) } else { some_outcome(&post, random) };
                state.finish(post, outcome, now, &mut step);
            }
            _ => {}
        }
        let mut next = state.step(now);
        for index in next.probes.drain(..) {
            state.probed(index, now, ProbeOutcome::ChainId(1), now);
        }
        out.append(&mut next.posts);
        deliver(&mut step);
        deliver(&mut next);
        for (index, endpoint) in state.endpoints.iter().enumerate() {
            let posts = out.iter().filter(|post| post.endpoint == index).count();
            assert_eq!(posts, endpoint.in_flight);
            assert!(posts <= SLOTS, "{posts} POSTs out");
        }
        assert!(out.iter().all(|post| (1..=10).contains(&post.slots.len())));
    }
    drain(&mut state, out, now);
    for mut answer in waiting {
        assert!(answer.try_recv().is_ok(), "a call was lost");
    }
    assert!(state.is_idle() && state.queued() == 0);
}

fn some_outcome(post: &Post, random: &mut fastrand::Rng) -> Outcome {
    let url: Arc<str> = "http://node".into();
    let error = ChainError::BadReply { url, what: "noise" };
    match random.u8(0..8) {
        0 => Outcome::Refused { bytes: random.bool(), error },
        1 => Outcome::Failed { error, sent: random.bool() },
        2 => Outcome::Limited { retry_after: Some(MS * random.u32(0..20)) },
        3 => Outcome::Overlong,
        _ => {
            let fault =
                |code| Reply::Error(Fault { code, message: "header not found".to_owned(), data: None });
            let reply = |random: &mut fastrand::Rng| match random.u8(0..6) {
                0 => Reply::Missing,
                1 => fault(-32000),
                2 => fault(-32005),
                _ => Reply::Result(Bytes::from_static(b"1")),
            };
            Outcome::Replies { replies: post.slots.iter().map(|_| reply(random)).collect(), strays: 0 }
        }
    }
}

/// Answers everything, with time for every pause to pass.
fn drain(state: &mut State, mut out: Vec<Post>, mut now: Instant) {
    for _ in 0..1_000 {
        let mut step = Step::default();
        for post in std::mem::take(&mut out) {
            let outcome = answered(&post);
            state.finish(post, outcome, now, &mut step);
        }
        now += 20 * MS;
        let mut next = state.step(now);
        for index in next.probes.drain(..) {
            state.probed(index, now, ProbeOutcome::ChainId(1), now);
        }
        out.append(&mut next.posts);
        deliver(&mut step);
        deliver(&mut next);
        if state.is_idle() {
            return;
        }
    }
}
