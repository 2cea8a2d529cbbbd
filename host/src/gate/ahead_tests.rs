#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Future templates: admitted ahead and activated, or of no consequence.

use super::{super::testing::*, *};
use crate::{
    reason::{Reason, VerdictCode},
    template::{Declared, Provenance, facts::assemble, future_tip},
};

/// A gate that follows tip 1, whose miners have a future job.
fn with_one_ahead(mode: Mode) -> (Gate, Instant, Arc<Template>) {
    let (mut gate, now) = following(mode);
    let next = future(7);
    assert!(gate.on_future(next.clone()).is_empty());
    let actions = gate.on_verdict(now, next.digest, &Verdict::accept());
    assert!(matches!(&actions[..], [Action::SendAhead(sent)] if sent.digest == next.digest), "{actions:?}");
    assert_eq!(gate.ahead(), Some(next.digest));
    (gate, now, next)
}

#[test]
fn what_was_admitted_ahead_is_released_the_moment_its_tip_comes() {
    for mode in [Mode::Inline, Mode::Observe] {
        let (mut gate, now, next) = with_one_ahead(mode);
        let became = template(2, 7);
        assert!(became.activates(&next));
        let actions = gate.on_template(now, became.clone());
        let [Action::Release { template, new_tip: true, ahead: Some(ahead), .. }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!((template.digest, *ahead), (became.digest, next.digest));
        assert_eq!((gate.phase(), gate.ahead(), gate.deadline()), (Phase::Following, None, None));
    }
}

#[test]
fn what_was_released_on_trust_is_judged_as_itself_and_taken_back_when_it_is_refused() {
    let (mut gate, now, _) = with_one_ahead(Mode::Inline);
    let became = template(2, 7);
    gate.on_template(now, became.clone());
    assert_eq!(gate.judged().collect::<Vec<_>>(), [became.digest]);
    assert!(matches!(gate.on_verdict(now, became.digest, &Verdict::accept())[..], [Action::Confirmed(None)]));
    let actions = gate.on_verdict(now, became.digest, &reject());
    assert!(matches!(actions[..], [Action::Hold(Reason::WorkWithdrawn)]), "{actions:?}");
}

#[test]
fn another_template_on_the_tip_is_a_new_tip_like_any() {
    let (mut gate, now, next) = with_one_ahead(Mode::Inline);
    let other = template(2, 0);
    assert!(other.activates(&next), "the time alone is what the tip says");
    let declared = Declared { coinbase_value: 1, ..declared(2, 7) };
    let other = Arc::new(assemble(&declared).unwrap());
    assert!(!other.activates(&next));
    assert!(gate.on_template(now, other.clone()).is_empty());
    assert_eq!(gate.phase(), Phase::Switching);
    assert!(matches!(
        gate.on_verdict(now, other.digest, &reject())[..],
        [Action::Refused(_), Action::Hold(_)]
    ));
}

#[test]
fn a_future_template_that_was_refused_or_not_judged_yet_plays_no_part() {
    for refused in [true, false] {
        let (mut gate, now) = following(Mode::Inline);
        let next = future(7);
        gate.on_future(next.clone());
        if refused {
            assert!(matches!(gate.on_verdict(now, next.digest, &reject())[..], [Action::Refused(_)]));
        }
        let became = template(2, 7);
        assert!(gate.on_template(now, became.clone()).is_empty());
        assert_eq!((gate.phase(), gate.deadline()), (Phase::Switching, Some(now + VERDICT)));
        let actions = gate.on_verdict(now, became.digest, &Verdict::accept());
        assert!(matches!(actions[..], [Action::Release { ahead: None, new_tip: true, .. }]), "{actions:?}");
    }
}

#[test]
fn other_policies_that_refuse_a_future_job_end_it_before_its_tip_comes() {
    let (mut gate, now, next) = with_one_ahead(Mode::Inline);
    assert!(gate.judged().any(|digest| digest == next.digest), "they are asked about it");
    assert!(matches!(gate.on_verdict(now, next.digest, &reject())[..], [Action::Refused(_)]));
    assert_eq!(gate.ahead(), None);
    assert!(gate.on_template(now, template(2, 7)).is_empty());
    assert_eq!(gate.phase(), Phase::Switching);
}

#[test]
fn observe_sends_ahead_what_inline_would_not_and_a_change_to_inline_ends_it() {
    let (mut gate, now) = following(Mode::Observe);
    let next = future(7);
    gate.on_future(next.clone());
    let actions = gate.on_verdict(now, next.digest, &reject());
    let [Action::SendAhead(sent)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(sent.would_reject(), Some(&VerdictCode::Gateway(Reason::PolicyTrapped)));
    gate.on_mode(now, Mode::Inline);
    assert_eq!(gate.ahead(), None);
    assert!(gate.on_template(now, template(2, 7)).is_empty());
}

#[test]
fn a_newer_future_template_takes_the_place_of_the_older_once_it_is_admitted() {
    let (mut gate, now, first) = with_one_ahead(Mode::Inline);
    let (second, third) = (future(8), future(9));
    gate.on_future(second.clone());
    assert!(matches!(gate.on_future(third.clone())[..], [Action::Superseded(d)] if d == second.digest));
    let late = gate.on_verdict(now, second.digest, &Verdict::accept());
    assert!(matches!(late[..], [Action::Superseded(_)]), "{late:?}");
    assert_eq!(gate.ahead(), Some(first.digest));
    gate.on_verdict(now, third.digest, &Verdict::accept());
    assert_eq!(gate.ahead(), Some(third.digest));
}

#[test]
fn what_was_made_ahead_ends_with_the_miners_and_with_its_height() {
    let (mut gate, _, _) = with_one_ahead(Mode::Inline);
    gate.on_source_stale();
    assert_eq!(gate.ahead(), None);

    let (mut gate, now, _) = with_one_ahead(Mode::Inline);
    let declared = Declared { coinbase_value: 1, ..declared(2, 7) };
    let other = Arc::new(assemble(&declared).unwrap());
    gate.on_template(now, other.clone());
    gate.on_verdict(now, other.digest, &Verdict::accept());
    assert_eq!(gate.ahead(), None, "there is other work at its height");
}

#[test]
fn a_future_template_of_the_source_is_known_from_one_without_transactions() {
    let (mut gate, now) = following(Mode::Inline);
    let made =
        Declared { provenance: Provenance::Gateway, previous_block_hash: future_tip(), ..declared(0, 7) };
    let made = Arc::new(assemble(&made).unwrap());
    gate.on_future(made.clone());
    assert!(!gate.has_future_of_source());
    gate.on_verdict(now, made.digest, &Verdict::accept());
    assert!(gate.ahead().is_some() && !gate.has_future_of_source());
    let next = future(8);
    gate.on_future(next.clone());
    assert!(gate.has_future_of_source(), "while it is judged");
    gate.on_verdict(now, next.digest, &Verdict::accept());
    assert!(gate.has_future_of_source(), "and when miners have it");
}
