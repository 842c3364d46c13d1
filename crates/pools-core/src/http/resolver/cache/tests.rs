//! Every transition, without a clock and without a server. A lookup is a number here.

use super::*;

const HOUR: u64 = 3_600;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cache(names: usize, stale: u64) -> Cache<u32> {
    Cache::new(Bounds { names, max_ttl: secs(HOUR), stale: secs(stale) })
}

fn found(ttl: u64) -> Outcome {
    Outcome::Found(Arc::new([[127, 0, 0, 1].into()]), secs(ttl))
}

fn failed() -> Outcome {
    Outcome::Failed(Fault::Cut)
}

/// What `name` is now: in a word, with the number of the lookup that is waited for.
fn look(cache: &mut Cache<u32>, name: &str, now: Instant) -> String {
    match cache.look(&name.into(), now, || 1) {
        Look::Fresh(_) => "fresh".to_owned(),
        Look::Stale(_) => "stale".to_owned(),
        Look::Refused(fault) => fault.to_string(),
        Look::Wait { asking, stale: None } => format!("wait for {asking}"),
        Look::Wait { asking, stale: Some(_) } => format!("wait for {asking}, or stale"),
    }
}

#[test]
fn http_32_a_ttl_counts_between_a_second_and_the_longest() {
    let start = Instant::now();
    for (ttl, kept) in [(0, 1), (1, 1), (60, 60), (HOUR, HOUR), (86_400, HOUR)] {
        let mut cache = cache(10, 0);
        assert_eq!(look(&mut cache, "a", start), "wait for 1");
        cache.settle("a", found(ttl), start);
        assert_eq!(look(&mut cache, "a", start + secs(kept) - Duration::from_millis(1)), "fresh", "{ttl}");
        assert_eq!(look(&mut cache, "a", start + secs(kept)), "wait for 1", "{ttl}");
    }
}

#[test]
fn http_32_an_unknown_name_is_refused_for_a_second_at_least_and_ten_at_most() {
    let start = Instant::now();
    for (ttl, kept) in [(0, 1), (5, 5), (HOUR, 10)] {
        let mut cache = cache(10, HOUR);
        look(&mut cache, "a", start);
        // What was known before does not count any more.
        cache.settle("a", found(1), start);
        look(&mut cache, "a", start + secs(1));
        let then = start + secs(1);
        cache.settle("a", Outcome::Unknown(secs(ttl)), then);
        let refused = look(&mut cache, "a", then + secs(kept) - Duration::from_millis(1));
        assert_eq!(refused, "DNS does not know the name", "{ttl}");
        assert_eq!(look(&mut cache, "a", then + secs(kept)), "wait for 1", "{ttl}");
    }
}

#[test]
fn http_32_a_failure_is_remembered_briefly_and_an_old_address_used_meanwhile() {
    let (start, mut cache) = (Instant::now(), cache(10, 60));
    look(&mut cache, "a", start);
    cache.settle("a", failed(), start);
    assert_eq!(look(&mut cache, "a", start), "the lookup was broken off");
    let at = |after: u64| start + secs(after);
    assert_eq!(look(&mut cache, "a", at(1)), "wait for 1");
    cache.settle("a", found(10), at(1));
    assert_eq!(look(&mut cache, "a", at(11)), "wait for 1, or stale");
    // A caller does not wait any longer: neither does the next, nor is the name asked for twice.
    cache.gives_up("a", Fault::Cut, at(12));
    assert_eq!(look(&mut cache, "a", at(16)), "stale");
    assert_eq!(look(&mut cache, "a", at(17)), "wait for 1, or stale");
    cache.settle("a", failed(), at(17));
    assert_eq!(look(&mut cache, "a", at(21)), "stale");
    // Sixty seconds after its time it is used no more.
    assert_eq!(look(&mut cache, "a", at(70)), "wait for 1, or stale");
    assert_eq!(look(&mut cache, "a", at(71)), "wait for 1");
    cache.settle("a", failed(), at(71));
    assert_eq!(look(&mut cache, "a", at(71)), "the lookup was broken off");
    // Whoever gives up after the answer has come changes nothing.
    look(&mut cache, "a", at(80));
    cache.settle("a", found(10), at(80));
    cache.gives_up("a", Fault::Cut, at(80));
    assert_eq!(look(&mut cache, "a", at(80)), "fresh");
}

#[test]
fn http_32_without_a_time_for_old_addresses_none_is_used() {
    let (start, mut cache) = (Instant::now(), cache(10, 0));
    look(&mut cache, "a", start);
    cache.settle("a", found(10), start);
    assert_eq!(look(&mut cache, "a", start + secs(10)), "wait for 1");
}

#[test]
fn http_32_ten_thousand_names_leave_no_more_than_the_cache_holds() {
    let (start, mut cache) = (Instant::now(), cache(100, 0));
    for name in 0..10_000u64 {
        let now = start + Duration::from_millis(name);
        look(&mut cache, &name.to_string(), now);
        assert!(cache.len() <= 100);
        cache.settle(&name.to_string(), found(60 + name), now);
    }
    let end = start + secs(10);
    assert_eq!(look(&mut cache, "9999", end), "fresh");
    assert_eq!(look(&mut cache, "0", end), "wait for 1", "it was the first to end");
    // What is over goes before what is not, and what is asked for stays.
    let later = start + secs(90_000);
    assert_eq!(look(&mut cache, "new", later), "wait for 1");
    assert_eq!(cache.len(), 2);
}
