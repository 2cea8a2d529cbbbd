#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::CoinbaseGuard;
use reservegrid_policy_sdk::{
    CoinbaseOutput, Context, ContextValue, Rejection, Verdict,
    testing::{TestTemplate, assert_readme, judge, settings_faults},
};

const POOL: &str = "bc1qpool";
const MINER: &str = "1Miner";

fn output(value: u64, script: &[u8], address: Option<&str>) -> CoinbaseOutput {
    CoinbaseOutput { value, script: script.to_vec(), address: address.map(Into::into) }
}

/// A coinbase that pays the pool and the miner, and carries the commitment.
fn paying(pool: u64, miner: u64) -> TestTemplate {
    let mut template = TestTemplate { coinbase_value: pool + miner, ..TestTemplate::default() };
    let commitment = template.coinbase.outputs.pop().unwrap();
    let outputs = [output(pool, &[0, 1], Some(POOL)), output(miner, &[0, 2], Some(MINER)), commitment];
    template.coinbase.outputs = outputs.to_vec();
    template
}

fn guard(settings: &str, template: &TestTemplate) -> Verdict {
    judge::<CoinbaseGuard>(settings, template, &Context::default())
}

fn shown(rejection: &Rejection) -> (&str, &str) {
    (&rejection.code, &rejection.detail)
}

const BOTH: &str = r#"{"payouts": [{"address": "bc1qpool"}, {"address": "1Miner"}]}"#;

#[test]
fn all_payouts_are_there_and_nothing_else() {
    assert!(guard(BOTH, &paying(500, 500)).is_ok());
}

#[test]
fn a_payout_that_is_not_there_is_missing() {
    let mut template = paying(500, 500);
    template.coinbase.outputs.remove(1);
    let rejection = guard(BOTH, &template).unwrap_err();
    assert_eq!(shown(&rejection), ("coinbase_payout_missing", "payouts_found=1 < payouts_required=2"));
    assert_eq!(rejection.context, [("payout".to_owned(), ContextValue::Text(MINER.into()))]);
    // Nothing is no payment.
    assert_eq!(guard(BOTH, &paying(500, 0)).unwrap_err().code, "coinbase_payout_missing");
}

#[test]
fn one_payout_is_enough_where_any_will_do() {
    let any = r#"{"require": "any", "payouts": [{"address": "bc1qother"}, {"address": "1Miner"}],
                  "other_outputs": "accept"}"#;
    assert!(guard(any, &paying(500, 500)).is_ok());
    let rejection = guard(any, &paying(500, 0)).unwrap_err();
    assert_eq!(shown(&rejection), ("coinbase_payout_missing", "payouts_found=0 < payouts_required=1"));
}

#[test]
fn a_payout_has_a_least_amount_and_a_least_share() {
    let settings = r#"{"other_outputs": "accept",
                       "payouts": [{"address": "bc1qpool", "min_value": 400, "min_permille": 15}]}"#;
    assert!(guard(settings, &paying(400, 20_000)).is_ok());
    let rejection = guard(settings, &paying(399, 20_000)).unwrap_err();
    assert_eq!(shown(&rejection), ("coinbase_payout_too_low", "payout=399 < min_payout=400"));
    // 15 thousandths of 100,001 are 1,500.015, and of 100,000 1,500.
    assert!(guard(settings, &paying(1500, 98_500)).is_ok());
    let rejection = guard(settings, &paying(1500, 98_501)).unwrap_err();
    assert_eq!(shown(&rejection), ("coinbase_payout_too_low", "payout=1500 < min_payout=1501"));
}

#[test]
fn several_outputs_to_the_same_payout_count_together() {
    let mut template = paying(200, 20_000);
    template.coinbase.outputs.insert(1, output(200, &[0, 1], Some(POOL)));
    let settings = r#"{"payouts": [{"address": "bc1qpool", "min_value": 400}, {"script": "0002"}]}"#;
    assert!(guard(settings, &template).is_ok());
}

#[test]
fn bech32_addresses_match_in_any_case_and_others_exactly() {
    let upper = r#"{"payouts": [{"address": "BC1QPOOL"}, {"address": "1Miner"}]}"#;
    assert!(guard(upper, &paying(1, 1)).is_ok());
    let lower = r#"{"payouts": [{"address": "bc1qpool"}, {"address": "1miner"}]}"#;
    assert!(guard(lower, &paying(1, 1)).is_err());
}

#[test]
fn an_output_to_somebody_else_is_unexpected() {
    let only_pool = r#"{"payouts": [{"address": "bc1qpool"}]}"#;
    let rejection = guard(only_pool, &paying(500, 7)).unwrap_err();
    assert_eq!(
        shown(&rejection),
        ("coinbase_output_unexpected", "output=1 value=7 to=1Miner, other_outputs=reject")
    );
    assert_eq!(rejection.context[0], ("output_index".to_owned(), ContextValue::Unsigned(1)));
    assert_eq!(rejection.context[2], ("output_script".to_owned(), ContextValue::Text("0002".into())));
}

#[test]
fn data_is_expected_where_its_prefix_is_listed_and_it_holds_no_value() {
    let mut template = paying(500, 500);
    template.coinbase.outputs.push(output(0, &[0x6a, 1, 2, 3], None));
    let rejection = guard(BOTH, &template).unwrap_err();
    assert_eq!(
        shown(&rejection),
        ("coinbase_output_unexpected", "output=3 value=0 to=6a010203, other_outputs=reject")
    );
    let listed =
        r#"{"payouts": [{"address": "bc1qpool"}, {"address": "1Miner"}], "data_prefixes": ["6a01"]}"#;
    assert!(guard(listed, &template).is_ok());
    template.coinbase.outputs[3].value = 1;
    assert!(guard(listed, &template).is_err());
}

#[test]
fn the_tag_stands_somewhere_in_the_script() {
    assert!(guard(r#"{"tag": "/test/"}"#, &paying(1, 1)).is_ok());
    let rejection = guard(r#"{"tag": "/pool/"}"#, &paying(1, 1)).unwrap_err();
    assert_eq!(rejection.code, "coinbase_tag_missing");
    assert!(rejection.detail.ends_with(" != tag=/pool/"), "{}", rejection.detail);
}

#[test]
fn settings_that_check_nothing_or_name_nobody_are_faults() {
    let paths = |settings: &str| {
        settings_faults::<CoinbaseGuard>(settings).into_iter().map(|fault| fault.path).collect::<Vec<_>>()
    };
    assert_eq!(paths("{}"), ["payouts"]);
    assert_eq!(
        paths(
            r#"{"payouts": [{}, {"address": "a", "script": "00"}, {"script": "0g"}, 5, {"address": "a", "adress": 1}],
                "data_prefixes": ["6"]}"#
        ),
        [
            "payouts[0].address",
            "payouts[1].address",
            "payouts[2].script",
            "payouts[2].address",
            "payouts[3]",
            "payouts[4].adress",
            "data_prefixes[0]",
        ]
    );
}

#[test]
fn the_readme_says_what_the_policy_does() {
    assert_readme::<CoinbaseGuard>(include_str!("../README.md"));
}
