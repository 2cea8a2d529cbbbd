//! The policy store with real sets: what a proposal says, what a swap changes, and that no judgement is
//! lost or mixed while sets are swapped under it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "policy/built.rs"]
mod built;
#[path = "policy/hostile.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod hostile;
#[path = "policy/templates.rs"]
mod templates;

use built::module;
use reservegrid::{
    policy::{
        DEFAULT_FUEL, Enforcement, EngineLimits, Inputs, Judge, Judged, Judgement, Monitored, PolicyEngine,
        PolicySpec, PolicyStore, SetDigest,
        compare::{Counts, Outcome},
        store::{Busy, NoPreviousSet},
    },
    reason::Reason,
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use templates::{mempool, with_fees};

fn spec(name: &str, min_avg_fee: u64) -> PolicySpec {
    PolicySpec {
        name: name.into(),
        module: module("fee-floor"),
        sha256: None,
        settings: json!({ "min_avg_fee": { "low": min_avg_fee, "mid": min_avg_fee, "high": min_avg_fee } }),
        fuel: DEFAULT_FUEL,
        enforcement: Enforcement::Enforce,
    }
}

/// All the time in the world, so that a slow machine changes no verdict.
fn patient() -> EngineLimits {
    EngineLimits { deadline: Duration::from_secs(3600), ..EngineLimits::default() }
}

fn engine(limits: EngineLimits) -> Arc<PolicyEngine> {
    PolicyEngine::start(limits, None).unwrap()
}

fn store(specs: Vec<PolicySpec>, replay: usize) -> PolicyStore {
    PolicyStore::load(engine(patient()), specs, replay).unwrap()
}

/// A template with one transaction that pays this fee.
fn inputs(fee: u64) -> Inputs {
    Inputs { template: with_fees([fee]), context: Arc::new(mempool(0)) }
}

fn code(judgement: &Judgement) -> Option<&str> {
    judgement.verdict.reason_code.as_ref().map(reservegrid::reason::VerdictCode::as_str)
}

#[test]
fn a_proposal_tells_the_difference_and_changes_nothing_until_it_is_committed() {
    let store = store(vec![spec("floor", 100)], 16);
    for fee in [50, 150, 250] {
        store.remember(&inputs(fee));
    }
    let before = store.running().digest();
    let proposal = store.prepare(store.turn().unwrap(), vec![spec("floor", 200)]).unwrap();
    let difference = proposal.difference().clone();
    assert_eq!((difference.running, difference.proposed), (before, proposal.proposed().digest()));
    assert_ne!(difference.running, difference.proposed);
    assert_eq!(
        difference.counts,
        Counts { replayed: 3, same: 2, newly_rejected: 1, ..Counts::default() },
        "50 fails both, 250 passes both"
    );
    let outcomes: Vec<_> = difference.templates.iter().map(|compared| compared.outcome).collect();
    assert_eq!(outcomes, [Outcome::Same, Outcome::NewlyRejected, Outcome::Same]);
    let stricter = &difference.templates[1];
    assert_eq!(stricter.template, inputs(150).template.digest);
    assert!(stricter.running.accepted && stricter.running.fuel > 0 && stricter.proposed.fuel > 0);
    assert_eq!(stricter.proposed.reason_code.as_deref(), Some("avg_fee_below_minimum"));
    assert_eq!(stricter.proposed.decided_by.as_deref(), Some("floor"));

    drop(proposal);
    assert_eq!((store.running().digest(), store.previous().is_none()), (before, true));
    assert!(store.running().evaluate(&inputs(150)).verdict.accepted);

    let proposal = store.prepare(store.turn().unwrap(), vec![spec("floor", 200)]).unwrap();
    let after = proposal.commit().proposed;
    assert_eq!(store.running().digest(), after);
    assert_eq!(store.previous().unwrap().digest(), before);
    let judgement = store.running().evaluate(&inputs(150));
    assert_eq!((judgement.set, code(&judgement)), (after, Some("avg_fee_below_minimum")));
}

#[test]
fn another_policy_that_decides_is_another_reason_and_a_looser_set_accepts_more() {
    let store = store(vec![spec("a", 100), spec("b", 200)], 4);
    for fee in [50, 150] {
        store.remember(&inputs(fee));
    }
    let proposal = store.prepare(store.turn().unwrap(), vec![spec("b", 100)]).unwrap();
    assert_eq!(
        proposal.difference().counts,
        Counts { replayed: 2, newly_accepted: 1, other_reason: 1, ..Counts::default() }
    );
}

#[test]
fn what_says_something_about_the_machine_is_no_difference_between_the_sets() {
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("endless.wasm");
    std::fs::write(&module, hostile::component("(loop (br 0)) unreachable")).unwrap();
    let store = PolicyStore::load(engine(EngineLimits::default()), vec![spec("floor", 100)], 4).unwrap();
    store.remember(&inputs(150));
    let endless = PolicySpec { module, fuel: u64::MAX, ..spec("endless", 0) };
    let proposal = store.prepare(store.turn().unwrap(), vec![endless]).unwrap();
    let counts = proposal.difference().counts;
    assert_eq!(counts, Counts { replayed: 1, infrastructure_faults: 1, ..Counts::default() });
    let answer = &proposal.difference().templates[0].proposed;
    assert!(answer.infrastructure_fault);
    assert_eq!(answer.reason_code.as_deref(), Some(Reason::PolicyDeadlineExceeded.code()));
}

#[test]
fn a_set_with_faults_leaves_the_running_one_and_every_fault_is_said() {
    let store = store(vec![spec("floor", 100)], 4);
    store.remember(&inputs(150));
    let before = store.running().digest();
    let gone = PolicySpec { module: "/nonexistent/gone.wasm".into(), ..spec("gone", 1) };
    let settings = PolicySpec { settings: json!({ "min_avg_fee": 5, "other": 1 }), ..spec("settings", 1) };
    let pinned = PolicySpec { sha256: Some([0; 32]), ..spec("pinned", 1) };
    let faults = store.prepare(store.turn().unwrap(), vec![gone, settings, pinned]).unwrap_err();
    let found: Vec<_> = faults.iter().map(|fault| (fault.policy.as_str(), fault.reason)).collect();
    assert_eq!(found.first(), Some(&("gone", Reason::PolicySetUnavailable)), "{faults:?}");
    assert_eq!(found.last(), Some(&("pinned", Reason::PolicyModuleInvalid)), "{faults:?}");
    assert!(found[1..found.len() - 1].iter().all(|f| *f == ("settings", Reason::PolicySettingsInvalid)));
    assert!(found.len() >= 4, "both faults of the settings: {faults:?}");
    assert_eq!((store.running().digest(), store.previous().is_none()), (before, true));
    store.turn().expect("the turn is given back");
}

#[test]
fn the_set_that_runs_already_does_not_push_the_previous_one_out() {
    let store = store(vec![spec("floor", 100)], 4);
    store.remember(&inputs(150));
    let first = store.running().digest();
    let second = store.prepare(store.turn().unwrap(), vec![spec("floor", 200)]).unwrap().commit().proposed;
    let again = store.prepare(store.turn().unwrap(), vec![spec("floor", 200)]).unwrap();
    assert!(again.is_running());
    assert_eq!(again.difference().counts, Counts::default(), "the same set needs no replay");
    again.commit();
    assert_eq!((store.running().digest(), store.previous().unwrap().digest()), (second, first));
}

#[test]
fn whether_a_policy_is_monitored_makes_another_set() {
    let store = store(vec![spec("floor", 100)], 4);
    let monitored = PolicySpec { enforcement: Enforcement::Monitor, ..spec("floor", 100) };
    let proposal = store.prepare(store.turn().unwrap(), vec![monitored]).unwrap();
    assert!(!proposal.is_running());
    proposal.commit();
    assert!(store.running().monitors());
    assert!(store.running().evaluate(&inputs(50)).verdict.accepted, "it gates no more");
    let said = store.running().monitor(&inputs(50));
    assert!(said.len() == 1 && !said[0].verdict.accepted);
}

#[test]
fn a_rollback_is_one_step_back_and_the_next_one_forward_again() {
    let store = store(vec![spec("floor", 100)], 4);
    let turn = store.turn().unwrap();
    assert_eq!(store.rollback(&turn), Err(NoPreviousSet));
    let first = store.running().digest();
    let second = store.prepare(turn, vec![spec("floor", 200)]).unwrap().commit().proposed;
    let turn = store.turn().unwrap();
    for expected in [[first, second], [second, first]] {
        store.rollback(&turn).unwrap();
        assert_eq!([store.running().digest(), store.previous().unwrap().digest()], expected);
    }
}

#[test]
fn changes_come_one_at_a_time() {
    let store = store(vec![spec("floor", 100)], 4);
    let turn = store.turn().unwrap();
    assert_eq!(store.turn().unwrap_err(), Busy);
    let proposal = store.prepare(turn, vec![spec("floor", 200)]).unwrap();
    assert_eq!(store.turn().unwrap_err(), Busy, "a proposal that nobody decided on has the turn");
    proposal.commit();
    store.turn().expect("free again");
}

#[test]
fn only_the_last_templates_are_kept_each_once() {
    let store = store(vec![spec("floor", 100)], 3);
    for fee in [1, 2, 3, 4, 5, 4] {
        store.remember(&inputs(fee));
    }
    assert_eq!(store.remembered(), 3);
    let proposal = store.prepare(store.turn().unwrap(), vec![spec("floor", 200)]).unwrap();
    let kept: Vec<_> = proposal.difference().templates.iter().map(|compared| compared.template).collect();
    assert_eq!(kept, [3, 5, 4].map(|fee| inputs(fee).template.digest));

    let none = PolicyStore::load(engine(patient()), vec![spec("floor", 100)], 0).unwrap();
    none.remember(&inputs(1));
    assert_eq!(none.remembered(), 0);
}

/// A thousand swaps while evaluations come without a pause. Every question gets one answer, and each
/// answer is what the set that signed it must say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_under_a_stream_of_evaluations_lose_and_mix_nothing() {
    const SWAPS: usize = 1_000;
    const ASKING: usize = 3;
    // Each set accepts or rejects a template of 150 for a reason of its own.
    let lists = [vec![spec("floor", 100)], vec![spec("floor", 200)], vec![spec("other", 300)]];
    let expected: HashMap<SetDigest, Option<&str>> = lists
        .iter()
        .zip([None, Some("floor"), Some("other")])
        .map(|(list, decided_by)| (store(list.clone(), 0).running().digest(), decided_by))
        .collect();
    let store = Arc::new(store(lists[0].clone(), 2));
    let judge = Judge::new(store.clone(), 2);
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking: Vec<_> = (0..ASKING)
        .map(|_| {
            let (judge, done, answered) = (judge.clone(), done.clone(), answered.clone());
            tokio::spawn(async move {
                let inputs = Inputs { template: with_fees([150]), context: Arc::new(mempool(0)) };
                let (mut asked, mut answers) = (0_usize, Vec::new());
                while !done.load(Ordering::Relaxed) {
                    asked += 1;
                    answers.push(judge.judge(inputs.clone()).await);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                (asked, answers)
            })
        })
        .collect();
    // Whole proposals, with replay, now and then; steps back and forth in between. Each swap waits for
    // another answer, so that none of the sets is gone before it was asked anything.
    let swapping = tokio::task::spawn_blocking({
        let store = store.clone();
        move || {
            for swap in 0..SWAPS {
                let before = answered.load(Ordering::Relaxed);
                while answered.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
                let turn = store.turn().unwrap();
                if swap % 250 == 0 {
                    let list = lists[(swap / 250 + 1) % lists.len()].clone();
                    store.prepare(turn, list).unwrap().commit();
                } else {
                    store.rollback(&turn).unwrap();
                }
            }
        }
    });
    swapping.await.unwrap();
    done.store(true, Ordering::Relaxed);
    for task in asking {
        let (asked, answers) = task.await.unwrap();
        assert!(asked > 0 && answers.len() == asked, "{} of {asked} answers", answers.len());
        for Judged { judgement, by, .. } in answers {
            assert_eq!(judgement.set, by.digest());
            let expected = expected[&judgement.set];
            assert_eq!(judgement.decided_by.as_deref(), expected, "not what {} says", judgement.set);
            assert_eq!(judgement.verdict.accepted, expected.is_none());
        }
    }
}

#[tokio::test]
async fn monitored_policies_have_one_place_and_are_skipped_while_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("endless.wasm");
    std::fs::write(&module, hostile::component("(loop (br 0)) unreachable")).unwrap();
    let endless =
        PolicySpec { module, fuel: u64::MAX, enforcement: Enforcement::Monitor, ..spec("endless", 0) };
    let store =
        PolicyStore::load(engine(EngineLimits::default()), vec![spec("floor", 100), endless], 0).unwrap();
    let store = Arc::new(store);
    let judge = Judge::new(store.clone(), 1);
    // Polled in this order, so the first has the place when the second asks.
    let (first, second) = tokio::join!(
        biased;
        judge.monitor(store.running(), inputs(150)),
        judge.monitor(store.running(), inputs(150))
    );
    assert!(matches!(second, Some(Monitored::Skipped)), "{second:?}");
    let Some(Monitored::Said(said)) = first else { panic!("{first:?}") };
    assert_eq!(said.len(), 1, "the enforcing policy is not asked again");
    let code = said[0].verdict.reason_code.as_ref().unwrap();
    assert_eq!(code.as_str(), Reason::PolicyDeadlineExceeded.code());
    assert!(judge.monitor(store.running(), inputs(150)).await.is_some(), "the place is free again");

    let plain = PolicyStore::load(engine(patient()), vec![spec("floor", 100)], 0).unwrap();
    assert!(judge.monitor(plain.running(), inputs(150)).await.is_none(), "nothing to ask");
}
