//! The events and their fields. One JSON object each, `event` names the kind; amounts are satoshi,
//! hashes hex in display order, durations carry their unit in the name.

mod gate;
mod source;

pub use gate::{
    CoinbaseOnlyWanted, GateExpired, GateHeld, GateResumed, ModeChanged, TipChanged, TipServed, WorkAhead,
    WorkReleased,
};
pub use source::{BlockAnswered, ProposalAnswered, SourceDown, SourceLeads, SourceTips, TipOfSource};

use crate::{
    gate::Mode,
    policy::{Enforcement, Verdict, compare::Counts},
    reason::Reason,
    template::Provenance,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// Everything the gateway says about itself.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant's record documents it")]
pub enum Event {
    GatewayStarted(GatewayStarted),
    GatewayStopped {
        reason: Reason,
    },
    SourceUp {
        source: String,
        address: String,
    },
    SourceDown(SourceDown),
    SourceStale {
        source: String,
        reason: Reason,
    },
    SourceLeads(SourceLeads),
    SourceTips(SourceTips),
    ProposalAnswered(ProposalAnswered),
    TemplateJudged(Box<TemplateJudged>),
    PolicyMonitored(Box<PolicyMonitored>),
    PolicySetSwapped(PolicySetSwapped),
    PolicySetUnchanged {
        reason: Reason,
        trigger: Trigger,
        policy_set: String,
    },
    PolicySetRolledBack(PolicySetRolledBack),
    PolicySwapRefused(PolicySwapRefused),
    ConfigReloaded {
        reason: Reason,
        trigger: Trigger,
        keys: Vec<String>,
    },
    ConfigRestartNeeded {
        reason: Reason,
        keys: Vec<String>,
    },
    TemplateSuperseded {
        reason: Reason,
        template: String,
    },
    WorkReleased(WorkReleased),
    WorkAhead(WorkAhead),
    CoinbaseOnlyWanted(CoinbaseOnlyWanted),
    TipChanged(TipChanged),
    TipServed(TipServed),
    GateHeld(GateHeld),
    GateResumed(GateResumed),
    GateExpired(GateExpired),
    ModeChanged(ModeChanged),
    WorkFailed {
        reason: Reason,
        detail: String,
    },
    ConnectionClosed(ConnectionClosed),
    /// Connections that were not let in, beyond those that have a `connection_closed` each.
    ConnectionsRefused {
        reason: Reason,
        count: u64,
    },
    ChannelOpened(ChannelOpened),
    TargetChanged(TargetChanged),
    ChannelRefused {
        connection: u64,
        user_identity: String,
        reason: Reason,
        detail: String,
    },
    ShareAccepted(ShareAccepted),
    ShareRejected(ShareRejected),
    ShareForwardResult(ShareForwardResult),
    ForwardStatus(ForwardStatus),
    LedgerFailed {
        reason: Reason,
        detail: String,
    },
    /// The ledger's tail was cut off, or its key changed.
    LedgerStatus {
        reason: Reason,
        detail: String,
    },
    BlockFound(BlockFound),
    BlockAnswered(BlockAnswered),
    RecordingFailed {
        reason: Reason,
        detail: String,
        lost: u64,
    },
    EventsDropped {
        count: u64,
    },
}

/// A duration as events have it, whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration as events have it, whole microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The gateway is up.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GatewayStarted {
    /// Version of the gateway.
    pub version: &'static str,
    /// The mode in force.
    pub mode: Mode,
    /// Where templates come from.
    pub source: String,
    /// Digest of the policy set in force.
    pub policy_set: String,
    /// The policies in it, in order.
    pub policies: Vec<String>,
    /// Where miners connect; none in shadow mode.
    pub listen: Option<String>,
    /// The key miners must be given, base58.
    pub authority_key: Option<String>,
    /// Where the HTTP surface listens; none without one.
    pub api: Option<String>,
}

/// A template was judged: what the policies said, and what the mode made of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TemplateJudged {
    /// Digest of the template.
    pub template: String,
    /// Height of the block it would become.
    pub height: u32,
    /// The tip it builds on; all ones when that is still to come.
    pub previous_block_hash: String,
    /// Who made it; `gateway`: without transactions, for want of better or in advance.
    pub provenance: Provenance,
    /// Transactions, without coinbase.
    pub transactions: usize,
    /// Sum of fees, satoshi.
    pub total_fees: u64,
    /// Weight of the transactions, WU.
    pub total_weight: u64,
    /// Sigop cost of the transactions.
    pub total_sigops: u64,
    /// Subsidy and fees, satoshi.
    pub coinbase_value: u64,
    /// Digest of the policy set that judged.
    pub policy_set: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The policy that decided, when one refused.
    pub decided_by: Option<String>,
    /// The verdict says something about this machine at this moment and not about the template.
    pub infrastructure_fault: bool,
    /// What every enforcing policy said.
    pub policies: Vec<PolicyVerdict>,
    /// The mode in force.
    pub mode: Mode,
    /// What became of it.
    pub enforced: Enforced,
    /// Time the evaluation took, microseconds.
    pub duration_us: u64,
}

/// What one policy of the set said.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicyVerdict {
    /// The policy's name in the set.
    pub name: String,
    /// What its rejection does.
    pub enforcement: Enforcement,
    /// Its verdict.
    pub verdict: Verdict,
    /// Fuel used; none when it did not end by itself.
    pub fuel: Option<u64>,
    /// Memory its instance came to have, bytes; none when it did not end by itself.
    pub memory_bytes: Option<usize>,
    /// Time it took, microseconds.
    pub duration_us: u64,
    /// The verdict speaks of this machine at that moment and not of the template.
    pub infrastructure_fault: bool,
}

/// What the monitored policies said about a template that was judged. They decide nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicyMonitored {
    /// `policy_monitor_skipped` when they were not asked, `internal_error` when asking them failed.
    pub reason: Option<Reason>,
    /// Digest of the template.
    pub template: String,
    /// Digest of the policy set they belong to.
    pub policy_set: String,
    /// What each said.
    pub policies: Vec<PolicyVerdict>,
}

/// What set off a change of the policy set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// An HTTP request.
    Http,
    /// SIGHUP.
    Signal,
    /// The configuration file or a module is another than before.
    File,
}

impl Trigger {
    /// The name in events and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Signal => "signal",
            Self::File => "file",
        }
    }
}

/// Another policy set judges from now on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicySetSwapped {
    /// `policy_set_swapped`.
    pub reason: Reason,
    /// What set it off.
    pub trigger: Trigger,
    /// Digest of the set before.
    pub from: String,
    /// Digest of the set now.
    pub to: String,
    /// The policies of the set now, in order.
    pub policies: Vec<String>,
    /// How the two judged the last templates, counted.
    pub difference: Counts,
    /// Time that loading and comparing took, milliseconds.
    pub duration_ms: u64,
}

/// The policy set before judges again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicySetRolledBack {
    /// `policy_set_rolled_back`.
    pub reason: Reason,
    /// What set it off.
    pub trigger: Trigger,
    /// Digest of the set before.
    pub from: String,
    /// Digest of the set now.
    pub to: String,
    /// The policies of the set now, in order.
    pub policies: Vec<String>,
}

/// The policy set was not changed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicySwapRefused {
    /// `policy_swap_refused`, `config_invalid`, `policy_swap_busy` or `policy_rollback_unavailable`.
    pub reason: Reason,
    /// What set it off.
    pub trigger: Trigger,
    /// Digest of the set that still judges.
    pub running: String,
    /// The reason in words.
    pub detail: String,
    /// Every single fault.
    pub faults: Vec<SwapFault>,
}

/// One thing that is wrong with a proposed policy set.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SwapFault {
    /// File and line, or the variable.
    pub place: String,
    /// The policy; none when it is about the configuration.
    pub policy: Option<String>,
    /// The code.
    pub reason: Reason,
    /// What is wrong and what to do.
    pub detail: String,
}

/// What the mode made of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    /// It became work because the policies accepted it.
    Admitted,
    /// It became, or is, work although inline mode would have refused it (observe).
    WouldReject,
    /// It became a future job, for a tip that is still to come.
    Ahead,
    /// It did not become work.
    Refused,
    /// It was only written down (shadow).
    Logged,
    /// Judged again, accepted, and work already: miners keep it.
    InUse,
    /// The answer says nothing about the template (this machine was too slow or too busy); what was decided
    /// before holds, and it is asked again.
    AskedAgain,
    /// Judged again, refused, and work already (inline): it is taken back, miners are held.
    Withdrawn,
    /// It came too late to decide: a newer template, or the verdict timeout, had decided already.
    Superseded,
}

/// A connection ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConnectionClosed {
    /// Number of the connection in this process.
    pub connection: u64,
    /// Address of the peer.
    pub peer: String,
    /// Why.
    pub reason: Reason,
    /// More about it, for people; may be empty.
    pub detail: String,
}

/// A miner has a channel.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChannelOpened {
    /// Number of the connection.
    pub connection: u64,
    /// The channel's id on it.
    pub channel: u32,
    /// `standard` or `extended`.
    pub kind: &'static str,
    /// Who mines.
    pub user_identity: String,
    /// What the client says it is: vendor, hardware, firmware, id; may be empty.
    pub device: String,
    /// Difficulty of its shares.
    pub difficulty: f64,
}

/// A channel's difficulty follows its accepted shares.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TargetChanged {
    /// Number of the connection.
    pub connection: u64,
    /// The channel's id on it.
    pub channel: u32,
    /// Who mines.
    pub user_identity: String,
    /// The new difficulty, for later jobs.
    pub difficulty: f64,
    /// What the accepted shares show, hashes a second.
    pub hashrate: f64,
    /// The time they were counted over, seconds.
    pub window_s: f64,
    /// How many they were.
    pub shares: u64,
}

/// The first of a share's two events: the miner is told Success.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ShareAccepted {
    /// The share's identity: its header hash.
    pub share_id: String,
    /// Who mined it.
    pub user_identity: String,
    /// Which machine behind a proxy, where the proxy says so (SV2 extension 0x0002).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Number of the connection.
    pub connection: u64,
    /// The channel's id on it.
    pub channel: u32,
    /// Number of the job.
    pub job: u64,
    /// Digest of the job's template.
    pub template: String,
    /// Height of the block it would have become.
    pub height: u32,
    /// The tip it was mined on.
    pub previous_block_hash: String,
    /// Difficulty it was credited with (that of its target).
    pub difficulty: f64,
    /// Header version.
    pub version: u32,
    /// Header time, Unix seconds.
    pub ntime: u32,
    /// Header nonce.
    pub nonce: u32,
    /// The full extranonce, hex.
    pub extranonce: String,
    /// Mined on the last job while newer work was held back.
    pub held: bool,
    /// It solves the block.
    pub solves_block: bool,
}

/// A share did not count.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShareRejected {
    /// Why.
    pub reason: Reason,
    /// Number of the connection.
    pub connection: u64,
    /// The channel's id on it.
    pub channel: u32,
    /// Who mined it.
    pub user_identity: String,
    /// The miner's own number for it.
    pub sequence_number: u32,
    /// Shares and channels that this connection was refused before it and that have no event of their own:
    /// beyond a few a second they are only counted.
    pub untold: u64,
}

/// The second of a share's two events: the pool's answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ShareForwardResult {
    /// Joins it to the first.
    pub share_id: String,
    /// `forward_accepted` or `forward_rejected`.
    pub reason: Reason,
    /// The pool's words; may be empty.
    pub detail: String,
    /// How often it was sent.
    pub attempts: u32,
}

/// Forwarding as a whole changed its state.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ForwardStatus {
    /// `forward_retrying` or `forward_recovered`; about the signing key `forward_key_changed` or
    /// `forward_key_unusable`.
    pub reason: Reason,
    /// What happened.
    pub detail: String,
    /// Shares concerned.
    pub shares: usize,
}

/// A share solved a block.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BlockFound {
    /// `block_submitted`, `block_rejected_by_node`, `block_unconfirmed` or `block_submit_failed`.
    pub reason: Reason,
    /// Hash of the block, also the id of the share that solved it.
    pub hash: String,
    /// Its height.
    pub height: u32,
    /// Who mined it.
    pub user_identity: String,
    /// The source's words; may be empty.
    pub detail: String,
    /// What it pays, satoshi.
    pub coinbase_value: u64,
}
