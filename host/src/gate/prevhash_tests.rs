#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The gate against a clock of our own: the rules one by one. Random sequences of everything: `soak`.

use super::{super::testing::*, *};

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
fn a_tip_without_a_template_holds_the_miners_and_then_gives_up_on_them() {
    let (mut gate, now) = following(Mode::Inline);
    gate.on_tip(now, template(1, 0).previous_block_hash);
    assert_eq!(gate.deadline(), None, "it is the tip already");
    gate.on_tip(now, template(2, 0).previous_block_hash);
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Switching, Some(now + VERDICT)));
    let actions = gate.on_time(now + HOLD);
    let [Action::Hold(Reason::PrevhashTemplateMissing), Action::Expire(Reason::PrevhashHoldExpired)] =
        actions[..]
    else {
        panic!("{actions:?}")
    };
}

#[test]
fn a_tip_that_goes_and_comes_back_finds_the_miners_on_their_work() {
    let (mut gate, now) = following(Mode::Inline);
    let (one, two) = (template(1, 0).previous_block_hash, template(2, 0).previous_block_hash);
    assert!(gate.on_tip(now, two).is_empty());
    assert!(gate.on_tip(now, one).is_empty(), "nobody was held yet");
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Following, None));
    gate.on_tip(now, two);
    assert!(matches!(gate.on_time(now + VERDICT)[..], [Action::Hold(Reason::PrevhashTemplateMissing)]));
    assert!(matches!(gate.on_tip(now + VERDICT, one)[..], [Action::Resume]));
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Following, None));
}

#[test]
fn a_tip_that_comes_back_does_not_bring_back_what_was_refused_on_it() {
    let (mut gate, now) = gate(Mode::Observe);
    let poor = template(1, 0);
    gate.on_template(now, poor.clone());
    gate.on_verdict(now, poor.digest, &reject());
    gate.on_tip(now, template(2, 0).previous_block_hash);
    gate.on_mode(now, Mode::Inline);
    assert!(gate.on_tip(now, poor.previous_block_hash).is_empty());
    assert_eq!(gate.phase(), Phase::Switching);
    assert!(matches!(gate.on_time(now + VERDICT)[..], [Action::Hold(_)]));
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
fn tips_that_change_faster_than_verdicts_come_do_not_make_the_hold_longer() {
    let (mut gate, start) = following(Mode::Inline);
    let mut now = start;
    for tip in (2..9).cycle() {
        gate.on_template(now, template(tip, 0));
        assert!(gate.deadline().unwrap() <= start + HOLD);
        now += Duration::from_millis(40);
        match &gate.on_time(now)[..] {
            [] => assert!(now < start + HOLD),
            [Action::Hold(_), Action::Expire(Reason::PrevhashHoldExpired)] => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(now, start + HOLD);
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
    let late = gate.on_verdict(now + VERDICT * 2, next.digest, &reject());
    let [Action::Confirmed(Some(VerdictCode::Gateway(Reason::PolicyTrapped)))] = late[..] else {
        panic!("{late:?}")
    };
    let later = gate.on_verdict(now + VERDICT * 3, next.digest, &Verdict::accept());
    assert!(matches!(later[..], [Action::Confirmed(None)]), "{later:?}");
    assert!(
        gate.on_mode(now + VERDICT * 3, Mode::Inline).iter().all(|a| matches!(a, Action::Confirmed(None)))
    );
}

#[test]
fn work_that_is_refused_after_all_is_taken_back_and_the_hold_begins_then() {
    let (mut gate, start) = gate(Mode::Inline);
    let (first, second) = (template(1, 0), template(1, 1));
    gate.on_template(start, first.clone());
    gate.on_verdict(start, first.digest, &Verdict::accept());
    let now = start + HOLD * 3;
    assert!(matches!(gate.on_verdict(now, first.digest, &Verdict::accept())[..], [Action::Confirmed(None)]));
    let actions = gate.on_verdict(now, first.digest, &reject());
    assert!(matches!(actions[..], [Action::Hold(Reason::WorkWithdrawn)]), "{actions:?}");
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Holding, Some(now + HOLD)));
    gate.on_template(now, second.clone());
    let actions = gate.on_verdict(now, second.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[test]
fn a_change_to_inline_takes_back_what_observe_gave_out_against_the_verdict() {
    let (mut gate, now) = following(Mode::Observe);
    assert!(matches!(gate.on_mode(now, Mode::Inline)[..], [Action::Confirmed(None)]), "it was accepted");
    gate.on_mode(now, Mode::Observe);
    let poor = template(1, 7);
    gate.on_template(now, poor.clone());
    gate.on_verdict(now, poor.digest, &reject());
    let actions = gate.on_mode(now, Mode::Inline);
    assert!(matches!(actions[..], [Action::Hold(Reason::WorkWithdrawn)]), "{actions:?}");
    let actions = gate.on_mode(now, Mode::Observe);
    assert!(matches!(actions[..], [Action::Resume]), "miners have it, it is not sent again: {actions:?}");
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Following, None));
}

#[test]
fn a_change_to_observe_with_nothing_to_give_asks_for_a_template() {
    let (mut gate, now) = following(Mode::Inline);
    gate.on_source_stale();
    assert!(matches!(gate.on_mode(now, Mode::Observe)[..], [Action::Ask]));
}

#[test]
fn withdrawn_work_that_is_accepted_after_the_hold_expired_is_sent_again() {
    let (mut gate, now) = gate(Mode::Inline);
    let work = template(1, 0);
    gate.on_template(now, work.clone());
    gate.on_verdict(now, work.digest, &Verdict::accept());
    gate.on_verdict(now, work.digest, &reject());
    let actions = gate.on_time(now + HOLD);
    assert!(matches!(actions[..], [Action::Expire(Reason::PrevhashHoldExpired)]), "{actions:?}");
    assert_eq!(gate.refused(), Some(work.digest));
    let actions = gate.on_verdict(now + HOLD, work.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[test]
fn withdrawn_work_is_not_forgotten_when_a_newer_template_is_refused() {
    let (mut gate, now) = gate(Mode::Inline);
    let (work, newer) = (template(1, 0), template(1, 1));
    gate.on_template(now, work.clone());
    gate.on_verdict(now, work.digest, &Verdict::accept());
    gate.on_verdict(now, work.digest, &reject());
    gate.on_template(now, newer.clone());
    gate.on_verdict(now, newer.digest, &reject());
    assert_eq!(gate.judged().collect::<Vec<_>>(), [work.digest, newer.digest]);
    let actions = gate.on_verdict(now, work.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Resume]), "the policies were rolled back: {actions:?}");
    let actions = gate.on_verdict(now, newer.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: false, .. }]), "{actions:?}");
}

#[test]
fn what_the_old_policies_refused_goes_out_when_the_new_ones_accept_it() {
    let (mut gate, now) = following(Mode::Inline);
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    gate.on_verdict(now, next.digest, &reject());
    let actions = gate.on_verdict(now + HOLD / 2, next.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
    gate.on_verdict(now, next.digest, &reject());
    assert_eq!(gate.phase(), Phase::Holding);
    let actions = gate.on_verdict(now, next.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Resume]), "the policies were rolled back: {actions:?}");
}

#[test]
fn a_change_to_observe_gives_out_what_inline_held_back() {
    let (mut gate, now) = following(Mode::Inline);
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    gate.on_verdict(now, next.digest, &reject());
    let actions = gate.on_mode(now, Mode::Observe);
    let [Action::Release { template, new_tip: true, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(template.digest, next.digest);
    assert_eq!(template.would_reject(), Some(&VerdictCode::Gateway(Reason::PolicyTrapped)));
    assert!(matches!(gate.on_mode(now, Mode::Inline)[..], [Action::Hold(Reason::WorkWithdrawn)]));
}

#[test]
fn a_change_to_observe_while_the_verdict_is_out_waits_for_it_as_observe_does() {
    let (mut gate, now) = following(Mode::Inline);
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    gate.on_time(now + VERDICT);
    assert_eq!(gate.phase(), Phase::Holding);
    assert!(gate.on_mode(now + VERDICT, Mode::Observe).is_empty());
    let actions = gate.on_time(gate.deadline().unwrap());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
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

#[test]
fn a_verdict_after_49_ms_is_in_time_at_50_the_clock_decides_and_after_51_it_releases_a_hold() {
    for (mode, ms) in [Mode::Inline, Mode::Observe].into_iter().flat_map(|m| [49, 50, 51].map(|ms| (m, ms))) {
        let (mut gate, now) = following(mode);
        let next = template(2, 0);
        gate.on_template(now, next.clone());
        let at = now + Duration::from_millis(ms);
        // The flow looks at the clock first: whatever is due has happened when the verdict is looked at.
        let due = gate.on_time(at);
        let verdict = gate.on_verdict(at, next.digest, &Verdict::accept());
        match (mode, ms, &due[..], &verdict[..]) {
            (_, 49, [], [Action::Release { new_tip: true, .. }]) => {}
            (
                Mode::Inline,
                50 | 51,
                [Action::Hold(Reason::PrevhashVerdictTimeout)],
                [Action::Release { new_tip: true, .. }],
            ) => {}
            (Mode::Observe, 50 | 51, [Action::Release { template, .. }], [Action::Confirmed(None)]) => {
                assert!(template.would_reject().is_some(), "it was given out without a verdict");
            }
            _ => panic!("{mode} after {ms} ms: {due:?}, {verdict:?}"),
        }
        assert_eq!((gate.phase(), gate.deadline()), (Phase::Following, None));
    }
}

#[test]
fn observe_holds_and_lets_go_where_there_is_no_usable_template_at_all() {
    let (mut gate, now) = following(Mode::Observe);
    gate.on_tip(now, template(2, 0).previous_block_hash);
    assert!(matches!(gate.on_time(now + VERDICT)[..], [Action::Hold(Reason::PrevhashTemplateMissing)]));
    assert!(matches!(gate.on_time(now + HOLD)[..], [Action::Expire(Reason::PrevhashHoldExpired)]));
    let poor = template(2, 0);
    gate.on_template(now + HOLD, poor.clone());
    let actions = gate.on_verdict(now + HOLD, poor.digest, &reject());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[test]
fn observe_gives_out_the_newest_unjudged_template_of_the_tip_and_not_of_another() {
    let (mut gate, now) = following(Mode::Observe);
    let (mine, other) = (template(2, 0), template(3, 0));
    gate.on_template(now, mine.clone());
    gate.on_template(now, other);
    gate.on_tip(now, mine.previous_block_hash);
    let actions = gate.on_time(now + VERDICT);
    assert!(matches!(&actions[..], [Action::Release { template, .. }] if template.digest == mine.digest));
}

#[test]
fn the_same_template_once_more_is_one_question() {
    let (mut gate, now) = following(Mode::Inline);
    let work = template(1, 0);
    gate.on_template(now, work.clone());
    let actions = gate.on_verdict(now, work.digest, &reject());
    assert!(matches!(actions[..], [Action::Hold(Reason::WorkWithdrawn)]), "it is in use: {actions:?}");
    let next = template(2, 0);
    gate.on_template(now, next.clone());
    gate.on_template(now, next.clone());
    assert!(matches!(gate.on_verdict(now, next.digest, &Verdict::accept())[..], [Action::Release { .. }]));
    assert!(matches!(gate.on_verdict(now, next.digest, &Verdict::accept())[..], [Action::Confirmed(None)]));
}
