//! The gate's part in futures: templates for the tip after this one, judged before that tip is known.
//!
//! A future template that is admitted goes to the miners as a future job. When the tip comes, the source
//! gives the template that it became; if that one is the same but for what only the tip says
//! ([`Template::activates`]), it is released at once on the verdict of the future one, and miners need a
//! single small message. It is judged all the same, as itself: a refusal takes it back like any work.
//! A future template that was refused, or has no verdict yet, plays no part: the tip is new as ever.

use super::{
    Action, Admitted, Gate, Mode, Phase,
    prevhash::{Judged, Pending},
};
use crate::{
    policy::Verdict,
    template::{Template, TemplateDigest},
};
use std::{sync::Arc, time::Instant};

/// The next template and the one after it, so to say.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// What miners have as a future job.
    sent: Option<Judged>,
    /// What is being judged, to take its place.
    asked: Option<Arc<Template>>,
}

impl Gate {
    /// The source, or the gateway itself, offers a future template, which is now being judged.
    pub fn on_future(&mut self, template: Arc<Template>) -> Vec<Action> {
        let before = self.ahead.asked.replace(template);
        before.map(|before| Action::Superseded(before.digest)).into_iter().collect()
    }

    /// The source offered a future template, which miners have or which is being judged.
    pub fn has_future_of_source(&self) -> bool {
        let sent = self.ahead.sent.as_ref().map(|sent| &sent.template.template);
        sent.into_iter().chain(&self.ahead.asked).any(|template| !template.is_coinbase_only())
    }

    /// The future template that miners have.
    pub fn ahead(&self) -> Option<TemplateDigest> {
        self.ahead.sent.as_ref().map(Judged::digest)
    }

    /// A template of a new tip came. If it is what the future job of the miners became, it is released:
    /// the verdict on the one is a verdict on the other.
    pub fn activate(&mut self, now: Instant, template: &Arc<Template>) -> Vec<Action> {
        let on_tip = Some(template.previous_block_hash) == self.tip;
        let sent = self.ahead.sent.take_if(|sent| {
            on_tip && self.phase != Phase::Following && template.activates(&sent.template.template)
        });
        let Some(Judged { template: future, would_reject }) = sent else { return Vec::new() };
        let pending = Pending { template: template.clone(), sequence: self.next_sequence() };
        let mut actions = self.release(now, pending, would_reject);
        if let Some(Action::Release { ahead, .. }) = actions.first_mut() {
            *ahead = Some(future.template.digest);
        }
        actions
    }

    /// A verdict on a future template; `None` when the digest names none.
    pub(super) fn on_verdict_ahead(
        &mut self,
        digest: TemplateDigest,
        verdict: &Verdict,
    ) -> Option<Vec<Action>> {
        let code = verdict.reason_code.clone();
        if let Some(sent) = self.ahead.sent.as_mut().filter(|sent| sent.digest() == digest) {
            // Another policy set, or a second look: it stays at the miners, and may be told from now on or not.
            sent.would_reject.clone_from(&code);
            self.drop_ahead_if_refused();
            return Some(match self.ahead.sent {
                Some(_) => vec![Action::Confirmed(code)],
                None => vec![Action::Refused(digest)],
            });
        }
        let template = self.ahead.asked.take_if(|asked| asked.digest == digest)?;
        let refused = code.is_some();
        Some(match self.mode {
            Mode::Shadow if refused => vec![Action::Refused(digest)],
            Mode::Shadow => Vec::new(),
            Mode::Inline if refused => vec![Action::Refused(digest)],
            Mode::Inline | Mode::Observe => {
                let admitted = Admitted::new(template.clone(), code.clone());
                let pending = Pending { template, sequence: self.next_sequence() };
                self.ahead.sent = Some(Judged { template: pending, would_reject: code });
                vec![Action::SendAhead(admitted)]
            }
        })
    }

    /// Inline mode does not activate what was refused.
    pub(super) fn drop_ahead_if_refused(&mut self) {
        self.ahead.sent.take_if(|sent| self.mode == Mode::Inline && sent.would_reject.is_some());
    }

    /// Work at this height is out: what was made ahead for it, or for less, is of the past.
    pub(super) fn forget_ahead_up_to(&mut self, height: u32) {
        self.ahead.sent.take_if(|sent| sent.template.template.height <= height);
        self.ahead.asked.take_if(|asked| asked.height <= height);
    }

    /// Miners are gone, and their future jobs with them.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead = Ahead::default();
    }

    pub(super) fn sent_ahead(&self) -> Option<&Judged> {
        self.ahead.sent.as_ref()
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
