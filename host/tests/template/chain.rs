//! The embedded chain: what it takes, and with which words it refuses.

use crate::solve;
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxOut, Witness,
    hashes::Hash, script::Builder,
};
use reservegrid::{
    reason::Reason,
    template::{
        ChainTip, Sourced, SubmitOutcome, Template, TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
    },
};
use std::{collections::HashSet, sync::Arc, time::Duration};

const LONG: Duration = Duration::from_secs(3600);

fn config() -> EmbeddedConfig {
    EmbeddedConfig { transactions_per_template: 40, refresh: LONG, ..Default::default() }
}

fn chain() -> EmbeddedChain {
    EmbeddedChain::new(config()).unwrap()
}

/// Makes a block consistent again after its transactions were changed: commitment, merkle root, nonce.
fn repaired(mut block: Block) -> Block {
    let root = block.witness_root().unwrap();
    let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], commitment.as_ref()].concat();
    block.txdata[0].output[1].script_pubkey = ScriptBuf::from_bytes(script);
    rerooted(block)
}

/// Makes the header fit the transactions again.
fn rerooted(mut block: Block) -> Block {
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    solve::grind(block)
}

async fn current(chain: &EmbeddedChain) -> Sourced {
    chain.next_template(None, Duration::ZERO).await.unwrap().expect("there is always a current template")
}

#[tokio::test]
async fn twenty_blocks_in_a_row_are_accepted_and_each_becomes_the_tip() {
    let chain = chain();
    let (start, _) = chain.tip();
    let (mut children, mut taproot) = (0, 0);
    for found in 1..=20 {
        let template = current(&chain).await.template;
        assert_eq!(template.height, start + found);
        assert_eq!(template.transactions.len(), 40);
        let ids: HashSet<_> = template.facts.txids.iter().collect();
        let inputs = || template.transactions.iter().flat_map(|tx| &tx.input);
        children += inputs().filter(|i| ids.contains(&i.previous_output.txid)).count();
        taproot += inputs().filter(|i| i.witness.len() == 1).count();
        let block = solve::solved(&template);
        assert_eq!(chain.submit_block(&block).await.unwrap(), SubmitOutcome::Accepted);
        assert_eq!(chain.tip(), (start + found, block.block_hash()));
    }
    assert!(children > 20, "templates have parents and children: {children}");
    assert!(taproot > 100, "templates have taproot spends: {taproot}");
}

/// A block of a fresh chain, changed, and what the chain says to it.
async fn answer(change: impl FnOnce(&EmbeddedChain, &Template, Block) -> Block) -> String {
    let chain = chain();
    let template = current(&chain).await.template;
    let before = chain.tip();
    let block = change(&chain, &template, solve::solved(&template));
    let outcome = chain.submit_block(&block).await.unwrap();
    assert_eq!(chain.tip(), before, "a refused block moved the tip");
    let still = chain.submit_block(&solve::solved(&template)).await.unwrap();
    assert_eq!(still, SubmitOutcome::Accepted, "a refused block left traces");
    match outcome {
        SubmitOutcome::Rejected(words) => words,
        other => panic!("the chain did not refuse a bad block: {other:?}"),
    }
}

#[tokio::test]
async fn a_header_that_breaks_a_rule_is_refused_in_the_words_of_a_node() {
    let unsolved = answer(|_, _, mut block| {
        while block.header.validate_pow(Target::from_compact(block.header.bits)).is_ok() {
            block.header.nonce += 1;
        }
        block
    });
    assert_eq!(unsolved.await, "high-hash");
    let unknown = answer(|_, _, mut block| {
        block.header.prev_blockhash = bitcoin::BlockHash::all_zeros();
        solve::grind(block)
    });
    assert_eq!(unknown.await, "bad-prevblk");
    let older = answer(|chain, _, mut block| {
        block.header.prev_blockhash = chain.boot_blocks()[50].block_hash();
        solve::grind(block)
    });
    assert_eq!(older.await, "inconclusive-not-best-prevblk");
    let bits = answer(|_, _, mut block| {
        block.header.bits = CompactTarget::from_consensus(0x207f_fffe);
        solve::grind(block)
    });
    assert_eq!(bits.await, "bad-diffbits");
    let old = answer(|_, template, mut block| {
        block.header.time = template.min_time - 1;
        solve::grind(block)
    });
    assert_eq!(old.await, "time-too-old");
    let new = answer(|_, template, mut block| {
        block.header.time = template.current_time + 3 * 3600;
        solve::grind(block)
    });
    assert_eq!(new.await, "time-too-new");
    let version = answer(|_, _, mut block| {
        block.header.version = bitcoin::block::Version::TWO;
        solve::grind(block)
    });
    assert_eq!(version.await, "bad-version");
    let root = answer(|_, _, mut block| {
        block.header.merkle_root = bitcoin::TxMerkleNode::all_zeros();
        solve::grind(block)
    });
    assert_eq!(root.await, "bad-txnmrklroot");
}

#[tokio::test]
async fn a_coinbase_that_breaks_a_rule_is_refused_in_the_words_of_a_node() {
    let amount = answer(|_, _, mut block| {
        block.txdata[0].output[0].value += Amount::ONE_SAT;
        rerooted(block)
    });
    assert_eq!(amount.await, "bad-cb-amount");
    let height = answer(|_, template, mut block| {
        let wrong = Builder::new().push_int(i64::from(template.height) + 1).push_int(0).into_script();
        block.txdata[0].input[0].script_sig = wrong;
        rerooted(block)
    });
    assert_eq!(height.await, "bad-cb-height");
    let length = answer(|_, _, mut block| {
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0x51; 101]);
        rerooted(block)
    });
    assert_eq!(length.await, "bad-cb-length");
    let missing = answer(|_, _, mut block| {
        block.txdata.remove(0);
        rerooted(block)
    });
    assert_eq!(missing.await, "bad-cb-missing");
    let two = answer(|_, _, mut block| {
        let mut second = block.txdata[0].clone();
        second.output[0].value = Amount::ZERO;
        block.txdata.push(second);
        repaired(block)
    });
    assert_eq!(two.await, "bad-cb-multiple");
    let commitment = answer(|_, _, mut block| {
        let mut script = block.txdata[0].output[1].script_pubkey.to_bytes();
        script[20] ^= 1;
        block.txdata[0].output[1].script_pubkey = ScriptBuf::from_bytes(script);
        rerooted(block)
    });
    assert_eq!(commitment.await, "bad-witness-merkle-match");
    let reserved = answer(|_, _, mut block| {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 31]]);
        rerooted(block)
    });
    assert_eq!(reserved.await, "bad-witness-nonce-size");
    let none = answer(|_, _, mut block| {
        block.txdata[0].output.pop();
        rerooted(block)
    });
    assert_eq!(none.await, "unexpected-witness");
}

#[tokio::test]
async fn a_transaction_that_breaks_a_rule_is_refused_in_the_words_of_a_node() {
    let twice = answer(|_, _, mut block| {
        let mut again = block.txdata[1].clone();
        again.output[0].value -= Amount::ONE_SAT;
        block.txdata.push(again);
        repaired(block)
    });
    assert_eq!(twice.await, "bad-txns-inputs-missingorspent");
    let invented = answer(|_, _, mut block| {
        block.txdata[1].input[0].previous_output.vout += 7_000;
        repaired(block)
    });
    assert_eq!(invented.await, "bad-txns-inputs-missingorspent");
    let backwards = answer(|_, _, mut block| {
        block.txdata[1..].reverse();
        repaired(block)
    });
    assert_eq!(backwards.await, "bad-txns-inputs-missingorspent");
    let money = answer(|_, _, mut block| {
        block.txdata[1].output[0].value += Amount::from_int_btc(1);
        repaired(block)
    });
    assert_eq!(money.await, "bad-txns-in-belowout");
    let signature = answer(|_, _, mut block| {
        let mut witness = block.txdata[1].input[0].witness.to_vec();
        witness[0][20] ^= 1;
        block.txdata[1].input[0].witness = Witness::from_slice(&witness);
        repaired(block)
    });
    assert_eq!(signature.await, "block-script-verify-flag-failed");
    let locked = answer(|_, template, mut block| {
        block.txdata[1].lock_time = bitcoin::absolute::LockTime::from_height(template.height).unwrap();
        repaired(block)
    });
    assert_eq!(locked.await, "bad-txns-nonfinal");
    let young = answer(|chain, _, mut block| {
        let coinbase = &chain.boot_blocks()[90].txdata[0];
        block.txdata.push(Transaction {
            input: vec![TxIn {
                previous_output: OutPoint { txid: coinbase.compute_txid(), vout: 0 },
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() }],
            ..block.txdata[1].clone()
        });
        repaired(block)
    });
    assert_eq!(young.await, "bad-txns-premature-spend-of-coinbase");
}

#[tokio::test]
async fn a_block_delivered_twice_is_accepted_twice_and_counts_once() {
    let chain = chain();
    let block = solve::solved(&current(&chain).await.template);
    assert_eq!(chain.submit_block(&block).await.unwrap(), SubmitOutcome::Accepted);
    let tip = chain.tip();
    assert_eq!(chain.submit_block(&block).await.unwrap(), SubmitOutcome::Known);
    assert_eq!(chain.tip(), tip);
}

#[tokio::test]
async fn work_on_earlier_content_of_the_same_tip_is_still_good() {
    let config = EmbeddedConfig { refresh: Duration::from_millis(1), ..config() };
    let chain = EmbeddedChain::new(config).unwrap();
    let early = current(&chain).await.template;
    let late = chain.next_template(Some(early.digest), LONG).await.unwrap().unwrap().template;
    assert_ne!(early.digest, late.digest);
    assert_eq!(early.previous_block_hash, late.previous_block_hash);
    assert_eq!(chain.submit_block(&solve::solved(&early)).await.unwrap(), SubmitOutcome::Accepted);
}

#[tokio::test]
async fn nothing_new_within_the_patience_is_still_the_same() {
    let chain = chain();
    let template = current(&chain).await.template;
    assert!(chain.next_template(Some(template.digest), Duration::from_millis(1)).await.unwrap().is_none());
    assert!(chain.next_template(Some(template.digest), Duration::ZERO).await.unwrap().is_none());
    assert_eq!(current(&chain).await.template.digest, template.digest);
}

#[tokio::test]
async fn a_block_of_another_miner_wakes_who_waits() {
    let chain = Arc::new(chain());
    let template = current(&chain).await.template;
    let waiting = tokio::spawn({
        let (chain, digest) = (Arc::clone(&chain), template.digest);
        async move { chain.next_template(Some(digest), Duration::MAX).await }
    });
    tokio::task::yield_now().await;
    let foreign = chain.mine_elsewhere().unwrap();
    let next = waiting.await.unwrap().unwrap().unwrap().template;
    assert_eq!(next.previous_block_hash, foreign.block_hash());
    assert_eq!(next.height, template.height + 1);
    let late = chain.submit_block(&solve::solved(&template)).await.unwrap();
    assert_eq!(late, SubmitOutcome::Rejected("inconclusive-not-best-prevblk".to_owned()));
}

#[tokio::test]
async fn every_third_template_pays_low_fees_where_that_is_asked_for() {
    let config = EmbeddedConfig { refresh: Duration::from_millis(1), low_fee_every: 3, ..config() };
    let chain = EmbeddedChain::new(config).unwrap();
    let mut after = None;
    for number in 1..=9 {
        let sourced = chain.next_template(after, LONG).await.unwrap().unwrap();
        let facts = &sourced.template.facts;
        let rates = facts.fees.iter().zip(&*facts.weights).map(|(fee, weight)| 4 * fee / u64::from(*weight));
        let highest = rates.max().unwrap();
        if number % 3 == 0 {
            assert!(highest <= 1, "template {number} pays {highest} sat/vB");
        } else {
            assert!(highest > 30, "template {number} pays {highest} sat/vB at most");
        }
        after = Some(sourced.template.digest);
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_transactions_and_another_seed_others() {
    let ids = |seed| async move {
        let chain = EmbeddedChain::new(EmbeddedConfig { seed, ..config() }).unwrap();
        current(&chain).await.template.facts.txids.clone()
    };
    assert_eq!(ids(7).await, ids(7).await);
    assert_ne!(ids(7).await, ids(8).await);
}

#[tokio::test]
async fn the_mempool_is_the_pending_transactions() {
    let sourced = current(&chain()).await;
    let mempool = sourced.context.mempool.unwrap();
    assert_eq!(mempool.transaction_count, 40);
    assert_eq!(sourced.context.known.unwrap().to_vec(), [true; 40]);
    assert_eq!(mempool.total_fees, sourced.template.facts.total_fees);
    assert!(mempool.total_vsize >= sourced.template.facts.total_weight / 4);
}

#[tokio::test]
async fn the_tip_is_what_the_template_builds_on_and_nothing_in_it_is_a_lie() {
    let chain = chain();
    let sourced = current(&chain).await;
    let (height, hash) = chain.tip();
    let next_bits = Some(sourced.template.bits);
    assert_eq!(sourced.context.tip, Some(ChainTip { hash, height, next_bits }));
    assert_eq!(sourced.template.discrepancies, []);
}

#[tokio::test]
async fn the_planned_coinbase_makes_a_block_that_the_chain_takes() {
    let chain = chain();
    let template = current(&chain).await.template;
    let mut coinbase = template.coinbase.transaction.clone();
    coinbase.input[0].witness = Witness::from_slice(&[[0; 32]]);
    let block = solve::grind(template.to_block(coinbase, template.version, template.current_time, 0));
    assert_eq!(chain.submit_block(&block).await.unwrap(), SubmitOutcome::Accepted);
}

#[tokio::test]
async fn a_chain_without_transactions_gives_templates_of_a_coinbase_alone() {
    let chain = EmbeddedChain::new(EmbeddedConfig { transactions_per_template: 0, ..config() }).unwrap();
    for _ in 0..3 {
        let template = current(&chain).await.template;
        assert_eq!(template.facts.merkle_path.len() + template.transactions.len(), 0);
        assert_eq!(chain.submit_block(&solve::solved(&template)).await.unwrap(), SubmitOutcome::Accepted);
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_value() {
    let refused = |config| EmbeddedChain::new(config).expect_err("accepted");
    let bits = refused(EmbeddedConfig { bits: CompactTarget::from_consensus(0x2100_ffff), ..config() });
    assert!(bits.detail.contains("0x2100ffff"), "{bits}");
    let many = refused(EmbeddedConfig { transactions_per_template: 4_001, ..config() });
    assert!(many.detail.contains("4001"), "{many}");
    let refresh = refused(EmbeddedConfig { refresh: Duration::ZERO, ..config() });
    assert!(refresh.detail.contains("refresh"), "{refresh}");
    for error in [bits, many, refresh] {
        assert_eq!(error.reason, Reason::ConfigInvalid);
    }
}
