//! The facts of a full block, beside the bare hashing of the same bytes in the same run.
//!
//! The block is 702,861 of the main chain: 3,993,054 WU, 2,500 transactions. "Bare hashing" is what no
//! implementation can leave out: each transaction's txid and, where it has a witness, its wtxid; "trees"
//! adds the two merkle trees over them. Facts are [`assemble`]: parsing, both, and everything else. The
//! three take turns, so that whatever else the machine does meets all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bitcoin::{
    Amount, Block, Network, Transaction, consensus,
    hashes::{Hash, HashEngine, sha256d},
};
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

    let [mut bare, mut trees, mut facts, mut parsing] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        bare.push(time(|| pieces.iter().for_each(|piece| _ = black_box(piece.hash()))));
        trees.push(time(|| {
            (merkle::path(black_box(&txids).iter().copied()), merkle::root(black_box(&wtxids).clone()))
        }));
        facts.push(time(|| assemble(black_box(&declared))));
        parsing.push(time(|| declared.transactions.iter().map(parse).collect::<Vec<_>>()));
    }
    let [bare, trees, facts, parsing] = [bare, trees, facts, parsing].map(median);
    println!(
        "facts of block 702,861: {} transactions, {size} bytes, {hashed} bytes to hash; medians of {ROUNDS}; \
         facts use up to 4 of {} cores, everything else one",
        txids.len(),
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    let line = |name: &str, time: Duration| {
        println!(
            "{name:<34}{:>10.0} us{:>8.2}",
            time.as_secs_f64() * 1e6,
            time.as_secs_f64() / bare.as_secs_f64()
        );
    };
    line("bare hashing: txids and wtxids", bare);
    line("bare hashing and the merkle trees", bare + trees);
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

    fn hash(&self) -> (sha256d::Hash, Option<sha256d::Hash>) {
        let hash = |bytes: &Vec<u8>| {
            let mut engine = sha256d::Hash::engine();
            engine.input(bytes);
            sha256d::Hash::from_engine(engine)
        };
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
    for (entry, fee) in declared.transactions.iter_mut().zip(fees) {
        entry.fee = Some(fee);
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

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
