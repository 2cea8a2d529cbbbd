//! How two policy sets judge the same templates: what an operator sees before and after a swap.
//!
//! An answer that says something about this machine (its clock, its load) and not about the template is
//! counted apart: it is no difference between the sets.

use super::verdict::{Judgement, SetDigest};
use crate::template::{Template, TemplateDigest};
use schemars::JsonSchema;
use serde::Serialize;

/// How two sets judge the same templates.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Difference {
    /// The running set.
    pub running: SetDigest,
    /// The proposed set.
    pub proposed: SetDigest,
    /// What came of it, counted.
    pub counts: Counts,
    /// Every template that was judged again, oldest first.
    pub templates: Vec<Compared>,
}

/// The templates of a replay, counted. The last five are the parts of the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counts {
    /// Templates judged again by both sets.
    pub replayed: usize,
    /// Both sets say the same, for the same reason.
    pub same: usize,
    /// The running set accepts, the proposed one rejects.
    pub newly_rejected: usize,
    /// The running set rejects, the proposed one accepts.
    pub newly_accepted: usize,
    /// Both reject, with another code or by another policy.
    pub other_reason: usize,
    /// One of the two could not be asked properly (this machine was too slow or too busy).
    pub infrastructure_faults: usize,
}

/// One template, judged by both sets.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Compared {
    /// The template.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub template: TemplateDigest,
    /// Height of the block it would become.
    pub height: u32,
    /// What it is counted as.
    pub outcome: Outcome,
    /// What the running set says.
    pub running: Answer,
    /// What the proposed set says.
    pub proposed: Answer,
}

/// What two answers to the same template are to each other; see [`Counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of Counts say it")]
pub enum Outcome {
    Same,
    NewlyRejected,
    NewlyAccepted,
    OtherReason,
    InfrastructureFault,
}

/// What one set said in a replay.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Answer {
    /// Whether it accepts.
    pub accepted: bool,
    /// Why not.
    pub reason_code: Option<String>,
    /// The same in words.
    pub reason_detail: Option<String>,
    /// The policy that decided.
    pub decided_by: Option<String>,
    /// Fuel of all its policies together, as far as it is known.
    pub fuel: u64,
    /// Time it took, microseconds.
    pub duration_us: u64,
    /// The answer says something about this machine at that moment and not about the template.
    pub infrastructure_fault: bool,
}

impl Answer {
    fn of(judgement: Judgement) -> Self {
        Self {
            accepted: judgement.verdict.accepted,
            reason_code: judgement.verdict.reason_code.map(|code| code.to_string()),
            reason_detail: judgement.verdict.reason_detail,
            decided_by: judgement.decided_by,
            fuel: judgement.policies.iter().filter_map(|policy| policy.fuel).sum(),
            duration_us: u64::try_from(judgement.duration.as_micros()).unwrap_or(u64::MAX),
            infrastructure_fault: judgement.infrastructure_fault,
        }
    }
}

impl Difference {
    pub(super) fn new(running: SetDigest, proposed: SetDigest, templates: Vec<Compared>) -> Self {
        Self { running, proposed, counts: Counts::of(&templates), templates }
    }
}

impl Compared {
    /// Compares what the running set said with what the proposed one said.
    pub(super) fn of(template: &Template, running: Judgement, proposed: Judgement) -> Self {
        let (running, proposed) = (Answer::of(running), Answer::of(proposed));
        let outcome = Outcome::of(&running, &proposed);
        Self { template: template.digest, height: template.height, outcome, running, proposed }
    }
}

impl Outcome {
    fn of(running: &Answer, proposed: &Answer) -> Self {
        match (running.accepted, proposed.accepted) {
            _ if running.infrastructure_fault || proposed.infrastructure_fault => Self::InfrastructureFault,
            (true, false) => Self::NewlyRejected,
            (false, true) => Self::NewlyAccepted,
            _ if running.reason_code == proposed.reason_code && running.decided_by == proposed.decided_by => {
                Self::Same
            }
            _ => Self::OtherReason,
        }
    }
}

impl Counts {
    fn of(templates: &[Compared]) -> Self {
        let count = |outcome| templates.iter().filter(|compared| compared.outcome == outcome).count();
        Self {
            replayed: templates.len(),
            same: count(Outcome::Same),
            newly_rejected: count(Outcome::NewlyRejected),
            newly_accepted: count(Outcome::NewlyAccepted),
            other_reason: count(Outcome::OtherReason),
            infrastructure_faults: count(Outcome::InfrastructureFault),
        }
    }
}

fn as_text<S: serde::Serializer>(value: &TemplateDigest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
