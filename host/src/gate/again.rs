//! The gate's second thoughts: verdicts on what was judged before, and changes of the mode.
//!
//! A second verdict comes after a change of policies, or when the first came too late in observe mode. It
//! may take back what miners work on, and give out what was refused or taken back.

use super::{Action, Gate, Mode, Phase, prevhash::Judged};
use crate::{policy::Verdict, reason::Reason, template::TemplateDigest};
use std::time::Instant;

impl Gate {
    /// The operator changes the mode while miners are served. What the new mode would not have given
    /// out is taken back; what it would have given out, and the old one held, goes out.
    ///
    /// To and from shadow mode there is no change: it has no miners.
    pub fn on_mode(&mut self, now: Instant, mode: Mode) -> Vec<Action> {
        let was = std::mem::replace(&mut self.mode, mode);
        self.drop_ahead_if_refused();
        match (was, mode) {
            (Mode::Observe, Mode::Inline) if self.phase == Phase::Following => self.confirm(now),
            (Mode::Inline, Mode::Observe) if self.phase != Phase::Following => self.give_what_there_is(now),
            _ => Vec::new(),
        }
    }

    /// A verdict on something that is no longer waiting for one.
    pub(super) fn on_second_verdict(
        &mut self,
        now: Instant,
        digest: TemplateDigest,
        verdict: &Verdict,
    ) -> Vec<Action> {
        let named = |judged: &&mut Judged| judged.digest() == digest;
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
        let unserved = self.phase != Phase::Following;
        if let Some(refused) = self.refused_coinbase_only.as_mut().filter(named).filter(on_tip)
            && unserved
        {
            refused.would_reject.clone_from(&verdict.reason_code);
            return match &verdict.reason_code {
                Some(_) => vec![Action::Refused(digest)],
                None => self.release_refused_coinbase_only(now),
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
        let mut actions = vec![Action::Confirmed(would_reject)];
        // Refused before, and on the tip that the chain is on again.
        actions.extend(if self.phase == Phase::Following { Vec::new() } else { self.come_back() });
        actions
    }

    /// Inline mode held something back, and observe mode does not.
    fn give_what_there_is(&mut self, now: Instant) -> Vec<Action> {
        let back = self.come_back();
        if self.phase == Phase::Following {
            return back;
        }
        let tip = self.tip;
        let on_tip = |judged: &Judged| Some(judged.template.template.previous_block_hash) == tip;
        if self.refused.as_ref().is_some_and(on_tip) {
            return self.release_refused(now);
        }
        if self.withdrawn.as_ref().is_some_and(on_tip) {
            return self.resume();
        }
        if self.newest_pending().is_some() {
            // Its verdict, or the lack of one, releases it.
            self.phase = Phase::Switching;
            return Vec::new();
        }
        if self.refused_coinbase_only.as_ref().is_some_and(on_tip) {
            return self.release_refused_coinbase_only(now);
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

    fn release_refused_coinbase_only(&mut self, now: Instant) -> Vec<Action> {
        let refused = self.refused_coinbase_only.take();
        let Some(Judged { template, would_reject }) = refused else { return Vec::new() };
        self.release(now, template, would_reject)
    }
}
