//! The events of the gate: the tip, the work, the holds, the mode. Each transition is one, with its reason,
//! the tip and the template it is about where there is one, and how long it took.

use super::Trigger;
use crate::{gate::Mode, reason::Reason};
use schemars::JsonSchema;
use serde::Serialize;

/// A job was made and goes to every miner.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkReleased {
    /// `prevhash_switched` on a new tip (`prevhash_activated` when miners had the job in advance),
    /// `template_admitted` on the same; `coinbase_only_admitted` when it has no transactions for want of better.
    pub reason: Reason,
    /// Number of the job in this process.
    pub job: u64,
    /// Digest of its template.
    pub template: String,
    /// Height of the block it would become.
    pub height: u32,
    /// The tip it is on.
    pub previous_block_hash: String,
    /// The mode in force.
    pub mode: Mode,
    /// Observe mode: why inline mode would not have released it (a verdict, or none in time).
    pub would_reject: Option<String>,
    /// The gateway made it, without transactions.
    pub coinbase_only: bool,
    /// From the arrival of the tip to the release, milliseconds; 0 on the same tip.
    pub since_tip_ms: u64,
    /// For how long miners had been held until now, milliseconds; none when they were not.
    pub held_ms: Option<u64>,
    /// Connections it goes to.
    pub connections: u64,
}

/// A future job was made and goes to every miner.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkAhead {
    /// `template_ahead`.
    pub reason: Reason,
    /// Number of the job in this process.
    pub job: u64,
    /// Digest of its template; the one that it becomes on its tip has another.
    pub template: String,
    /// Height of the block it would become.
    pub height: u32,
    /// The mode in force.
    pub mode: Mode,
    /// Observe mode: why inline mode would not have sent it.
    pub would_reject: Option<String>,
    /// The gateway made it, without transactions.
    pub coinbase_only: bool,
}

/// The policies are asked about a template without transactions, since miners have nothing on the tip.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CoinbaseOnlyWanted {
    /// `coinbase_only_wanted`.
    pub reason: Reason,
    /// The mode in force.
    pub mode: Mode,
    /// The newest tip.
    pub tip: String,
    /// Digest of the template.
    pub template: String,
    /// For how long miners have lacked work on the tip, milliseconds.
    pub since_tip_ms: u64,
}

/// The chain has another tip.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TipChanged {
    /// `prevhash_moved`.
    pub reason: Reason,
    /// The mode in force.
    pub mode: Mode,
    /// The tip.
    pub tip: String,
    /// Digest of the template that brought it; none when there is no usable template on it yet.
    pub template: Option<String>,
}

/// The last connection that was there when work on a new tip was released has been sent it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TipServed {
    /// `prevhash_served`.
    pub reason: Reason,
    /// Number of the job.
    pub job: u64,
    /// The tip it is on.
    pub tip: String,
    /// Connections that were sent it, or closed meanwhile.
    pub connections: u64,
    /// From the arrival of the tip to the last connection, microseconds.
    pub since_tip_us: u64,
    /// From the release of the job to the last connection, microseconds.
    pub since_release_us: u64,
}

/// Miners keep their last job, and their shares are marked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GateHeld {
    /// `prevhash_verdict_timeout`, `prevhash_held`, `prevhash_template_missing` or `work_withdrawn`.
    pub reason: Reason,
    /// The mode in force.
    pub mode: Mode,
    /// The newest tip.
    pub tip: Option<String>,
    /// Digest of the template that was refused, or whose verdict did not come; none where there is none.
    pub template: Option<String>,
    /// For how long miners have lacked work on the tip, milliseconds.
    pub since_tip_ms: u64,
}

/// What miners have is good again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GateResumed {
    /// `work_resumed`.
    pub reason: Reason,
    /// The mode in force.
    pub mode: Mode,
    /// The newest tip.
    pub tip: Option<String>,
    /// Digest of the template in use.
    pub template: Option<String>,
    /// For how long miners were held, milliseconds.
    pub held_ms: Option<u64>,
}

/// Every miner is told the reason and disconnected.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GateExpired {
    /// `prevhash_hold_expired` or `template_source_stale`.
    pub reason: Reason,
    /// The mode in force.
    pub mode: Mode,
    /// The newest tip; none when the source is silent.
    pub tip: Option<String>,
    /// Digest of the newest template that was refused, or whose verdict is awaited; none where there is none.
    pub template: Option<String>,
    /// For how long miners have lacked work on the tip, milliseconds; none when the source is silent.
    pub since_tip_ms: Option<u64>,
    /// For how long they were held, milliseconds; none when they were not.
    pub held_ms: Option<u64>,
    /// Connections that end.
    pub connections: u64,
}

/// Verdicts have another effect from now on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModeChanged {
    /// `mode_changed`.
    pub reason: Reason,
    /// What set it off.
    pub trigger: Trigger,
    /// The mode before.
    pub from: Mode,
    /// The mode now.
    pub to: Mode,
    /// The newest tip.
    pub tip: Option<String>,
    /// Digest of the template in use.
    pub template: Option<String>,
}
