//! The coinbase of a template: planned or given whole, and what is derived from it.

use crate::blocks::full_declaration;
use bitcoin::{
    Amount, Network, ScriptBuf, Transaction, TxOut, Witness,
    consensus::{deserialize, serialize},
    script::Builder,
};
use proptest::prelude::*;
use reservegrid::{
    reason::Reason,
    template::{
        Coinbase, CoinbaseError, CoinbaseParts, CoinbaseSpec, TemplateError, coinbase::EXTRANONCE_LEN,
        facts::assemble,
    },
};

fn spec(tag: &str) -> CoinbaseSpec {
    let payout = ScriptBuf::new_p2wpkh(&"751e76e8199196d454941c45d1b3a323f1433bd6".parse().unwrap());
    CoinbaseSpec { payout: payout.into(), tag: tag.to_owned() }
}

fn assembled(parts: CoinbaseParts) -> Result<Coinbase, TemplateError> {
    let mut declared = full_declaration().clone();
    declared.coinbase = parts;
    assemble(&declared).map(|template| template.coinbase)
}

/// A planned coinbase, changed by somebody else.
fn whole(extranonce_at: usize, change: impl FnOnce(&mut Transaction)) -> CoinbaseParts {
    let mut transaction = assembled(CoinbaseParts::Planned(spec("/tests/"))).unwrap().transaction;
    change(&mut transaction);
    CoinbaseParts::Whole { transaction: serialize(&transaction), extranonce_at }
}

fn with_script(script: &[u8]) -> CoinbaseParts {
    whole(usize::MAX, |tx| tx.input[0].script_sig = ScriptBuf::from_bytes(script.to_vec()))
}

#[test]
fn a_planned_coinbase_pays_everything_to_the_pool_and_commits_last() {
    let declared = full_declaration();
    let coinbase = assembled(CoinbaseParts::Planned(spec("/tests/"))).unwrap();
    assert_eq!(coinbase.height, Some(declared.height));
    let outputs = &coinbase.transaction.output;
    assert_eq!(outputs[..1], spec("").payout.outputs(Amount::from_sat(declared.coinbase_value)));
    assert_eq!(Some(&outputs[1].script_pubkey), declared.witness_commitment_script.as_ref());
    assert_eq!((outputs.len(), outputs[1].value), (2, Amount::ZERO));
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_owned();
    assert_eq!(coinbase.addresses, [Some(address), None]);
    let script = coinbase.transaction.input[0].script_sig.as_bytes();
    assert!(script.windows(7).any(|part| part == b"/tests/"));
    assert_eq!(script[coinbase.extranonce_at..], [0; EXTRANONCE_LEN]);
}

#[test]
fn the_weight_is_that_with_the_witness() {
    let coinbase = assembled(CoinbaseParts::Planned(spec("/tests/"))).unwrap();
    let mut transaction = coinbase.transaction;
    assert!(transaction.input[0].witness.is_empty(), "stripped");
    transaction.input[0].witness = Witness::from_slice(&[[0; 32]]);
    assert_eq!(u64::from(coinbase.weight), transaction.weight().to_wu());
}

#[test]
fn the_two_parts_and_an_extranonce_are_the_coinbase() {
    let coinbase = assembled(CoinbaseParts::Planned(spec("/tests/"))).unwrap();
    let (prefix, suffix) = coinbase.split().unwrap();
    let joined = [&prefix[..], &[0; EXTRANONCE_LEN], &suffix].concat();
    assert_eq!(deserialize::<Transaction>(&joined).unwrap(), coinbase.transaction);
    let other = [&prefix[..], &[7; EXTRANONCE_LEN], &suffix].concat();
    let other: Transaction = deserialize(&other).unwrap();
    assert!(other.input[0].script_sig.as_bytes().ends_with(&[7; EXTRANONCE_LEN]));
}

#[test]
fn sigops_of_script_and_outputs_count_fourfold() {
    let p2pkh = ScriptBuf::new_p2pkh(&"751e76e8199196d454941c45d1b3a323f1433bd6".parse().unwrap());
    let coinbase = assembled(whole(0, |tx| {
        tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x01, 0x09, 0xac, 0xae]);
        tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: p2pkh });
    }));
    // A signature check and a bare multisig in the script, one check in the output.
    assert_eq!(coinbase.unwrap().sigops, 4 * (1 + 20 + 1));
}

#[test]
fn a_tag_that_does_not_fit_is_refused_with_what_to_do() {
    // Two bytes of height, one of length, and the push of the extranonce leave 76; from 76 on a push needs
    // another byte.
    assembled(CoinbaseParts::Planned(spec(&"x".repeat(75)))).unwrap();
    let error = assembled(CoinbaseParts::Planned(spec(&"x".repeat(76)))).unwrap_err();
    assert!(error.to_string().contains("101 bytes long"), "{error}");
    assert!(error.to_string().contains("more than 100: shorten [coinbase] tag"), "{error}");
    assert_eq!(error.reason(), Reason::TemplateSourceInvalid);
}

#[test]
fn a_coinbase_of_somebody_else_is_kept_apart_from_extranonce_and_witness() {
    let planned = assembled(CoinbaseParts::Planned(spec("/tests/"))).unwrap();
    let parts = whole(planned.extranonce_at, |tx| {
        let mut script = tx.input[0].script_sig.to_bytes();
        script[planned.extranonce_at..].fill(0xee);
        tx.input[0].script_sig = ScriptBuf::from_bytes(script);
        tx.input[0].witness = Witness::from_slice(&[[0; 32]]);
    });
    assert_eq!(assembled(parts).unwrap(), planned);
}

#[test]
fn bytes_that_are_no_coinbase_are_refused() {
    let garbage = CoinbaseParts::Whole { transaction: vec![1, 2, 3], extranonce_at: 0 };
    let error = assembled(garbage).unwrap_err();
    assert_eq!(error.reason(), Reason::TemplateUndecodable);
    assert!(error.to_string().contains("coinbase does not parse"), "{error}");
    let spending = whole(0, |tx| tx.input[0].previous_output.vout = 0);
    let poor = whole(0, |tx| tx.output.clear());
    for parts in [spending, poor] {
        let error = assembled(parts).unwrap_err();
        assert!(error.to_string().starts_with("coinbase: is none"), "{error}");
    }
    let rich = whole(0, |tx| tx.output[0].value = Amount::MAX_MONEY + Amount::ONE_SAT);
    let error = assembled(rich).unwrap_err();
    assert!(error.to_string().contains("21 million"), "{error}");
}

#[test]
fn a_coinbase_without_room_for_an_extranonce_is_judged_but_cannot_be_cut() {
    let planned = assembled(CoinbaseParts::Planned(spec("/tests/"))).unwrap();
    let len = planned.transaction.input[0].script_sig.len();
    for at in [planned.extranonce_at + 1, usize::MAX] {
        let error = assembled(whole(at, |_| ())).unwrap().split().unwrap_err();
        assert_eq!(error, CoinbaseError::NoExtranonce { at, len });
        assert!(error.to_string().contains("must leave room"), "{error}");
    }
    let long = whole(0, |tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0; 101]));
    assert_eq!(assembled(long).unwrap().split().unwrap_err(), CoinbaseError::ScriptTooLong(101));
}

#[test]
fn an_existing_coinbase_is_taken_if_it_ends_in_an_extranonce() {
    let coinbase = assembled(CoinbaseParts::Planned(spec("/tests/"))).unwrap();
    let parts = CoinbaseParts::of(&coinbase.transaction).unwrap();
    assert_eq!(assembled(parts).unwrap(), coinbase);
    let mut other = coinbase.transaction;
    for script in [&[0x51][..], &[0; 40], &[&[19][..], &[0; 19]].concat(), &[20, 0]] {
        other.input[0].script_sig = ScriptBuf::from_bytes(script.to_vec());
        assert_eq!(CoinbaseParts::of(&other), None, "{script:?}");
    }
}

#[test]
fn only_the_one_encoding_of_a_height_is_one() {
    let height = |script: &[u8]| assembled(with_script(script)).unwrap().height;
    assert_eq!(height(&[0x51]), Some(1));
    assert_eq!(height(&[0x60, 0xac]), Some(16));
    assert_eq!(height(&[1, 17]), Some(17));
    assert_eq!(height(&[2, 0x80, 0]), Some(128));
    assert_eq!(height(&[3, 0xa0, 0xbb, 0x0d]), Some(900_000));
    assert_eq!(height(&[5, 0xff, 0xff, 0xff, 0xff, 0]), Some(u32::MAX));
    let not_heights: [&[u8]; 9] = [
        &[],
        &[1, 16],               // has an opcode of its own
        &[2, 17, 0],            // longer than needed
        &[1, 0x81],             // negative
        &[0x4c, 1, 17],         // another way to push
        &[3, 0xa0, 0xbb],       // breaks off
        &[5, 0, 0, 0, 0, 1],    // more than a height can be
        &[6, 1, 1, 1, 1, 1, 1], // longer than a number can be
        &[0x61],                // no push
    ];
    for script in not_heights {
        assert_eq!(height(script), None, "{script:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_height_is_read_back(height in prop_oneof![1u32..70_000, any::<u32>()]) {
        let script = Builder::new().push_int(i64::from(height)).push_slice([7; 3]).into_script();
        prop_assert_eq!(assembled(with_script(script.as_bytes())).unwrap().height, Some(height));
    }

    #[test]
    fn no_script_is_read_as_a_height_that_consensus_would_not_accept(
        script in prop::collection::vec(any::<u8>(), 0..9)
    ) {
        if let Some(height) = assembled(with_script(&script)).unwrap().height {
            let expected = Builder::new().push_int(i64::from(height)).into_script();
            prop_assert!(script.starts_with(expected.as_bytes()));
        }
    }
}

#[test]
fn addresses_are_of_the_templates_network() {
    let mut declared = full_declaration().clone();
    declared.coinbase = CoinbaseParts::Planned(spec(""));
    declared.bits = bitcoin::CompactTarget::from_consensus(0x1d00_ffff);
    for (network, address) in [
        (Network::Bitcoin, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        (Network::Signet, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"),
    ] {
        declared.network = network;
        let coinbase = assemble(&declared).unwrap().coinbase;
        assert_eq!(coinbase.addresses[0].as_deref(), Some(address));
    }
}
