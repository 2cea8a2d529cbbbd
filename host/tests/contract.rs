//! What a published version of the policy contract promises: its folder in `wit/` never changes, and a
//! policy that was built against it loads and judges as it did on the first day.
//!
//! When the first test here fails, a published folder was changed. When another one fails, modules that
//! operators have in use today would not load, or judge differently, after an upgrade.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "policy/templates.rs"]
mod templates;

use bitcoin::{BlockHash, CompactTarget, ScriptBuf, hashes::Hash};
use reservegrid::{
    policy::{DEFAULT_FUEL, Enforcement, EngineLimits, Inputs, PolicyEngine, PolicySet, PolicySpec, Version},
    template::{
        ChainTip, CoinbaseParts, CoinbaseSpec, Context, FeeRatePercentiles, MempoolState, Template,
        facts::assemble,
    },
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};
use templates::{declared, with_fees};

/// SHA-256 of every file of every published version.
const PUBLISHED: [(&str, &[(&str, &str)]); 1] = [(
    "policy-0.1.0",
    &[
        ("context.wit", "e9abdac81310e9d35d102bf50c22d049372e68245747697225f28140c7d5b416"),
        ("log.wit", "0e98b804e7c5277cf006c6d815ade7301b3ea17e2ce7b212848c31c4eee75b36"),
        ("template.wit", "af60f4ebad6ba4bfe1dacfba386e7896f58521bc0fdf73ba43bab085db120dac"),
        ("types.wit", "d255192fc8e68ef3cd04cb565482cacd14aeb780f225c098b5a03b69681c5e17"),
        ("world.wit", "ada30389b23419a2adb29fc49ccbfadff7c78bd1c169ab311c98b5c5e2b875f2"),
    ],
)];

fn wit() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

#[test]
fn a_published_version_of_the_contract_never_changes() {
    for (folder, files) in PUBLISHED {
        let published: BTreeMap<String, String> =
            files.iter().map(|(file, digest)| (file.to_string(), digest.to_string())).collect();
        let found: BTreeMap<String, String> = fs::read_dir(wit().join(folder))
            .unwrap_or_else(|error| panic!("wit/{folder} is published and must stay: {error}"))
            .map(|entry| {
                let entry = entry.unwrap();
                let digest = hex::encode(Sha256::digest(fs::read(entry.path()).unwrap()));
                (entry.file_name().into_string().unwrap(), digest)
            })
            .collect();
        assert_eq!(
            found, published,
            "\nwit/{folder} is published, so modules built against it are in use: it never changes, not even \
             in a comment. Undo the change. What is new in the contract gets a folder of its own beside it, \
             with an adapter in host/src/policy/contract/, a component in host/tests/policy/published/ and \
             a line in PUBLISHED here.\n"
        );
    }
}

#[test]
fn every_folder_of_the_contract_and_every_version_that_is_served_is_in_this_list() {
    let mut folders: Vec<String> = fs::read_dir(wit())
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let published: Vec<&str> = PUBLISHED.iter().map(|(folder, _)| *folder).collect();
    assert_eq!(folders, published, "a new version of the contract belongs into PUBLISHED");
    let served: Vec<String> =
        Version::SERVED.iter().map(|version| format!("policy-{}", version.as_str())).collect();
    assert_eq!(served, published, "modules of every published version must keep loading");
}

/// The set of the one policy in `tests/policy/published` that speaks this version.
fn published(version: &str) -> PolicySet {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/published");
    let component = wat::parse_file(source.join(format!("policy-{version}.wat"))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("published.wasm");
    fs::write(&module, component).unwrap();
    let limits = EngineLimits { deadline: Duration::from_secs(3600), ..EngineLimits::default() };
    let spec = PolicySpec {
        name: "published".into(),
        module,
        sha256: None,
        settings: json!({}),
        fuel: DEFAULT_FUEL,
        enforcement: Enforcement::Enforce,
    };
    PolicySet::load(&PolicyEngine::start(limits, None).unwrap(), &[spec]).unwrap()
}

fn verdict(set: &PolicySet, template: &Arc<Template>, context: Context) -> String {
    let inputs = Inputs { template: template.clone(), context: Arc::new(context) };
    serde_json::to_string(&set.evaluate(&inputs).verdict).unwrap()
}

/// Three transactions, of which five were declared, and a payout with an address.
fn template() -> Arc<Template> {
    let mut declared = declared([100, 200, 300]);
    let payout = ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap();
    declared.coinbase = CoinbaseParts::Planned(CoinbaseSpec { payout: payout.into(), tag: "/tests/".into() });
    declared.transaction_count = Some(5);
    Arc::new(assemble(&declared).unwrap())
}

#[test]
fn a_policy_of_contract_0_1_0_judges_as_on_the_first_day() {
    let set = published("0.1.0");
    let policy = &set.policies()[0];
    assert_eq!(policy.contract().as_str(), "0.1.0");
    assert_eq!(
        serde_json::to_string(policy.info()).unwrap(),
        r#"{"name":"published","version":"0.1.0","summary":"Says what it was shown.","codes":[{"code":"shown","meaning":"What the contract shows of a template."}],"settings_schema":"{\"type\":\"object\"}"}"#
    );
    let context = Context {
        taken_at: 1_750_000_700,
        template_age_ms: 42,
        tip: Some(ChainTip {
            hash: BlockHash::from_byte_array([8; 32]),
            height: 119,
            next_bits: Some(CompactTarget::from_consensus(0x1d00_ffff)),
        }),
        mempool: Some(MempoolState { transaction_count: 1, total_vsize: 2_000_000, total_fees: 3 }),
        fee_rates: Some(FeeRatePercentiles { p10: 1000, p25: 2000, p50: 3000, p75: 4000, p90: 5000 }),
        best_template_value: Some(5_000_000_700),
        mempool_age_ms: None,
        known: Some([true, false, true].into()),
    };
    assert_eq!(
        verdict(&set, &template(), context),
        r#"{"accepted":false,"reason_code":"shown","reason_detail":"What the contract shows of a template.","policy_context":{"best_template_value":5000000700,"coinbase_pays":5000000600,"discrepancies":1,"fee_rate_p50":3000,"first_address":"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080","first_declared":"5","first_kind":5,"from_node":true,"height":120,"mempool_vsize":2000000,"next_bits":486604799,"subsidy_less_value":-600,"sum_of_fees":600,"taken_at":1750000700,"tip_height":119,"unknown_transactions":1}}"#
    );
}

#[test]
fn a_policy_of_contract_0_1_0_sees_that_nothing_is_known() {
    let set = published("0.1.0");
    assert_eq!(
        verdict(&set, &with_fees([7]), Context::default()),
        r#"{"accepted":false,"reason_code":"shown","reason_detail":"What the contract shows of a template.","policy_context":{"best_template_value":0,"coinbase_pays":5000000007,"discrepancies":0,"fee_rate_p50":0,"first_address":"none","first_declared":"none","first_kind":0,"from_node":true,"height":120,"mempool_vsize":0,"next_bits":0,"subsidy_less_value":-7,"sum_of_fees":7,"taken_at":0,"tip_height":0,"unknown_transactions":0}}"#
    );
}

#[test]
fn a_policy_of_contract_0_1_0_can_accept() {
    assert_eq!(
        verdict(&published("0.1.0"), &with_fees([]), Context::default()),
        r#"{"accepted":true,"reason_code":null,"reason_detail":null,"policy_context":{}}"#
    );
}
