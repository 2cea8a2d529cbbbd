//! What the gateway adds to the surroundings of a template right before it is judged.

use crate::blocks::full_declaration;
use bitcoin::{BlockHash, hashes::Hash};
use reservegrid::template::{Context, MempoolState, Provenance, Template, best::BestValues, facts::assemble};
use std::time::Duration;

/// A template on a tip of this number, worth this much less than all that is there.
fn template(tip: u8, provenance: Provenance, less: u64) -> Template {
    let mut declared = full_declaration().clone();
    declared.previous_block_hash = BlockHash::from_byte_array([tip; 32]);
    declared.provenance = provenance;
    declared.coinbase_value -= less;
    assemble(&declared).unwrap()
}

#[test]
fn a_snapshot_is_what_the_source_knew_and_what_the_gateway_adds() {
    let mempool = Some(MempoolState { transaction_count: 1, total_vsize: 2, total_fees: 3 });
    let known = Context { mempool, known: Some([true, false].into()), ..Context::default() };
    let taken = known.taken(1_750_000_000, Duration::from_micros(1_500), Some(9));
    let expected = Context {
        taken_at: 1_750_000_000,
        template_age_ms: 1,
        best_template_value: Some(9),
        ..known.clone()
    };
    assert_eq!(taken, expected);
    assert_eq!(known.taken(0, Duration::MAX, None).template_age_ms, u64::MAX);
}

#[test]
fn the_best_value_is_the_largest_of_our_nodes_on_the_same_tip() {
    let value = full_declaration().coinbase_value;
    let mut best = BestValues::default();
    assert_eq!(best.note(&template(1, Provenance::Declared, 0)), None, "no node has said anything");
    assert_eq!(best.note(&template(1, Provenance::Node, 50)), Some(value - 50));
    assert_eq!(best.note(&template(1, Provenance::Node, 70)), Some(value - 50), "the best stays");
    assert_eq!(best.note(&template(1, Provenance::Declared, 0)), Some(value - 50), "miners do not count");
    assert_eq!(best.note(&template(1, Provenance::Node, 20)), Some(value - 20));
    assert_eq!(best.note(&template(2, Provenance::Node, 90)), Some(value - 90), "a tip of its own");
    assert_eq!(best.note(&template(1, Provenance::Node, 90)), Some(value - 20), "and back");
}

#[test]
fn a_value_beyond_subsidy_and_fees_is_no_better() {
    let value = full_declaration().coinbase_value;
    let mut declared = full_declaration().clone();
    declared.coinbase_value += 1_000;
    assert_eq!(BestValues::default().note(&assemble(&declared).unwrap()), Some(value));
}

#[test]
fn only_the_newest_tips_are_remembered() {
    let value = full_declaration().coinbase_value;
    let mut best = BestValues::default();
    for tip in 1..=5 {
        best.note(&template(tip, Provenance::Node, 10));
    }
    assert_eq!(best.note(&template(2, Provenance::Node, 90)), Some(value - 10), "remembered");
    assert_eq!(best.note(&template(1, Provenance::Node, 90)), Some(value - 90), "forgotten");
}

/// Future templates all stand on the same hash, which is no tip.
#[test]
fn what_a_template_for_a_tip_to_come_is_worth_says_nothing_about_another() {
    let value = full_declaration().coinbase_value;
    let mut best = BestValues::default();
    assert_eq!(best.note(&template(0xff, Provenance::Node, 10)), Some(value - 10));
    assert_eq!(best.note(&template(0xff, Provenance::Node, 90)), Some(value - 90));
}
