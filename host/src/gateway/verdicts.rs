//! What the policies said, as events: verdicts with what the gate made of them, and what monitored policies
//! would have said.

use super::flow::Flow;
use crate::{
    event::{
        Event, Events,
        schema::{self, micros},
    },
    gate::{Action, Mode},
    policy::{Inputs, Judge, Judgement, Monitored, PolicyResult, store::LoadedSet},
    reason::Reason,
    template::Template,
};
use std::sync::Arc;

impl Flow {
    /// Writes down what the policies said, and what the gate made of it.
    pub(super) fn record(&self, template: &Template, judgement: Judgement, actions: &[Action]) {
        let enforced = match actions.first() {
            _ if self.gate.mode() == Mode::Shadow => schema::Enforced::Logged,
            Some(Action::Release { template, .. }) if template.would_reject().is_some() => {
                schema::Enforced::WouldReject
            }
            Some(Action::Release { .. } | Action::Resume) => schema::Enforced::Admitted,
            Some(Action::SendAhead(_)) => schema::Enforced::Ahead,
            Some(Action::Superseded(_)) => schema::Enforced::Superseded,
            Some(Action::Confirmed(None)) => schema::Enforced::InUse,
            Some(Action::Confirmed(Some(_))) => schema::Enforced::WouldReject,
            Some(Action::Hold(Reason::WorkWithdrawn)) => schema::Enforced::Withdrawn,
            None => schema::Enforced::AskedAgain,
            _ => schema::Enforced::Refused,
        };
        self.events.emit(Event::TemplateJudged(Box::new(schema::TemplateJudged {
            template: template.digest.to_string(),
            height: template.height,
            previous_block_hash: template.previous_block_hash.to_string(),
            provenance: template.provenance,
            transactions: template.transactions.len(),
            total_fees: template.facts.total_fees,
            total_weight: template.facts.total_weight,
            total_sigops: template.facts.total_sigops,
            coinbase_value: template.coinbase_value,
            policy_set: judgement.set.to_string(),
            verdict: judgement.verdict,
            decided_by: judgement.decided_by,
            infrastructure_fault: judgement.infrastructure_fault,
            policies: policy_verdicts(judgement.policies),
            mode: self.gate.mode(),
            enforced,
            duration_us: micros(judgement.duration),
        })));
    }
}

/// Asks the monitored policies, now that the verdict is given, and writes down what they say.
pub(super) async fn ask_monitored(judge: Judge, events: Events, by: Arc<LoadedSet>, inputs: Inputs) {
    let (template, policy_set) = (inputs.template.digest.to_string(), by.digest().to_string());
    let (reason, results) = match judge.monitor(by, inputs).await {
        None => return,
        Some(Monitored::Skipped) => (Some(Reason::PolicyMonitorSkipped), Vec::new()),
        Some(Monitored::Failed) => (Some(Reason::InternalError), Vec::new()),
        Some(Monitored::Said(results)) => (None, results),
    };
    events.emit(Event::PolicyMonitored(Box::new(schema::PolicyMonitored {
        reason,
        template,
        policy_set,
        policies: policy_verdicts(results),
    })));
}

fn policy_verdicts(results: Vec<PolicyResult>) -> Vec<schema::PolicyVerdict> {
    let verdict =
        |PolicyResult { name, enforcement, verdict, fuel, memory_bytes, duration, infrastructure_fault }| {
            let duration_us = micros(duration);
            schema::PolicyVerdict {
                name,
                enforcement,
                verdict,
                fuel,
                memory_bytes,
                duration_us,
                infrastructure_fault,
            }
        };
    results.into_iter().map(verdict).collect()
}
