use super::*;
use crate::template::{DiscrepancyKind, Template};
use proptest::prelude::*;

/// What the two tables of a case become.
fn made(toml: &str) -> Result<(Template, Context), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        #[serde(default)]
        template: TemplateTable,
        #[serde(default)]
        context: ContextTable,
    }
    let case: Case = toml::from_str(toml).map_err(|error| error.to_string())?;
    let (declared, context) = build(&case.template, &case.context).map_err(|error| error.to_string())?;
    Ok((assemble(&declared).map_err(|error| error.to_string())?, context))
}

/// The template of some rows, as they stand in a list.
fn rows(list: &str) -> Template {
    made(&format!("[template]\ntransactions = [{list}]")).unwrap().0
}

fn refused(list: &str) -> String {
    made(&format!("[template]\ntransactions = [{list}]")).unwrap_err()
}

/// Kind and row of each discrepancy.
fn found(template: &Template) -> Vec<(DiscrepancyKind, Option<u32>)> {
    template.discrepancies.iter().map(|discrepancy| (discrepancy.kind, discrepancy.transaction)).collect()
}

#[test]
fn a_template_of_which_nothing_is_said_is_ordinary() {
    let (template, context) = made("").unwrap();
    assert_eq!(template.height, 900_000);
    assert_eq!(template.bits.to_consensus(), 0x1703_a30c);
    let shown = template.previous_block_hash.to_string();
    assert_eq!(shown, format!("00000000{}", "11".repeat(28)));
    assert_eq!((template.min_time, template.current_time), (1_750_000_000, 1_750_000_600));
    assert_eq!((template.coinbase_value, template.subsidy), (312_500_000, 312_500_000));
    assert_eq!(template.coinbase.height, Some(900_000));
    assert_eq!(template.coinbase.addresses, [Some(PAYOUT.to_owned()), None]);
    assert!(template.discrepancies.is_empty());
    assert_eq!(context, Context { taken_at: 1_750_000_600, ..Context::default() });
}

#[test]
fn rows_have_the_fee_weight_and_sigops_that_are_asked_for() {
    let template = rows(
        "{ count = 3 }, { fee = 141, weight = 800, sigops = 7 }, { fee = 0, weight = 400_000, sigops = 80_000 }",
    );
    let facts = &template.facts;
    assert_eq!(*facts.fees, [1_000, 1_000, 1_000, 141, 0]);
    assert_eq!(*facts.weights, [561, 561, 561, 800, 400_000]);
    assert_eq!(*facts.sigops, [1, 1, 1, 7, 80_000]);
    assert_eq!(template.coinbase_value, 312_500_000 + 3_141);
    assert!(template.discrepancies.is_empty(), "{:?}", template.discrepancies);
}

#[test]
fn rows_without_witness_have_none_and_their_sigops_are_in_the_outputs() {
    let template = rows(
        "{ segwit = false, weight = 1_000, sigops = 8 }, { segwit = false }, { segwit = false, sigops = 0 }",
    );
    assert!(template.transactions.iter().all(|tx| tx.input[0].witness.is_empty()));
    assert_eq!(template.facts.weights[0], 1_000);
    assert_eq!(*template.facts.sigops, [8, 0, 0]);
    assert!(template.discrepancies.is_empty());
}

#[test]
fn rows_have_the_traits_that_are_asked_for() {
    let template = rows("{ taproot = true }, { rbf = true }, { data = \"beef\" }, { sequence = 7 }");
    let [taproot, rbf, data, sequence] = template.transactions.as_slice() else { panic!() };
    assert!(taproot.output.iter().any(|output| output.script_pubkey.is_p2tr()));
    assert!(rbf.input[0].sequence.is_rbf() && !taproot.input[0].sequence.is_rbf());
    assert!(data.output.iter().any(|output| output.script_pubkey.to_hex_string() == "6a02beef"));
    assert_eq!(sequence.input[0].sequence.0, 7);
    assert!(template.discrepancies.is_empty());
}

#[test]
fn a_row_spends_outputs_of_rows_before_it() {
    let template = rows(
        "{ fee = 5 }, { count = 3, fee = 1_000_000, spends = 0 }, { segwit = false, spends = 3, sigops = 4 }",
    );
    let parent = template.facts.txids[0];
    let spent: Vec<_> = template.transactions[1..4].iter().map(|tx| tx.input[0].previous_output).collect();
    assert_eq!(spent, [0, 1, 2].map(|vout| OutPoint::new(parent, vout)));
    assert_eq!(template.transactions[4].input[0].previous_output.txid, template.facts.txids[3]);
    assert_eq!(*template.facts.fees, [5, 1_000_000, 1_000_000, 1_000_000, 1_000]);
    assert_eq!(*template.facts.sigops, [1, 1, 1, 1, 4]);
    assert!(template.discrepancies.is_empty(), "{:?}", template.discrepancies);
}

#[test]
fn a_row_before_its_parent_is_in_the_wrong_order() {
    let template = rows("{ spends = 1, fee = 9 }, {}");
    assert_eq!(found(&template), [(DiscrepancyKind::TransactionOrder, Some(0))]);
    assert_eq!(*template.facts.fees, [9, 1_000]);
}

#[test]
fn a_row_that_spends_what_another_spends_is_a_double_spend() {
    let template = rows(
        "{ fee = 1 }, { fee = 70_000, double_spends = 0 }, { fee = 5, spends = 0 }, { fee = 2, double_spends = 2 }",
    );
    let kind = DiscrepancyKind::DoubleSpend;
    assert_eq!(found(&template), [(kind, Some(1)), (kind, Some(3))]);
    assert_eq!(*template.facts.fees, [1, 70_000, 5, 2]);
}

#[test]
fn a_row_that_repeats_another_is_a_duplicate() {
    let template = rows("{ fee = 3, weight = 900 }, { repeats = 0 }");
    assert_eq!(found(&template), [(DiscrepancyKind::DuplicateTransaction, Some(1))]);
    assert_eq!(template.facts.txids[0], template.facts.txids[1]);
    assert_eq!(*template.facts.weights, [900, 900]);
}

#[test]
fn a_lock_time_in_the_future_is_not_final_unless_the_sequence_is() {
    let template = rows(
        "{ lock_time = 900_000 }, { lock_time = 899_999 }, { lock_time = 900_000, sequence = 0xffff_ffff }",
    );
    assert_eq!(found(&template), [(DiscrepancyKind::TransactionNotFinal, Some(0))]);
}

#[test]
fn every_lie_about_a_row_is_the_discrepancy_that_is_meant() {
    let hash = "ab".repeat(32);
    for (lie, kind) in [
        (format!("txid = \"{hash}\""), DiscrepancyKind::Txid),
        (format!("wtxid = \"{hash}\""), DiscrepancyKind::Wtxid),
        ("weight = 560".into(), DiscrepancyKind::Weight),
        ("sigops = 2".into(), DiscrepancyKind::Sigops),
        ("fee = 999".into(), DiscrepancyKind::Fee),
    ] {
        let template = rows(&format!("{{}}, {{ declared = {{ {lie} }} }}"));
        assert_eq!(found(&template), [(kind, Some(1))], "{lie}");
        assert_eq!(*template.facts.fees, [1_000, 1_000]);
    }
    assert!(rows("{ declared = { weight = 561, sigops = 1, fee = 1_000 } }").discrepancies.is_empty());
}

#[test]
fn every_lie_about_the_whole_is_the_discrepancy_that_is_meant() {
    let hash = "ab".repeat(32);
    let other = format!("6a24aa21a9ed{hash}");
    for (lie, kind) in [
        (format!("declared = {{ target = \"{hash}\" }}"), DiscrepancyKind::Target),
        (format!("declared = {{ merkle_path = [\"{hash}\"] }}"), DiscrepancyKind::MerklePath),
        ("declared = { transaction_count = 2 }".into(), DiscrepancyKind::TransactionCount),
        ("declared = { witness_commitment = \"none\" }".into(), DiscrepancyKind::WitnessCommitmentMissing),
        (format!("declared = {{ witness_commitment = \"{other}\" }}"), DiscrepancyKind::WitnessCommitment),
        ("coinbase_value = 1".into(), DiscrepancyKind::CoinbaseValue),
    ] {
        for provenance in ["node", "declared"] {
            let text = format!("[template]\nprovenance = \"{provenance}\"\ntransactions = [{{}}]\n{lie}");
            let template = made(&text).unwrap().0;
            assert_eq!(found(&template), [(kind, None)], "{provenance}: {lie}: {:?}", template.discrepancies);
        }
    }
}

#[test]
fn what_is_declared_rightly_is_no_discrepancy() {
    let (first, _) = made("[template]\ntransactions = [{}, {}]").unwrap();
    let path: Vec<_> =
        first.facts.merkle_path.iter().map(|hash| bitcoin::TxMerkleNode::from_byte_array(*hash)).collect();
    let target = hex::encode(bitcoin::Target::from_compact(first.bits).to_be_bytes());
    let commitment = first.facts.witness_commitment_script().to_hex_string();
    let declared = format!(
        "declared = {{ target = \"{target}\", merkle_path = [{}], transaction_count = 2, witness_commitment = \"{commitment}\" }}",
        path.iter().map(|hash| format!("\"{hash}\"")).collect::<Vec<_>>().join(", ")
    );
    let (template, _) = made(&format!("[template]\ntransactions = [{{}}, {{}}]\n{declared}")).unwrap();
    assert!(template.discrepancies.is_empty(), "{:?}", template.discrepancies);
    assert_eq!(template.digest, first.digest);
}

#[test]
fn a_coinbase_has_the_height_script_tag_and_outputs_that_are_asked_for() {
    let coinbase = |toml: &str| {
        made(&format!("[template]\ntransactions = [{{}}]\n[template.coinbase]\n{toml}")).unwrap().0.coinbase
    };
    assert_eq!(coinbase("height = 17").height, Some(17));
    let script = |toml| coinbase(toml).transaction.input[0].script_sig.to_hex_string();
    assert_eq!(
        script("script = \"03a0bb0d00112233445566778899aabbccddeeff00112233\""),
        "03a0bb0d00112233445566778899aabbccddeeff00112233"
    );
    assert!(script("tag = \"/mine/\"").contains(&hex::encode("/mine/")));
    assert!(!script("tag = \"\"").contains(&hex::encode("/")));
    let paid = coinbase(
        "outputs = [{ value = 5, script = \"51\" }, { address = \"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\" }]",
    );
    let values: Vec<_> = paid.transaction.output.iter().map(|output| output.value.to_sat()).collect();
    assert_eq!(values, [5, 312_500_995, 0], "the rest of the value, and the commitment behind it");
    assert_eq!(paid.addresses[1].as_deref(), Some(PAYOUT));
}

#[test]
fn a_coinbase_output_needs_an_address_of_the_network_or_a_script() {
    for (output, words) in [
        ("{ value = 1 }", "needs an address or a script"),
        (
            "{ value = 1, script = \"51\", address = \"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\" }",
            "not both",
        ),
        ("{ value = 1, address = \"tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx\" }", "is none of bitcoin"),
    ] {
        let error = made(&format!("[template.coinbase]\noutputs = [{output}]")).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_context_agrees_with_the_template_where_nothing_else_is_said() {
    let text = "[template]\nheight = 7\ntransactions = [{ unknown = true }, {}]\n[context]\nknown = true\ntip = {}\ntaken_at = 5\ntemplate_age_ms = 3\n";
    let (template, context) = made(text).unwrap();
    let tip = context.tip.unwrap();
    assert_eq!((tip.hash, tip.height, tip.next_bits), (template.previous_block_hash, 6, None));
    assert_eq!(context.known.as_deref(), Some(&[false, true][..]));
    assert_eq!((context.taken_at, context.template_age_ms), (5, 3));
    let (_, context) = made("[context]\ntip = { height = 3, next_bits = \"207fffff\" }\nfee_rates = { p10 = 1, p25 = 2, p50 = 3, p75 = 4, p90 = 5 }").unwrap();
    assert_eq!(context.tip.unwrap().next_bits, Some(CompactTarget::from_consensus(0x207f_ffff)));
    assert_eq!(context.fee_rates.unwrap().p50, 3);
    assert_eq!(context.known, None);
}

#[test]
fn what_no_transaction_can_be_is_refused_with_its_row() {
    for (list, row, words) in [
        ("{}, { weight = 100 }", 1, "it weighs 366 at least"),
        ("{ weight = 4_000_001 }", 0, "no block has room"),
        ("{ segwit = false, weight = 1_001 }", 0, "a multiple of 4"),
        ("{ segwit = false, sigops = 6 }", 0, "every sigop in an output costs 4"),
        ("{}, { double_spends = 0, sigops = 0 }", 1, "what it spends costs 1"),
        ("{ sigops = 2_000_000 }", 0, "more than 1000000 sigops"),
        ("{ count = 200_000 }", 0, "more than 100000 transactions"),
        ("{ spends = 1 }", 0, "there is no other row 1; rows are 0 to 0"),
        ("{ spends = 0 }", 0, "there is no other row 0"),
        ("{ spends = 1 }, { spends = 0 }", 0, "its own output"),
        ("{}, {}, { spends = 0, repeats = 1 }", 2, "one of"),
        ("{}, { repeats = 0 }, { spends = 1 }", 2, "name the original"),
        ("{}, { double_spends = 0 }, { double_spends = 1 }", 2, "name the row it doubles"),
    ] {
        let error = refused(list);
        assert!(error.contains(&format!("row {row}:")) && error.contains(words), "{list}: {error}");
    }
}

#[test]
fn what_is_no_template_at_all_is_said_to_be_none() {
    for (text, words) in [
        ("height = 0", "genesis"),
        ("transactions = [{ fee = 2_100_000_000_000_001 }]", "21 million"),
        ("bits = \"20ffffff\"", "target"),
    ] {
        let error = made(&format!("[template]\n{text}")).unwrap_err();
        assert!(error.contains("no gateway would make a template") && error.contains(words), "{error}");
    }
}

#[test]
fn values_of_the_wrong_form_are_refused() {
    for text in [
        "network = \"mainnet\"",
        "bits = \"1703a30\"",
        "declared = { target = \"abcd\" }",
        "declared = { witness_commitment = \"yes\" }",
        "transactions = [{ data = \"xyz\" }]",
        "transactions = [{ fees = 3 }]",
    ] {
        assert!(made(&format!("[template]\n{text}")).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn weight_and_sigops_are_reached_or_refused_but_never_missed(
        weight in 300_u64..70_000, sigops in proptest::option::of(0_u64..400), segwit: bool, taproot: bool, data in 0_usize..300,
    ) {
        let row = RowTable {
            weight: Some(weight), sigops, segwit, taproot,
            data: (data > 0).then(|| vec![7; data]),
            ..RowTable::default()
        };
        let table = TemplateTable { transactions: vec![row], ..TemplateTable::default() };
        if let Ok((declared, _)) = build(&table, &ContextTable::default()) {
            let template = assemble(&declared).unwrap();
            prop_assert_eq!(u64::from(template.facts.weights[0]), weight);
            prop_assert!(sigops.is_none_or(|sigops| u64::from(template.facts.sigops[0]) == sigops));
            prop_assert!(template.discrepancies.is_empty());
        } else {
            // With a witness every weight from the smallest on is reached.
            let least = 400 + 4 * data as u64 + 40 + sigops.unwrap_or(0) + 100;
            prop_assert!(!segwit || weight < least, "{} refused", weight);
        }
    }

    #[test]
    fn any_lengths_around_the_steps_of_a_length_prefix_are_reached(weight in 700_u64..900) {
        let row = RowTable { weight: Some(weight), ..RowTable::default() };
        let plain = RowTable { weight: Some(weight * 4), segwit: false, ..RowTable::default() };
        let table = TemplateTable { transactions: vec![row, plain], ..TemplateTable::default() };
        let template = assemble(&build(&table, &ContextTable::default()).unwrap().0).unwrap();
        prop_assert_eq!(&*template.facts.weights, &[weight as u32, 4 * weight as u32][..]);
    }
}
