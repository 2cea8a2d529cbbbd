//! What the gate is told once, the states it can be in, and what it asks the gateway to do.

use super::Admitted;
use crate::{
    reason::{Reason, VerdictCode},
    template::{Template, TemplateDigest},
};
use bitcoin::BlockHash;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// From a new tip to the verdict on its first template.
    pub verdict_timeout: Duration,
    /// From the first unserved tip to the disconnection of the miners.
    pub hold_timeout: Duration,
    /// From the first unserved tip to the moment at which a template without transactions is wanted,
    /// unless everything on the tip was refused before; `None` for never.
    pub coinbase_only_after: Option<Duration>,
}

/// What miners may do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Work on the current tip is out.
    Following,
    /// A new tip is known, the verdict on its first template is not.
    Switching,
    /// No work on the current tip was admitted yet; miners keep their last job.
    Holding,
    /// The hold lasted too long, or the source fell silent: nobody is served.
    Expired,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Following, Self::Switching, Self::Holding, Self::Expired];

    /// The name in events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Switching => "switching",
            Self::Holding => "holding",
            Self::Expired => "expired",
        }
    }
}

/// What the gateway must do.
#[derive(Debug)]
pub enum Action {
    /// Make a job of this and send it to every miner.
    Release {
        /// The proof.
        template: Admitted<Template>,
        /// Miners had no work on the tip until now.
        new_tip: bool,
        /// From the tip's arrival to this release.
        since_tip: Duration,
        /// The future template that became this one: miners who have its job need to be told the tip alone.
        ahead: Option<TemplateDigest>,
    },
    /// Make a future job of this and send it to every miner.
    SendAhead(Admitted<Template>),
    /// Shares on the last job are from now on "held".
    Hold(Reason),
    /// Tell every miner why, disconnect it, refuse new ones.
    Expire(Reason),
    /// The verdict on this template no longer matters.
    Superseded(TemplateDigest),
    /// The template was refused; what miners have stays valid.
    Refused(TemplateDigest),
    /// A verdict on the work in use, which stays in use. With why inline mode would take it back.
    Confirmed(Option<VerdictCode>),
    /// What miners have is good again (taken back before, or of a tip that the chain came back to); shares
    /// on it are no longer "held".
    Resume,
    /// Miners wait, and there is nothing to give them: another template is wanted at once.
    Ask,
    /// A template without transactions on this tip is to be made and judged.
    AskCoinbaseOnly(BlockHash),
}
