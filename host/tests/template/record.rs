//! Templates as JSON: nothing is lost, and what is damaged is not read.

use crate::blocks::{declared_mainnet_block, full_declaration, mainnet_block};
use bitcoin::{Amount, BlockHash, CompactTarget, ScriptBuf, TxOut, Txid, Wtxid, hashes::Hash};
use proptest::prelude::*;
use reservegrid::template::{
    ChainTip, CoinbaseParts, Context, Declared, FeeRatePercentiles, MempoolState, Provenance,
    facts::assemble,
    record::{RecordError, Recorded},
};

fn full_context() -> Context {
    Context {
        taken_at: 1_750_000_600,
        template_age_ms: 12,
        tip: Some(ChainTip {
            hash: BlockHash::from_byte_array([9; 32]),
            height: 899_999,
            next_bits: Some(CompactTarget::from_consensus(0x1703_a30c)),
        }),
        mempool: Some(MempoolState { transaction_count: 1, total_vsize: 2, total_fees: u64::MAX }),
        fee_rates: Some(FeeRatePercentiles { p10: 1, p25: 2, p50: 3, p75: 4, p90: 5 }),
        best_template_value: Some(312_500_000),
        mempool_age_ms: Some(4_200),
        known: Some([true, false, true].into()),
    }
}

#[track_caller]
fn round_trip(recorded: &Recorded) {
    let json = recorded.to_json().unwrap();
    assert_eq!(Recorded::from_json(&json).unwrap(), *recorded);
}

#[test]
fn a_real_block_comes_back_as_it_was() {
    let declared = declared_mainnet_block(&mainnet_block());
    let recorded = Recorded::new(declared, full_context());
    let json = recorded.to_json().unwrap();
    let read = Recorded::from_json(&json).unwrap();
    assert_eq!(read, recorded);
    assert_eq!(assemble(&read.declared).unwrap().digest, assemble(&recorded.declared).unwrap().digest);
}

#[test]
fn the_form_is_one_that_people_can_read() {
    let mut declared = full_declaration().clone();
    declared.transactions.truncate(1);
    declared.transactions[0].spent =
        Some(vec![TxOut { value: Amount::from_sat(7), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }]);
    let previous = declared.previous_block_hash.to_string();
    let txid = declared.transactions[0].txid.unwrap().to_string();
    let first = declared.merkle_path.as_ref().unwrap()[0];
    let json = Recorded::new(declared, full_context()).to_json().unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["format"], 1);
    let declared = &value["declared"];
    assert_eq!(declared["previous_block_hash"], previous);
    assert_eq!(declared["bits"], "207fffff");
    assert_eq!(declared["provenance"], "node");
    assert_eq!(declared["merkle_path"][0], Txid::from_byte_array(first).to_string());
    assert_eq!(declared["coinbase"]["planned"]["tag"], "");
    assert_eq!(declared["transactions"][0]["txid"], txid);
    assert_eq!(declared["transactions"][0]["spent"][0]["value"], 7);
    assert_eq!(declared["transactions"][0]["spent"][0]["script_pubkey"], "51");
    assert_eq!(value["context"]["known"], "101");
    assert_eq!(value["context"]["tip"]["next_bits"], "1703a30c");
    assert_eq!(value["context"]["mempool"]["total_fees"], u64::MAX);
}

#[test]
fn a_newer_format_is_named_and_not_guessed_at() {
    let error = Recorded::from_json(r#"{"format": 2, "template": "whatever comes"}"#).unwrap_err();
    assert!(matches!(error, RecordError::Other(2)));
    let text = error.to_string();
    assert!(text.contains("format 2") && text.contains("format 1"), "{text}");
}

#[test]
fn a_damaged_record_is_refused_with_the_place() {
    let recorded = Recorded::new(full_declaration().clone(), full_context());
    let json = recorded.to_json().unwrap();
    let damage = [
        (json[..json.len() / 2].to_owned(), "line 1"),
        (String::new(), "line 1"),
        ("[]".to_owned(), "line 1"),
        ("{}".to_owned(), "missing field `format`"),
        (json.replacen("207fffff", "207ffff", 1), "eight hex digits"),
        (json.replacen("\"101\"", "\"1x1\"", 1), "neither 0 nor 1"),
        (json.replacen("\"merkle_path\"", "\"merkle\"", 1), "merkle"),
        (json.replacen("\"min_time\":", "\"min_time\":-", 1), "expected u32"),
        (json.replacen("\"bytes\":\"02", "\"bytes\":\"0x", 1), "hexadecimal"),
        (json.replacen("\"bytes\":\"02", "\"bytes\":\"2", 1), "hexadecimal"),
    ];
    for (damaged, word) in damage {
        assert_ne!(damaged, json);
        let error = Recorded::from_json(&damaged).unwrap_err();
        assert!(matches!(error, RecordError::Damaged(_)));
        let text = error.to_string();
        assert!(text.contains("damaged") && text.contains(word), "{text} does not say {word}");
    }
}

fn declared() -> impl Strategy<Value = Declared> {
    let wholes = (
        any::<u32>(),
        any::<i32>(),
        any::<[u8; 32]>(),
        any::<u32>(),
        any::<Option<[u8; 32]>>(),
        any::<(u32, u32, u64)>(),
        any::<Option<Vec<[u8; 32]>>>(),
        any::<Option<u32>>(),
        any::<Option<Vec<u8>>>(),
        any::<(bool, Vec<u8>, usize, Option<String>)>(),
    );
    let entry =
        any::<(Vec<u8>, Option<[u8; 32]>, Option<[u8; 32]>, [Option<u64>; 3], Option<Vec<(u64, Vec<u8>)>>)>();
    (wholes, prop::collection::vec(entry, 0..5)).prop_map(|(wholes, entries)| {
        let (height, version, previous, bits, target, numbers, path, count, commitment, coinbase) = wholes;
        let mut declared = full_declaration().clone();
        declared.height = height;
        declared.version = bitcoin::block::Version::from_consensus(version);
        declared.previous_block_hash = BlockHash::from_byte_array(previous);
        declared.bits = CompactTarget::from_consensus(bits);
        declared.target = target;
        (declared.min_time, declared.current_time, declared.coinbase_value) = numbers;
        declared.merkle_path = path;
        declared.transaction_count = count;
        declared.witness_commitment_script = commitment.map(ScriptBuf::from_bytes);
        let (ours, bytes, extranonce_at, tag) = coinbase;
        declared.provenance = if ours { Provenance::Node } else { Provenance::Declared };
        declared.coinbase = match tag {
            Some(tag) => CoinbaseParts::Planned(reservegrid::template::CoinbaseSpec {
                payout: ScriptBuf::from_bytes(bytes).into(),
                tag,
            }),
            None => CoinbaseParts::Whole { transaction: bytes, extranonce_at },
        };
        let entries = entries.into_iter().map(|(bytes, txid, wtxid, [weight, sigops, fee], spent)| {
            let output = |(value, script): (u64, Vec<u8>)| TxOut {
                value: Amount::from_sat(value),
                script_pubkey: ScriptBuf::from_bytes(script),
            };
            reservegrid::template::DeclaredTransaction {
                bytes,
                txid: txid.map(Txid::from_byte_array),
                wtxid: wtxid.map(Wtxid::from_byte_array),
                weight,
                sigops,
                fee,
                spent: spent.map(|spent| spent.into_iter().map(output).collect()),
            }
        });
        declared.transactions = entries.collect();
        declared
    })
}

fn context() -> impl Strategy<Value = Context> {
    let parts = any::<(
        u64,
        u64,
        Option<([u8; 32], u32, Option<u32>)>,
        Option<[u64; 3]>,
        Option<[u64; 5]>,
        Option<u64>,
        Option<Vec<bool>>,
    )>();
    parts.prop_map(|(taken_at, template_age_ms, tip, mempool, rates, best_template_value, known)| Context {
        taken_at,
        template_age_ms,
        tip: tip.map(|(hash, height, bits)| ChainTip {
            hash: BlockHash::from_byte_array(hash),
            height,
            next_bits: bits.map(CompactTarget::from_consensus),
        }),
        mempool: mempool.map(|[transaction_count, total_vsize, total_fees]| MempoolState {
            transaction_count,
            total_vsize,
            total_fees,
        }),
        fee_rates: rates.map(|[p10, p25, p50, p75, p90]| FeeRatePercentiles { p10, p25, p50, p75, p90 }),
        best_template_value,
        mempool_age_ms: best_template_value.map(|value| value / 7),
        known: known.map(Into::into),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_a_source_may_say_is_read_back_as_it_was(declared in declared(), context in context()) {
        round_trip(&Recorded::new(declared, context));
    }

    #[test]
    fn a_template_that_is_read_back_has_the_same_name(row in 0usize..60, lie in any::<u64>(), clock in any::<u32>()) {
        let mut declared = full_declaration().clone();
        declared.transactions[row].weight = Some(lie);
        declared.current_time = clock;
        let recorded = Recorded::new(declared, full_context());
        let read = Recorded::from_json(&recorded.to_json().unwrap()).unwrap();
        let (before, after) = (assemble(&recorded.declared).unwrap(), assemble(&read.declared).unwrap());
        prop_assert_eq!(before.digest, after.digest);
        prop_assert_eq!(before.discrepancies, after.discrepancies);
    }

    #[test]
    fn a_record_cut_anywhere_is_damaged_and_nothing_worse(cut in any::<prop::sample::Index>()) {
        let json = Recorded::new(full_declaration().clone(), full_context()).to_json().unwrap();
        prop_assert!(Recorded::from_json(&json[..cut.index(json.len())]).is_err());
    }
}
