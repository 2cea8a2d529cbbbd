//! The standard pack as a whole, through the engine: its codes, its fuel, and its compiled code on disk.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "policy/built.rs"]
mod built;
#[path = "policy/pack.rs"]
mod pack;
#[path = "policy/templates.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod templates;

use reservegrid::{
    policy::{Enforcement, EngineLimits, Inputs, Judgement, Loads, PolicyEngine, PolicySet, PolicySpec},
    reason::Reason,
    template::{Context, facts::assemble},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// All the time in the world, so that a slow machine changes no verdict.
fn engine(cache: Option<&Path>) -> Arc<PolicyEngine> {
    let limits = EngineLimits { deadline: Duration::from_secs(3600), ..EngineLimits::default() };
    PolicyEngine::start(limits, cache).unwrap()
}

fn load(engine: &Arc<PolicyEngine>) -> PolicySet {
    PolicySet::load(engine, &pack::specs()).unwrap()
}

#[test]
fn the_pack_has_the_codes_of_the_catalogue_and_no_two_policies_share_one() {
    let catalogue: BTreeSet<&str> = [
        // integrity
        "invalid_previous_hash",
        "stale_previous_hash",
        "bits_mismatch",
        "version_not_allowed",
        "ntime_out_of_range",
        "merkle_root_mismatch",
        "witness_commitment_missing",
        "witness_commitment_mismatch",
        "coinbase_height_mismatch",
        "coinbase_script_length_invalid",
        "coinbase_value_mismatch",
        "duplicate_transaction",
        "double_spend_in_template",
        "transaction_order_invalid",
        "transaction_not_final",
        "transaction_count_mismatch",
        "template_weight_mismatch",
        "template_sigops_mismatch",
        // limits
        "template_empty",
        "transaction_count_above_limit",
        "block_weight_above_limit",
        "block_sigops_above_limit",
        "coinbase_sigops_above_limit",
        "transaction_weight_above_limit",
        "template_age_above_limit",
        // fee-floor
        "avg_fee_below_minimum",
        "total_fees_below_minimum",
        "transaction_fee_rate_below_minimum",
        "mempool_context_unavailable",
        // revenue-guard
        "template_value_below_best",
        "fee_sum_mismatch",
        // coinbase-guard
        "coinbase_payout_missing",
        "coinbase_payout_too_low",
        "coinbase_output_unexpected",
        "coinbase_tag_missing",
        // mempool-agreement
        "unknown_transactions_exceeded",
    ]
    .into();
    let set = load(&engine(None));
    let codes: Vec<&str> = set
        .policies()
        .iter()
        .flat_map(|policy| policy.info().codes.iter().map(|code| code.code.as_str()))
        .collect();
    assert_eq!(codes.len(), catalogue.len(), "a code twice: {codes:?}");
    assert_eq!(codes.into_iter().collect::<BTreeSet<_>>(), catalogue);
}

#[test]
fn the_pack_accepts_natively_what_it_accepts_in_the_engine() {
    let inputs = pack::inputs(500);
    let judgement = load(&engine(None)).evaluate(&inputs);
    assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
    assert!(pack::Native::new(&inputs).judge().is_ok());
}

/// As templates of a Template Provider are: the sum of the fees follows from the coinbase value.
#[test]
fn the_pack_judges_a_template_whose_single_fees_nobody_says_unless_a_policy_needs_them() {
    let mut declared = templates::declared([500, 501]);
    declared.transactions.iter_mut().for_each(|entry| entry.fee = None);
    let template = assemble(&declared).unwrap();
    assert_eq!((template.facts.unknown_fees, template.facts.total_fees), (2, 1_001));
    assert!(template.discrepancies.is_empty(), "{:?}", template.discrepancies);
    let context = Arc::new(Context { taken_at: 1_750_000_600, ..templates::mempool(2_000_000) });
    let inputs = Inputs { template: Arc::new(template), context };
    let needs_them = pack::specs();
    let mut does_not = needs_them.clone();
    does_not.last_mut().unwrap().settings["min_fee_rate"] = 0.into();
    let engine = engine(None);
    let judge = |specs: &[PolicySpec]| PolicySet::load(&engine, specs).unwrap().evaluate(&inputs);
    let judgement = judge(&does_not);
    assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
    let judgement = judge(&needs_them);
    assert_eq!(judgement.decided_by.as_deref(), Some("fee-floor"));
    let code = judgement.verdict.reason_code.map(|code| code.to_string());
    assert_eq!(code.as_deref(), Some(Reason::PolicyFactUnknown.code()));
    assert!(!judgement.infrastructure_fault, "it says something about the template");
}

/// Fuel is counted, not measured, so a policy that became dear shows on any machine. Compilers differ a
/// little in what they make of the same source, hence the room.
#[test]
fn no_policy_of_the_pack_uses_much_more_fuel_than_is_written_down() {
    const ROOM_PERCENT: u64 = 15;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/fuel.toml");
    let written: BTreeMap<String, u64> = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let judgement = load(&engine(None)).evaluate(&pack::inputs(10_000));
    let used: BTreeMap<String, u64> =
        judgement.policies.iter().map(|policy| (policy.name.clone(), policy.fuel.unwrap())).collect();
    let now = used.iter().map(|(name, fuel)| format!("{name} = {fuel}\n")).collect::<String>();
    assert_eq!(
        used.keys().collect::<Vec<_>>(),
        written.keys().collect::<Vec<_>>(),
        "write this into {}:\n{now}",
        file.display()
    );
    for (name, fuel) in &used {
        let most = written[name] * (100 + ROOM_PERCENT) / 100;
        let least = written[name] * (100 - ROOM_PERCENT) / 100;
        assert!(
            (least..=most).contains(fuel),
            "{name} uses {fuel} fuel on 10,000 transactions, {} is written down; if that is meant, write this \
             into {}:\n{now}",
            written[name],
            file.display()
        );
    }
}

/// The guard of the engine itself, apart from the pack, is tested in `policy.rs`.
#[test]
fn a_wrongly_declared_template_is_for_an_enforcing_integrity_to_refuse() {
    let mut declared = templates::declared([500, 501]);
    declared.transactions[1].weight = Some(4);
    let wrong = Inputs {
        template: Arc::new(assemble(&declared).unwrap()),
        context: Arc::new(Context { taken_at: 1_750_000_600, ..templates::mempool(2_000_000) }),
    };
    let engine = engine(None);
    let judged = |specs: &[PolicySpec], inputs: &Inputs| {
        let Judgement { verdict, decided_by, .. } = PolicySet::load(&engine, specs).unwrap().evaluate(inputs);
        (verdict.reason_code.map(|code| code.to_string()), decided_by)
    };
    let spec = |name| PolicySpec { module: built::module(name), ..pack::spec(name) };
    let (floor, integrity) = (spec("fee-floor"), spec("integrity"));
    let watching = PolicySpec { enforcement: Enforcement::Monitor, ..integrity.clone() };
    let refused = (Some(Reason::TemplateSourceInvalid.code().to_owned()), None);
    assert_eq!(judged(std::slice::from_ref(&floor), &wrong), refused);
    assert_eq!(judged(&[floor.clone(), watching], &wrong), refused, "a monitored policy does not count");
    let named = (Some("template_weight_mismatch".to_owned()), Some("integrity".to_owned()));
    assert_eq!(judged(&[floor.clone(), integrity.clone()], &wrong), named);
    assert_eq!(judged(&[integrity, floor], &pack::inputs(3)), (None, None));
}

#[test]
fn compiled_code_is_kept_used_by_the_next_start_and_never_believed_when_it_changed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("code");
    let modules = pack::NAMES.len() as u64;
    let start = || {
        let engine = engine(Some(&cache));
        let judgement = load(&engine).evaluate(&pack::inputs(100));
        assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
        let Loads { compiled, from_cache } = engine.loads();
        (compiled, from_cache)
    };
    assert_eq!(start(), (modules, 0));
    assert_eq!(start(), (0, modules), "the second start compiles nothing");
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);

    // What a dying disk, a torn write or somebody else did to a file costs a compilation and no more.
    let files: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len() as u64, modules);
    let mut flipped = fs::read(&files[0]).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&files[0], flipped).unwrap();
    let whole = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &whole[..whole.len() / 3]).unwrap();
    fs::write(&files[2], "").unwrap();
    fs::set_permissions(&files[3], PermissionsExt::from_mode(0o666)).unwrap();
    fs::copy(&files[5], &files[4]).unwrap(); // whole, but the code of another module
    assert_eq!(start(), (5, modules - 5));
    assert_eq!(start(), (0, modules), "they were replaced");

    // A set that is loaded already is not loaded again.
    let engine = engine(Some(&cache));
    let (_first, _second) = (load(&engine), load(&engine));
    assert_eq!(engine.loads(), Loads { compiled: 0, from_cache: modules });
}

#[test]
fn a_folder_for_compiled_code_that_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
        let fault = PolicyEngine::start(EngineLimits::default(), Some(dir.path())).unwrap_err();
        assert!(fault.detail.contains("can be written by its group or by others"), "{fault}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let fault = PolicyEngine::start(EngineLimits::default(), Some(&file)).unwrap_err();
    assert!(fault.detail.contains("cannot be used"), "{fault}");
}
