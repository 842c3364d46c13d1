//! What the end of a POST or probe means for its calls and its endpoint.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Group, Post, State, Step};
use crate::chain::{
    entry::{Kind, Meaning},
    error::ChainError,
    reply::{Fault, Reply},
};

/// How a POST ended.
#[derive(Debug)]
pub(in crate::chain) enum Outcome {
    Replies {
        replies: Vec<Reply>,
        strays: u64,
    },
    /// Refused before anything in it was done.
    Refused {
        bytes: bool,
        error: ChainError,
    },
    /// The whole answer is too large to be read; everything in it was done.
    Overlong,
    /// The endpoint wants everybody to wait.
    Limited {
        retry_after: Option<Duration>,
    },
    /// No usable answer. `sent`: the node may have acted on it.
    Failed {
        error: ChainError,
        sent: bool,
    },
}

/// How a probe ended.
#[derive(Debug)]
pub(in crate::chain) enum ProbeOutcome {
    ChainId(u64),
    Limited(Option<Duration>),
    Failed(ChainError),
}

impl State {
    /// A POST ended.
    pub(in crate::chain) fn finish(&mut self, post: Post, outcome: Outcome, now: Instant, step: &mut Step) {
        let Post { endpoint: index, sent, slots, tried, body, .. } = post;
        let endpoint = &mut self.endpoints[index];
        endpoint.in_flight -= 1;
        match outcome {
            Outcome::Replies { replies, strays } => {
                endpoint.answered(now, self.tuning.idle_probe);
                endpoint.limit.accepted(slots.len());
                self.counts.strays += strays;
                for (slot, reply) in slots.into_iter().zip(replies) {
                    self.reply(slot, reply, index, tried, now, step);
                }
            }
            Outcome::Refused { bytes, error } => {
                endpoint.answered(now, self.tuning.idle_probe);
                if slots.len() > 1 && bytes {
                    endpoint.limit.too_large(body.len(), now);
                } else if slots.len() > 1 {
                    endpoint.limit.refused(slots.len(), now);
                }
                self.halve(slots, tried, error, step);
            }
            Outcome::Overlong => {
                endpoint.answered(now, self.tuning.idle_probe);
                let error = ChainError::TooLarge { url: Arc::clone(&endpoint.name), what: "the answer" };
                let slots = self.without_writes(slots, &error, step);
                self.halve(slots, tried, error, step);
            }
            Outcome::Limited { retry_after } => {
                endpoint.limited(now, retry_after);
                self.counts.limited += 1;
                for slot in &slots {
                    self.entries[*slot].attempts -= 1;
                }
                self.again.push_back(Group { slots, tried });
            }
            Outcome::Failed { error, sent: reached } => {
                endpoint.failed(sent, now, &error);
                self.counts.failed += 1;
                let slots = if reached { self.without_writes(slots, &error, step) } else { slots };
                self.elsewhere(slots, tried | 1 << index, error, step);
            }
        }
    }

    /// The probe sent to an endpoint at `sent` ended.
    pub(in crate::chain) fn probed(
        &mut self,
        index: usize,
        sent: Instant,
        outcome: ProbeOutcome,
        now: Instant,
    ) {
        self.counts.probes += 1;
        let endpoint = &mut self.endpoints[index];
        match outcome {
            ProbeOutcome::Limited(retry_after) => {
                endpoint.limited(now, retry_after);
                endpoint.probe_limited();
            }
            ProbeOutcome::ChainId(found) => endpoint.probed(sent, now, Ok(found), self.tuning.idle_probe),
            ProbeOutcome::Failed(error) => endpoint.probed(sent, now, Err(error), self.tuning.idle_probe),
        }
        self.settle(now);
    }

    fn reply(&mut self, slot: usize, reply: Reply, index: usize, tried: u64, now: Instant, step: &mut Step) {
        let url = &self.endpoints[index].name;
        match reply {
            Reply::Result(text) => self.answer(slot, Ok(text), step),
            Reply::Error(fault) => {
                let meaning = fault.meaning(url, &self.secrets[index]);
                self.fault(slot, &fault, meaning, index, tried, now, step);
            }
            Reply::Missing => {
                self.counts.missing += 1;
                let error = ChainError::BadReply { url: Arc::clone(url), what: "no answer to this call" };
                let slots = self.without_writes(vec![slot], &error, step);
                self.elsewhere(slots, tried, error, step);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one reply with its circumstances")]
    fn fault(
        &mut self,
        slot: usize,
        fault: &Fault,
        meaning: Meaning,
        index: usize,
        tried: u64,
        now: Instant,
        step: &mut Step,
    ) {
        match meaning {
            Meaning::Final(error) => self.answer(slot, Err(error), step),
            Meaning::SlowDown(error) => {
                let entry = &mut self.entries[slot];
                entry.slowed += 1;
                entry.attempts -= 1;
                let until = now + fault.slow_down(entry.slowed);
                if entry.deadline <= until {
                    return self.answer(slot, Err(error), step);
                }
                self.counts.limited += 1;
                self.later.push((until, Group { slots: vec![slot], tried }));
            }
            Meaning::Elsewhere(error) => {
                let tried = tried | 1 << index;
                match self.choose(tried, now) {
                    Ok(other) if tried & (1 << other) == 0 => {
                        self.again.push_back(Group { slots: vec![slot], tried });
                    }
                    _ => self.answer(slot, Err(error), step),
                }
            }
        }
    }

    /// A batch was refused: its halves go again; one alone is told why.
    fn halve(&mut self, mut slots: Vec<usize>, tried: u64, error: ChainError, step: &mut Step) {
        if slots.len() <= 1 {
            return slots.into_iter().for_each(|slot| self.answer(slot, Err(error.clone()), step));
        }
        self.counts.split += 1;
        for slot in &slots {
            self.entries[*slot].attempts -= 1;
        }
        let second = slots.split_off(slots.len() / 2);
        self.again.extend([slots, second].map(|slots| Group { slots, tried }));
    }

    /// Sends again what has an attempt left: two in all, or one for each endpoint and one more.
    fn elsewhere(&mut self, slots: Vec<usize>, tried: u64, error: ChainError, step: &mut Step) {
        let most = self.endpoints.len() as u32 + 1;
        let (again, over): (Vec<_>, Vec<_>) =
            slots.into_iter().partition(|slot| self.entries[*slot].attempts < most);
        over.into_iter().for_each(|slot| self.answer(slot, Err(error.clone()), step));
        if !again.is_empty() {
            self.counts.retried += again.len() as u64;
            self.again.push_back(Group { slots: again, tried });
        }
    }

    /// Answers the writes among `slots` with the error: they may have been done. Returns the reads.
    fn without_writes(&mut self, slots: Vec<usize>, error: &ChainError, step: &mut Step) -> Vec<usize> {
        let (reads, writes) = slots.into_iter().partition(|slot| self.entries[*slot].kind == Kind::Read);
        let writes: Vec<_> = writes;
        writes.into_iter().for_each(|slot| self.answer(slot, Err(error.clone()), step));
        reads
    }
}
