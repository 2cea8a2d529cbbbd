//! The policy room through the real engine: `fee-floor` as built from its sources, and hostile guests
//! written by hand, each answered with its code.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "policy/built.rs"]
mod built;
#[path = "policy/hostile.rs"]
mod hostile;
#[path = "policy/templates.rs"]
mod templates;

use built::module;
use reservegrid::{
    policy::{
        DEFAULT_FUEL, Enforcement, EngineLimits, Inputs, Judge, Judgement, PolicyEngine, PolicyFault,
        PolicySet, PolicySpec, PolicyStore, Verdict,
    },
    reason::Reason,
    template::{Context, Template, facts::assemble},
};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc, time::Duration};
use templates::{mempool, with_fees};

fn spec(module: impl Into<PathBuf>, settings: Value) -> PolicySpec {
    PolicySpec {
        name: "under-test".into(),
        module: module.into(),
        sha256: None,
        settings,
        fuel: DEFAULT_FUEL,
        enforcement: Enforcement::Enforce,
    }
}

/// Loads a set on an engine of its own.
fn load_set(limits: EngineLimits, specs: &[PolicySpec]) -> Result<PolicySet, Vec<PolicyFault>> {
    PolicySet::load(&PolicyEngine::start(limits, None).unwrap(), specs)
}

fn inputs(template: Arc<Template>, context: Context) -> Inputs {
    Inputs { template, context: Arc::new(context) }
}

/// All the time in the world, so that a slow machine changes no verdict.
fn patient() -> EngineLimits {
    EngineLimits { deadline: Duration::from_secs(3600), ..EngineLimits::default() }
}

fn load(settings: Value) -> PolicySet {
    load_set(patient(), &[spec(module("fee-floor"), settings)]).unwrap()
}

/// The only fault of a set that does not load.
fn fault(spec: PolicySpec) -> PolicyFault {
    let faults = load_set(EngineLimits::default(), &[spec]).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.into_iter().next().unwrap()
}

fn tiers() -> Value {
    json!({ "min_avg_fee": { "low": 100, "mid": 200, "high": 1000 } })
}

/// The verdict as it appears in events: text, so that the order of keys is compared too.
fn verdict(judgement: &Judgement) -> String {
    serde_json::to_string(&judgement.verdict).unwrap()
}

#[test]
fn a_template_above_the_floor_is_accepted() {
    let set = load(tiers());
    let judgement = set.evaluate(&inputs(with_fees([200, 201]), mempool(1_000_000)));
    assert_eq!(
        verdict(&judgement),
        r#"{"accepted":true,"reason_code":null,"reason_detail":null,"policy_context":{}}"#
    );
    assert_eq!(judgement.decided_by, None);
    assert_eq!(judgement.set, set.digest());
    assert!(!judgement.infrastructure_fault);
    assert!(judgement.policies[0].fuel.is_some_and(|fuel| fuel > 0 && fuel < DEFAULT_FUEL));
}

#[test]
fn an_average_below_the_floor_has_exactly_the_catalogues_shape() {
    let judgement = load(tiers()).evaluate(&inputs(with_fees([140, 142]), mempool(1_000_000)));
    assert_eq!(
        verdict(&judgement),
        r#"{"accepted":false,"reason_code":"avg_fee_below_minimum","reason_detail":"avg_fee=141 < min_avg_fee_used=200","policy_context":{"fee_tier":"mid","min_avg_fee_used":200}}"#
    );
    assert_eq!(judgement.decided_by.as_deref(), Some("under-test"));
    assert!(!judgement.infrastructure_fault);
}

#[test]
fn every_other_code_of_fee_floor_comes_through_the_engine() {
    let open = json!({ "mid": 0, "high": 0 });
    let cases = [
        (
            json!({ "min_avg_fee": open, "min_total_fees": 1110 }),
            mempool(0),
            r#"{"accepted":false,"reason_code":"total_fees_below_minimum","reason_detail":"total_fees=1109 < min_total_fees=1110","policy_context":{"min_total_fees":1110}}"#,
        ),
        (
            json!({ "min_avg_fee": open, "min_fee_rate": 5000 }),
            mempool(0),
            // 111 vbytes at 5 satoshi each would be 555
            r#"{"accepted":false,"reason_code":"transaction_fee_rate_below_minimum","reason_detail":"fee_rate=4990 < min_fee_rate=5000","policy_context":{"min_fee_rate":5000,"transaction_index":1}}"#,
        ),
        (
            tiers(),
            Context::default(),
            r#"{"accepted":false,"reason_code":"mempool_context_unavailable","reason_detail":"mempool=unknown, unknown_mempool=reject","policy_context":{"unknown_mempool":"reject"}}"#,
        ),
    ];
    for (settings, context, expected) in cases {
        let judgement = load(settings).evaluate(&inputs(with_fees([555, 554]), context));
        assert_eq!(verdict(&judgement), expected);
    }
}

#[test]
fn the_first_rejection_decides_and_what_was_said_before_is_kept() {
    let mut specs = [
        spec(module("fee-floor"), json!({ "min_avg_fee": { "mid": 0, "high": 0 } })),
        spec(module("fee-floor"), tiers()),
    ];
    specs[1].name = "strict".into();
    let set = load_set(patient(), &specs).unwrap();
    let judgement = set.evaluate(&inputs(with_fees([1]), mempool(0)));
    assert_eq!(judgement.decided_by.as_deref(), Some("strict"));
    let said: Vec<(&str, bool)> =
        judgement.policies.iter().map(|result| (result.name.as_str(), result.verdict.accepted)).collect();
    assert_eq!(said, [("under-test", true), ("strict", false)]);
}

#[test]
fn the_same_inputs_take_the_same_fuel_on_any_set() {
    let settings = json!({ "min_avg_fee": { "mid": 0, "high": 0 }, "min_fee_rate": 1 });
    let (first, second) = (load(settings.clone()), load(settings));
    assert_eq!(first.digest(), second.digest());
    let template = with_fees(std::iter::repeat_n(1000, 300));
    let fuel =
        |set: &PolicySet| set.evaluate(&inputs(template.clone(), mempool(0))).policies[0].fuel.unwrap();
    assert_eq!([fuel(&first), fuel(&first)], [fuel(&second); 2]);
}

#[test]
fn other_settings_other_fuel_or_other_memory_make_another_set() {
    let digest = |settings, fuel| {
        let spec = PolicySpec { fuel, ..spec(module("fee-floor"), settings) };
        load_set(EngineLimits::default(), &[spec]).unwrap().digest()
    };
    let base = digest(tiers(), DEFAULT_FUEL);
    assert_ne!(base, digest(tiers(), DEFAULT_FUEL + 1));
    let memory = EngineLimits { memory_bytes: 32 << 20, ..EngineLimits::default() };
    assert_ne!(base, load_set(memory, &[spec(module("fee-floor"), tiers())]).unwrap().digest());
    assert_ne!(base, digest(json!({ "min_avg_fee": { "mid": 0, "high": 0 } }), DEFAULT_FUEL));
}

#[test]
fn every_fault_of_every_policy_is_reported_at_once() {
    let bad = json!({ "min_avg_fee": { "mid": "x" }, "tiers": 5, "floor": 1 });
    let specs = [
        spec(module("fee-floor"), bad),
        PolicySpec { name: "gone".into(), ..spec("/nonexistent/gone.wasm", json!({})) },
    ];
    let faults = load_set(EngineLimits::default(), &specs).unwrap_err();
    let found: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let prefix = "policy \"under-test\": policy_settings_invalid:";
    assert_eq!(
        found,
        [
            format!("{prefix} min_avg_fee.mid: must be a whole number from 0 to 2100000000000000, not \\\"x\\\""),
            format!("{prefix} min_avg_fee.high: is missing; it has no default"),
            format!("{prefix} tiers: must be an object, not 5"),
            format!("{prefix} floor: is not a setting of this policy; there are: min_avg_fee, tiers, min_total_fees, min_fee_rate, unknown_mempool, accept_empty"),
            "policy \"gone\": policy_set_unavailable: cannot read /nonexistent/gone.wasm: No such file or directory (os error 2)".into(),
        ]
    );
}

#[test]
fn a_module_with_another_digest_than_pinned_is_refused() {
    let fault = fault(PolicySpec { sha256: Some([0; 32]), ..spec(module("fee-floor"), tiers()) });
    assert_eq!(fault.reason, Reason::PolicyModuleInvalid);
    assert!(fault.detail.contains("not the one that the configuration pins"), "{fault}");
}

#[test]
fn what_is_no_component_of_the_contract_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let wasi = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "f" (func)))))"#;
    let future = r#"(component (import "reservegrid:policy/log@9.0.0" (instance (export "f" (func)))))"#;
    let cases: [(&[u8], Reason, &str); 6] = [
        (b"hello, world", Reason::PolicyModuleInvalid, "this is not WebAssembly"),
        (b"", Reason::PolicyModuleInvalid, "this is not WebAssembly"),
        (&wat::parse_str("(module)").unwrap(), Reason::PolicyModuleInvalid, "a core WebAssembly module"),
        (&wat::parse_str("(component)").unwrap(), Reason::PolicyModuleInvalid, "does not fit the contract"),
        (&wat::parse_str(wasi).unwrap(), Reason::PolicyImportRefused, "wasi:cli/environment@0.2.0"),
        (&wat::parse_str(future).unwrap(), Reason::PolicyImportRefused, "serves version 0.1.0"),
    ];
    for (index, (bytes, reason, words)) in cases.into_iter().enumerate() {
        let path = dir.path().join(format!("{index}.wasm"));
        std::fs::write(&path, bytes).unwrap();
        let fault = fault(spec(path, json!({})));
        assert_eq!(fault.reason, reason, "{fault}");
        assert!(fault.detail.contains(words), "{fault}");
    }
}

/// A set of one hostile guest.
fn hostile_set(evaluate: &str, fuel: u64, limits: EngineLimits) -> PolicySet {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.wasm");
    std::fs::write(&path, hostile::component(evaluate)).unwrap();
    load_set(limits, &[PolicySpec { fuel, ..spec(path, json!({})) }]).unwrap()
}

/// What comes of a hostile guest.
fn judged(evaluate: &str, fuel: u64) -> Judgement {
    let set = hostile_set(evaluate, fuel, patient());
    set.evaluate(&inputs(with_fees([1, 2, 3]), Context::default()))
}

/// Asserts that a guest is answered with a code of the gateway, in words that fit.
fn assert_answered(evaluate: &str, fuel: u64, reason: Reason, words: &str) {
    let judgement = judged(evaluate, fuel);
    let code = judgement.verdict.reason_code.as_ref().map(ToString::to_string);
    let detail = judgement.verdict.reason_detail.as_deref().unwrap_or_default();
    assert_eq!(code.as_deref(), Some(reason.code()), "{detail}");
    assert!(detail.contains(words), "{detail}");
    assert!(!judgement.verdict.accepted);
    assert!(!detail.chars().any(char::is_control), "{detail:?}");
    assert!(!judgement.infrastructure_fault);
}

#[test]
fn a_well_behaved_guest_written_by_hand_is_accepted() {
    assert!(judged("i32.const 1024", DEFAULT_FUEL).verdict.accepted);
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    assert_answered(
        "(loop (br 0)) unreachable",
        DEFAULT_FUEL,
        Reason::PolicyFuelExhausted,
        "its 10000000 units",
    );
}

#[test]
fn an_endless_loop_with_endless_fuel_is_stopped_by_the_clock() {
    let set = hostile_set("(loop (br 0)) unreachable", u64::MAX, EngineLimits::default());
    let judgement = set.evaluate(&inputs(with_fees([]), Context::default()));
    let detail = "no verdict within 50 ms, the time for the whole set";
    assert_eq!(judgement.verdict, Verdict::fault(Reason::PolicyDeadlineExceeded, detail));
    assert!(judgement.infrastructure_fault);
    assert_eq!(judgement.policies[0].fuel, None);
}

#[test]
fn a_policy_whose_time_is_used_up_before_it_begins_is_not_started() {
    let limits = EngineLimits { deadline: Duration::ZERO, ..EngineLimits::default() };
    let set = hostile_set("i32.const 1024", DEFAULT_FUEL, limits);
    let judgement = set.evaluate(&inputs(with_fees([]), Context::default()));
    assert_eq!(judgement.verdict.reason_code.unwrap().as_str(), Reason::PolicyDeadlineExceeded.code());
}

#[test]
fn a_memory_bomb_is_stopped_at_the_limit() {
    let bomb = "(loop (drop (memory.grow (i32.const 16))) (br 0)) unreachable";
    assert_answered(bomb, DEFAULT_FUEL, Reason::PolicyMemoryExceeded, "67108864 bytes");
}

#[test]
fn pulling_template_data_without_end_is_stopped_at_a_budget() {
    let pull = "(loop (call $raw-transaction (i32.const 0) (i32.const 2048)) (br 0)) unreachable";
    assert_answered(pull, u64::MAX, Reason::PolicyMemoryExceeded, "bytes of template data");
}

#[test]
fn traps_are_answered_with_what_they_were() {
    for (evaluate, words) in [
        ("unreachable", "unreachable"),
        ("(call $recurse (i32.const 0)) unreachable", "call stack exhausted"),
        ("(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        ("(i32.load (i32.const -4))", "out of bounds memory access"),
    ] {
        assert_answered(evaluate, DEFAULT_FUEL, Reason::PolicyTrapped, words);
    }
}

#[test]
fn malformed_output_never_gets_through() {
    for (evaluate, words) in [
        (hostile::reject("evil\ncode", "fine", 0), "is not of the form"),
        (hostile::reject("Upper", "fine", 0), "is not of the form"),
        (hostile::reject("unlisted_code", "fine", 0), "not one of the codes"),
        (hostile::reject("listed_code", "red \u{1b}[31m", 0), "control character U+001B"),
        (hostile::reject("listed_code", &"x".repeat(513), 0), "513 bytes long"),
        (hostile::reject("listed_code", "fine", 17), "17 context entries"),
        (hostile::reject("listed_code", "fine", 2), "is given twice"),
        (hostile::reject("listed_code", "fine", 1_000_000), ""),
        ("i32.const -4".into(), ""),
        ("i32.const 2".into(), ""),
        ("(i32.store8 (i32.const 1024) (i32.const 7)) i32.const 1024".into(), ""),
    ] {
        assert_answered(&evaluate, DEFAULT_FUEL, Reason::PolicyOutputInvalid, words);
    }
    let fine = judged(&hostile::reject("listed_code", "fine", 1), DEFAULT_FUEL);
    assert_eq!(
        verdict(&fine),
        r#"{"accepted":false,"reason_code":"listed_code","reason_detail":"fine","policy_context":{"entry":false}}"#
    );
}

#[test]
fn a_stopped_guest_costs_its_instance_and_nothing_else() {
    let set = hostile_set("unreachable", DEFAULT_FUEL, patient());
    let template = with_fees([]);
    for _ in 0..200 {
        let judgement = set.evaluate(&inputs(template.clone(), Context::default()));
        assert_eq!(judgement.verdict.reason_code.unwrap().as_str(), Reason::PolicyTrapped.code());
    }
}

/// A set of guests written by hand: for each its name, its body of `evaluate`, and whether it counts.
fn guests(limits: EngineLimits, guests: &[(&str, &str, Enforcement)]) -> PolicySet {
    let dir = tempfile::tempdir().unwrap();
    let spec = |(name, evaluate, enforcement): &(&str, &str, Enforcement)| {
        let path = dir.path().join(name);
        std::fs::write(&path, hostile::component(evaluate)).unwrap();
        PolicySpec {
            name: (*name).into(),
            fuel: u64::MAX,
            enforcement: *enforcement,
            ..spec(path, json!({}))
        }
    };
    load_set(limits, &guests.iter().map(spec).collect::<Vec<_>>()).unwrap()
}

const ACCEPTS: &str = "i32.const 1024";
const ENDLESS: &str = "(loop (br 0)) unreachable";

/// Code and infrastructure fault of each policy, in order.
fn said(judgement: &Judgement) -> Vec<(Option<String>, bool)> {
    let code = |verdict: &Verdict| verdict.reason_code.as_ref().map(ToString::to_string);
    judgement.policies.iter().map(|said| (code(&said.verdict), said.infrastructure_fault)).collect()
}

#[test]
fn a_policy_has_what_the_ones_before_it_left_of_the_sets_time() {
    use Enforcement::Enforce;
    let limits = EngineLimits { deadline: Duration::from_secs(1), ..EngineLimits::default() };
    let set = guests(limits, &[("endless", ENDLESS, Enforce), ("endless-too", ENDLESS, Enforce)]);
    let judgement = set.evaluate(&inputs(with_fees([1]), Context::default()));
    let late = (Some(Reason::PolicyDeadlineExceeded.code().to_owned()), true);
    assert_eq!(said(&judgement), [late.clone(), late], "nothing was left for the second");
    assert_eq!(judgement.decided_by.as_deref(), Some("endless"));
    assert!(judgement.infrastructure_fault);
}

#[test]
fn a_rejection_stays_the_verdict_when_a_later_policy_is_too_late() {
    use Enforcement::Enforce;
    let limits = EngineLimits { deadline: Duration::from_secs(1), ..EngineLimits::default() };
    let rejects = hostile::reject("listed_code", "fine", 0);
    let set = guests(limits, &[("strict", &rejects, Enforce), ("endless", ENDLESS, Enforce)]);
    let judgement = set.evaluate(&inputs(with_fees([1]), Context::default()));
    assert_eq!(judgement.decided_by.as_deref(), Some("strict"));
    assert_eq!(judgement.verdict.reason_code.as_ref().unwrap().as_str(), "listed_code");
    assert!(!judgement.infrastructure_fault, "the template was refused for what it is");
    let late = Some(Reason::PolicyDeadlineExceeded.code().to_owned());
    assert_eq!(said(&judgement), [(Some("listed_code".into()), false), (late, true)]);
}

/// A template of which one transaction is declared with a weight that it does not have.
fn declared_wrongly() -> Inputs {
    let mut declared = templates::declared([500, 501]);
    declared.transactions[1].weight = Some(4);
    let template = assemble(&declared).unwrap();
    assert_eq!(template.discrepancies.len(), 1);
    inputs(Arc::new(template), mempool(1_000_000))
}

const ASKS: &str = "(call $discrepancies (i32.const 512))";

#[test]
fn a_discrepancy_that_no_enforcing_policy_asked_for_is_refused_by_the_gateway() {
    use Enforcement::{Enforce, Monitor};
    let asks = format!("{ASKS} {ACCEPTS}");
    for policies in [
        vec![],
        vec![("good", ACCEPTS, Enforce)],
        vec![("good", ACCEPTS, Enforce), ("watcher", &asks, Monitor)],
    ] {
        let set = guests(patient(), &policies);
        let judgement = set.evaluate(&declared_wrongly());
        assert_eq!(
            judgement.verdict.reason_code.as_ref().map(ToString::to_string).as_deref(),
            Some(Reason::TemplateSourceInvalid.code())
        );
        let detail = judgement.verdict.reason_detail.as_deref().unwrap();
        assert!(detail.contains("of transaction 1 is declared as 4, but"), "{detail}");
        assert_eq!(judgement.decided_by, None);
        assert!(!judgement.infrastructure_fault);
        let fine = set.evaluate(&inputs(with_fees([500, 501]), mempool(1_000_000)));
        assert!(fine.verdict.accepted, "{:?}", fine.verdict);
    }
}

#[test]
fn a_policy_that_asked_and_answered_has_judged_the_discrepancies_wherever_it_stands() {
    use Enforcement::Enforce;
    let asks = format!("{ASKS} {ACCEPTS}");
    for policies in [
        [("asks", asks.as_str(), Enforce), ("good", ACCEPTS, Enforce)],
        [("good", ACCEPTS, Enforce), ("asks", asks.as_str(), Enforce)],
    ] {
        let judgement = guests(patient(), &policies).evaluate(&declared_wrongly());
        assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
    }
}

#[test]
fn a_policy_that_asks_and_then_fails_lets_nothing_through() {
    use Enforcement::Enforce;
    let asks = format!("{ASKS} unreachable");
    let set = guests(patient(), &[("asks", &asks, Enforce), ("good", ACCEPTS, Enforce)]);
    let judgement = set.evaluate(&declared_wrongly());
    assert_eq!(judgement.verdict.reason_code.unwrap().as_str(), Reason::PolicyTrapped.code());
    assert_eq!(judgement.decided_by.as_deref(), Some("asks"));
}

#[test]
fn a_small_budget_for_evaluations_does_not_keep_a_policy_from_being_loaded() {
    let set = load_set(patient(), &[PolicySpec { fuel: 1, ..spec(module("fee-floor"), tiers()) }]).unwrap();
    let judgement = set.evaluate(&inputs(with_fees([500]), mempool(0)));
    assert_eq!(judgement.verdict.reason_code.unwrap().as_str(), Reason::PolicyFuelExhausted.code());
    assert!(judgement.verdict.reason_detail.unwrap().contains("its 1 units"));
}

fn judge(limits: EngineLimits, workers: usize) -> Judge {
    let engine = PolicyEngine::start(limits, None).unwrap();
    let store = PolicyStore::load(engine, vec![spec(module("fee-floor"), tiers())], 0).unwrap();
    Judge::new(Arc::new(store), workers)
}

#[tokio::test]
async fn the_judge_gives_the_same_verdict_off_the_async_threads() {
    let judged = judge(patient(), 1).judge(inputs(with_fees([140, 142]), mempool(1_000_000))).await;
    assert_eq!(judged.judgement.verdict.reason_code.unwrap().as_str(), "avg_fee_below_minimum");
}

#[tokio::test]
async fn without_a_free_place_the_judge_rejects_instead_of_queueing() {
    let judged = judge(EngineLimits::default(), 0).judge(inputs(with_fees([500]), mempool(0))).await;
    let Judgement { verdict, infrastructure_fault, .. } = judged.judgement;
    assert_eq!(verdict.reason_code.unwrap().as_str(), Reason::PolicySetUnavailable.code());
    assert!(infrastructure_fault);
}

#[tokio::test]
async fn when_every_place_stays_taken_the_judge_rejects_and_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("endless.wasm");
    std::fs::write(&module, hostile::component(ENDLESS)).unwrap();
    let limits = EngineLimits { deadline: Duration::from_millis(500), ..EngineLimits::default() };
    let engine = PolicyEngine::start(limits, None).unwrap();
    let spec = PolicySpec { fuel: u64::MAX, ..spec(module, json!({})) };
    let judge = Judge::new(Arc::new(PolicyStore::load(engine, vec![spec], 0).unwrap()), 1);
    // In line for one place, which each has for a whole deadline; the last would wait for seven.
    let line: Vec<_> = (0..8)
        .map(|_| {
            let judge = judge.clone();
            tokio::spawn(async move { judge.judge(inputs(with_fees([500]), mempool(0))).await.judgement })
        })
        .collect();
    let mut judgements = Vec::new();
    for place in line {
        judgements.push(place.await.unwrap());
    }
    let code =
        |judgement: &Judgement| judgement.verdict.reason_code.as_ref().map(ToString::to_string).unwrap();
    assert!(judgements.iter().all(|judgement| judgement.infrastructure_fault));
    assert_eq!(code(&judgements[0]), Reason::PolicyDeadlineExceeded.code());
    assert_eq!(code(&judgements[7]), Reason::PolicySetUnavailable.code());
    assert!(judgements[7].policies.is_empty());
    let detail = judgements[7].verdict.reason_detail.as_deref().unwrap();
    assert!(detail.contains("`workers` in `[engine]`"), "{detail}");
}
