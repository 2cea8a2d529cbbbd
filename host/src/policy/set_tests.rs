//! What no component can do: make the engine itself fail. And what is seen from inside alone: which
//! instances were made, and when.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::{
    policy::{
        call::Stopped,
        contract::{Guest, Instance, State, types},
        ready::MAX_READY,
    },
    template::{
        facts::assemble,
        synthetic::{self, ContextTable, TemplateTable},
    },
};
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmtime::Store;

/// A guest that is no wasm.
#[derive(Clone, Default)]
struct Scripted {
    made: Arc<AtomicUsize>,
    fails_when_made: bool,
    fails_when_called: bool,
}

impl Guest for Scripted {
    fn instantiate(&self, _: &mut Store<State>) -> wasmtime::Result<Box<dyn Instance>> {
        assert!(!self.fails_when_made, "a defect");
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(self.clone()))
    }
}

impl Instance for Scripted {
    fn metadata(&self, _: &mut Store<State>) -> wasmtime::Result<types::PolicyMetadata> {
        unreachable!("it is not loaded")
    }

    fn validate_settings(
        &self,
        _: &mut Store<State>,
        _: &str,
    ) -> wasmtime::Result<Result<(), Vec<types::SettingsFault>>> {
        unreachable!("it is not loaded")
    }

    fn evaluate(&self, _: &mut Store<State>, _: &str) -> wasmtime::Result<types::Verdict> {
        assert!(!self.fails_when_called, "a defect");
        Ok(types::Verdict::Accept)
    }
}

fn set(guests: Vec<Scripted>) -> PolicySet {
    let limits = EngineLimits { deadline: Duration::from_secs(3600), ..EngineLimits::default() };
    let policy = |guest: Scripted| Policy {
        name: "scripted".into(),
        path: PathBuf::new(),
        info: PolicyInfo {
            name: "scripted".into(),
            version: String::new(),
            summary: String::new(),
            codes: Vec::new(),
            settings_schema: String::new(),
        },
        module: Arc::new(Module { digest: [0; 32], version: Version::V0_1_0, guest: Box::new(guest) }),
        settings: "{}".into(),
        fuel: DEFAULT_FUEL,
        enforcement: Enforcement::Enforce,
        waiting: Waiting::default(),
    };
    let policies = guests.into_iter().map(policy).collect();
    PolicySet { engine: PolicyEngine::start(limits, None).unwrap(), digest: SetDigest([0; 32]), policies }
}

fn inputs() -> Inputs {
    let (declared, context) = synthetic::build(&TemplateTable::default(), &ContextTable::default()).unwrap();
    Inputs { template: Arc::new(assemble(&declared).unwrap()), context: Arc::new(context) }
}

fn made(guest: &Scripted) -> usize {
    guest.made.load(Ordering::Relaxed)
}

#[test]
fn a_panic_around_a_guest_is_a_rejection_and_the_others_are_asked_all_the_same() {
    let inputs = inputs();
    for [fails_when_made, fails_when_called] in [[true, false], [false, true]] {
        let broken = Scripted { fails_when_made, fails_when_called, ..Scripted::default() };
        let set = set(vec![broken, Scripted::default()]);
        for _ in 0..3 {
            set.make_ready();
            for judgement in [set.evaluate(&inputs), set.judge(&inputs).0] {
                let Verdict { accepted, reason_code, reason_detail, .. } = judgement.verdict;
                assert!(!accepted && judgement.infrastructure_fault);
                assert_eq!(reason_code.unwrap().to_string(), Reason::PolicyTrapped.code());
                assert!(reason_detail.unwrap().contains("the gateway itself failed"));
                let accepted: Vec<_> =
                    judgement.policies.iter().map(|policy| policy.verdict.accepted).collect();
                assert_eq!(accepted, [false, true]);
            }
        }
    }
}

#[test]
fn a_panic_while_a_module_is_loaded_is_a_fault_of_it() {
    let set = set(vec![Scripted::default()]);
    let broken = Scripted { fails_when_called: true, ..Scripted::default() };
    let Err(Stopped { reason, infrastructure, .. }) =
        call(&set.engine, &broken, loading(1), |instance, store| instance.evaluate(store, ""))
    else {
        panic!("it gave an answer");
    };
    assert_eq!((reason, infrastructure), (Reason::PolicyTrapped, true));
}

#[test]
fn an_instance_made_ahead_is_used_once_and_only_by_a_judgement() {
    let (guest, inputs) = (Scripted::default(), inputs());
    let set = set(vec![guest.clone()]);
    set.make_ready();
    set.make_ready();
    assert_eq!(made(&guest), 1, "one waits");
    set.evaluate(&inputs);
    assert_eq!(made(&guest), 2, "it is not for replays");
    let (judgement, spent) = set.judge(&inputs);
    assert!(judgement.verdict.accepted);
    assert_eq!((made(&guest), spent.0.len()), (2, 1), "it was taken");
    let (_, spent) = set.judge(&inputs);
    assert_eq!((made(&guest), spent.0.len()), (3, 0), "none waits any more");
    set.make_ready();
    set.rest();
    set.judge(&inputs);
    assert_eq!(made(&guest), 5, "what rests has nothing that waits");
}

#[test]
fn no_more_instances_wait_than_there_are_places_until_those_used_are_thrown_away() {
    let (guest, inputs) = (Scripted::default(), inputs());
    let most = MAX_READY as usize;
    let set = set(vec![guest.clone(); most + 5]);
    set.make_ready();
    assert_eq!(made(&guest), most);
    let (judgement, spent) = set.judge(&inputs);
    assert!(judgement.verdict.accepted);
    assert_eq!((made(&guest), spent.0.len()), (most + 5, most));
    set.make_ready();
    assert_eq!(made(&guest), most + 5, "their places are taken");
    drop(spent);
    set.make_ready();
    assert_eq!(made(&guest), 2 * most + 5);
}
