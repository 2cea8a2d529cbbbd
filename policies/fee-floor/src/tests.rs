#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::FeeFloor;
use reservegrid_policy_sdk::{
    Context, ContextValue, MempoolState, Rejection, Verdict,
    testing::{TestTemplate, assert_readme, judge, settings_faults, settings_schema},
};

const TIERS: &str = r#"{"min_avg_fee": {"low": 100, "mid": 200, "high": 1000}}"#;

fn mempool(total_vsize: u64) -> Context {
    let state = MempoolState { transaction_count: 1, total_vsize, total_fees: 1 };
    Context { mempool: Some(state), ..Context::default() }
}

fn fees(settings: &str, fees: impl IntoIterator<Item = u64>, context: Context) -> Verdict {
    judge::<FeeFloor>(settings, &TestTemplate::with_fees(fees), &context)
}

fn shown(rejection: &Rejection) -> (&str, &str) {
    (&rejection.code, &rejection.detail)
}

#[test]
fn the_average_is_held_against_the_floor_of_the_mempools_tier() {
    for (vsize, tier, floor) in [(999_999, "low", 100), (1_000_000, "mid", 200), (10_000_000, "high", 1000)] {
        assert!(fees(TIERS, [floor, floor], mempool(vsize)).is_ok(), "{tier}");
        let rejection = fees(TIERS, [floor, floor - 1], mempool(vsize)).unwrap_err();
        let detail = format!("avg_fee={} < min_avg_fee_used={floor}", floor - 1);
        assert_eq!(shown(&rejection), ("avg_fee_below_minimum", detail.as_str()));
        let [(tier_key, ContextValue::Text(tier_used)), (floor_key, ContextValue::Unsigned(floor_used))] =
            rejection.context.as_slice()
        else {
            panic!("{rejection:?}")
        };
        assert_eq!((tier_key.as_str(), floor_key.as_str()), ("fee_tier", "min_avg_fee_used"));
        assert_eq!((tier_used.as_str(), *floor_used), (tier, floor));
    }
}

#[test]
fn an_unknown_mempool_is_treated_as_the_operator_chose() {
    let rejection = fees(TIERS, [5000], Context::default()).unwrap_err();
    assert_eq!(rejection.code, "mempool_context_unavailable");
    for (choice, enough) in [("low", 100), ("mid", 200), ("high", 1000)] {
        let settings = format!(
            r#"{{"min_avg_fee": {{"low": 100, "mid": 200, "high": 1000}}, "unknown_mempool": "{choice}"}}"#
        );
        assert!(fees(&settings, [enough], Context::default()).is_ok(), "{choice}");
        assert!(fees(&settings, [enough - 1], Context::default()).is_err(), "{choice}");
    }
}

#[test]
fn with_every_tier_at_zero_the_mempool_need_not_be_known() {
    let settings = r#"{"min_avg_fee": {"mid": 0, "high": 0}}"#;
    assert!(fees(settings, [0], Context::default()).is_ok());
}

#[test]
fn the_sum_of_fees_has_a_floor_of_its_own() {
    let settings = r#"{"min_avg_fee": {"mid": 0, "high": 0}, "min_total_fees": 1000}"#;
    assert!(fees(settings, [400, 600], mempool(0)).is_ok());
    let rejection = fees(settings, [400, 599], mempool(0)).unwrap_err();
    assert_eq!(shown(&rejection), ("total_fees_below_minimum", "total_fees=999 < min_total_fees=1000"));
}

#[test]
fn one_transaction_below_the_fee_rate_is_found_in_any_chunk_of_rows() {
    let settings = r#"{"min_avg_fee": {"mid": 0, "high": 0}, "min_fee_rate": 1000}"#;
    // 561 weight units are 141 vbytes.
    assert!(fees(settings, std::iter::repeat_n(141, 9000), mempool(0)).is_ok());
    for poor in [0, 4095, 4096, 8999] {
        let rejection =
            fees(settings, (0..9000).map(|i| if i == poor { 140 } else { 141 }), mempool(0)).unwrap_err();
        assert_eq!(
            shown(&rejection),
            ("transaction_fee_rate_below_minimum", "fee_rate=992 < min_fee_rate=1000")
        );
        assert!(
            matches!(&rejection.context[1], (name, ContextValue::Unsigned(i)) if name == "transaction_index" && *i == poor)
        );
    }
}

#[test]
fn an_empty_template_pays_nothing_unless_it_may() {
    let rejection = fees(TIERS, [], mempool(0)).unwrap_err();
    assert_eq!(rejection.detail, "avg_fee=0 < min_avg_fee_used=100");
    let settings = r#"{"min_avg_fee": {"mid": 1, "high": 1}, "min_total_fees": 1, "accept_empty": true}"#;
    assert!(fees(settings, [], Context::default()).is_ok());
}

#[test]
fn every_fault_in_the_settings_is_listed_with_its_place() {
    let settings = r#"{
        "min_avg_fee": { "low": -1, "mid": 1.5, "hihg": 3 },
        "tiers": { "mid_from_vsize": 20, "high_from_vsize": 10 },
        "unknown_mempool": "guess",
        "accept_empty": "yes",
        "min_total_fee": 1
    }"#;
    let faults = settings_faults::<FeeFloor>(settings);
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "min_avg_fee.low",
            "min_avg_fee.mid",
            "min_avg_fee.high",
            "min_avg_fee.hihg",
            "tiers.high_from_vsize",
            "unknown_mempool",
            "accept_empty",
            "min_total_fee",
        ]
    );
    assert_eq!(faults[1].problem, "must be a whole number from 0 to 2100000000000000, not 1.5");
    assert_eq!(faults[2].problem, "is missing; it has no default");
    assert_eq!(faults[3].problem, "is not a setting of this policy; there are: low, mid, high");
}

#[test]
fn settings_that_are_no_json_object_are_one_fault() {
    for settings in ["", "{", "[]", "7", "\"x\""] {
        let faults = settings_faults::<FeeFloor>(settings);
        assert_eq!(faults.len(), 1, "{settings}");
        assert_eq!(faults[0].path, "");
    }
}

#[test]
fn the_schema_names_what_is_read_and_nothing_else() {
    let schema: serde_json::Value = serde_json::from_str(&settings_schema::<FeeFloor>()).unwrap();
    let properties: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(
        properties,
        ["accept_empty", "min_avg_fee", "min_fee_rate", "min_total_fees", "tiers", "unknown_mempool"]
    );
    assert_eq!(schema["required"], serde_json::json!(["min_avg_fee"]));
    assert_eq!(schema["properties"]["min_avg_fee"]["required"], serde_json::json!(["mid", "high"]));
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["unknown_mempool"]["default"], "reject");
}

#[test]
fn the_readme_says_what_the_policy_does() {
    assert_readme::<FeeFloor>(include_str!("../README.md"));
}
