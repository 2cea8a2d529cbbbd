#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::RevenueGuard;
use reservegrid_policy_sdk::{
    Context, ContextValue, DiscrepancyKind, Verdict,
    testing::{TestTemplate, assert_readme, judge, settings_faults},
};

fn against(best: Option<u64>, value: u64, settings: &str) -> Verdict {
    let template = TestTemplate { subsidy: value, coinbase_value: value, ..TestTemplate::default() };
    judge::<RevenueGuard>(settings, &template, &Context { best_template_value: best, ..Context::default() })
}

#[test]
fn a_template_may_bring_a_little_less_than_the_best_one() {
    let settings = r#"{"tolerance_permille": 25}"#;
    assert!(against(Some(100_000), 97_500, settings).is_ok());
    let rejection = against(Some(100_000), 97_499, settings).unwrap_err();
    assert_eq!(rejection.code, "template_value_below_best");
    assert_eq!(rejection.detail, "coinbase_value=97499 < min_coinbase_value=97500");
    assert_eq!(
        rejection.context,
        [
            ("best_template_value".to_owned(), ContextValue::Unsigned(100_000)),
            ("min_coinbase_value".to_owned(), ContextValue::Unsigned(97_500)),
            ("tolerance_permille".to_owned(), ContextValue::Unsigned(25)),
        ]
    );
}

#[test]
fn the_smallest_allowed_value_is_rounded_up() {
    // 99 % of 333 is 329.67.
    assert!(against(Some(333), 330, "{}").is_ok());
    let rejection = against(Some(333), 329, "{}").unwrap_err();
    assert_eq!(rejection.detail, "coinbase_value=329 < min_coinbase_value=330");
}

#[test]
fn the_whole_range_of_values_is_compared_without_overflow() {
    let all_money = 2_100_000_000_000_000;
    assert!(against(Some(all_money), all_money, "{}").is_ok());
    assert!(against(Some(all_money), 1, "{}").is_err());
    assert!(against(Some(all_money), 0, r#"{"tolerance_permille": 1000}"#).is_ok());
}

#[test]
fn without_a_best_value_nothing_better_is_known() {
    assert!(against(None, 1, "{}").is_ok());
}

#[test]
fn the_coinbase_value_is_subsidy_and_fees_to_the_satoshi() {
    let exact = TestTemplate::with_fees((0..9000).map(|fee| fee % 7));
    assert!(judge::<RevenueGuard>("{}", &exact, &Context::default()).is_ok());
    for coinbase_value in [exact.coinbase_value - 1, exact.coinbase_value + 1] {
        let template = TestTemplate { coinbase_value, ..exact.clone() };
        let rejection = judge::<RevenueGuard>("{}", &template, &Context::default()).unwrap_err();
        assert_eq!(rejection.code, "fee_sum_mismatch");
        let detail = format!("coinbase_value={coinbase_value} != subsidy_and_fees={}", exact.coinbase_value);
        assert_eq!(rejection.detail, detail);
    }
}

#[test]
fn a_fee_that_is_not_the_declared_one_is_refused_and_comes_first() {
    let template = TestTemplate::with_fees([5])
        .with_discrepancy(DiscrepancyKind::Weight)
        .with_discrepancy(DiscrepancyKind::Fee);
    let rejection = judge::<RevenueGuard>("{}", &template, &Context::default()).unwrap_err();
    assert_eq!(rejection.code, "fee_sum_mismatch");
    assert_eq!(rejection.detail, "fee=what is != declared=what was said");
    assert_eq!(rejection.context, [("transaction_index".to_owned(), ContextValue::Unsigned(0))]);
}

#[test]
fn a_template_that_is_not_what_was_declared_does_not_pass_because_its_fees_are_right() {
    let template = TestTemplate::with_fees([5]).with_discrepancy(DiscrepancyKind::Txid);
    let rejection = judge::<RevenueGuard>("{}", &template, &Context::default()).unwrap_err();
    assert_eq!(rejection.detail, "derived=what is != declared=what was said");
}

#[test]
fn a_tolerance_above_all_of_it_is_a_fault() {
    assert_eq!(settings_faults::<RevenueGuard>(r#"{"tolerance_permille": 1001}"#).len(), 1);
}

#[test]
fn the_readme_says_what_the_policy_does() {
    assert_readme::<RevenueGuard>(include_str!("../README.md"));
}
