//! The batcher of one provider: which calls go into which POST to which endpoint, and what its answer means.
//!
//! ```text
//!  submit ─► fresh ──nothing out, batch full, or stall over──► POST ──reply──► answered
//!                                          ▲                    │
//!                      again ──────────────┘◄ halved, elsewhere ┤ refused, failed, missing
//!                        ▲                                      │
//!                      later ◄── told to slow down ─────────────┘
//! ```
//!
//! At most [`SLOTS`] POSTs are out to an endpoint, [`MAX_QUEUE`] calls queue. **No clock, no I/O**: time comes in as an
//! argument, and what is to be done goes out as a [`Step`]. **Cancel**: a caller that went away is found by its closed
//! channel; a call nobody waits for is not sent, one that is sent already stays with its batch.
//! **Sharing**: an identical read joins the one that is queued or out, but never one from before something may have
//! changed (a write or a receipt came back since): a caller must see what its own transaction did.

mod outcome;
mod step;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use slab::Slab;
use tokio::{sync::oneshot, time::Instant};

use super::{
    endpoint::{Endpoint, Use},
    entry::{Answer, Entry, Kind, Secrets},
    error::ChainError,
    stats::Counts,
};

pub(super) use outcome::{Outcome, ProbeOutcome};
use step::Group;
pub(super) use step::{NewCall, Post, Step, Tuning};

/// POSTs out to one endpoint at once; 100 calls × 4 was the best point measured on anvil.
pub(super) const SLOTS: usize = 4;
/// Calls that may queue. A scan of 10,000 loans fits several times.
pub(super) const MAX_QUEUE: usize = 65_536;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct State {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) counts: Counts,
    pub(super) chain_id: Option<u64>,
    tuning: Tuning,
    secrets: Vec<Secrets>,
    entries: Slab<Entry>,
    shared: HashMap<Arc<str>, usize>,
    fresh: VecDeque<usize>,
    again: VecDeque<Group>,
    later: Vec<(Instant, Group)>,
    /// Grows whenever an answer may have changed; a read joins only reads of its own epoch.
    epoch: u64,
    next_id: u64,
    closed: bool,
    /// All endpoints want everybody to wait: each new call is told at once whether it can.
    held_back: bool,
}

impl State {
    pub(super) fn new(tuning: Tuning, endpoints: Vec<Endpoint>, secrets: Vec<Secrets>) -> Self {
        Self {
            endpoints,
            counts: Counts::default(),
            chain_id: None,
            tuning,
            secrets,
            entries: Slab::new(),
            shared: HashMap::new(),
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            later: Vec::new(),
            epoch: 0,
            next_id: 1,
            closed: false,
            held_back: false,
        }
    }

    /// Queues a call, or joins an identical read. Returns where the answer will come, and whether the driver must be
    /// woken for it.
    pub(super) fn submit(
        &mut self,
        call: NewCall,
        now: Instant,
    ) -> Result<(oneshot::Receiver<Answer>, bool), ChainError> {
        if self.closed {
            return Err(ChainError::Closed);
        }
        let (waiter, answer) = oneshot::channel();
        if call.kind == Kind::Read
            && let Some(slot) = self.shared.get(&call.text)
            && self.entries[*slot].epoch == self.epoch
        {
            let entry = &mut self.entries[*slot];
            entry.waiters.push(waiter);
            entry.deadline = entry.deadline.max(call.deadline);
            entry.attempt = entry.attempt.max(call.attempt);
            self.counts.shared += 1;
            return Ok((answer, false));
        }
        self.make_room()?;
        let NewCall { text, kind, deadline, attempt } = call;
        let (epoch, waiters) = (self.epoch, vec![waiter]);
        let entry = Entry {
            text: Arc::clone(&text),
            kind,
            waiters,
            queued: now,
            deadline,
            attempt,
            epoch,
            attempts: 0,
            slowed: 0,
        };
        let slot = self.entries.insert(entry);
        if kind == Kind::Read {
            self.shared.insert(text, slot);
        }
        self.fresh.push_back(slot);
        // The first arms the timer, a full batch may go at once; those between ride along.
        let queued = self.fresh.len();
        Ok((answer, queued == 1 || queued.is_multiple_of(self.tuning.max_calls) || self.held_back))
    }

    /// What is to be done now.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        self.settle(now);
        for (index, endpoint) in self.endpoints.iter_mut().enumerate() {
            match endpoint.probe(now) {
                Ok(()) => step.probes.push(index),
                Err(again) => again.into_iter().for_each(|at| step.wake_at(at)),
            }
        }
        self.send_again(now, &mut step);
        self.send_fresh(now, &mut step);
        step
    }

    /// Refuses new calls. Those queued go on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Gives up what is left, and names it.
    pub(super) fn cut(&mut self, step: &mut Step) -> Vec<String> {
        self.close();
        let describe = |entry: &Entry| entry.text.split('"').nth(3).unwrap_or_default().to_owned();
        let cut = self.entries.iter_mut().filter_map(|(_, entry)| entry.is_wanted().then(|| describe(entry)));
        let cut = cut.collect();
        let slots: Vec<_> = self.entries.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let entry = &self.entries[slot];
            let in_doubt = entry.kind == Kind::Write && entry.attempts > 0;
            let what = "closed before the answer came";
            let error =
                if in_doubt { ChainError::BadReply { url: "".into(), what } } else { ChainError::Closed };
            self.answer(slot, Err(error), step);
        }
        self.fresh.clear();
        self.again.clear();
        self.later.clear();
        cut
    }

    /// Calls that wait to be sent.
    pub(super) fn queued(&self) -> usize {
        let groups = self.again.iter().chain(self.later.iter().map(|(_, group)| group));
        self.fresh.len() + groups.map(|group| group.slots.len()).sum::<usize>()
    }

    /// Whether no call is queued or out.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    /// Up when any endpoint is; `None` before the first answer.
    pub(super) fn health(&self) -> Option<Result<(), ChainError>> {
        let verdicts = || self.endpoints.iter().filter_map(Endpoint::health);
        if verdicts().any(|verdict| verdict.is_ok()) {
            return Some(Ok(()));
        }
        let all_known = verdicts().count() == self.endpoints.len();
        verdicts().next().filter(|_| all_known)
    }

    fn settle(&mut self, now: Instant) {
        for (index, endpoint) in self.endpoints.iter_mut().enumerate() {
            let may_change = index == 0 && !self.tuning.fixed_network;
            if !endpoint.settle(&mut self.chain_id, may_change, now) {
                break;
            }
        }
    }

    fn make_room(&mut self) -> Result<(), ChainError> {
        if self.fresh.len() < MAX_QUEUE {
            return Ok(());
        }
        let queued = std::mem::take(&mut self.fresh);
        self.fresh = queued.into_iter().filter(|slot| self.keep_wanted(*slot)).collect();
        match self.fresh.len() {
            MAX_QUEUE.. => Err(ChainError::QueueFull { waiting: self.fresh.len() }),
            _ => Ok(()),
        }
    }

    fn keep_wanted(&mut self, slot: usize) -> bool {
        let wanted = self.entries[slot].is_wanted();
        if !wanted {
            self.remove(slot);
        }
        wanted
    }

    /// The endpoint for calls that `tried` ones have failed: the most preferred untried one, else one to try again.
    fn choose(&self, tried: u64, now: Instant) -> Result<usize, Use> {
        let untried = |index: usize| tried & (1 << index) == 0;
        let mut best = Use::No(ChainError::BadUrl { printed: "(none given)".to_owned() });
        for again in [false, true] {
            for (index, endpoint) in
                self.endpoints.iter().enumerate().filter(|(index, _)| untried(*index) != again)
            {
                match (endpoint.usable(now), &best) {
                    (Use::Now, _) => return Ok(index),
                    (Use::Later(at), Use::Later(other)) => best = Use::Later(earlier(at, *other)),
                    (Use::Later(at), _) => best = Use::Later(at),
                    // The most preferred endpoint's reason is the one to tell.
                    (Use::No(error), Use::No(ChainError::BadUrl { .. })) => best = Use::No(error),
                    (Use::No(_), _) => {}
                }
            }
        }
        Err(best)
    }

    fn send_again(&mut self, now: Instant, step: &mut Step) {
        let due = self.later.extract_if(.., |(at, _)| *at <= now).map(|(_, group)| group);
        self.again.extend(due);
        if let Some(at) = self.later.iter().map(|(at, _)| *at).min() {
            step.wake_at(at);
        }
        for _ in 0..self.again.len() {
            let Some(mut group) = self.again.pop_front() else { break };
            match self.choose(group.tried, now) {
                Ok(index) if self.endpoints[index].in_flight < SLOTS => {
                    let mut slots = group.slots.into();
                    self.post(index, &mut slots, group.tried, now, step);
                    if !slots.is_empty() {
                        self.again.push_back(Group { slots: slots.into(), tried: group.tried });
                    }
                }
                Ok(_) => self.again.push_back(group),
                Err(Use::No(error)) => {
                    group.slots.into_iter().for_each(|slot| self.answer(slot, Err(error.clone()), step));
                }
                Err(Use::Now | Use::Later(None)) => self.again.push_back(group),
                Err(Use::Later(Some(until))) => {
                    step.wake_at(until);
                    group.slots.retain(|slot| self.can_wait(*slot, until, now, step));
                    self.again.push_back(group);
                }
            }
        }
        self.again.retain(|group| !group.slots.is_empty());
    }

    fn send_fresh(&mut self, now: Instant, step: &mut Step) {
        self.held_back = false;
        while let Some(oldest) = self.fresh.front() {
            let oldest = self.entries[*oldest].queued;
            match self.choose(0, now) {
                Ok(index) => {
                    let endpoint = &mut self.endpoints[index];
                    if endpoint.in_flight >= SLOTS {
                        return;
                    }
                    let full = self.fresh.len() >= endpoint.limit.next(now).0;
                    let stalled = now >= oldest + self.tuning.stall;
                    if !(full || stalled || endpoint.in_flight == 0) {
                        step.wake_at(oldest + self.tuning.stall);
                        return;
                    }
                    let mut fresh = std::mem::take(&mut self.fresh);
                    self.post(index, &mut fresh, 0, now, step);
                    self.fresh = fresh;
                }
                Err(Use::No(error)) => {
                    let slots = std::mem::take(&mut self.fresh);
                    slots.into_iter().for_each(|slot| self.answer(slot, Err(error.clone()), step));
                }
                Err(Use::Now | Use::Later(None)) => return,
                Err(Use::Later(Some(until))) => {
                    self.held_back = true;
                    step.wake_at(until);
                    let slots = std::mem::take(&mut self.fresh);
                    self.fresh =
                        slots.into_iter().filter(|slot| self.can_wait(*slot, until, now, step)).collect();
                    return;
                }
            }
        }
    }

    /// Whether a call has time until `until`; if not, it is told so at once.
    fn can_wait(&mut self, slot: usize, until: Instant, now: Instant, step: &mut Step) -> bool {
        let waits = self.entries[slot].deadline > until;
        if !waits {
            let url = self.endpoints.iter().find(|endpoint| endpoint.paused(now).is_some());
            let url = url.map_or_else(|| Arc::from(""), |endpoint| Arc::clone(&endpoint.name));
            self.answer(slot, Err(ChainError::RateLimited { url, retry_after: until - now }), step);
        }
        waits
    }

    /// Takes as many calls from the front of `slots` as one POST may have.
    fn post(&mut self, index: usize, slots: &mut VecDeque<usize>, tried: u64, now: Instant, step: &mut Step) {
        let (max_calls, max_bytes) = self.endpoints[index].limit.next(now);
        let mut taken = Vec::with_capacity(max_calls.min(slots.len()));
        let (mut size, mut attempt, mut reads_only, mut oldest) = (2, Duration::ZERO, true, now);
        while let Some(slot) = slots.front().copied() {
            // `{"jsonrpc":"2.0","id":18446744073709551615,},` around the text.
            let bytes = self.entries[slot].text.len() + 48;
            if taken.len() == max_calls || (!taken.is_empty() && size + bytes > max_bytes) {
                break;
            }
            slots.pop_front();
            if !self.keep_wanted(slot) {
                self.counts.unsent += 1;
                continue;
            }
            let entry = &mut self.entries[slot];
            entry.attempts += 1;
            attempt = attempt.max(entry.attempt.min(entry.deadline.saturating_duration_since(now)));
            reads_only &= entry.kind == Kind::Read;
            oldest = oldest.min(entry.queued);
            size += bytes;
            taken.push(slot);
        }
        if taken.is_empty() {
            return;
        }
        let first_id = self.next_id;
        self.next_id += taken.len() as u64;
        let body = self.body(&taken, first_id, size);
        self.counts.posts += 1;
        self.counts.calls += taken.len() as u64;
        self.endpoints[index].in_flight += 1;
        step.posts.push(Post {
            endpoint: index,
            body,
            first_id,
            sent: now,
            deadline: now + attempt,
            reads_only,
            slots: taken,
            waited: now - oldest,
            tried,
        });
    }

    fn body(&self, slots: &[usize], first_id: u64, size: usize) -> Vec<u8> {
        use std::io::Write;
        let mut body = Vec::with_capacity(size);
        let list = slots.len() > 1;
        for (slot, id) in slots.iter().zip(first_id..) {
            body.push(if list { if id == first_id { b'[' } else { b',' } } else { b' ' });
            let text = &self.entries[*slot].text;
            write!(body, "{{\"jsonrpc\":\"2.0\",\"id\":{id},{text}}}").expect("BUG: a Vec takes any bytes");
        }
        if list {
            body.push(b']');
        }
        body
    }

    fn answer(&mut self, slot: usize, answer: Answer, step: &mut Step) {
        let entry = self.remove(slot);
        let receipt = || entry.text.starts_with("\"method\":\"eth_getTransactionReceipt\"");
        let is_news = |text: &Bytes| entry.kind == Kind::Write || (receipt() && &text[..] != b"null");
        if answer.as_ref().is_ok_and(is_news) {
            self.epoch += 1;
        }
        step.answers.push((entry.waiters, answer));
    }

    fn remove(&mut self, slot: usize) -> Entry {
        let entry = self.entries.remove(slot);
        if self.shared.get(&entry.text) == Some(&slot) {
            self.shared.remove(&entry.text);
        }
        entry
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
