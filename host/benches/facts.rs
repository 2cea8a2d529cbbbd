//! The facts of a full block, beside the bare hashing of the same bytes in the same run.
//!
//! The block is 702,861 of the main chain: 3,993,054 WU, 2,500 transactions. There are two measures. "The
//! bytes" is each transaction hashed once, whole. "All hashing" is what facts cannot leave out: each txid,
//! the wtxid where it has a witness, and the two merkle trees over them. Facts are [`assemble`]: parsing,
//! all of that, and everything else. They take turns, so that whatever else the machine does meets all of
//! them, and all hash with the same code. What facts do on several threads, the others do on one.
//!
//! Measured on two cores, others busy on them (load 3), best of 300: the bytes 1.6 ms, all hashing 3.7 ms, the parser alone
//! 1.9 ms, facts 6.4 ms. The target, 1.3 times the bytes, lies below the hashing itself.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bitcoin::{Amount, Block, Network, Transaction, consensus, hashes::Hash};
use reservegrid::template::{
    Declared, DeclaredTransaction,
    facts::{assemble, subsidy},
    merkle,
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const ROUNDS: usize = 300;

fn main() {
    let block: Block = consensus::deserialize(bitcoin_test_data::blocks::mainnet_702861()).unwrap();
    let declared = declared(&block);
    let template = assemble(&declared).expect("a block of the chain makes a template");
    let pieces: Vec<Pieces> = block.txdata[1..].iter().map(Pieces::of).collect();
    let size: usize = pieces.iter().map(|p| p.whole.len()).sum();
    let hashed: usize = pieces.iter().map(Pieces::hashed).sum();
    let txids: Vec<[u8; 32]> = template.facts.txids.iter().map(|id| id.to_byte_array()).collect();
    let wtxids: Vec<[u8; 32]> = template.facts.wtxids.iter().map(|id| id.to_byte_array()).collect();

    let [mut bytes, mut ids, mut trees, mut facts, mut parsing] = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        bytes.push(time(|| pieces.iter().for_each(|piece| _ = black_box(merkle::sha256d([&piece.whole])))));
        ids.push(time(|| pieces.iter().for_each(|piece| _ = black_box(piece.hash()))));
        trees.push(time(|| {
            (merkle::path(black_box(&txids).iter().copied()), merkle::root(black_box(&wtxids).clone()))
        }));
        facts.push(time(|| assemble(black_box(&declared))));
        parsing.push(time(|| declared.transactions.iter().map(parse).collect::<Vec<_>>()));
    }
    let [bytes, ids, trees, facts, parsing] = [bytes, ids, trees, facts, parsing].map(best_and_median);
    let all = [ids[0] + trees[0], ids[1] + trees[1]];
    println!(
        "facts of block 702,861: {} transactions, {size} bytes, {hashed} bytes to hash; best and median of {ROUNDS}; \
         facts use up to 4 of {} cores, everything else one",
        txids.len(),
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    let line = |name: &str, [best, median]: [f64; 2]| {
        println!(
            "{name:<34}{best:>10.0}{median:>10.0}{:>12.2}{:>8.2}{:>14.2}{:>8.2}",
            best / bytes[0],
            median / bytes[1],
            best / all[0],
            median / all[1]
        );
    };
    println!(
        "{:<34}{:>10}{:>10}{:>20}{:>22}",
        "microseconds", "best", "median", "x the bytes", "x all hashing"
    );
    line("the bytes, hashed once", bytes);
    line("txids and wtxids", ids);
    line("all hashing: ids and merkle trees", all);
    line("the bitcoin crate's parser alone", parsing);
    line("facts (assemble)", facts);
}

/// The bytes of a transaction as they go into its two ids.
struct Pieces {
    whole: Vec<u8>,
    /// Without witness; `None` where that is the same.
    stripped: Option<Vec<u8>>,
}

impl Pieces {
    fn of(transaction: &Transaction) -> Self {
        let mut bare = transaction.clone();
        bare.input.iter_mut().for_each(|input| input.witness.clear());
        let (whole, stripped) = (consensus::serialize(transaction), consensus::serialize(&bare));
        let stripped = Some(stripped).filter(|stripped| *stripped != whole);
        Self { whole, stripped }
    }

    fn hashed(&self) -> usize {
        self.whole.len() + self.stripped.as_ref().map_or(0, Vec::len)
    }

    fn hash(&self) -> (merkle::Node, Option<merkle::Node>) {
        let hash = |bytes: &Vec<u8>| merkle::sha256d([bytes]);
        (hash(&self.whole), self.stripped.as_ref().map(hash))
    }
}

/// As its node might have declared it. Which transaction paid which fee is not in the block, except for
/// those that can be computed; the sum is what the coinbase took.
fn declared(block: &Block) -> Declared {
    let taken: Amount = block.txdata[0].output.iter().map(|output| output.value).sum();
    let total = taken.to_sat() - subsidy(702_861, Network::Bitcoin);
    let mut fees = vec![Some(0); block.txdata.len() - 1];
    fees[0] = Some(total);
    let mut declared = Declared::from_block(block, Network::Bitcoin, fees).unwrap();
    for (entry, transaction) in declared.transactions.iter_mut().zip(&block.txdata[1..]) {
        entry.txid = Some(transaction.compute_txid());
        entry.wtxid = Some(transaction.compute_wtxid());
        entry.weight = Some(transaction.weight().to_wu());
    }
    // Computed fees differ from the zeros above: declare what was computed.
    let fees = assemble(&declared).unwrap().facts.fees;
    let computed: u64 = fees[1..].iter().sum();
    for (entry, fee) in declared.transactions.iter_mut().zip(&*fees) {
        entry.fee = Some(*fee);
    }
    declared.transactions[0].fee = Some(total - computed);
    assert_eq!(assemble(&declared).unwrap().discrepancies, []);
    declared
}

fn parse(entry: &DeclaredTransaction) -> Transaction {
    consensus::deserialize(black_box(&entry.bytes)).unwrap()
}

/// Until the result is there; giving its memory back comes later.
fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    let result = black_box(work());
    let time = started.elapsed();
    drop(result);
    time
}

fn best_and_median(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [times[0], times[times.len() / 2]].map(|time| time.as_secs_f64() * 1e6)
}
