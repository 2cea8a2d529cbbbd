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
//! While switching or holding, miners keep their last job: nothing told them about the new tip.
//! Verdicts find their template by digest, never by the order in which they arrive. One on the work in
//! use (after a change of policies, or too late in observe mode) takes it back in inline mode when it
//! is a refusal, and so does a change to inline mode when the work in use would have been refused.
//! What was refused last may be taken up again, by a second verdict or by a change to observe mode.

use super::{Admitted, Mode};
use crate::{
    policy::Verdict,
    reason::{Reason, VerdictCode},
    template::{Template, TemplateDigest},
};
use bitcoin::BlockHash;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Templates whose verdict may be outstanding at once; the oldest gives way.
const MAX_PENDING: usize = 4;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// From a new tip to the verdict on its first template.
    pub verdict_timeout: Duration,
    /// From the first unserved tip to the disconnection of the miners.
    pub hold_timeout: Duration,
}

/// What miners may do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Work on the current tip is out.
    Following,
    /// A new tip is known, the verdict on its first template is not.
    Switching,
    /// No work on the current tip was admitted yet; miners keep their last job.
    Holding,
    /// The hold lasted too long, or the source fell silent: nobody is served.
    Expired,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Following, Self::Switching, Self::Holding, Self::Expired];

    /// The name in events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Switching => "switching",
            Self::Holding => "holding",
            Self::Expired => "expired",
        }
    }
}

/// What the gateway must do.
#[derive(Debug)]
pub enum Action {
    /// Make a job of this and send it to every miner.
    Release {
        /// The proof.
        template: Admitted<Template>,
        /// The template is the first released on its tip.
        new_tip: bool,
        /// From the tip's arrival to this release.
        since_tip: Duration,
    },
    /// Shares on the last job are from now on "held".
    Hold(Reason),
    /// Tell every miner why, disconnect it, refuse new ones.
    Expire(Reason),
    /// The verdict on this template no longer matters.
    Superseded(TemplateDigest),
    /// The template was refused; what miners have stays valid.
    Refused(TemplateDigest),
    /// A verdict on the work in use, which stays in use. With why inline mode would take it back.
    Confirmed(Option<VerdictCode>),
    /// What miners have is good again (taken back before, or of a tip that the chain came back to); shares
    /// on it are no longer "held".
    Resume,
    /// Miners wait, and there is nothing to give them: another template is wanted at once.
    Ask,
}

#[derive(Clone, Debug)]
struct Pending {
    sequence: u64,
    template: Arc<Template>,
}

/// A template and why inline mode would not have it.
#[derive(Clone, Debug)]
struct Judged {
    template: Pending,
    would_reject: Option<VerdictCode>,
}

/// The gate. Every method takes the time; the next moment it wants to be asked is [`Gate::deadline`].
#[derive(Debug)]
pub struct Gate {
    mode: Mode,
    timings: Timings,
    phase: Phase,
    tip: Option<BlockHash>,
    /// When the tip moved that is not served yet; a second move restarts nothing for the miners.
    unserved_since: Instant,
    switch_deadline: Instant,
    pending: VecDeque<Pending>,
    /// What miners work on.
    in_use: Option<Judged>,
    /// What was taken back from them; they have it still, as held work.
    withdrawn: Option<Judged>,
    /// The newest template that was refused since: what observe mode would give out.
    refused: Option<Judged>,
    sequence: u64,
    released: u64,
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
            sequence: 0,
            released: 0,
        }
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The newest tip; `None` before the first template and while the source is silent.
    pub fn tip(&self) -> Option<BlockHash> {
        self.tip
    }

    /// The templates on which a second verdict would matter: what miners work on, what was taken back from
    /// them, and what was refused last.
    pub fn judged(&self) -> impl Iterator<Item = TemplateDigest> {
        let judged = [&self.in_use, &self.withdrawn, &self.refused];
        judged.into_iter().flatten().map(|judged| judged.template.template.digest)
    }

    /// Miners wait for work on the newest tip, so another template is wanted at once.
    pub fn is_waiting(&self) -> bool {
        self.mode == Mode::Inline && matches!(self.phase, Phase::Switching | Phase::Holding)
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
        self.in_use.as_ref().map(|judged| judged.template.template.digest)
    }

    /// What was taken back from miners, who have it still.
    pub fn withdrawn(&self) -> Option<TemplateDigest> {
        self.withdrawn.as_ref().map(|judged| judged.template.template.digest)
    }

    /// The newest template on the tip that was refused since the last release.
    pub fn refused(&self) -> Option<TemplateDigest> {
        self.refused.as_ref().and_then(|judged| self.on_the_tip(&judged.template))
    }

    /// The newest template on the tip whose verdict is awaited.
    pub fn awaited(&self) -> Option<TemplateDigest> {
        self.pending.back().and_then(|pending| self.on_the_tip(pending))
    }

    fn on_the_tip(&self, pending: &Pending) -> Option<TemplateDigest> {
        (Some(pending.template.previous_block_hash) == self.tip).then_some(pending.template.digest)
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
    fn come_back(&mut self) -> Vec<Action> {
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
        self.sequence += 1;
        if self.pending.len() == MAX_PENDING
            && let Some(oldest) = self.pending.pop_front()
        {
            actions.push(Action::Superseded(oldest.template.digest));
        }
        self.pending.push_back(Pending { sequence: self.sequence, template });
        actions
    }

    /// A verdict arrived. It is applied to the template it names, if that still matters.
    pub fn on_verdict(&mut self, now: Instant, digest: TemplateDigest, verdict: &Verdict) -> Vec<Action> {
        let Some(at) = self.pending.iter().position(|p| p.template.digest == digest) else {
            return self.on_second_verdict(now, digest, verdict);
        };
        let Some(pending) = self.pending.remove(at) else { return Vec::new() };
        if Some(pending.template.previous_block_hash) != self.tip || pending.sequence < self.released {
            return vec![Action::Superseded(digest)];
        }
        match (self.mode, &verdict.reason_code) {
            (Mode::Shadow, None) => Vec::new(),
            (Mode::Shadow, Some(_)) => vec![Action::Refused(digest)],
            (Mode::Observe, code) => self.release(now, pending, code.clone()),
            (Mode::Inline, None) => self.release(now, pending, None),
            (Mode::Inline, code @ Some(_)) => {
                let mut actions = vec![Action::Refused(digest)];
                self.refused = Some(Judged { template: pending, would_reject: code.clone() });
                if self.phase == Phase::Switching {
                    self.phase = Phase::Holding;
                    actions.push(Action::Hold(Reason::PrevhashHeld));
                }
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
        if self.phase == Phase::Switching && now >= self.switch_deadline {
            let newest = self.pending.back().map(|p| p.template.previous_block_hash);
            if self.mode == Mode::Observe
                && newest == self.tip
                && let Some(pending) = self.pending.pop_back()
            {
                let late = VerdictCode::Gateway(Reason::PrevhashVerdictTimeout);
                return self.release(now, pending, Some(late));
            }
            self.phase = Phase::Holding;
            actions.push(Action::Hold(Reason::PrevhashVerdictTimeout));
        }
        if self.phase == Phase::Holding && now >= self.unserved_since + self.timings.hold_timeout {
            self.phase = Phase::Expired;
            self.in_use = None;
            // Nobody has it any more: should it be accepted after all, it goes out like any other.
            let withdrawn = self.withdrawn.take();
            self.refused = self.refused.take().or(withdrawn);
            actions.push(Action::Expire(Reason::PrevhashHoldExpired));
        }
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
        match std::mem::replace(&mut self.phase, Phase::Expired) {
            Phase::Expired => Vec::new(),
            _ => vec![Action::Expire(Reason::TemplateSourceStale)],
        }
    }

    /// When [`Gate::on_time`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        if self.tip.is_none() || self.mode == Mode::Shadow {
            return None;
        }
        match self.phase {
            Phase::Switching => Some(self.switch_deadline),
            Phase::Holding => Some(self.unserved_since + self.timings.hold_timeout),
            Phase::Following | Phase::Expired => None,
        }
    }

    /// The operator changes the mode while miners are served. What the new mode would not have given
    /// out is taken back; what it would have given out, and the old one held, goes out.
    ///
    /// To and from shadow mode there is no change: it has no miners.
    pub fn on_mode(&mut self, now: Instant, mode: Mode) -> Vec<Action> {
        let was = std::mem::replace(&mut self.mode, mode);
        match (was, mode) {
            (Mode::Observe, Mode::Inline) if self.phase == Phase::Following => self.confirm(now),
            (Mode::Inline, Mode::Observe) if self.phase != Phase::Following => self.give_what_there_is(now),
            _ => Vec::new(),
        }
    }

    /// A verdict on something that is no longer waiting for one.
    fn on_second_verdict(&mut self, now: Instant, digest: TemplateDigest, verdict: &Verdict) -> Vec<Action> {
        let named = |judged: &&mut Judged| judged.template.template.digest == digest;
        if let Some(in_use) = self.in_use.as_mut().filter(named) {
            in_use.would_reject.clone_from(&verdict.reason_code);
            return self.confirm(now);
        }
        let tip = self.tip;
        let on_tip = |judged: &&mut Judged| Some(judged.template.template.previous_block_hash) == tip;
        if let Some(withdrawn) = self.withdrawn.as_mut().filter(named).filter(on_tip) {
            withdrawn.would_reject.clone_from(&verdict.reason_code);
            return match &verdict.reason_code {
                Some(_) => vec![Action::Refused(digest)],
                None => self.resume(),
            };
        }
        if let Some(refused) = self.refused.as_mut().filter(named).filter(on_tip) {
            refused.would_reject.clone_from(&verdict.reason_code);
            return match &verdict.reason_code {
                Some(_) => vec![Action::Refused(digest)],
                None => self.release_refused(now),
            };
        }
        match self.mode {
            Mode::Shadow => Vec::new(),
            Mode::Observe | Mode::Inline => vec![Action::Superseded(digest)],
        }
    }

    /// Whether what miners work on may stay.
    fn confirm(&mut self, now: Instant) -> Vec<Action> {
        let would_reject = self.in_use.as_ref().and_then(|in_use| in_use.would_reject.clone());
        if self.mode == Mode::Inline && would_reject.is_some() && self.phase == Phase::Following {
            self.withdrawn = self.in_use.take();
            self.phase = Phase::Holding;
            self.unserved_since = now;
            return vec![Action::Hold(Reason::WorkWithdrawn)];
        }
        vec![Action::Confirmed(would_reject)]
    }

    /// Inline mode held something back, and observe mode does not.
    fn give_what_there_is(&mut self, now: Instant) -> Vec<Action> {
        let tip = self.tip;
        let on_tip = |judged: &Judged| Some(judged.template.template.previous_block_hash) == tip;
        if self.refused.as_ref().is_some_and(on_tip) {
            return self.release_refused(now);
        }
        if self.withdrawn.as_ref().is_some_and(on_tip) {
            return self.resume();
        }
        if self.pending.iter().any(|pending| Some(pending.template.previous_block_hash) == tip) {
            // Its verdict, or the lack of one, releases it.
            self.phase = Phase::Switching;
            return Vec::new();
        }
        vec![Action::Ask]
    }

    /// What was refused last, on the newest tip, is fine now.
    fn release_refused(&mut self, now: Instant) -> Vec<Action> {
        let Some(Judged { template, would_reject }) = self.refused.take() else { return Vec::new() };
        self.release(now, template, would_reject)
    }

    /// Miners have it still: it is not sent again, or they would repeat what they did.
    fn resume(&mut self) -> Vec<Action> {
        self.in_use = self.withdrawn.take();
        self.phase = Phase::Following;
        vec![Action::Resume]
    }

    fn release(&mut self, now: Instant, pending: Pending, would_reject: Option<VerdictCode>) -> Vec<Action> {
        let new_tip = self.phase != Phase::Following;
        let since_tip =
            if new_tip { now.saturating_duration_since(self.unserved_since) } else { Duration::ZERO };
        self.phase = Phase::Following;
        self.released = pending.sequence;
        let template = Admitted::new(pending.template.clone(), would_reject.clone());
        self.in_use = Some(Judged { template: pending, would_reject });
        self.withdrawn = None;
        self.refused = None;
        vec![Action::Release { template, new_tip, since_tip }]
    }
}

#[cfg(test)]
#[path = "prevhash_tests.rs"]
mod tests;
