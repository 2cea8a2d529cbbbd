//! What is told of the template sources: who leads, on which tips they are, and what they say to our blocks.

use crate::reason::Reason;
use schemars::JsonSchema;
use serde::Serialize;

/// A template source failed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SourceDown {
    /// What the operator calls it.
    pub source: String,
    /// Kind and address.
    pub address: String,
    /// Why.
    pub reason: Reason,
    /// What happened and what to do.
    pub detail: String,
    /// When it is tried again, milliseconds from now.
    pub retry_in_ms: u64,
}

/// Templates come from another source from now on, or from none; told where there are several.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SourceLeads {
    /// `source_chosen`, `source_failed_over`, `source_behind`, `source_returned` or `source_missing`.
    pub reason: Reason,
    /// The source that they come from; none when no source can be relied on.
    pub source: Option<String>,
    /// The source that they came from before.
    pub from: Option<String>,
    /// Its tip.
    pub tip: Option<String>,
    /// The height of its tip.
    pub height: Option<u32>,
    /// The tip of the source before, as far as it was known.
    pub tip_before: Option<String>,
    /// The height of that tip.
    pub height_before: Option<u32>,
}

/// The sources are on different tips, or on the same again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SourceTips {
    /// `source_tips_disagree` or `source_tips_agree`.
    pub reason: Reason,
    /// The tip of each source that has named one.
    pub tips: Vec<TipOfSource>,
}

/// The tip of one source.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TipOfSource {
    /// What the operator calls the source.
    pub source: String,
    /// Its tip.
    pub tip: String,
    /// The height of its tip.
    pub height: u32,
    /// The templates come from it.
    pub leads: bool,
}

/// What a node says to a block that was assembled from a template and has no proof of work yet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProposalAnswered {
    /// `proposal_accepted`, `proposal_rejected` or `proposal_unanswered`.
    pub reason: Reason,
    /// Digest of the template.
    pub template: String,
    /// What the operator calls the source that was asked.
    pub source: String,
    /// Its words; may be empty.
    pub detail: String,
    /// Time until its answer, milliseconds.
    pub duration_ms: u64,
}

/// What one source says to a solved block. `block_found` is told once for the block, when it is decided.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BlockAnswered {
    /// A code of the category `block`.
    pub reason: Reason,
    /// What the operator calls the source.
    pub source: String,
    /// Hash of the block.
    pub hash: String,
    /// The source's words; may be empty.
    pub detail: String,
    /// How often it was sent there.
    pub attempts: u32,
    /// Time from the solution to the answer, milliseconds.
    pub duration_ms: u64,
}
