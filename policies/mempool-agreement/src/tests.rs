#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::MempoolAgreement;
use reservegrid_policy_sdk::{
    Context, ContextValue, Provenance, Verdict,
    testing::{TestTemplate, assert_readme, judge, settings_faults},
};

/// A declared template of so many transactions, of which the last so many are unknown.
fn agreement(settings: &str, count: usize, unknown: usize) -> Verdict {
    let mut template =
        TestTemplate { provenance: Provenance::Declared, ..TestTemplate::with_fees(vec![1; count]) };
    for (index, transaction) in template.transactions.iter_mut().enumerate() {
        transaction.known = Some(index + unknown < count);
        transaction.txid = [u8::try_from(index % 256).unwrap(); 32];
    }
    let unknown_transactions = Some(unknown.try_into().unwrap());
    judge::<MempoolAgreement>(settings, &template, &Context { unknown_transactions, ..Context::default() })
}

#[test]
fn more_unknown_transactions_than_allowed_are_refused() {
    let settings = r#"{"max_unknown": 3, "max_unknown_permille": 1000}"#;
    assert!(agreement(settings, 10, 3).is_ok());
    let rejection = agreement(settings, 10, 4).unwrap_err();
    assert_eq!(rejection.code, "unknown_transactions_exceeded");
    assert_eq!(rejection.detail, "unknown_transactions=4 > max_unknown_used=3");
    assert_eq!(
        rejection.context,
        [
            ("max_unknown_used".to_owned(), ContextValue::Unsigned(3)),
            ("first_unknown_index".to_owned(), ContextValue::Unsigned(6)),
            ("first_unknown_txid".to_owned(), ContextValue::Text("06".repeat(32))),
        ]
    );
}

#[test]
fn a_larger_share_of_unknown_transactions_than_allowed_is_refused() {
    assert!(agreement("{}", 1000, 50).is_ok());
    let rejection = agreement("{}", 1000, 51).unwrap_err();
    assert_eq!(rejection.detail, "unknown_transactions=51 > max_unknown_used=50");
    // 50 thousandths of 1019 are 50.95.
    assert!(agreement("{}", 1019, 51).is_err());
    assert!(agreement("{}", 1020, 51).is_ok());
}

#[test]
fn an_empty_template_agrees() {
    assert!(agreement(r#"{"max_unknown": 0, "max_unknown_permille": 0}"#, 0, 0).is_ok());
}

#[test]
fn when_nothing_is_known_a_declared_template_gets_what_the_operator_chose() {
    let judged = |settings, provenance| {
        let template = TestTemplate { provenance, ..TestTemplate::with_fees([1]) };
        judge::<MempoolAgreement>(settings, &template, &Context::default())
    };
    let rejection = judged("{}", Provenance::Declared).unwrap_err();
    assert_eq!(rejection.code, "unknown_transactions_exceeded");
    assert_eq!(rejection.detail, "unknown_transactions=unknown, when_unknown=reject");
    assert!(judged(r#"{"when_unknown": "accept"}"#, Provenance::Declared).is_ok());
    assert!(judged("{}", Provenance::Node).is_ok());
}

#[test]
fn a_choice_that_is_none_is_a_fault() {
    let faults = settings_faults::<MempoolAgreement>(r#"{"when_unknown": "maybe"}"#);
    assert_eq!(faults[0].problem, "must be one of reject, accept, not \"maybe\"");
}

#[test]
fn the_readme_says_what_the_policy_does() {
    assert_readme::<MempoolAgreement>(include_str!("../README.md"));
}
