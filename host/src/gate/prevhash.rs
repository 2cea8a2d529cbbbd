//! The prevhash gate as a state machine: no clock, no sockets, no tasks.
//!
//! ```text
//! Following ──template on a new tip──► Switching ──accepted within verdict_timeout──► Following
//!                                         ├─ refused, or verdict_timeout passes ──► Holding
//! Holding ──a template on the tip is admitted──► Following
//! Holding ──hold_timeout since the tip moved──► Expired ──a template is admitted──► Following
//! Following ──the work in use is refused after all──► Holding
//! ```
//!
//! The same in observe mode, except that a verdict, or none in time, keeps nothing back: there only a tip
//! without any usable template holds and lets go, since what cannot be assembled cannot be served.
//!
//! While switching or holding, miners keep their last job: nothing told them about the new tip.
//! Verdicts find their template by digest, never by the order in which they arrive. One on the work in
//! use (after a change of policies, or too late in observe mode) takes it back in inline mode when it
//! is a refusal, and so does a change to inline mode when the work in use would have been refused.
//! What was refused last may be taken up again, by a second verdict or by a change to observe mode.

use super::{Action, Admitted, Mode, Phase, Timings, ahead::Ahead};
use crate::{
    policy::Verdict,
    reason::{Reason, VerdictCode},
    template::{Template, TemplateDigest},
};
use bitcoin::BlockHash;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Templates whose verdict may be outstanding at once; the oldest gives way.
const MAX_PENDING: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) sequence: u64,
    pub(super) template: Arc<Template>,
}

/// A template and why inline mode would not have it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) template: Pending,
    pub(super) would_reject: Option<VerdictCode>,
}

impl Judged {
    pub(super) fn digest(&self) -> TemplateDigest {
        self.template.template.digest
    }
}

/// The gate. Every method takes the time; the next moment it wants to be asked is [`Gate::deadline`].
#[derive(Debug)]
pub struct Gate {
    pub(super) mode: Mode,
    pub(super) timings: Timings,
    pub(super) phase: Phase,
    pub(super) tip: Option<BlockHash>,
    /// When the tip moved that is not served yet; a second move restarts nothing for the miners.
    pub(super) unserved_since: Instant,
    pub(super) switch_deadline: Instant,
    pub(super) pending: VecDeque<Pending>,
    /// What miners work on.
    pub(super) in_use: Option<Judged>,
    /// What was taken back from them; they have it still, as held work.
    pub(super) withdrawn: Option<Judged>,
    /// The newest template that was refused since: what observe mode would give out.
    pub(super) refused: Option<Judged>,
    /// A template without transactions that was refused as well.
    pub(super) refused_coinbase_only: Option<Judged>,
    /// The tip for which a template without transactions was asked for last.
    pub(super) coinbase_only_asked: Option<BlockHash>,
    pub(super) ahead: Ahead,
    sequence: u64,
    /// Sequence number of the newest template that was released and had all that its source gave.
    pub(super) released: u64,
}

impl Gate {
    /// A gate that has seen nothing: it is switching to a tip it does not know yet, without a deadline.
    pub fn new(mode: Mode, timings: Timings, now: Instant) -> Self {
        Self {
            mode,
            timings,
            phase: Phase::Switching,
            tip: None,
            unserved_since: now,
            switch_deadline: now,
            pending: VecDeque::with_capacity(MAX_PENDING),
            in_use: None,
            withdrawn: None,
            refused: None,
            refused_coinbase_only: None,
            coinbase_only_asked: None,
            ahead: Ahead::default(),
            sequence: 0,
            released: 0,
        }
    }

    /// Other timings from now on. A verdict that is awaited keeps the deadline it began with.
    pub fn set_timings(&mut self, timings: Timings) {
        self.timings = timings;
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The newest tip; `None` before the first template and while the source is silent.
    pub fn tip(&self) -> Option<BlockHash> {
        self.tip
    }

    /// The templates on which a second verdict would matter: what miners work on or have as a future job,
    /// what was taken back from them, and what was refused last.
    pub fn judged(&self) -> impl Iterator<Item = TemplateDigest> {
        let judged = [&self.in_use, &self.withdrawn, &self.refused, &self.refused_coinbase_only];
        judged.into_iter().flatten().chain(self.sent_ahead()).map(Judged::digest)
    }

    /// Miners wait for work on the newest tip, or a while ago got none but that without transactions: another
    /// template is wanted at once.
    pub fn is_waiting(&self, now: Instant) -> bool {
        let poor = |in_use: &Judged| in_use.template.template.is_coinbase_only();
        let lately = now < self.hold_end();
        let waiting = match self.phase {
            Phase::Switching | Phase::Holding => true,
            Phase::Following => lately && self.in_use.as_ref().is_some_and(poor),
            Phase::Expired => false,
        };
        self.mode == Mode::Inline && waiting
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Since when miners lack work that they should have; of meaning unless the phase is Following.
    pub fn unserved_since(&self) -> Instant {
        self.unserved_since
    }

    /// What miners work on.
    pub fn in_use(&self) -> Option<TemplateDigest> {
        self.in_use.as_ref().map(Judged::digest)
    }

    /// What was taken back from miners, who have it still.
    pub fn withdrawn(&self) -> Option<TemplateDigest> {
        self.withdrawn.as_ref().map(Judged::digest)
    }

    /// The newest template on the tip that was refused since the last release.
    pub fn refused(&self) -> Option<TemplateDigest> {
        self.refused.as_ref().filter(|judged| self.on_the_tip(&judged.template)).map(Judged::digest)
    }

    /// The newest template on the tip whose verdict is awaited.
    pub fn awaited(&self) -> Option<TemplateDigest> {
        self.newest_pending().map(|at| self.pending[at].template.digest)
    }

    pub(super) fn newest_pending(&self) -> Option<usize> {
        self.pending.iter().rposition(|pending| self.on_the_tip(pending))
    }

    pub(super) fn on_the_tip(&self, pending: &Pending) -> bool {
        Some(pending.template.previous_block_hash) == self.tip
    }

    /// The chain has another tip, whether or not there is a template on it yet.
    pub fn on_tip(&mut self, now: Instant, tip: BlockHash) -> Vec<Action> {
        if self.tip == Some(tip) {
            return Vec::new();
        }
        // The hold counts from the first tip that miners were not served, so a second tip change while
        // they are held restarts nothing.
        if self.phase == Phase::Following || self.tip.is_none() {
            self.unserved_since = now;
        }
        if self.phase == Phase::Following {
            self.phase = Phase::Switching;
        }
        self.tip = Some(tip);
        self.switch_deadline = now + self.timings.verdict_timeout;
        self.come_back()
    }

    /// The chain may be back on the tip of what miners still have.
    pub(super) fn come_back(&mut self) -> Vec<Action> {
        let good = |in_use: &Judged| {
            Some(in_use.template.template.previous_block_hash) == self.tip
                && (self.mode == Mode::Observe || in_use.would_reject.is_none())
        };
        if !self.in_use.as_ref().is_some_and(good) {
            return Vec::new();
        }
        match std::mem::replace(&mut self.phase, Phase::Following) {
            Phase::Holding => vec![Action::Resume],
            _ => Vec::new(),
        }
    }

    /// The source gave a template, which is now being judged.
    pub fn on_template(&mut self, now: Instant, template: Arc<Template>) -> Vec<Action> {
        let mut actions = self.on_tip(now, template.previous_block_hash);
        let released = self.activate(now, &template);
        if !released.is_empty() {
            actions.extend(released);
            return actions;
        }
        actions.extend(self.await_verdict(template));
        actions
    }

    pub(super) fn await_verdict(&mut self, template: Arc<Template>) -> Vec<Action> {
        let mut actions = Vec::new();
        let known = |pending: &Pending| pending.template.digest == template.digest;
        let in_use = self.in_use() == Some(template.digest);
        if in_use || self.pending.iter().any(known) {
            // The same once more: the verdict under way, or one more on the work in use, decides.
            return actions;
        }
        if self.pending.len() == MAX_PENDING
            && let Some(oldest) = self.pending.pop_front()
        {
            actions.push(Action::Superseded(oldest.template.digest));
        }
        let sequence = self.next_sequence();
        self.pending.push_back(Pending { sequence, template });
        actions
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// A verdict arrived. It is applied to the template it names, if that still matters.
    pub fn on_verdict(&mut self, now: Instant, digest: TemplateDigest, verdict: &Verdict) -> Vec<Action> {
        let Some(at) = self.pending.iter().position(|p| p.template.digest == digest) else {
            let ahead = self.on_verdict_ahead(digest, verdict);
            return ahead.unwrap_or_else(|| self.on_second_verdict(now, digest, verdict));
        };
        let Some(pending) = self.pending.remove(at) else { return Vec::new() };
        if !self.on_the_tip(&pending) || !self.is_wanted(&pending) {
            return vec![Action::Superseded(digest)];
        }
        match (self.mode, &verdict.reason_code) {
            (Mode::Shadow, None) => Vec::new(),
            (Mode::Shadow, Some(_)) => vec![Action::Refused(digest)],
            (Mode::Observe, code) => self.release(now, pending, code.clone()),
            (Mode::Inline, None) => self.release(now, pending, None),
            (Mode::Inline, code @ Some(_)) => {
                let mut actions = vec![Action::Refused(digest)];
                let slot = match pending.template.is_coinbase_only() {
                    true => &mut self.refused_coinbase_only,
                    false => &mut self.refused,
                };
                *slot = Some(Judged { template: pending, would_reject: code.clone() });
                if self.phase == Phase::Switching {
                    self.phase = Phase::Holding;
                    actions.push(Action::Hold(Reason::PrevhashHeld));
                }
                let nothing_left = self.newest_pending().is_none();
                actions.extend(self.ask_coinbase_only(|_| nothing_left));
                actions
            }
        }
    }

    /// Time passed. Call at or after [`Gate::deadline`]; calling early changes nothing.
    pub fn on_time(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.tip.is_none() || self.mode == Mode::Shadow {
            return actions;
        }
        if self.phase == Phase::Switching && now >= self.switch_end() {
            let newest = self.newest_pending();
            if self.mode == Mode::Observe
                && let Some(pending) = newest.and_then(|at| self.pending.remove(at))
            {
                let late = VerdictCode::Gateway(Reason::PrevhashVerdictTimeout);
                return self.release(now, pending, Some(late));
            }
            self.phase = Phase::Holding;
            let refused = self.in_use.as_ref().is_some_and(|in_use| self.on_the_tip(&in_use.template));
            let reason = match newest {
                Some(_) => Reason::PrevhashVerdictTimeout,
                None if refused => Reason::PrevhashHeld,
                None => Reason::PrevhashTemplateMissing,
            };
            actions.push(Action::Hold(reason));
        }
        if self.phase == Phase::Holding && now >= self.hold_end() {
            self.phase = Phase::Expired;
            self.in_use = None;
            // Nobody has it any more: should it be accepted after all, it goes out like any other.
            let withdrawn = self.withdrawn.take();
            self.refused = self.refused.take().or(withdrawn);
            self.forget_ahead();
            actions.push(Action::Expire(Reason::PrevhashHoldExpired));
        }
        actions.extend(self.ask_coinbase_only(|at| now >= at));
        actions
    }

    /// The source has given no sign of life for its configured time. Inline mode stops serving:
    /// nobody knows whether the tip is still the tip.
    pub fn on_source_stale(&mut self) -> Vec<Action> {
        if self.mode != Mode::Inline {
            return Vec::new();
        }
        // Forget the tip: when the source is back, its first template must be judged like a new tip.
        self.tip = None;
        self.pending.clear();
        self.in_use = None;
        self.withdrawn = None;
        self.refused = None;
        self.refused_coinbase_only = None;
        self.coinbase_only_asked = None;
        self.forget_ahead();
        match std::mem::replace(&mut self.phase, Phase::Expired) {
            Phase::Expired => Vec::new(),
            _ => vec![Action::Expire(Reason::TemplateSourceStale)],
        }
    }

    /// When miners have had enough of their last job.
    fn hold_end(&self) -> Instant {
        self.unserved_since + self.timings.hold_timeout
    }

    /// When the verdict on the newest tip has had its time. Tips that come and go faster than that do not
    /// make a hold longer.
    fn switch_end(&self) -> Instant {
        self.switch_deadline.min(self.hold_end())
    }

    /// When [`Gate::on_time`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        if self.tip.is_none() || self.mode == Mode::Shadow {
            return None;
        }
        let of_phase = match self.phase {
            Phase::Switching => Some(self.switch_end()),
            Phase::Holding => Some(self.hold_end()),
            Phase::Following | Phase::Expired => None,
        };
        of_phase.into_iter().chain(self.coinbase_only_at()).min()
    }

    pub(super) fn release(
        &mut self,
        now: Instant,
        pending: Pending,
        would_reject: Option<VerdictCode>,
    ) -> Vec<Action> {
        let new_tip = self.phase != Phase::Following;
        let since_tip =
            if new_tip { now.saturating_duration_since(self.unserved_since) } else { Duration::ZERO };
        self.phase = Phase::Following;
        if !pending.template.is_coinbase_only() {
            self.released = pending.sequence;
            // Beside a template without transactions, what was refused stays of interest to other policies.
            self.refused = None;
        }
        self.forget_ahead_up_to(pending.template.height);
        // A verdict on it that is still to come is one on the work in use.
        self.pending.retain(|other| other.template.digest != pending.template.digest);
        let template = Admitted::new(pending.template.clone(), would_reject.clone());
        self.in_use = Some(Judged { template: pending, would_reject });
        self.withdrawn = None;
        self.refused_coinbase_only = None;
        vec![Action::Release { template, new_tip, since_tip, ahead: None }]
    }
}

#[cfg(test)]
#[path = "prevhash_tests.rs"]
mod tests;
