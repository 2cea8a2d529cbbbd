//! A block of Bitcoin's main chain, and declarations that make no template.

use crate::solve;
use bitcoin::{
    Amount, Block, CompactTarget, Network, OutPoint, Script, ScriptBuf, Target, Transaction, TxIn, TxOut,
    Txid, Witness, consensus,
    hashes::{Hash, hash160, sha256},
};
use proptest::prelude::*;
use reservegrid::{
    reason::Reason,
    template::{
        Declared, DiscrepancyKind, Template, TemplateError, TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
        facts::{assemble, subsidy},
    },
};
use std::{collections::HashMap, sync::OnceLock, time::Duration};

pub(crate) fn mainnet_block() -> Block {
    consensus::deserialize(bitcoin_test_data::blocks::mainnet_702861()).unwrap()
}

/// Declares block 702,861 as its node might have. Its fees in sum are what the coinbase took beyond
/// the subsidy; what cannot be computed from the block itself is put on the first such transaction.
pub(crate) fn declared_mainnet_block(block: &Block) -> Declared {
    let outputs: HashMap<OutPoint, &TxOut> = created(block);
    let taken: Amount = block.txdata[0].output.iter().map(|o| o.value).sum();
    let total = taken.to_sat() - subsidy(702_861, Network::Bitcoin);
    let computed: Vec<Option<u64>> = block.txdata[1..]
        .iter()
        .map(|tx| {
            let brought: Option<u64> =
                tx.input.iter().map(|i| outputs.get(&i.previous_output).map(|o| o.value.to_sat())).sum();
            brought.map(|brought| brought - tx.output.iter().map(|o| o.value.to_sat()).sum::<u64>())
        })
        .collect();
    assert!(computed.iter().flatten().count() > 10, "the block has children beside their parents");
    let mut rest = Some(total - computed.iter().flatten().sum::<u64>());
    let fees: Vec<_> = computed.into_iter().map(|fee| fee.or_else(|| rest.take()).or(Some(0))).collect();
    Declared::from_block(block, Network::Bitcoin, fees).unwrap()
}

fn created(block: &Block) -> HashMap<OutPoint, &TxOut> {
    let outputs = |tx: &'_ Transaction| tx.compute_txid();
    block
        .txdata
        .iter()
        .flat_map(|tx| {
            let txid = outputs(tx);
            (0u32..).zip(&tx.output).map(move |(vout, output)| (OutPoint { txid, vout }, output))
        })
        .collect()
}

/// The output that an input must have spent, judging by how it was spent.
fn reconstructed(input: &TxIn) -> ScriptBuf {
    let pushed = |bytes: &[u8]| Script::from_bytes(bytes).to_owned();
    let last_push = input.script_sig.instructions().last().map(|i| i.unwrap());
    let last_push = last_push.and_then(|i| i.push_bytes().map(|b| b.as_bytes().to_vec()));
    match (input.script_sig.is_empty(), input.witness.is_empty()) {
        (true, false) => {
            let last = input.witness.last().unwrap();
            if input.witness.len() == 2 && last.len() == 33 {
                return ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::hash(last));
            }
            ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_raw_hash(sha256::Hash::hash(last)))
        }
        (false, _) => {
            let last = last_push.unwrap();
            let key = matches!((last[0], last.len()), (2 | 3, 33) | (4, 65));
            let hash = hash160::Hash::hash(&last);
            if input.witness.is_empty() && key {
                ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_raw_hash(hash))
            } else if input.witness.is_empty() && last[0] == 0x30 {
                pushed(&[0x51])
            } else {
                ScriptBuf::new_p2sh(&bitcoin::ScriptHash::from_raw_hash(hash))
            }
        }
        (true, true) => pushed(&[0x51]),
    }
}

#[test]
fn a_real_block_comes_out_as_the_chain_says() {
    let block = mainnet_block();
    assert_eq!(block.txdata.len(), 2_500);
    let template = assemble(&declared_mainnet_block(&block)).unwrap();
    let coinbase = block.txdata[0].clone();

    assert_eq!(template.height, 702_861);
    assert_eq!(template.discrepancies, []);
    let rebuilt = template.to_block(coinbase, block.header.version, block.header.time, block.header.nonce);
    assert_eq!(rebuilt.header.merkle_root, block.header.merkle_root);
    assert_eq!(rebuilt, block);
    assert_eq!(rebuilt.block_hash(), block.block_hash());

    let commitments: Vec<_> = block.txdata[0].output.iter().map(|o| &o.script_pubkey).collect();
    assert!(commitments.contains(&&template.witness_commitment_script()));

    // The chain counts 80 bytes of header and the number of transactions (3 bytes) fourfold.
    let coinbase_weight = block.txdata[0].weight().to_wu();
    assert_eq!(template.facts.total_weight + coinbase_weight + 4 * (80 + 3), 3_993_054);
    assert_eq!(block.weight().to_wu(), 3_993_054);
    for (i, tx) in block.txdata[1..].iter().enumerate() {
        assert_eq!(template.facts.txids[i], tx.compute_txid());
        assert_eq!(template.facts.wtxids[i], tx.compute_wtxid());
        assert_eq!(u64::from(template.facts.weights[i]), tx.weight().to_wu());
    }
    let taken: Amount = block.txdata[0].output.iter().map(|o| o.value).sum();
    assert_eq!(template.subsidy, 625_000_000);
    assert_eq!(template.subsidy + template.facts.total_fees, taken.to_sat());
}

#[test]
fn sigops_of_a_real_block_agree_with_an_independent_count() {
    let block = mainnet_block();
    let template = assemble(&declared_mainnet_block(&block)).unwrap();
    let outputs = created(&block);
    for (i, tx) in block.txdata[1..].iter().enumerate() {
        let spent: HashMap<OutPoint, TxOut> = tx
            .input
            .iter()
            .map(|input| {
                let given = outputs.get(&input.previous_output).map(|o| (*o).clone());
                let guessed = || TxOut { value: Amount::ZERO, script_pubkey: reconstructed(input) };
                (input.previous_output, given.unwrap_or_else(guessed))
            })
            .collect();
        let counted = tx.total_sigop_cost(|outpoint| spent.get(outpoint).cloned());
        assert_eq!(template.facts.sigops[i] as usize, counted, "transaction {i}, {}", tx.compute_txid());
    }
    let coinbase = block.txdata[0].total_sigop_cost(|_| None) as u64;
    let total = template.facts.total_sigops + coinbase;
    assert!(total > 10_000 && total <= 80_000, "the chain accepted the block: {total}");
}

#[test]
fn a_template_of_a_known_block_has_the_same_name_again_and_another_block_another() {
    let block = mainnet_block();
    let first = assemble(&declared_mainnet_block(&block)).unwrap();
    let again = assemble(&declared_mainnet_block(&block)).unwrap();
    assert_eq!(first.digest, again.digest);
    let mut later = declared_mainnet_block(&block);
    later.current_time += 1;
    assert_ne!(first.digest, assemble(&later).unwrap().digest);
}

/// A declaration with everything declared, from the embedded chain.
pub(crate) fn full_declaration() -> &'static Declared {
    static DECLARED: OnceLock<Declared> = OnceLock::new();
    DECLARED.get_or_init(|| {
        let config = EmbeddedConfig { transactions_per_template: 60, ..Default::default() };
        let chain = EmbeddedChain::new(config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sourced = runtime.block_on(chain.next_template(None, Duration::ZERO)).unwrap().unwrap();
        declared_again(&sourced.template)
    })
}

fn declared_again(template: &Template) -> Declared {
    let block = solve::solved(template);
    let fees = template.facts.fees.iter().map(|fee| Some(*fee));
    let mut declared = Declared::from_block(&block, Network::Regtest, fees).unwrap();
    declared.target = Some(Target::from_compact(template.bits).to_be_bytes());
    declared.merkle_path = Some(template.facts.merkle_path.clone());
    declared.transaction_count = Some(template.transactions.len() as u32);
    for (i, entry) in declared.transactions.iter_mut().enumerate() {
        entry.txid = Some(template.facts.txids[i]);
        entry.wtxid = Some(template.facts.wtxids[i]);
        entry.weight = Some(u64::from(template.facts.weights[i]));
        entry.sigops = Some(u64::from(template.facts.sigops[i]));
    }
    declared
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Declared)) -> TemplateError {
    let mut declared = full_declaration().clone();
    assert!(assemble(&declared).is_ok());
    change(&mut declared);
    assemble(&declared).expect_err("the lie was believed")
}

#[track_caller]
fn assert_names(error: &TemplateError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    assert_eq!(error.reason(), Reason::TemplateSourceInvalid);
}

#[test]
fn what_cannot_be_judged_is_refused_with_its_field() {
    assert_names(&refused(|d| d.height = 0), &["height"]);
    assert_names(&refused(|d| d.bits = CompactTarget::from_consensus(0x2100_ffff)), &["bits", "0x2100ffff"]);
    assert_names(&refused(|d| d.bits = CompactTarget::from_consensus(0)), &["bits"]);
    assert_names(&refused(|d| d.transactions[3].fee = None), &["transactions[3].fee", "not declared"]);
    assert_names(&refused(|d| d.transactions[0].fee = Some(u64::MAX)), &["21 million"]);
    assert_names(&refused(|d| d.coinbase_value = u64::MAX), &["coinbase", "21 million"]);
    assert_names(
        &refused(|d| d.transactions[3].spent = Some(vec![])),
        &["transactions[3]", "0 spent outputs"],
    );
    let changed = |change: fn(&mut Transaction)| {
        move |d: &mut Declared| {
            let mut tx: Transaction = consensus::deserialize(&d.transactions[3].bytes).unwrap();
            change(&mut tx);
            d.transactions[3].bytes = consensus::serialize(&tx);
        }
    };
    let coinbase = refused(changed(|tx| tx.input[0].previous_output = OutPoint::null()));
    assert_names(&coinbase, &["transactions[3]", "is a coinbase"]);
    assert_names(&refused(changed(|tx| tx.output.clear())), &["transactions[3]", "no output"]);
    let rich = refused(changed(|tx| tx.output[0].value = Amount::MAX_MONEY + Amount::ONE_SAT));
    assert_names(&rich, &["transactions[3].fee", "21 million"]);
}

#[test]
fn a_spend_that_its_parent_in_the_template_cannot_cover_is_refused() {
    let (parent, child) = family(full_declaration());
    let changed = |change: fn(&mut TxIn, &mut TxOut)| {
        refused(|d| {
            let parent_id = parsed(d, parent).compute_txid();
            let mut tx = parsed(d, child);
            let input = tx.input.iter_mut().find(|input| input.previous_output.txid == parent_id).unwrap();
            change(input, &mut tx.output[0]);
            tx.input.retain(|input| input.previous_output.txid == parent_id);
            d.transactions[child].bytes = consensus::serialize(&tx);
        })
    };
    let missing = changed(|input, _| input.previous_output.vout = 77);
    assert_names(&missing, &[&format!("transactions[{child}]"), "which its parent does not have"]);
    let more = changed(|_, output| output.value = Amount::from_int_btc(1_000));
    assert_names(&more, &[&format!("transactions[{child}].fee"), "the inputs bring"]);
}

/// Rows of a transaction and of one that spends an output of it.
pub(crate) fn family(declared: &Declared) -> (usize, usize) {
    let all: Vec<_> = (0..declared.transactions.len()).map(|row| parsed(declared, row)).collect();
    let rows: HashMap<Txid, usize> = all.iter().map(Transaction::compute_txid).zip(0..).collect();
    let parent = |input: &TxIn| rows.get(&input.previous_output.txid).copied();
    let found = all.iter().enumerate().find_map(|(row, tx)| Some((tx.input.iter().find_map(parent)?, row)));
    found.expect("there is a child")
}

pub(crate) fn parsed(declared: &Declared, row: usize) -> Transaction {
    consensus::deserialize(&declared.transactions[row].bytes).unwrap()
}

#[test]
fn bytes_that_are_no_transaction_are_undecodable() {
    for bytes in [vec![], vec![0; 3], vec![0xff; 200]] {
        let error = refused(|d| d.transactions[2].bytes = bytes);
        assert_eq!(error.reason(), Reason::TemplateUndecodable, "{error}");
        assert!(error.to_string().contains("transactions[2]"), "{error}");
    }
    let error = refused(|d| d.transactions[2].bytes.push(0));
    assert_eq!(error.reason(), Reason::TemplateUndecodable, "{error}");
}

#[test]
fn the_first_bad_transaction_of_a_full_block_is_named_whoever_reads_it() {
    let mut declared = declared_mainnet_block(&mainnet_block());
    for row in [2_400, 1_900, 300] {
        declared.transactions[row].bytes.push(0);
        let error = assemble(&declared).unwrap_err();
        assert!(error.to_string().starts_with(&format!("transactions[{row}] ")), "{error}");
    }
}

#[test]
fn the_subsidy_halves() {
    assert_eq!(subsidy(209_999, Network::Bitcoin), 5_000_000_000);
    assert_eq!(subsidy(210_000, Network::Bitcoin), 2_500_000_000);
    assert_eq!(subsidy(840_000, Network::Signet), 312_500_000);
    assert_eq!(subsidy(149, Network::Regtest), 5_000_000_000);
    assert_eq!(subsidy(150, Network::Regtest), 2_500_000_000);
    assert_eq!(subsidy(33 * 210_000, Network::Bitcoin), 0);
    assert_eq!(subsidy(u32::MAX, Network::Regtest), 0);
}

/// One change to a declaration.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, usize, u8),
    Truncate(usize, usize),
    Weight(usize, Option<u64>),
    Sigops(usize, Option<u64>),
    Fee(usize, Option<u64>),
    Swap(usize, usize),
    Remove(usize),
    Value(u64),
    Height(u32),
    Bits(u32),
    Times(u32, u32),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let any_index = any::<usize>;
    prop_oneof![
        (any_index(), any_index(), 1u8..).prop_map(|(t, b, x)| Mutation::Flip(t, b, x)),
        (any_index(), any_index()).prop_map(|(t, b)| Mutation::Truncate(t, b)),
        (any_index(), any::<Option<u64>>()).prop_map(|(t, v)| Mutation::Weight(t, v)),
        (any_index(), any::<Option<u64>>()).prop_map(|(t, v)| Mutation::Sigops(t, v)),
        (any_index(), any::<Option<u64>>()).prop_map(|(t, v)| Mutation::Fee(t, v)),
        (any_index(), any_index()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        any_index().prop_map(Mutation::Remove),
        any::<u64>().prop_map(Mutation::Value),
        any::<u32>().prop_map(Mutation::Height),
        any::<u32>().prop_map(Mutation::Bits),
        any::<(u32, u32)>().prop_map(|(a, b)| Mutation::Times(a, b)),
    ]
}

fn mutate(declared: &mut Declared, mutation: Mutation) {
    let transactions = &mut declared.transactions;
    let count = transactions.len();
    match mutation {
        Mutation::Flip(t, b, x) => {
            let bytes = &mut transactions[t % count].bytes;
            let position = b % bytes.len();
            bytes[position] ^= x;
        }
        Mutation::Truncate(t, b) => {
            let bytes = &mut transactions[t % count].bytes;
            bytes.truncate(b % bytes.len());
        }
        Mutation::Weight(t, v) => transactions[t % count].weight = v,
        Mutation::Sigops(t, v) => transactions[t % count].sigops = v,
        Mutation::Fee(t, v) => transactions[t % count].fee = v,
        Mutation::Swap(a, b) => transactions.swap(a % count, b % count),
        Mutation::Remove(t) => drop(transactions.remove(t % count)),
        Mutation::Value(v) => declared.coinbase_value = v,
        Mutation::Height(h) => declared.height = h,
        Mutation::Bits(b) => declared.bits = CompactTarget::from_consensus(b),
        Mutation::Times(a, b) => (declared.min_time, declared.current_time) = (a, b),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Whatever a source declares: an answer, and never a template whose facts are not its bytes'.
    #[test]
    fn a_mutated_declaration_is_refused_or_true(mutations in prop::collection::vec(mutation(), 1..3)) {
        let mut declared = full_declaration().clone();
        mutations.into_iter().for_each(|m| {
            if declared.transactions.iter().all(|t| !t.bytes.is_empty()) {
                mutate(&mut declared, m);
            }
        });
        let transactions = declared.transactions.clone();
        if let Ok(template) = assemble(&declared) {
            let kinds: Vec<_> = template.discrepancies.iter().map(|d| d.kind).collect();
            let earned = template.subsidy + template.facts.total_fees;
            let differs = template.coinbase_value != earned;
            prop_assert_eq!(kinds.contains(&DiscrepancyKind::CoinbaseValue), differs);
            let block = template.to_block(template.coinbase.transaction.clone(), template.version, 0, 0);
            let mut whole = block.clone();
            whole.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32]]);
            prop_assert!(block.check_merkle_root() && whole.check_witness_commitment());
            prop_assert_eq!(template.transactions.len(), transactions.len());
            for (i, tx) in template.transactions.iter().enumerate() {
                prop_assert_eq!(&consensus::serialize(tx), &transactions[i].bytes);
                prop_assert_eq!(template.facts.txids[i], tx.compute_txid());
                prop_assert_eq!(template.facts.wtxids[i], tx.compute_wtxid());
                prop_assert_eq!(u64::from(template.facts.weights[i]), tx.weight().to_wu());
            }
        }
    }
}
