#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::Integrity;
use reservegrid_policy_sdk::{
    ChainTip, Context, ContextValue, DiscrepancyKind, Provenance, Rejection, Traits,
    testing::{TestTemplate, assert_readme, judge, settings_faults},
};

/// A template, and a context in which it builds on the tip and all is well.
fn sound() -> (TestTemplate, Context) {
    let template = TestTemplate::with_fees([1000, 2000]);
    let tip = ChainTip {
        hash: template.previous_block_hash.to_vec(),
        height: template.height - 1,
        next_bits: Some(template.bits),
    };
    let context = Context { taken_at: template.current_time.into(), tip: Some(tip), ..Context::default() };
    (template, context)
}

fn refused(settings: &str, change: impl FnOnce(&mut TestTemplate, &mut Context)) -> Rejection {
    let (mut template, mut context) = sound();
    change(&mut template, &mut context);
    judge::<Integrity>(settings, &template, &context).unwrap_err()
}

fn accepted(settings: &str, change: impl FnOnce(&mut TestTemplate, &mut Context)) {
    let (mut template, mut context) = sound();
    change(&mut template, &mut context);
    assert_eq!(judge::<Integrity>(settings, &template, &context), Ok(()));
}

fn shown(rejection: &Rejection) -> (&str, &str) {
    (&rejection.code, &rejection.detail)
}

#[test]
fn a_sound_template_passes_without_settings() {
    accepted("{}", |_, _| {});
}

#[test]
fn a_template_on_an_older_block_is_stale_and_one_on_no_known_block_invalid() {
    let (seven, nine) = ("07".repeat(32), "09".repeat(32));
    let detail = format!("previous_block_hash={seven} != tip={nine}");
    let on_tip_at = |height: u32| {
        refused("{}", |_, context| {
            context.tip = Some(ChainTip { hash: vec![9; 32], height, next_bits: None });
        })
    };
    for height in [900_000, 900_005] {
        assert_eq!(shown(&on_tip_at(height)), ("stale_previous_hash", detail.as_str()));
    }
    let rejection = on_tip_at(899_999);
    assert_eq!(shown(&rejection), ("invalid_previous_hash", detail.as_str()));
    assert_eq!(rejection.context[1], ("tip_height".to_owned(), ContextValue::Unsigned(899_999)));
}

#[test]
fn a_template_on_nothing_is_invalid_even_when_the_tip_is_unknown() {
    let rejection = refused(r#"{"unknown_tip": "accept"}"#, |template, context| {
        template.previous_block_hash = [0; 32];
        context.tip = None;
    });
    assert_eq!(rejection.code, "invalid_previous_hash");
}

#[test]
fn an_unknown_tip_is_treated_as_the_operator_chose() {
    let passes = |word: &str, made_by| {
        let (mut template, mut context) = sound();
        template.provenance = made_by;
        context.tip = None;
        judge::<Integrity>(&format!(r#"{{"unknown_tip": "{word}"}}"#), &template, &context)
    };
    assert!(passes("accept_own", Provenance::Node).is_ok());
    assert!(passes("accept", Provenance::Declared).is_ok());
    for (word, made_by) in [("accept_own", Provenance::Declared), ("reject", Provenance::Node)] {
        let rejection = passes(word, made_by).unwrap_err();
        let detail = format!("tip=unknown, unknown_tip={word}");
        assert_eq!(shown(&rejection), ("invalid_previous_hash", detail.as_str()));
    }
}

#[test]
fn a_template_on_the_tip_is_for_the_next_height() {
    let rejection = refused("{}", |_, context| context.tip.as_mut().unwrap().height = 900_000);
    assert_eq!(shown(&rejection), ("coinbase_height_mismatch", "height=900000 != next_height=900001"));
}

#[test]
fn the_target_is_the_one_of_the_next_block_where_that_is_known() {
    let rejection = refused("{}", |template, _| template.bits = 0x1703_421a);
    assert_eq!(shown(&rejection), ("bits_mismatch", "bits=0x1703421a != next_bits=0x17034219"));
    accepted("{}", |template, context| {
        template.bits = 0x1703_421a;
        context.tip.as_mut().unwrap().next_bits = None;
    });
}

#[test]
fn versions_below_the_minimum_and_negative_ones_are_refused() {
    accepted("{}", |template, _| template.version = 4);
    let rejection = refused("{}", |template, _| template.version = 3);
    assert_eq!(shown(&rejection), ("version_not_allowed", "version=0x00000003 < min_version=4"));
    let rejection = refused("{}", |template, _| template.version = 0x8000_0000);
    assert_eq!(rejection.code, "version_not_allowed");
}

#[test]
fn version_bits_can_be_prescribed() {
    let bip_9 = r#"{"version_mask": 3758096384, "version_bits": 536870912}"#;
    accepted(bip_9, |template, _| template.version = 0x3fff_e000);
    let rejection = refused(bip_9, |template, _| template.version = 0x4000_0000);
    let detail = "version_bits=0x40000000 != required=0x20000000";
    assert_eq!(shown(&rejection), ("version_not_allowed", detail));
    let faults = settings_faults::<Integrity>(r#"{"version_mask": 1, "version_bits": 2}"#);
    assert_eq!(faults[0].path, "version_bits");
}

#[test]
fn the_time_lies_between_the_smallest_allowed_and_two_hours_ahead_of_the_clock() {
    accepted("{}", |template, _| template.min_time = template.current_time);
    let rejection = refused("{}", |template, _| template.min_time = template.current_time + 1);
    assert_eq!(shown(&rejection), ("ntime_out_of_range", "current_time=1750000600 < min_time=1750000601"));
    accepted("{}", |template, context| context.taken_at = u64::from(template.current_time) - 7200);
    let rejection =
        refused("{}", |template, context| context.taken_at = u64::from(template.current_time) - 7201);
    assert_eq!(shown(&rejection), ("ntime_out_of_range", "current_time=1750000600 > max_time=1750000599"));
}

#[test]
fn every_kind_of_discrepancy_has_its_code() {
    for (kind, code, what) in [
        (DiscrepancyKind::Target, "bits_mismatch", "target"),
        (DiscrepancyKind::CoinbaseValue, "coinbase_value_mismatch", "coinbase_value"),
        (DiscrepancyKind::MerklePath, "merkle_root_mismatch", "merkle_path"),
        (DiscrepancyKind::WitnessCommitmentMissing, "witness_commitment_missing", "witness_commitment"),
        (DiscrepancyKind::WitnessCommitment, "witness_commitment_mismatch", "witness_commitment"),
        (DiscrepancyKind::TransactionCount, "transaction_count_mismatch", "transaction_count"),
        (DiscrepancyKind::Txid, "merkle_root_mismatch", "txid"),
        (DiscrepancyKind::Wtxid, "witness_commitment_mismatch", "wtxid"),
        (DiscrepancyKind::Weight, "template_weight_mismatch", "weight"),
        (DiscrepancyKind::Sigops, "template_sigops_mismatch", "sigops"),
        (DiscrepancyKind::Fee, "coinbase_value_mismatch", "fee"),
        (DiscrepancyKind::DuplicateTransaction, "duplicate_transaction", "transaction"),
        (DiscrepancyKind::DoubleSpend, "double_spend_in_template", "spend"),
        (DiscrepancyKind::TransactionOrder, "transaction_order_invalid", "order"),
        (DiscrepancyKind::TransactionNotFinal, "transaction_not_final", "lock_time"),
    ] {
        let rejection = refused("{}", |template, _| *template = template.clone().with_discrepancy(kind));
        let against = match what {
            "transaction" | "spend" | "order" | "lock_time" => "required",
            _ => "declared",
        };
        let detail = format!("{what}=what is != {against}=what was said");
        assert_eq!(shown(&rejection), (code, detail.as_str()));
        assert_eq!(rejection.context[1], ("transaction_index".to_owned(), ContextValue::Unsigned(0)));
    }
}

#[test]
fn the_coinbase_script_has_2_to_100_bytes() {
    for length in [2, 100] {
        accepted("{}", |template, _| template.coinbase.script.resize(length, 0));
    }
    for (length, detail) in [(1, "script_length=1 < limit=2"), (101, "script_length=101 > limit=100")] {
        let rejection = refused("{}", |template, _| template.coinbase.script.resize(length, 0));
        assert_eq!(shown(&rejection), ("coinbase_script_length_invalid", detail));
    }
}

#[test]
fn the_coinbase_begins_with_the_height() {
    for (height, shows) in [(Some(899_999), "899999"), (None, "none")] {
        let rejection = refused("{}", |template, _| template.coinbase.height = height);
        let detail = format!("coinbase_height={shows} != height=900000");
        assert_eq!(shown(&rejection), ("coinbase_height_mismatch", detail.as_str()));
    }
}

#[test]
fn the_coinbase_pays_out_exactly_what_it_may() {
    let rejection = refused("{}", |template, _| template.coinbase.outputs[0].value += 1);
    assert_eq!(
        shown(&rejection),
        ("coinbase_value_mismatch", "coinbase_outputs=312503001 != coinbase_value=312503000")
    );
}

#[test]
fn a_commitment_is_needed_where_there_is_witness_data_and_only_there() {
    let rejection = refused("{}", |template, _| {
        template.transactions[0].traits = Traits::from_bits(0);
        template.coinbase.outputs[1].script.pop();
    });
    assert_eq!(shown(&rejection), ("witness_commitment_missing", "witness_commitments=0 < required=1"));
    assert_eq!(rejection.context, [("transaction_index".to_owned(), ContextValue::Unsigned(1))]);
    accepted("{}", |template, _| {
        template.transactions.iter_mut().for_each(|tx| tx.traits = Traits::default());
        template.coinbase.outputs.pop();
    });
}

#[test]
fn the_readme_says_what_the_policy_does() {
    assert_readme::<Integrity>(include_str!("../README.md"));
}
