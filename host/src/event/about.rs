//! What every event is, whatever its fields: its name, the room that said it, and how grave it is. Readers
//! choose by these, metrics count by them.

use super::Event;
use crate::reason::{Reason, Severity};
use serde::Serialize;

/// An event in three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    /// The `event` of its record.
    pub name: &'static str,
    /// The room of the gateway that said it.
    pub room: &'static str,
    /// How much attention it deserves.
    pub severity: Severity,
}

/// Every event with its room, in the order of the schema.
pub const EVENTS: &[(&str, &str)] = &[
    ("gateway_started", "gateway"),
    ("gateway_stopped", "gateway"),
    ("source_up", "source"),
    ("source_down", "source"),
    ("source_stale", "source"),
    ("source_leads", "source"),
    ("source_tips", "source"),
    ("proposal_answered", "template"),
    ("template_judged", "template"),
    ("policy_monitored", "policy"),
    ("policy_set_swapped", "policy"),
    ("policy_set_unchanged", "policy"),
    ("policy_set_rolled_back", "policy"),
    ("policy_swap_refused", "policy"),
    ("config_reloaded", "config"),
    ("config_restart_needed", "config"),
    ("template_superseded", "gate"),
    ("work_released", "gate"),
    ("work_ahead", "gate"),
    ("coinbase_only_wanted", "gate"),
    ("tip_changed", "gate"),
    ("tip_served", "gate"),
    ("gate_held", "gate"),
    ("gate_resumed", "gate"),
    ("gate_expired", "gate"),
    ("mode_changed", "gate"),
    ("work_failed", "gate"),
    ("connection_closed", "miner"),
    ("connections_refused", "miner"),
    ("channel_opened", "miner"),
    ("target_changed", "miner"),
    ("channel_refused", "miner"),
    ("share_accepted", "share"),
    ("share_rejected", "share"),
    ("share_forward_result", "ledger"),
    ("forward_status", "ledger"),
    ("ledger_failed", "ledger"),
    ("ledger_status", "ledger"),
    ("block_found", "block"),
    ("block_answered", "block"),
    ("recording_failed", "record"),
    ("events_dropped", "event"),
];

/// Whether miners can cause events of this name as often as they like.
pub fn is_of_miners(name: &str) -> bool {
    matches!(
        name,
        "connection_closed"
            | "channel_opened"
            | "target_changed"
            | "channel_refused"
            | "share_accepted"
            | "share_rejected"
            | "share_forward_result"
    )
}

impl Event {
    /// Its name, room and severity.
    pub fn about(&self) -> About {
        let (name, severity) = self.name_and_severity();
        // A test sees to it that every name is in the list.
        let room = EVENTS.iter().find(|(known, _)| *known == name).map_or("gateway", |(_, room)| room);
        About { name, room, severity }
    }

    fn name_and_severity(&self) -> (&'static str, Severity) {
        let of = |reason: &Reason| reason.severity();
        match self {
            Self::GatewayStarted(_) => ("gateway_started", Severity::Info),
            Self::GatewayStopped { reason } => ("gateway_stopped", of(reason)),
            Self::SourceUp { .. } => ("source_up", Severity::Info),
            Self::SourceDown(e) => ("source_down", of(&e.reason)),
            Self::SourceStale { reason, .. } => ("source_stale", of(reason)),
            Self::SourceLeads(e) => ("source_leads", of(&e.reason)),
            Self::SourceTips(e) => ("source_tips", of(&e.reason)),
            Self::ProposalAnswered(e) => ("proposal_answered", of(&e.reason)),
            Self::TemplateJudged(e) => {
                let severity = match (&e.verdict.accepted, e.infrastructure_fault) {
                    (true, _) => Severity::Info,
                    (false, true) => Severity::Error,
                    (false, false) => Severity::Warning,
                };
                ("template_judged", severity)
            }
            Self::PolicyMonitored(e) => {
                let rejected = e.policies.iter().any(|policy| !policy.verdict.accepted);
                let said = if rejected { Severity::Warning } else { Severity::Info };
                ("policy_monitored", e.reason.as_ref().map_or(said, of))
            }
            Self::PolicySetSwapped(e) => ("policy_set_swapped", of(&e.reason)),
            Self::PolicySetUnchanged { reason, .. } => ("policy_set_unchanged", of(reason)),
            Self::PolicySetRolledBack(e) => ("policy_set_rolled_back", of(&e.reason)),
            Self::PolicySwapRefused(e) => ("policy_swap_refused", of(&e.reason)),
            Self::ConfigReloaded { reason, .. } => ("config_reloaded", of(reason)),
            Self::ConfigRestartNeeded { reason, .. } => ("config_restart_needed", of(reason)),
            Self::TemplateSuperseded { reason, .. } => ("template_superseded", of(reason)),
            Self::WorkReleased(e) => ("work_released", of(&e.reason)),
            Self::WorkAhead(e) => ("work_ahead", of(&e.reason)),
            Self::CoinbaseOnlyWanted(e) => ("coinbase_only_wanted", of(&e.reason)),
            Self::TipChanged(e) => ("tip_changed", of(&e.reason)),
            Self::TipServed(e) => ("tip_served", of(&e.reason)),
            Self::GateHeld(e) => ("gate_held", of(&e.reason)),
            Self::GateResumed(e) => ("gate_resumed", of(&e.reason)),
            Self::GateExpired(e) => ("gate_expired", of(&e.reason)),
            Self::ModeChanged(e) => ("mode_changed", of(&e.reason)),
            Self::WorkFailed { reason, .. } => ("work_failed", of(reason)),
            Self::ConnectionClosed(e) => ("connection_closed", of(&e.reason)),
            Self::ConnectionsRefused { reason, .. } => ("connections_refused", of(reason)),
            Self::ChannelOpened(_) => ("channel_opened", Severity::Info),
            Self::TargetChanged(_) => ("target_changed", Severity::Info),
            Self::ChannelRefused { reason, .. } => ("channel_refused", of(reason)),
            Self::ShareAccepted(_) => ("share_accepted", Severity::Info),
            Self::ShareRejected(e) => ("share_rejected", of(&e.reason)),
            Self::ShareForwardResult(e) => ("share_forward_result", of(&e.reason)),
            Self::ForwardStatus(e) => ("forward_status", of(&e.reason)),
            Self::LedgerFailed { reason, .. } => ("ledger_failed", of(reason)),
            Self::LedgerStatus { reason, .. } => ("ledger_status", of(reason)),
            Self::BlockFound(e) => ("block_found", of(&e.reason)),
            Self::BlockAnswered(e) => ("block_answered", of(&e.reason)),
            Self::RecordingFailed { reason, .. } => ("recording_failed", of(reason)),
            Self::EventsDropped { .. } => ("events_dropped", Severity::Warning),
        }
    }
}
