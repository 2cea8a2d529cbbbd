//! When which batch is sent: several at once while the backend answers, one by one with backoff while it
//! does not. Sans-IO: outcomes and times go in, what to do comes out.
//!
//! - No answer (no connection, 5xx, nonsense, refused credentials) says nothing about shares: the backend is
//!   taken to be down, and one batch probes it, with backoff and jitter. Each probe that fails is half as
//!   long, since it may be one share that the backend stumbles over; a single one goes behind the others.
//! - A final refusal (4xx) of a batch is narrowed down by halves, so that one bad share does not take others
//!   with it.
//! - Shares that an answer does not name are sent again by themselves, later each time.
//!
//! A share keeps its place until there is a yes or a no for it. What waits to be sent again is bounded, since
//! nothing fresh is taken while it is much.

use super::{
    answer::{Outcome, Verdict},
    feed::Batch,
};
use crate::reason::Reason;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Batches that may wait to be sent again before nothing fresh is taken.
const MAX_AGAIN: usize = 64;

/// What to do.
#[derive(Debug)]
pub enum Next {
    /// Send this.
    Send(Batch),
    /// Take something fresh, or look again at this time.
    Fresh(Option<Instant>),
    /// Nothing before an outcome comes, or this time.
    Wait(Option<Instant>),
}

/// What an outcome means.
#[derive(Debug, Default)]
pub struct Effects {
    /// Shares that have their answer for good.
    pub verdicts: Vec<Verdict>,
    /// The state of forwarding changed: why, in words, and how many shares it is about.
    pub status: Option<(Reason, String, usize)>,
}

/// The state.
#[derive(Debug)]
pub struct Schedule {
    max_in_flight: usize,
    in_flight: usize,
    /// To be sent again, and not before when.
    again: VecDeque<(Instant, Batch)>,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    until: Instant,
    backoff: Duration,
    /// Shares in the next probe.
    limit: usize,
    probing: bool,
}

impl Schedule {
    /// At most so many requests at once.
    pub fn new(max_in_flight: usize) -> Self {
        Self { max_in_flight, in_flight: 0, again: VecDeque::new(), down: None }
    }

    /// The backend may be another one: at most so many requests at once, and if it was down it is tried now.
    pub fn changed(&mut self, now: Instant, max_in_flight: usize) {
        self.max_in_flight = max_in_flight;
        self.again.iter_mut().for_each(|(due, _)| *due = now.min(*due));
        if let Some(down) = &mut self.down {
            (down.until, down.backoff) = (now, BACKOFF_FIRST);
        }
    }

    /// Whether nothing is on its way and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.again.is_empty()
    }

    /// A batch that was never sent.
    pub fn fresh(&mut self, now: Instant, batch: Batch) {
        self.again.push_back((now, batch));
    }

    /// What to do now.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.in_flight >= self.max_in_flight {
            return Next::Wait(None);
        }
        let mut limit = usize::MAX;
        if let Some(down) = &mut self.down {
            // Those sent before may still come back; only then is one sent to see.
            if self.in_flight > 0 {
                return Next::Wait(None);
            }
            if now < down.until {
                return Next::Wait(Some(down.until));
            }
            limit = down.limit;
        }
        let due = |(due, _): &(Instant, Batch)| *due <= now;
        let earliest = self.again.iter().map(|(due, _)| *due).min();
        let Some((_, mut batch)) = self.again.iter().position(due).and_then(|at| self.again.remove(at))
        else {
            return if self.again.len() < MAX_AGAIN { Next::Fresh(earliest) } else { Next::Wait(earliest) };
        };
        if let Some(rest) = batch.split_off(limit) {
            self.again.push_front((now, rest));
        }
        if let Some(down) = &mut self.down {
            down.probing = true;
        }
        self.in_flight += 1;
        batch.shares.iter_mut().for_each(|share| share.attempts += 1);
        Next::Send(batch)
    }

    /// What became of a batch; `jitter` is between 0 and 1.
    pub fn outcome(&mut self, now: Instant, batch: Batch, outcome: Outcome, jitter: f64) -> Effects {
        self.in_flight = self.in_flight.saturating_sub(1);
        let count = batch.shares.len();
        let mut effects = Effects::default();
        match outcome {
            Outcome::Unanswered(detail, patience) => {
                let probed = self.unanswered(now, patience, jitter, count);
                if probed && count == 1 {
                    self.again.push_back((now, batch));
                } else {
                    self.again.push_front((now, batch));
                }
                effects.status = Some((Reason::ForwardRetrying, detail, count));
                return effects;
            }
            Outcome::Answered { verdicts, rest } => {
                effects.verdicts = verdicts;
                if !rest.is_empty() {
                    let detail = "the answer does not name every share that was sent".into();
                    effects.status = Some((Reason::ForwardRetrying, detail, rest.len()));
                    let attempts = rest.iter().map(|share| share.attempts).max().unwrap_or_default();
                    let backoff = BACKOFF_FIRST.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
                    self.again.push_back((now + jittered(backoff, jitter), batch.with(rest)));
                }
            }
            Outcome::Refused(detail) if count == 1 => {
                let share = batch.shares.into_iter().next();
                let verdict = share.map(|share| Verdict { share, accepted: false, detail });
                effects.verdicts.extend(verdict);
            }
            Outcome::Refused(_) => {
                let mut first = batch;
                let second = first.split_off(count / 2);
                for half in [second, Some(first)].into_iter().flatten() {
                    self.again.push_front((now, half));
                }
            }
        }
        if self.down.take().is_some() && effects.status.is_none() {
            effects.status = Some((Reason::ForwardRecovered, "the backend takes shares again".into(), count));
        }
        effects
    }

    /// Notes that the backend does not answer; true when this was the probe.
    fn unanswered(&mut self, now: Instant, patience: Duration, jitter: f64, count: usize) -> bool {
        let (probed, backoff, limit) = match &self.down {
            None => (false, BACKOFF_FIRST, count.max(1)),
            Some(down) if down.probing => (true, (down.backoff * 2).min(BACKOFF_MAX), (count / 2).max(1)),
            // It was on its way when another one failed.
            Some(down) => (false, down.backoff, down.limit),
        };
        let until = now + jittered(backoff, jitter).max(patience);
        let until = self.down.as_ref().map_or(until, |down| until.max(down.until));
        self.down = Some(Down { until, backoff, limit, probing: false });
        probed
    }
}

/// Between half and all of it.
fn jittered(backoff: Duration, jitter: f64) -> Duration {
    backoff.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
