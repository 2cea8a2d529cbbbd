//! Templates without transactions in the flow: made when the gate wants one, and ahead of the next tip.
//!
//! The way out of a hold needs what the next block must be like: from the newest template of the source on the
//! tip, or, where there is none, from what the source says of its tip. If it says too little, the wish stays
//! until it says more. What was sent ahead is looked for among what comes on a new tip before anything else.

use super::flow::Flow;
use crate::{
    event::{
        Event,
        schema::{self, millis},
        unix_seconds,
    },
    reason::Reason,
    template::{SourceTip, Sourced, Template, TemplateError, coinbase_only::CoinbaseOnly},
};
use bitcoin::BlockHash;
use std::time::Instant;

/// What the operator wants of them.
#[derive(Clone)]
pub(super) struct CoinbaseOnlyPlan {
    /// Makes them.
    pub(super) maker: CoinbaseOnly,
    /// One for the next tip is made ahead as well.
    pub(super) ahead: bool,
    /// The tip on which the gate wants one that could not be made yet.
    pub(super) wanted: Option<BlockHash>,
}

impl Flow {
    /// The gate wants one.
    pub(super) fn want_coinbase_only(&mut self, tip: BlockHash) {
        let Some(plan) = &mut self.coinbase_only else { return };
        plan.wanted = Some(tip);
        self.make_coinbase_only();
        if self.coinbase_only.as_ref().is_some_and(|plan| plan.wanted.is_some()) {
            let detail = format!(
                "the source gave no template on {tip}, nor height, target and smallest time of the block after it"
            );
            self.events.emit(Event::WorkFailed { reason: Reason::CoinbaseOnlyUnavailable, detail });
            self.ask.notify_one();
        }
    }

    /// Makes the one that is wanted, if enough is known by now.
    pub(super) fn make_coinbase_only(&mut self) {
        let Some((plan, tip)) =
            self.coinbase_only.as_mut().and_then(|plan| plan.wanted.map(|tip| (plan, tip)))
        else {
            return;
        };
        if self.gate.tip() != Some(tip) {
            plan.wanted = None;
            return;
        }
        let beside = self.newest.as_ref().filter(|(template, _)| template.previous_block_hash == tip);
        let next = self.source_tip.filter(|known| known.hash == tip).and_then(|known| known.next);
        let made = match (beside, next) {
            (Some((template, context)), _) => plan.maker.beside(template, context),
            (None, Some(next)) => plan.maker.on(tip, next, unix_seconds()),
            (None, None) => return,
        };
        plan.wanted = None;
        let Some(sourced) = self.made(made) else { return };
        self.events.emit(Event::CoinbaseOnlyWanted(schema::CoinbaseOnlyWanted {
            reason: Reason::CoinbaseOnlyWanted,
            mode: self.gate.mode(),
            tip: tip.to_string(),
            template: sourced.template.digest.to_string(),
            since_tip_ms: millis(self.gate.unserved_since().elapsed()),
        }));
        let actions = self.gate.on_coinbase_only(sourced.template.clone());
        self.carry_out(actions);
        self.ask_about(sourced);
    }

    /// Work on a new tip is out: has one for the tip after it judged.
    pub(super) fn make_ahead(&mut self) {
        let Some(plan) = self.coinbase_only.as_ref().filter(|plan| plan.ahead) else { return };
        let Some((template, context)) = &self.newest else { return };
        // A future template of the source has transactions, and is for the same tip.
        if self.gate.has_future_of_source() {
            return;
        }
        if self.gate.tip() == Some(template.previous_block_hash)
            && let Some(sourced) = self.made(plan.maker.after(template, context))
        {
            self.future(sourced);
        }
    }

    /// A template on a new tip came: what was made ahead may have become the one beside it.
    pub(super) fn activate_beside(&mut self, template: &Template) {
        if let Some(plan) = self.plan_with_one_ahead()
            && let Some((_, context)) = &self.newest
        {
            self.activate(plan.maker.beside(template, context));
        }
    }

    /// The same for a tip without a usable template.
    pub(super) fn activate_on(&mut self, tip: SourceTip) {
        if let Some(plan) = self.plan_with_one_ahead()
            && let Some(next) = tip.next
        {
            self.activate(plan.maker.on(tip.hash, next, unix_seconds()));
        }
    }

    fn plan_with_one_ahead(&self) -> Option<&CoinbaseOnlyPlan> {
        self.coinbase_only.as_ref().filter(|plan| plan.ahead && self.gate.ahead().is_some())
    }

    fn activate(&mut self, made: Result<Sourced, TemplateError>) {
        let Some(sourced) = self.made(made) else { return };
        let actions = self.gate.activate(Instant::now(), &sourced.template);
        if !actions.is_empty() {
            self.carry_out(actions);
            self.ask_about(sourced);
        }
    }

    fn made(&self, made: Result<Sourced, TemplateError>) -> Option<Sourced> {
        let made = made.inspect_err(|error| {
            let detail = format!("a template without transactions: {error}");
            self.events.emit(Event::WorkFailed { reason: Reason::CoinbaseOnlyUnavailable, detail });
        });
        made.ok()
    }
}
