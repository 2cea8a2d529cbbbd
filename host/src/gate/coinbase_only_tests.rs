#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The fallback: asked for once a tip, out only when admitted, replaced by whatever is better.

use super::{super::testing::*, *};
use crate::{
    gate::Mode,
    policy::Verdict,
    reason::{Reason, VerdictCode},
};

/// A gate whose miners are held on a new tip, all templates of which were refused.
fn refused() -> (Gate, Instant) {
    let (mut gate, now) = with_fallback(Mode::Inline);
    let poor = template(2, 0);
    gate.on_template(now, poor.clone());
    let actions = gate.on_verdict(now, poor.digest, &reject());
    let [Action::Refused(_), Action::Hold(Reason::PrevhashHeld), Action::AskCoinbaseOnly(tip)] = actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(tip, poor.previous_block_hash);
    (gate, now)
}

#[test]
fn it_goes_out_when_it_is_admitted_and_a_full_template_replaces_it_later() {
    let (mut gate, now) = refused();
    let fallback = coinbase_only(2);
    assert!(gate.on_coinbase_only(fallback.clone()).is_empty());
    let actions = gate.on_verdict(now, fallback.digest, &Verdict::accept());
    let [Action::Release { template: released, new_tip: true, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(released.is_coinbase_only());
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Following, None));
    assert!(gate.is_waiting(now) && !gate.is_waiting(now + HOLD), "a better one is wanted, for a while");
    let full = template(2, 1);
    gate.on_template(now, full.clone());
    let actions = gate.on_verdict(now, full.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: false, .. }]), "{actions:?}");
}

#[test]
fn other_policies_that_accept_what_was_refused_put_it_in_the_place_of_the_fallback() {
    let (mut gate, now) = refused();
    let (fallback, full) = (coinbase_only(2), template(2, 0));
    gate.on_coinbase_only(fallback.clone());
    gate.on_verdict(now, fallback.digest, &Verdict::accept());
    assert_eq!(gate.judged().collect::<Vec<_>>(), [fallback.digest, full.digest]);
    let actions = gate.on_verdict(now, full.digest, &Verdict::accept());
    let [Action::Release { template: released, new_tip: false, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(released.digest, full.digest);
}

#[test]
fn a_fallback_that_is_refused_stays_inside_and_the_hold_ends_as_ever() {
    let (mut gate, now) = refused();
    let fallback = coinbase_only(2);
    gate.on_coinbase_only(fallback.clone());
    let actions = gate.on_verdict(now, fallback.digest, &reject());
    assert!(matches!(actions[..], [Action::Refused(_)]), "it is asked for once: {actions:?}");
    assert_eq!((gate.phase(), gate.deadline()), (Phase::Holding, Some(now + HOLD)));
    assert!(matches!(gate.on_time(now + HOLD)[..], [Action::Expire(Reason::PrevhashHoldExpired)]));
    // Other policies may have it, even then.
    let actions = gate.on_verdict(now + HOLD, fallback.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[test]
fn without_a_refusal_it_is_asked_for_at_its_moment_of_the_hold() {
    let (mut gate, now) = with_fallback(Mode::Inline);
    gate.on_template(now, template(2, 0));
    assert!(matches!(gate.on_time(now + VERDICT)[..], [Action::Hold(Reason::PrevhashVerdictTimeout)]));
    assert_eq!(gate.deadline(), Some(now + AFTER));
    assert!(matches!(gate.on_time(now + AFTER)[..], [Action::AskCoinbaseOnly(_)]));
    assert_eq!(gate.deadline(), Some(now + HOLD));
}

#[test]
fn a_full_template_whose_verdict_comes_late_still_replaces_the_fallback() {
    let (mut gate, now) = with_fallback(Mode::Inline);
    let (slow, fallback) = (template(2, 0), coinbase_only(2));
    gate.on_template(now, slow.clone());
    gate.on_time(now + AFTER);
    gate.on_coinbase_only(fallback.clone());
    gate.on_verdict(now + AFTER, fallback.digest, &Verdict::accept());
    let actions = gate.on_verdict(now + AFTER, slow.digest, &Verdict::accept());
    assert!(matches!(&actions[..], [Action::Release { template, .. }] if template.digest == slow.digest));
    let again = gate.on_verdict(now + AFTER, fallback.digest, &Verdict::accept());
    assert!(matches!(again[..], [Action::Superseded(_)]), "{again:?}");
}

#[test]
fn a_fallback_that_comes_after_a_full_template_or_for_another_tip_is_superseded() {
    let (mut gate, now) = refused();
    let (fallback, full) = (coinbase_only(2), template(2, 1));
    gate.on_coinbase_only(fallback.clone());
    gate.on_template(now, full.clone());
    gate.on_verdict(now, full.digest, &Verdict::accept());
    let actions = gate.on_verdict(now, fallback.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Superseded(_)]), "{actions:?}");
    assert!(matches!(gate.on_coinbase_only(coinbase_only(2))[..], [Action::Superseded(_)]));
    let (mut gate, _) = refused();
    assert!(matches!(gate.on_coinbase_only(coinbase_only(3))[..], [Action::Superseded(_)]));
}

#[test]
fn each_tip_has_its_own_and_its_verdict_timeout_first() {
    let (mut gate, now) = refused();
    let later = now + AFTER * 2;
    gate.on_template(later, template(3, 0));
    assert_eq!(gate.deadline(), Some(later + VERDICT));
    let actions = gate.on_time(later + VERDICT);
    assert!(matches!(actions[..], [Action::AskCoinbaseOnly(_)]), "{actions:?}");
}

#[test]
fn it_brings_back_miners_whose_hold_expired_while_no_template_was_usable() {
    let (mut gate, now) = with_fallback(Mode::Inline);
    gate.on_tip(now, template(2, 0).previous_block_hash);
    let asked = gate.on_time(now + AFTER);
    assert!(matches!(asked[..], [Action::Hold(Reason::PrevhashTemplateMissing), Action::AskCoinbaseOnly(_)]));
    assert!(matches!(gate.on_time(now + HOLD)[..], [Action::Expire(_)]));
    let tip = template(3, 0).previous_block_hash;
    gate.on_tip(now + HOLD, tip);
    let actions = gate.on_time(now + HOLD + VERDICT);
    assert!(matches!(actions[..], [Action::AskCoinbaseOnly(on)] if on == tip), "{actions:?}");
    let fallback = coinbase_only(3);
    gate.on_coinbase_only(fallback.clone());
    let actions = gate.on_verdict(now + HOLD + VERDICT, fallback.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
}

#[test]
fn observe_uses_it_on_a_tip_without_a_usable_template_whatever_the_verdict() {
    let (mut gate, now) = with_fallback(Mode::Observe);
    gate.on_tip(now, template(2, 0).previous_block_hash);
    assert!(matches!(gate.on_time(now + AFTER)[..], [Action::Hold(_), Action::AskCoinbaseOnly(_)]));
    let fallback = coinbase_only(2);
    gate.on_coinbase_only(fallback.clone());
    let actions = gate.on_verdict(now + AFTER, fallback.digest, &reject());
    let [Action::Release { template: released, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(released.would_reject(), Some(&VerdictCode::Gateway(Reason::PolicyTrapped)));
}

#[test]
fn work_that_was_taken_back_may_be_followed_by_it() {
    let (mut gate, now) = with_fallback(Mode::Inline);
    assert!(matches!(gate.on_verdict(now, template(1, 0).digest, &reject())[..], [Action::Hold(_)]));
    assert!(matches!(gate.on_time(now + AFTER)[..], [Action::AskCoinbaseOnly(_)]));
}

#[test]
fn who_does_not_want_it_is_never_asked() {
    let (mut gate, now) = following(Mode::Inline);
    let poor = template(2, 0);
    gate.on_template(now, poor.clone());
    assert!(matches!(
        gate.on_verdict(now, poor.digest, &reject())[..],
        [Action::Refused(_), Action::Hold(_)]
    ));
    assert!(gate.on_time(now + AFTER).is_empty());
    assert!(matches!(gate.on_time(now + HOLD)[..], [Action::Expire(_)]));
}
