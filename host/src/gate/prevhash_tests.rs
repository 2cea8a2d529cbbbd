#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The gate against a clock of our own: the rules one by one, then random sequences of everything.

use super::*;
use crate::template::{CoinbaseParts, CoinbaseSpec, Declared, Provenance, facts::assemble};
use bitcoin::{CompactTarget, Network, ScriptBuf, block::Version, hashes::Hash};
use proptest::prelude::*;

const VERDICT: Duration = Duration::from_millis(50);
const HOLD: Duration = Duration::from_secs(5);

/// A template without transactions on tip number `tip`; `time` tells templates of one tip apart.
fn template(tip: u8, time: u32) -> Arc<Template> {
    let declared = Declared {
        network: Network::Regtest,
        provenance: Provenance::Node,
        height: 100,
        version: Version::from_consensus(0x2000_0000),
        previous_block_hash: BlockHash::from_byte_array([tip; 32]),
        bits: CompactTarget::from_consensus(0x207f_ffff),
        min_time: 1_700_000_000,
        current_time: 1_700_000_000 + time,
        coinbase_value: 50 * 100_000_000,
        coinbase: CoinbaseParts::Planned(CoinbaseSpec {
            payout: ScriptBuf::from_bytes(vec![0x51]),
            tag: "/tests/".to_owned(),
        }),
        target: None,
        merkle_path: None,
        transaction_count: None,
        witness_commitment_script: None,
        transactions: Vec::new(),
    };
    Arc::new(assemble(&declared).unwrap())
}

fn reject() -> Verdict {
    Verdict::fault(Reason::PolicyTrapped, "a test says no")
}

fn gate(mode: Mode) -> (Gate, Instant) {
    let now = Instant::now();
    (Gate::new(mode, Timings { verdict_timeout: VERDICT, hold_timeout: HOLD }, now), now)
}

/// A gate that follows tip 1.
fn following(mode: Mode) -> (Gate, Instant) {
    let (mut gate, now) = gate(mode);
    let first = template(1, 0);
    gate.on_template(now, first.clone());
    let actions = gate.on_verdict(now, first.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
    (gate, now)
}

#[test]
fn an_accepted_template_on_a_new_tip_is_released_as_a_switch() {
    let (mut gate, now) = following(Mode::Inline);
    let next = template(2, 0);
    assert!(gate.on_template(now, next.clone()).is_empty());
    assert_eq!(gate.phase(), Phase::Switching);
    let actions = gate.on_verdict(now + Duration::from_millis(7), next.digest, &Verdict::accept());
    let [Action::Release { new_tip: true, since_tip, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(since_tip, Duration::from_millis(7));
    assert_eq!(gate.phase(), Phase::Following);
}

#[test]
fn a_rejected_template_on_a_new_tip_holds_the_miners() {
    let (mut gate, now) = following(Mode::Inline);
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    let actions = gate.on_verdict(now, next.digest, &reject());
    assert!(matches!(actions[..], [Action::Refused(_), Action::Hold(Reason::PrevhashHeld)]), "{actions:?}");
}

#[test]
fn a_verdict_at_51_ms_finds_the_miners_held_and_releases_them() {
    let (mut gate, now) = following(Mode::Inline);
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    assert_eq!(gate.deadline(), Some(now + VERDICT));
    assert!(gate.on_time(now + VERDICT - Duration::from_millis(1)).is_empty());
    let actions = gate.on_time(now + VERDICT);
    assert!(matches!(actions[..], [Action::Hold(Reason::PrevhashVerdictTimeout)]), "{actions:?}");
    let actions = gate.on_verdict(now + Duration::from_millis(51), next.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[test]
fn a_hold_ends_five_seconds_after_the_first_unserved_tip_whatever_comes_between() {
    let (mut gate, now) = following(Mode::Inline);
    for (tip, at) in [(2, 0), (3, 2000), (4, 4900)] {
        let at = now + Duration::from_millis(at);
        let next = template(tip, 0);
        gate.on_template(at, next.clone());
        gate.on_verdict(at, next.digest, &reject());
    }
    assert_eq!(gate.deadline(), Some(now + HOLD));
    assert!(gate.on_time(now + HOLD - Duration::from_millis(1)).is_empty());
    let actions = gate.on_time(now + HOLD);
    assert!(matches!(actions[..], [Action::Expire(Reason::PrevhashHoldExpired)]), "{actions:?}");
    assert_eq!(gate.deadline(), None);
    let good = template(4, 1);
    gate.on_template(now + HOLD * 2, good.clone());
    let actions = gate.on_verdict(now + HOLD * 2, good.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[test]
fn a_rejected_refresh_on_the_served_tip_changes_nothing_for_miners() {
    let (mut gate, now) = following(Mode::Inline);
    let refresh = template(1, 1);
    gate.on_template(now, refresh.clone());
    assert!(matches!(gate.on_verdict(now, refresh.digest, &reject())[..], [Action::Refused(_)]));
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Following, None));
}

#[test]
fn a_verdict_for_an_older_tip_or_an_older_template_is_superseded() {
    let (mut gate, now) = following(Mode::Inline);
    let (old_tip, newer_tip, newest) = (template(2, 0), template(3, 0), template(3, 1));
    for t in [&old_tip, &newer_tip, &newest] {
        gate.on_template(now, t.clone());
    }
    let released = gate.on_verdict(now, newest.digest, &Verdict::accept());
    assert!(matches!(released[..], [Action::Release { .. }]));
    for t in [&old_tip, &newer_tip] {
        let actions = gate.on_verdict(now, t.digest, &Verdict::accept());
        assert!(matches!(actions[..], [Action::Superseded(_)]), "{actions:?}");
    }
}

#[test]
fn observe_uses_what_inline_would_refuse_and_says_so() {
    let (mut gate, now) = following(Mode::Observe);
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    let actions = gate.on_verdict(now, next.digest, &reject());
    let [Action::Release { template, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(template.would_reject(), Some(&VerdictCode::Gateway(Reason::PolicyTrapped)));
}

#[test]
fn observe_uses_a_template_whose_verdict_is_late() {
    let (mut gate, now) = following(Mode::Observe);
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    let actions = gate.on_time(now + VERDICT);
    let [Action::Release { template, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(template.would_reject(), Some(&VerdictCode::Gateway(Reason::PrevhashVerdictTimeout)));
    let late = gate.on_verdict(now + VERDICT * 2, next.digest, &Verdict::accept());
    assert!(matches!(late[..], [Action::Superseded(_)]), "{late:?}");
}

#[test]
fn shadow_releases_nothing_and_waits_for_nothing() {
    let (mut gate, now) = gate(Mode::Shadow);
    let first = template(1, 0);
    gate.on_template(now, first.clone());
    assert_eq!(gate.deadline(), None);
    assert!(gate.on_verdict(now, first.digest, &Verdict::accept()).is_empty());
    assert!(gate.on_source_stale().is_empty());
}

#[test]
fn a_silent_source_ends_the_work_and_its_return_is_a_new_tip() {
    let (mut gate, now) = following(Mode::Inline);
    assert!(matches!(gate.on_source_stale()[..], [Action::Expire(Reason::TemplateSourceStale)]));
    assert!(gate.on_source_stale().is_empty(), "said once");
    let back = template(1, 9);
    gate.on_template(now + HOLD, back.clone());
    let actions = gate.on_verdict(now + HOLD, back.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Template { tip: u8 },
    Verdict { which: usize, accept: bool },
    Wait { ms: u64 },
    Stale,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u8..4).prop_map(|tip| Step::Template { tip }),
        4 => (0usize..6, any::<bool>()).prop_map(|(which, accept)| Step::Verdict { which, accept }),
        3 => (0u64..3_000).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Stale),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// In inline mode nothing leaves that was not accepted, on the newest tip, for itself; nobody stays
    /// on old work past the hold; and one accepted template brings the gate back.
    #[test]
    fn whatever_happens_inline_mode_keeps_its_promises(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut gate, start) = gate(Mode::Inline);
        let mut now = start;
        let mut given: Vec<Arc<Template>> = Vec::new();
        let mut tip = None;
        // When the tip moved away from what miners have, as an outside observer sees it.
        let mut unserved: Option<Instant> = None;
        for (time, step) in (0u32..).zip(steps) {
            let mut accepted = None;
            let actions = match step {
                Step::Template { tip: number } => {
                    let next = template(number, time);
                    if tip != Some(next.previous_block_hash) {
                        unserved = unserved.or(Some(now));
                    }
                    tip = Some(next.previous_block_hash);
                    given.push(next.clone());
                    gate.on_template(now, next)
                }
                Step::Verdict { which, accept } => {
                    let Some(t) = given.iter().rev().nth(which).cloned() else { continue };
                    accepted = accept.then_some(t.digest);
                    let verdict = if accept { Verdict::accept() } else { reject() };
                    gate.on_verdict(now, t.digest, &verdict)
                }
                Step::Wait { ms } => {
                    now += Duration::from_millis(ms);
                    let mut actions = gate.on_time(now);
                    actions.extend(gate.on_time(now));
                    actions
                }
                Step::Stale => {
                    tip = None;
                    gate.on_source_stale()
                }
            };
            for action in &actions {
                match action {
                    Action::Release { template, .. } => {
                        prop_assert_eq!(Some(template.digest), accepted, "released without its own acceptance");
                        prop_assert_eq!(Some(template.previous_block_hash), tip, "released on an old tip");
                        prop_assert!(template.would_reject().is_none());
                        unserved = None;
                    }
                    Action::Expire(_) => unserved = None,
                    _ => {}
                }
            }
            if gate.phase() == Phase::Expired || tip.is_none() {
                unserved = None;
            }
            if let (Some(since), Step::Wait { .. }) = (unserved, step) {
                prop_assert!(now < since + HOLD, "miners stayed on old work past the hold");
            }
        }
        let good = template(200, 0);
        gate.on_template(now, good.clone());
        gate.on_verdict(now, good.digest, &Verdict::accept());
        prop_assert_eq!(gate.phase(), Phase::Following);
    }
}
