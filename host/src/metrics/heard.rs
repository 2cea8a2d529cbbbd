//! What is counted from events: verdicts, the gate's steps and how long they took, blocks, forwarding.
//!
//! On the thread that writes events, so nothing that decides waits for it. Events that were dropped are
//! missing here, and are themselves counted.

use super::meter::{ByReason, COARSE, FINE, Times};
use crate::{
    event::{
        Event, Heard, Listener,
        schema::{Enforced, PolicyVerdict, ShareAccepted, ShareForwardResult, TemplateJudged},
    },
    reason::{Reason, VerdictCode},
    template::Provenance,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Shares whose forwarding is timed at once; of more, the oldest are not.
const MAX_TIMED: usize = 65_536;

/// A verdict and who gave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VerdictLabels {
    code: String,
    policy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PolicyLabels {
    policy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    outcome: &'static str,
}

/// Counts without labels of their own types, under one roof for the reasons.
#[derive(Debug)]
struct Counts {
    gate: ByReason,
    policy_changes: ByReason,
    channels_refused: ByReason,
    forward_results: ByReason,
    forward_status: ByReason,
    source_failures: ByReason,
    blocks: ByReason,
    block_answers: ByReason,
    source_changes: ByReason,
    proposals: ByReason,
    verdict_faults: ByReason,
    failures: ByReason,
    verdict: Times,
    tip_to_job: Times,
    tip_to_served: Times,
    job_to_served: Times,
    held: Times,
    forward: Times,
}

/// What is counted from events. Clones count together.
#[derive(Clone, Debug)]
pub struct HeardMetrics {
    counts: Arc<Counts>,
    verdicts: Family<VerdictLabels, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
    policy_time: Family<PolicyLabels, Histogram, fn() -> Histogram>,
    rejected_in_a_row: Gauge,
    last_template: Gauge,
    backend_up: Gauge,
    channels_opened: Counter,
    dropped: Counter,
    pending: Pending,
}

impl Default for HeardMetrics {
    fn default() -> Self {
        let by = || ByReason::new("code");
        let counts = Counts {
            gate: by(),
            policy_changes: by(),
            channels_refused: by(),
            forward_results: ByReason::showing("code", |reason| {
                matches!(reason, Reason::ForwardAccepted | Reason::ForwardRejected)
            }),
            forward_status: by(),
            source_failures: by(),
            blocks: ByReason::showing("answer", |reason| {
                matches!(
                    reason,
                    Reason::BlockSubmitted | Reason::BlockRejectedByNode | Reason::BlockSubmitFailed
                )
            }),
            block_answers: by(),
            source_changes: by(),
            proposals: by(),
            verdict_faults: ByReason::showing("code", |reason| reason.category() == "engine"),
            failures: ByReason::showing("code", |reason| reason == Reason::LedgerWriteFailed),
            verdict: Times::new(FINE),
            tip_to_job: Times::new(COARSE),
            tip_to_served: Times::new(COARSE),
            job_to_served: Times::new(FINE),
            held: Times::new(COARSE),
            forward: Times::new(COARSE),
        };
        let histogram: fn() -> Histogram = || Histogram::new(FINE.iter().copied());
        let backend_up = Gauge::default();
        backend_up.set(1);
        Self {
            counts: Arc::new(counts),
            verdicts: Family::default(),
            outcomes: Family::default(),
            policy_time: Family::new_with_constructor(histogram),
            rejected_in_a_row: Gauge::default(),
            last_template: Gauge::default(),
            backend_up,
            channels_opened: Counter::default(),
            dropped: Counter::default(),
            pending: Pending::default(),
        }
    }
}

impl HeardMetrics {
    /// Unix time of the last judged template, milliseconds; 0 before the first.
    pub fn last_template_ms(&self) -> i64 {
        self.last_template.get()
    }

    /// Whether the pool backend takes shares, as far as it is known.
    pub fn backend_is_up(&self) -> bool {
        self.backend_up.get() == 1
    }

    /// Shares that the pool backend took.
    pub fn forwarded(&self) -> u64 {
        self.counts.forward_results.of(Reason::ForwardAccepted)
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let mut part = |name: &'static str, help: &'static str, metric: fn(&Counts) -> &ByReason| {
            let owner = self.counts.clone();
            registry.register_collector(Box::new(super::Part { owner, name, help, metric }));
        };
        part("gate_transitions", "Steps of the gate, by reason code.", |c| &c.gate);
        part("policy_changes", "Changes of the policy set that were made or refused, by reason code.", |c| {
            &c.policy_changes
        });
        part("channels_refused", "Channels that were not opened, by reason code.", |c| &c.channels_refused);
        part("forward_results", "Answers of the pool backend to single shares, by reason code.", |c| {
            &c.forward_results
        });
        part("forward_status", "Changes of the state of forwarding, by reason code.", |c| &c.forward_status);
        part("source_failures", "Failures of template sources, by reason code.", |c| &c.source_failures);
        part(
            "source_changes",
            "Changes of the source that leads, and of agreement on the tip, by reason code.",
            |c| &c.source_changes,
        );
        part("proposals", "What the node said to assembled blocks, by reason code.", |c| &c.proposals);
        part("blocks", "Solved blocks, by what became of them.", |c| &c.blocks);
        part("block_answers", "Answers of the template sources to solved blocks, by reason code.", |c| {
            &c.block_answers
        });
        part("verdict_faults", "Templates for which a policy gave no verdict, by reason code.", |c| {
            &c.verdict_faults
        });
        part("failures", "Failures of the gateway's own parts, by reason code.", |c| &c.failures);
        let mut time = |name: &'static str, help: &'static str, metric: fn(&Counts) -> &Times| {
            let owner = self.counts.clone();
            registry.register_collector(Box::new(super::Part { owner, name, help, metric }));
        };
        time("verdict_seconds", "Time the policy set took for a verdict.", |c| &c.verdict);
        time("tip_to_job_seconds", "From the arrival of a tip to the release of work on it.", |c| {
            &c.tip_to_job
        });
        time(
            "tip_to_served_seconds",
            "From the arrival of a tip to the last miner being sent work on it.",
            |c| &c.tip_to_served,
        );
        time(
            "job_to_served_seconds",
            "From the release of work on a new tip to the last miner being sent it.",
            |c| &c.job_to_served,
        );
        time("hold_seconds", "How long miners were held.", |c| &c.held);
        time("share_forward_seconds", "From a share's acceptance to the pool backend's answer.", |c| {
            &c.forward
        });
        registry.register(
            "verdicts",
            "Verdicts of the policy set, by reason code and deciding policy.",
            self.verdicts.clone(),
        );
        registry.register("templates", "Judged templates, by what became of them.", self.outcomes.clone());
        registry.register(
            "policy_seconds",
            "Time that one policy took for a template.",
            self.policy_time.clone(),
        );
        registry.register(
            "rejections_in_a_row",
            "Verdicts in a row that refused their template.",
            self.rejected_in_a_row.clone(),
        );
        registry.register(
            "backend_up",
            "Whether the pool backend takes shares, as far as it is known.",
            self.backend_up.clone(),
        );
        registry.register("channels_opened", "Channels that were opened.", self.channels_opened.clone());
        registry.register(
            "events_dropped",
            "Events that came faster than they could be written.",
            self.dropped.clone(),
        );
    }

    fn judged(&self, event: &TemplateJudged, time_ms: u64) {
        let verdict = &event.verdict;
        let code = verdict.reason_code.as_ref().map_or("accepted", |code| code.as_str()).to_owned();
        if let Some(VerdictCode::Gateway(reason)) = &verdict.reason_code {
            self.counts.verdict_faults.add(*reason);
        }
        let policy = event.decided_by.clone().unwrap_or_default();
        self.verdicts.get_or_create(&VerdictLabels { code, policy }).inc();
        self.outcomes.get_or_create(&OutcomeLabels { outcome: outcome(event.enforced) }).inc();
        self.counts.verdict.observe(Duration::from_micros(event.duration_us));
        self.timed(&event.policies);
        match verdict.accepted {
            true => self.rejected_in_a_row.set(0),
            false => self.rejected_in_a_row.inc(),
        };
        // What the gateway made itself says nothing about the source.
        if event.provenance != Provenance::Gateway {
            self.last_template.set(i64::try_from(time_ms).unwrap_or(i64::MAX));
        }
    }

    fn timed(&self, policies: &[PolicyVerdict]) {
        for policy in policies {
            let labels = PolicyLabels { policy: policy.name.clone() };
            self.policy_time.get_or_create(&labels).observe(policy.duration_us as f64 / 1e6);
        }
    }

    fn held_for(&self, millis: Option<u64>) {
        if let Some(millis) = millis {
            self.counts.held.observe(Duration::from_millis(millis));
        }
    }

    fn forward_status(&self, reason: Reason) {
        self.counts.forward_status.add(reason);
        self.backend_up.set(i64::from(reason != Reason::ForwardRetrying));
    }
}

impl Listener for HeardMetrics {
    fn hear(&mut self, heard: &Heard<'_>) {
        let (counts, now) = (self.counts.clone(), heard.record.time_ms);
        match &heard.record.event {
            Event::GatewayStarted(_)
            | Event::GatewayStopped { .. }
            | Event::SourceUp { .. }
            | Event::ConnectionClosed(_)
            | Event::ConnectionsRefused { .. }
            | Event::LedgerStatus { .. }
            | Event::TargetChanged(_)
            | Event::ShareRejected(_) => {}
            Event::SourceDown(e) => counts.source_failures.add(e.reason),
            Event::SourceStale { reason, .. } => counts.source_failures.add(*reason),
            Event::SourceLeads(e) => counts.source_changes.add(e.reason),
            Event::SourceTips(e) => counts.source_changes.add(e.reason),
            Event::ProposalAnswered(e) => counts.proposals.add(e.reason),
            Event::TemplateJudged(e) => self.judged(e, now),
            Event::PolicyMonitored(e) => self.timed(&e.policies),
            Event::PolicySetSwapped(e) => counts.policy_changes.add(e.reason),
            Event::PolicySetUnchanged { reason, .. } => counts.policy_changes.add(*reason),
            Event::PolicySetRolledBack(e) => counts.policy_changes.add(e.reason),
            Event::PolicySwapRefused(e) => counts.policy_changes.add(e.reason),
            Event::ConfigReloaded { reason, .. } | Event::ConfigRestartNeeded { reason, .. } => {
                counts.policy_changes.add(*reason)
            }
            Event::TemplateSuperseded { reason, .. } => counts.gate.add(*reason),
            Event::WorkReleased(e) => {
                counts.gate.add(e.reason);
                let new_tip =
                    [Reason::PrevhashSwitched, Reason::PrevhashActivated, Reason::CoinbaseOnlyAdmitted];
                if new_tip.contains(&e.reason) {
                    counts.tip_to_job.observe(Duration::from_millis(e.since_tip_ms));
                }
                self.held_for(e.held_ms);
            }
            Event::WorkAhead(e) => counts.gate.add(e.reason),
            Event::CoinbaseOnlyWanted(e) => counts.gate.add(e.reason),
            Event::TipChanged(e) => counts.gate.add(e.reason),
            Event::TipServed(e) => {
                counts.gate.add(e.reason);
                counts.tip_to_served.observe(Duration::from_micros(e.since_tip_us));
                counts.job_to_served.observe(Duration::from_micros(e.since_release_us));
            }
            Event::GateHeld(e) => counts.gate.add(e.reason),
            Event::GateResumed(e) => {
                counts.gate.add(e.reason);
                self.held_for(e.held_ms);
            }
            Event::GateExpired(e) => {
                counts.gate.add(e.reason);
                self.held_for(e.held_ms);
            }
            Event::ModeChanged(e) => counts.gate.add(e.reason),
            Event::WorkFailed { reason, .. }
            | Event::LedgerFailed { reason, .. }
            | Event::RecordingFailed { reason, .. } => counts.failures.add(*reason),
            Event::ChannelOpened(_) => {
                self.channels_opened.inc();
            }
            Event::ChannelRefused { reason, .. } => counts.channels_refused.add(*reason),
            Event::ShareAccepted(e) => self.pending.begun(e, now),
            Event::ShareForwardResult(e) => {
                counts.forward_results.add(e.reason);
                if let Some(began) = self.pending.ended(e) {
                    counts.forward.observe(Duration::from_millis(now.saturating_sub(began)));
                }
            }
            Event::ForwardStatus(e) => self.forward_status(e.reason),
            Event::BlockFound(e) => counts.blocks.add(e.reason),
            Event::BlockAnswered(e) => counts.block_answers.add(e.reason),
            Event::EventsDropped { count } => {
                self.dropped.inc_by(*count);
            }
        }
    }
}

const fn outcome(enforced: Enforced) -> &'static str {
    match enforced {
        Enforced::Admitted => "admitted",
        Enforced::WouldReject => "would_reject",
        Enforced::Ahead => "ahead",
        Enforced::Refused => "refused",
        Enforced::Logged => "logged",
        Enforced::InUse => "in_use",
        Enforced::AskedAgain => "asked_again",
        Enforced::Withdrawn => "withdrawn",
        Enforced::Superseded => "superseded",
    }
}

/// Shares on their way to the pool backend, and since when. Bounded: the oldest is forgotten.
#[derive(Clone, Debug, Default)]
struct Pending {
    since: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl Pending {
    fn begun(&mut self, share: &ShareAccepted, now: u64) {
        let Some(key) = key(&share.share_id) else { return };
        if self.since.insert(key, now).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > MAX_TIMED {
            if let Some(oldest) = self.order.pop_front() {
                self.since.remove(&oldest);
            }
        }
    }

    fn ended(&mut self, share: &ShareForwardResult) -> Option<u64> {
        let began = self.since.remove(&key(&share.share_id)?);
        // Those that were answered leave the queue from its end, as they come.
        while self.order.front().is_some_and(|key| !self.since.contains_key(key)) {
            self.order.pop_front();
        }
        began
    }
}

/// The last 16 digits of a share's hash: the first ones are zeros.
fn key(share_id: &str) -> Option<u64> {
    u64::from_str_radix(share_id.get(share_id.len().checked_sub(16)?..)?, 16).ok()
}
