#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::Limits;
use reservegrid_policy_sdk::{
    Context, Rejection, Verdict,
    testing::{TestTemplate, assert_readme, judge, settings_faults},
};

fn limits(settings: &str, template: &TestTemplate) -> Verdict {
    judge::<Limits>(settings, template, &Context::default())
}

fn refused(settings: &str, template: &TestTemplate, code: &str, detail: &str) -> Rejection {
    let rejection = limits(settings, template).unwrap_err();
    assert_eq!((rejection.code.as_str(), rejection.detail.as_str()), (code, detail));
    rejection
}

#[test]
fn a_template_within_the_networks_limits_passes_without_settings() {
    assert!(limits("{}", &TestTemplate::with_fees([1; 5000])).is_ok());
    assert!(limits("{}", &TestTemplate::default()).is_ok());
}

#[test]
fn an_empty_template_is_refused_where_the_operator_says_so() {
    let settings = r#"{"accept_empty": false}"#;
    refused(settings, &TestTemplate::default(), "template_empty", "transaction_count=0, accept_empty=false");
    assert!(limits(settings, &TestTemplate::with_fees([1])).is_ok());
}

#[test]
fn the_transactions_are_counted_without_the_coinbase() {
    let settings = r#"{"max_transactions": 2}"#;
    assert!(limits(settings, &TestTemplate::with_fees([1; 2])).is_ok());
    let detail = "transactions=3 > max_transactions=2";
    let template = TestTemplate::with_fees([1; 3]);
    let rejection = limits(settings, &template).unwrap_err();
    assert_eq!(rejection.code, "transaction_count_above_limit");
    assert_eq!(rejection.detail, detail);
}

#[test]
fn the_weight_of_a_block_has_the_coinbase_the_header_and_the_count_in_it() {
    let mut template = TestTemplate::with_fees([1; 252]);
    template.coinbase.weight = 1000;
    // 4 * (80 + 1) for the header and the number 253, which is the first that takes three bytes.
    let weight = 252 * 561 + 1000 + 4 * (80 + 3);
    assert!(limits(&format!(r#"{{"max_block_weight": {weight}}}"#), &template).is_ok());
    refused(
        &format!(r#"{{"max_block_weight": {}}}"#, weight - 1),
        &template,
        "block_weight_above_limit",
        &format!("block_weight={weight} > max_block_weight={}", weight - 1),
    );
    template.transactions.pop();
    let weight = 251 * 561 + 1000 + 4 * (80 + 1);
    assert!(limits(&format!(r#"{{"max_block_weight": {weight}}}"#), &template).is_ok());
}

#[test]
fn signature_operations_count_with_those_of_the_coinbase() {
    let mut template = TestTemplate::with_fees([1; 2]);
    template.transactions[1].sigops = 79_996;
    template.coinbase.sigops = 4;
    assert!(limits("{}", &template).is_ok());
    template.coinbase.sigops = 5;
    refused("{}", &template, "block_sigops_above_limit", "block_sigops=80001 > max_block_sigops=80000");
}

#[test]
fn the_coinbase_has_a_limit_of_its_own_on_signature_operations() {
    let mut template = TestTemplate::default();
    template.coinbase.sigops = 400;
    assert!(limits("{}", &template).is_ok());
    template.coinbase.sigops = 401;
    refused("{}", &template, "coinbase_sigops_above_limit", "coinbase_sigops=401 > max_coinbase_sigops=400");
}

#[test]
fn one_heavy_transaction_is_found_in_any_chunk_of_rows() {
    let settings = r#"{"max_transaction_weight": 1000, "max_block_weight": 4000000}"#;
    let mut template = TestTemplate::with_fees([1; 5000]);
    template.transactions[4999].weight = 1000;
    assert!(limits(settings, &template).is_ok());
    for heavy in [4999_u32, 4096, 4095, 0] {
        template.transactions[heavy as usize].weight = 1001;
        let detail = "transaction_weight=1001 > max_transaction_weight=1000";
        let rejection = refused(settings, &template, "transaction_weight_above_limit", detail);
        assert_eq!(rejection.context[1], ("transaction_index".into(), heavy.into()));
    }
}

#[test]
fn an_old_template_is_refused() {
    let aged = |template_age_ms| Context { template_age_ms, ..Context::default() };
    let template = TestTemplate::default();
    assert!(judge::<Limits>("{}", &template, &aged(120_000)).is_ok());
    let rejection = judge::<Limits>("{}", &template, &aged(120_001)).unwrap_err();
    assert_eq!(rejection.code, "template_age_above_limit");
    assert_eq!(rejection.detail, "template_age_ms=120001 > max_template_age_ms=120000");
}

#[test]
fn no_limit_can_be_set_above_what_the_network_allows() {
    let faults = settings_faults::<Limits>(r#"{"max_block_weight": 4000001, "max_block_sigops": 80001}"#);
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn the_readme_says_what_the_policy_does() {
    assert_readme::<Limits>(include_str!("../README.md"));
}
