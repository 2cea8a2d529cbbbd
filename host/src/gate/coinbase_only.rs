//! The gate's way out, when the operator wants one: a template without transactions.
//!
//! It is asked for once a tip: when everything on the tip was refused, or at a configured moment of the hold.
//! It is judged like any other, and goes out only while miners have nothing on the tip; whatever has all that
//! its source gave takes its place once that is admitted, however late.

use super::{Action, Gate, Phase, prevhash::Pending};
use crate::template::Template;
use std::{sync::Arc, time::Instant};

impl Gate {
    /// The template that [`Action::AskCoinbaseOnly`] asked for is there, and being judged.
    pub fn on_coinbase_only(&mut self, template: Arc<Template>) -> Vec<Action> {
        if self.phase == Phase::Following || Some(template.previous_block_hash) != self.tip {
            return vec![Action::Superseded(template.digest)];
        }
        self.await_verdict(template)
    }

    /// A template that has all that its source gave is wanted unless a newer one was released; one without
    /// transactions only while there is nothing better.
    pub(super) fn is_wanted(&self, pending: &Pending) -> bool {
        match pending.template.is_coinbase_only() {
            true => self.phase != Phase::Following,
            false => pending.sequence >= self.released,
        }
    }

    /// Wants a template without transactions for the tip, once, `if_due`, which is told the moment of the hold.
    pub(super) fn ask_coinbase_only(&mut self, if_due: impl FnOnce(Instant) -> bool) -> Option<Action> {
        let tip = self.tip?;
        let at = self.coinbase_only_at()?;
        if !if_due(at) {
            return None;
        }
        self.coinbase_only_asked = Some(tip);
        Some(Action::AskCoinbaseOnly(tip))
    }

    /// When a template without transactions is wanted at the latest. A newer tip has its verdict timeout first.
    pub(super) fn coinbase_only_at(&self) -> Option<Instant> {
        let after = self.timings.coinbase_only_after?;
        let unserved = matches!(self.phase, Phase::Holding | Phase::Expired) && self.tip.is_some();
        let wanted = unserved && self.mode.serves_miners() && self.coinbase_only_asked != self.tip;
        wanted.then(|| self.switch_deadline.max(self.unserved_since + after))
    }
}

#[cfg(test)]
#[path = "coinbase_only_tests.rs"]
mod tests;
