//! From what a source declares to what is true: the only way to a [`Template`].
//!
//! A source hands over a [`Declared`]; [`assemble`] parses each transaction once, derives txids,
//! weights, sigops, fees, the merkle path of the coinbase and the witness commitment from the bytes,
//! and compares. The bytes count; a difference becomes a [`Discrepancy`](super::Discrepancy) for
//! policies to judge. Only what cannot be judged at all is a [`TemplateError`].
//!
//! The hot path touches each byte of a transaction for parsing and hashing only: the txid is hashed
//! over slices of the raw bytes, a transaction without witness is hashed once for both its ids, and a
//! full block is shared among a few threads, which take the two merkle trees and what is spent apart too.
//!
//! Two facts are not in the bytes of a template, because the outputs that its transactions spend are
//! elsewhere: fees (see [`DeclaredTransaction::fee`]) and a part of the sigops (see [`super::sigops`]).

use super::{
    Coinbase, CoinbaseParts, Declared, DeclaredTransaction, Provenance, Template, TemplateDigest,
    TemplateError, coinbase,
    discrepancy::{DiscrepancyKind, Found},
    merkle,
    spends::{self, sum},
};
use bitcoin::{
    Amount, BlockHash, Network, ScriptBuf, Target, Transaction, TxMerkleNode, Txid, Wtxid, consensus,
    hashes::{Hash, HashEngine, sha256},
};
use std::{
    num::NonZero,
    panic::resume_unwind,
    sync::Arc,
    thread::{self, ScopedJoinHandle},
};

/// What a witness commitment output begins with: OP_RETURN, push of 36 bytes, magic (BIP 141).
pub const WITNESS_COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// Threads that parse and hash the transactions of one template.
const MAX_THREADS: usize = 4;
/// Fewer transactions than this are not worth another thread.
const SHARE: usize = 256;

/// What is true about a template's transactions. One entry for each transaction, in block order;
/// neither entries nor totals include the coinbase. Columns that policies walk through are shared: they are
/// handed over without a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Transaction ids.
    pub txids: Vec<Txid>,
    /// Witness transaction ids; equal to the txid where there is no witness.
    pub wtxids: Vec<Wtxid>,
    /// Weights, WU (BIP 141).
    pub weights: Arc<[u32]>,
    /// Fees, satoshi: computed where everything spent is known, otherwise as declared; 0 where nobody says it.
    pub fees: Arc<[u64]>,
    /// Transactions whose fee nobody says: a source declares the fees of all or of none.
    pub unknown_fees: u32,
    /// Sigop costs (BIP 141: a legacy sigop costs 4, a witness one 1): as declared where the bytes
    /// allow it.
    pub sigops: Arc<[u32]>,
    /// What kind of transaction each is: bit 0, it has witness data; bit 1, it pays to a taproot output; bit 2,
    /// it signals replaceability (BIP 125); bit 3, it has an output that carries data (OP_RETURN).
    pub traits: Arc<[u32]>,
    /// Sum of the fees, satoshi. Where some are unknown: what the coinbase value leaves above the subsidy, but
    /// no less than those that are known.
    pub total_fees: u64,
    /// Sum of `weights`, WU.
    pub total_weight: u64,
    /// Sum of `sigops`.
    pub total_sigops: u64,
    /// The hashes that lead from the coinbase's txid to the merkle root, bottom up, internal byte order.
    pub merkle_path: Vec<[u8; 32]>,
    /// SHA256d(witness root || 32 zero bytes): the commitment for a coinbase whose witness reserved
    /// value is all zeros (BIP 141).
    pub witness_commitment: [u8; 32],
}

impl Facts {
    /// The scriptPubKey of the coinbase output that carries the commitment, 38 bytes (BIP 141).
    pub fn witness_commitment_script(&self) -> ScriptBuf {
        commitment_script(&self.witness_commitment)
    }
}

/// Block subsidy, satoshi: 50 bitcoin, halved every 210,000 blocks (150 on regtest).
pub fn subsidy(height: u32, network: Network) -> u64 {
    let interval = if network == Network::Regtest { 150 } else { 210_000 };
    (50 * Amount::ONE_BTC.to_sat()).checked_shr(height / interval).unwrap_or(0)
}

/// The scriptPubKey of the output that carries a commitment (BIP 141).
fn commitment_script(commitment: &[u8; 32]) -> ScriptBuf {
    ScriptBuf::from_bytes([&WITNESS_COMMITMENT_PREFIX[..], commitment].concat())
}

/// The commitment output's scriptPubKey of a template with these transactions: what a node declares as
/// `default_witness_commitment`.
pub fn witness_commitment_script(wtxids: &[Wtxid]) -> ScriptBuf {
    commitment_script(&witness_commitment(wtxids))
}

/// Derives the [`Facts`] of a declared template and compares. The only way to make a [`Template`].
///
/// # Errors
/// Where there is nothing to judge: bytes that do not parse, a transaction without inputs or outputs,
/// another coinbase among the transactions or none where one is given, a coinbase that cannot be
/// planned, sums beyond 21 million bitcoin, an output spent that its parent in the template does not
/// have, outputs worth more than known inputs, a fee neither declared nor computable where others are
/// declared, height 0, a target that no block of the network may have. Everything else is a discrepancy.
pub fn assemble(declared: &Declared) -> Result<Template, TemplateError> {
    check_header(declared)?;
    let mut found = Found::default();
    let count = declared.transactions.len();
    let mut parsed = Vec::with_capacity(count);
    let mut txids = Vec::with_capacity(count);
    let mut wtxids = Vec::with_capacity(count);
    let mut weights = Vec::with_capacity(count);
    let mut traits = Vec::with_capacity(count);
    for (row, (tx, ids)) in read_all(&declared.transactions)?.into_iter().enumerate() {
        let entry = &declared.transactions[row];
        found.compare(DiscrepancyKind::Txid, Some(row), entry.txid, ids.txid);
        found.compare(DiscrepancyKind::Wtxid, Some(row), entry.wtxid, ids.wtxid);
        found.compare(DiscrepancyKind::Weight, Some(row), entry.weight, u64::from(ids.weight));
        check_lock_time(declared, row, &tx, &mut found);
        parsed.push(tx);
        txids.push(ids.txid);
        wtxids.push(ids.wtxid);
        weights.push(ids.weight);
        traits.push(ids.traits);
    }
    // Three walks through the block that need nothing of each other.
    let (costs, merkle_path, witness_commitment) = thread::scope(|scope| {
        let path = || merkle::path(txids.iter().map(|id| id.to_byte_array()));
        let commitment = || witness_commitment(&wtxids);
        let mut follow = || spends::follow(declared, &parsed, &txids, &mut found);
        if threads(count) < 2 {
            return (follow(), path(), commitment());
        }
        let (path, commitment) = (scope.spawn(path), scope.spawn(commitment));
        let costs = follow();
        (costs, joined(path), joined(commitment))
    });
    let spends::Costs { fees, unknown_fees, sigops } = costs?;
    let subsidy = subsidy(declared.height, declared.network);
    let known_fees = sum(|| "the sum of all fees".to_owned(), fees.iter().copied())?;
    let total_fees = match unknown_fees {
        0 => known_fees,
        // As declared: nothing else says it.
        _ => sum(|| "coinbase_value".to_owned(), [declared.coinbase_value].into_iter())?
            .saturating_sub(subsidy)
            .max(known_fees),
    };
    let facts = Facts {
        total_fees,
        unknown_fees,
        total_weight: weights.iter().map(|w| u64::from(*w)).sum(),
        total_sigops: sigops.iter().map(|s| u64::from(*s)).sum(),
        merkle_path,
        witness_commitment,
        txids,
        wtxids,
        weights: weights.into(),
        fees: fees.into(),
        sigops: sigops.into(),
        traits: traits.into(),
    };
    let coinbase = declared.coinbase.assemble(
        declared.height,
        declared.coinbase_value,
        facts.witness_commitment_script(),
        declared.network,
    )?;
    compare_whole(declared, &facts, subsidy, &coinbase, &mut found);
    let mut template = Template {
        digest: TemplateDigest([0; 32]),
        network: declared.network,
        provenance: declared.provenance,
        height: declared.height,
        version: declared.version,
        previous_block_hash: declared.previous_block_hash,
        bits: declared.bits,
        min_time: declared.min_time,
        current_time: declared.current_time,
        coinbase_value: declared.coinbase_value,
        subsidy,
        coinbase,
        transactions: parsed,
        facts,
        discrepancies: found.into_list(),
    };
    template.digest = digest(&template);
    Ok(template)
}

fn check_header(declared: &Declared) -> Result<(), TemplateError> {
    let Declared { bits, network, height, .. } = declared;
    let target = Target::from_compact(*bits);
    if target == Target::ZERO || target > network.params().max_attainable_target {
        let detail = format!("{:#010x} is no target that a block on {network} may have", bits.to_consensus());
        return Err(TemplateError::impossible("bits", detail));
    }
    if *height == 0 {
        return Err(TemplateError::impossible("height", "0 is the genesis block"));
    }
    Ok(())
}

/// A lock time is the last height, or median time past (BIP 113), at which a transaction is not yet
/// final, unless all its sequences say that it does not care.
fn check_lock_time(declared: &Declared, row: usize, tx: &Transaction, found: &mut Found) {
    let lock_time = tx.lock_time.to_consensus_u32();
    if lock_time == 0 {
        return;
    }
    // At a retarget `min_time` may be later than the median says (BIP 94), which errs on the mild side.
    let limit = match tx.lock_time.is_block_height() {
        true => declared.height,
        false => declared.min_time.saturating_sub(1),
    };
    if lock_time >= limit && tx.is_lock_time_enabled() {
        let must = format!("lock time below {limit}");
        found.add(DiscrepancyKind::TransactionNotFinal, Some(row), must, lock_time);
    }
}

/// What the raw bytes of one transaction say without looking at any other.
struct Ids {
    txid: Txid,
    wtxid: Wtxid,
    weight: u32,
    traits: u32,
}

/// How many threads are worth it for so many transactions.
fn threads(count: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.min(MAX_THREADS).min(count.div_ceil(SHARE)).max(1)
}

/// Every transaction with its ids, in block order. The first error of the block is the one reported.
fn read_all(entries: &[DeclaredTransaction]) -> Result<Vec<(Transaction, Ids)>, TemplateError> {
    let share = entries.len().div_ceil(threads(entries.len())).max(1);
    thread::scope(|scope| {
        let others = entries.chunks(share).enumerate().skip(1);
        let others: Vec<_> =
            others.map(|(number, chunk)| scope.spawn(move || read(number * share, chunk))).collect();
        let mut all = read(0, &entries[..share.min(entries.len())])?;
        all.reserve_exact(entries.len() - all.len());
        for other in others {
            all.extend(joined(other)?);
        }
        Ok(all)
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn read(first: usize, entries: &[DeclaredTransaction]) -> Result<Vec<(Transaction, Ids)>, TemplateError> {
    let read = |(row, entry)| {
        let tx = parse(row, entry)?;
        let ids = ids(&tx, &entry.bytes);
        Ok((tx, ids))
    };
    (first..).zip(entries).map(read).collect()
}

fn parse(row: usize, entry: &DeclaredTransaction) -> Result<Transaction, TemplateError> {
    let field = || format!("transactions[{row}]");
    let tx: Transaction = consensus::deserialize(&entry.bytes)
        .map_err(|e| TemplateError::Undecodable { field: field(), detail: e.to_string() })?;
    if tx.input.is_empty() || tx.output.is_empty() {
        return Err(TemplateError::impossible(field(), "has no input or no output"));
    }
    Ok(tx)
}

/// Ids and weight from the bytes that `tx` was parsed from, without serializing it again. The layout is
/// version (4), marker and flag (2), inputs and outputs, witnesses, lock time (4); the txid leaves out
/// the second and the fourth (BIP 144).
fn ids(tx: &Transaction, bytes: &[u8]) -> Ids {
    let wtxid = merkle::sha256d([bytes]);
    let has_witness = tx.input.iter().any(|input| !input.witness.is_empty());
    let (txid, base_size) = if has_witness {
        let witnesses: usize = tx.input.iter().map(|input| input.witness.size()).sum();
        let lock_time = bytes.len() - 4;
        let stripped = [&bytes[..4], &bytes[6..lock_time - witnesses], &bytes[lock_time..]];
        (merkle::sha256d(stripped), bytes.len() - 2 - witnesses)
    } else {
        (wtxid, bytes.len())
    };
    let weight = u32::try_from(3 * base_size + bytes.len()).unwrap_or(u32::MAX);
    let traits = trait_bits(tx, has_witness);
    Ids { txid: Txid::from_byte_array(txid), wtxid: Wtxid::from_byte_array(wtxid), weight, traits }
}

/// See [`Facts::traits`].
fn trait_bits(tx: &Transaction, has_witness: bool) -> u32 {
    let outputs = || tx.output.iter();
    u32::from(has_witness)
        | u32::from(outputs().any(|output| output.script_pubkey.is_p2tr())) << 1
        | u32::from(tx.input.iter().any(|input| input.sequence.is_rbf())) << 2
        | u32::from(outputs().any(|output| output.script_pubkey.is_op_return())) << 3
}

/// SHA256d(witness root || 32 zero bytes), the coinbase counting as 32 zero bytes in the tree (BIP 141).
fn witness_commitment(wtxids: &[Wtxid]) -> [u8; 32] {
    let coinbase = std::iter::once([0; 32]);
    let root = merkle::root(coinbase.chain(wtxids.iter().map(|id| id.to_byte_array())).collect());
    merkle::parent(&root, &[0; 32])
}

/// Compares what was declared about the template as a whole.
fn compare_whole(declared: &Declared, facts: &Facts, subsidy: u64, coinbase: &Coinbase, found: &mut Found) {
    use DiscrepancyKind as Kind;
    let target = hex::encode(Target::from_compact(declared.bits).to_be_bytes());
    found.compare(Kind::Target, None, declared.target.map(hex::encode), target);
    // Both terms are at most 21 million bitcoin.
    let value = subsidy + facts.total_fees;
    found.compare(Kind::CoinbaseValue, None, Some(declared.coinbase_value), value);
    let count = u32::try_from(facts.txids.len()).unwrap_or(u32::MAX);
    found.compare(Kind::TransactionCount, None, declared.transaction_count, count);
    if let Some(path) = declared.merkle_path.as_ref().filter(|path| **path != facts.merkle_path) {
        let level = path.iter().zip(&facts.merkle_path).position(|(declared, derived)| declared != derived);
        let words = |path: &[merkle::Node]| match level {
            Some(level) => format!("hash {level} is {}", TxMerkleNode::from_byte_array(path[level])),
            None => format!("{} hashes", path.len()),
        };
        found.add(Kind::MerklePath, None, words(path), words(&facts.merkle_path));
    }
    compare_commitments(declared, facts, coinbase, found);
}

/// There are up to two declared commitments: the one that the source names, and the one in a coinbase
/// that it made itself. A planned coinbase has the right one.
fn compare_commitments(declared: &Declared, facts: &Facts, coinbase: &Coinbase, found: &mut Found) {
    use DiscrepancyKind as Kind;
    let derived = facts.witness_commitment_script();
    let named = declared.witness_commitment_script.as_ref().map(|script| script.as_bytes());
    let mined = coinbase::commitment_script(&coinbase.transaction);
    let mined = mined.map(|script| &script.as_bytes()[..coinbase::COMMITMENT_LEN]);
    let (in_coinbase, missing) = match &declared.coinbase {
        CoinbaseParts::Planned(_) => (None, named.is_none()),
        CoinbaseParts::Whole { .. } => (mined, mined.is_none()),
    };
    // An id of its own shows a witness.
    if missing
        && facts
            .txids
            .iter()
            .zip(&facts.wtxids)
            .any(|(txid, wtxid)| txid.as_raw_hash() != wtxid.as_raw_hash())
    {
        found.add(Kind::WitnessCommitmentMissing, None, "none", derived.to_hex_string());
    }
    let in_coinbase = in_coinbase.filter(|script| Some(*script) != named);
    for script in [named, in_coinbase].into_iter().flatten().filter(|script| *script != derived.as_bytes()) {
        found.add(Kind::WitnessCommitment, None, hex::encode(script), derived.to_hex_string());
    }
}

/// See [`TemplateDigest`].
fn digest(template: &Template) -> TemplateDigest {
    digest_as(template, template.previous_block_hash, template.min_time, template.current_time)
}

/// The digest that the template would have on another tip at another time.
pub(super) fn digest_as(
    template: &Template,
    previous_block_hash: BlockHash,
    min_time: u32,
    current_time: u32,
) -> TemplateDigest {
    let Template { coinbase, facts, .. } = template;
    let mut engine = sha256::Hash::engine();
    engine.input(&template.network.magic().to_bytes());
    engine.input(previous_block_hash.as_byte_array());
    engine.input(&template.height.to_le_bytes());
    engine.input(&template.version.to_consensus().to_le_bytes());
    engine.input(&template.bits.to_consensus().to_le_bytes());
    engine.input(&min_time.to_le_bytes());
    engine.input(&current_time.to_le_bytes());
    engine.input(&template.coinbase_value.to_le_bytes());
    engine.input(&[match template.provenance {
        Provenance::Node => 0,
        Provenance::Declared => 1,
        Provenance::Gateway => 2,
    }]);
    // What follows has no fixed length: each part begins with its own.
    let length = |engine: &mut sha256::HashEngine, len: usize| engine.input(&(len as u64).to_le_bytes());
    let bytes = consensus::serialize(&coinbase.transaction);
    length(&mut engine, bytes.len());
    engine.input(&bytes);
    length(&mut engine, coinbase.extranonce_at);
    engine.input(&facts.witness_commitment);
    length(&mut engine, facts.txids.len());
    for ((txid, fee), sigops) in facts.txids.iter().zip(&*facts.fees).zip(&*facts.sigops) {
        engine.input(txid.as_byte_array());
        engine.input(&fee.to_le_bytes());
        engine.input(&sigops.to_le_bytes());
    }
    for discrepancy in &template.discrepancies {
        engine.input(&[discrepancy.kind as u8]);
        engine.input(&discrepancy.transaction.unwrap_or(u32::MAX).to_le_bytes());
        for words in [&discrepancy.declared, &discrepancy.derived] {
            length(&mut engine, words.len());
            engine.input(words.as_bytes());
        }
    }
    if facts.unknown_fees > 0 {
        engine.input(b"fees unknown");
        engine.input(&facts.unknown_fees.to_le_bytes());
    }
    TemplateDigest(sha256::Hash::from_engine(engine).to_byte_array())
}
