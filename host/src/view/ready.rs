//! Whether the gateway does its work: miners have good work, or in shadow mode templates are judged.
//!
//! What keeps it from that is a trouble with its reason code; what does not yet, a warning. A load balancer
//! asks for the one, people read both.

use crate::{
    gate::{Mode, Phase},
    reason::{Reason, Severity},
};
use schemars::JsonSchema;
use serde::Serialize;

/// Whether the gateway does its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Readiness {
    /// It does.
    pub ready: bool,
    /// What keeps it from that.
    pub troubles: Vec<Trouble>,
    /// What may do so later.
    pub warnings: Vec<Trouble>,
}

/// Something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trouble {
    /// The code.
    pub reason_code: Reason,
    /// The code in words.
    pub meaning: &'static str,
    /// How much attention it deserves.
    pub severity: Severity,
}

impl From<Reason> for Trouble {
    fn from(reason: Reason) -> Self {
        Self { reason_code: reason, meaning: reason.meaning(), severity: reason.severity() }
    }
}

/// What readiness follows from.
pub(super) struct Facts {
    pub(super) mode: Mode,
    pub(super) phase: Phase,
    pub(super) has_job: bool,
    /// A template was judged since the start.
    pub(super) judged: bool,
    /// A source gives templates.
    pub(super) source_up: bool,
    /// All of them could.
    pub(super) sources_well: bool,
    pub(super) tips_agree: bool,
    pub(super) ledger_full: bool,
    pub(super) backend_up: bool,
    pub(super) going_down: bool,
}

pub(super) fn judge(facts: &Facts) -> Readiness {
    let serves = facts.mode.serves_miners();
    let works = if serves { facts.has_job } else { facts.judged };
    let troubles = [
        (facts.going_down, Reason::ShutdownDrain),
        (serves && facts.phase == Phase::Expired && facts.source_up, Reason::PrevhashHoldExpired),
        (facts.phase == Phase::Expired && !facts.source_up, Reason::TemplateSourceStale),
        (!works && facts.phase != Phase::Expired, Reason::WorkMissing),
        (facts.ledger_full, Reason::ShareLedgerFull),
    ];
    let warnings = [
        (!facts.source_up, Reason::TemplateSourceUnreachable),
        (facts.source_up && !facts.sources_well, Reason::SourceRedundancyLost),
        (!facts.tips_agree, Reason::SourceTipsDisagree),
        (serves && facts.phase == Phase::Holding, Reason::PrevhashHeld),
        (serves && !facts.backend_up, Reason::ForwardRetrying),
    ];
    let of = |list: &[(bool, Reason)]| -> Vec<Trouble> {
        list.iter().filter(|(is_so, _)| *is_so).map(|(_, reason)| (*reason).into()).collect()
    };
    let troubles = of(&troubles);
    Readiness { ready: troubles.is_empty(), troubles, warnings: of(&warnings) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            mode: Mode::Inline,
            phase: Phase::Following,
            has_job: true,
            judged: true,
            source_up: true,
            sources_well: true,
            tips_agree: true,
            ledger_full: false,
            backend_up: true,
            going_down: false,
        }
    }

    fn troubles(facts: &Facts) -> (Vec<Reason>, Vec<Reason>) {
        let codes = |list: Vec<Trouble>| list.iter().map(|trouble| trouble.reason_code).collect();
        let said = judge(facts);
        assert_eq!(said.ready, said.troubles.is_empty());
        (codes(said.troubles), codes(said.warnings))
    }

    #[test]
    fn a_gateway_whose_miners_have_work_is_ready() {
        assert_eq!(troubles(&good()), (vec![], vec![]));
        assert_eq!(troubles(&Facts { phase: Phase::Switching, ..good() }), (vec![], vec![]));
    }

    #[test]
    fn what_only_threatens_is_a_warning() {
        let held = Facts { phase: Phase::Holding, backend_up: false, ..good() };
        assert_eq!(troubles(&held), (vec![], vec![Reason::PrevhashHeld, Reason::ForwardRetrying]));
        let away = Facts { source_up: false, ..good() };
        assert_eq!(troubles(&away), (vec![], vec![Reason::TemplateSourceUnreachable]));
        let backup_away = Facts { sources_well: false, tips_agree: false, ..good() };
        let warned = vec![Reason::SourceRedundancyLost, Reason::SourceTipsDisagree];
        assert_eq!(troubles(&backup_away), (vec![], warned));
    }

    #[test]
    fn what_keeps_miners_from_good_work_is_named() {
        let expired = Facts { phase: Phase::Expired, has_job: false, ..good() };
        assert_eq!(troubles(&expired).0, [Reason::PrevhashHoldExpired]);
        let stale = Facts { source_up: false, ..expired };
        assert_eq!(troubles(&stale).0, [Reason::TemplateSourceStale]);
        let start = Facts { phase: Phase::Switching, has_job: false, ..good() };
        assert_eq!(troubles(&start).0, [Reason::WorkMissing]);
        assert_eq!(troubles(&Facts { ledger_full: true, ..good() }).0, [Reason::ShareLedgerFull]);
        assert_eq!(troubles(&Facts { going_down: true, ..good() }).0, [Reason::ShutdownDrain]);
    }

    #[test]
    fn in_shadow_mode_judging_is_the_work() {
        let shadow = Facts { mode: Mode::Shadow, has_job: false, backend_up: false, ..good() };
        assert_eq!(troubles(&shadow), (vec![], vec![]));
        assert_eq!(troubles(&Facts { judged: false, ..shadow }).0, [Reason::WorkMissing]);
    }
}
