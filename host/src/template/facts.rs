//! From what a source declares to what is true: the only way to a [`Template`].
//!
//! A source hands over a [`Declared`]; [`assemble`] parses each transaction once, derives txids,
//! weights, sigops, fees, the merkle path of the coinbase and the witness commitment from the bytes,
//! and compares. One difference and there is no template, but a [`TemplateError`] that names the field,
//! what was declared and what the bytes say.
//!
//! The hot path touches each byte of a transaction for parsing and hashing only: the txid is hashed
//! over slices of the raw bytes, and a transaction without witness is hashed once for both its ids.
//!
//! Two facts are not in the bytes of a template, because the outputs that its transactions spend are
//! elsewhere: fees (see [`DeclaredTransaction::fee`]) and a part of the sigops (see [`super::sigops`]).

use super::{
    Declared, DeclaredTransaction, Provenance, Template, TemplateDigest, TemplateError, merkle, sigops,
};
use bitcoin::{
    Amount, Network, OutPoint, ScriptBuf, Target, Transaction, TxOut, Txid, Wtxid, consensus,
    hashes::{Hash, HashEngine, sha256, sha256d},
};
use std::collections::{HashMap, HashSet};

/// What a witness commitment output begins with: OP_RETURN, push of 36 bytes, magic (BIP 141).
pub const WITNESS_COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// What is true about a template's transactions. One entry for each transaction, in block order;
/// neither entries nor totals include the coinbase, which does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Transaction ids.
    pub txids: Vec<Txid>,
    /// Witness transaction ids; equal to the txid where there is no witness.
    pub wtxids: Vec<Wtxid>,
    /// Weights, WU (BIP 141).
    pub weights: Vec<u32>,
    /// Fees, satoshi.
    pub fees: Vec<u64>,
    /// Sigop costs (BIP 141: a legacy sigop costs 4, a witness one 1).
    pub sigops: Vec<u32>,
    /// Sum of `fees`, satoshi.
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
        let mut script = WITNESS_COMMITMENT_PREFIX.to_vec();
        script.extend_from_slice(&self.witness_commitment);
        ScriptBuf::from_bytes(script)
    }
}

/// Block subsidy, satoshi: 50 bitcoin, halved every 210,000 blocks (150 on regtest).
pub fn subsidy(height: u32, network: Network) -> u64 {
    let interval = if network == Network::Regtest { 150 } else { 210_000 };
    (50 * Amount::ONE_BTC.to_sat()).checked_shr(height / interval).unwrap_or(0)
}

/// Checks a declared template against its bytes and derives its [`Facts`]. The only way to make a
/// [`Template`].
///
/// Refused are: bytes that do not parse; a declared txid, wtxid, weight, fee, sigop cost, commitment or
/// coinbase value that is not what the bytes say; duplicates, double spends inside the template, a
/// child before its parent, an output spent that its parent does not have; a target easier than the
/// network's easiest; a clock before the smallest allowed time. Left to policies: limits and taste.
pub fn assemble(declared: Declared) -> Result<Template, TemplateError> {
    check_header(&declared)?;
    let count = declared.transactions.len();
    let mut parsed = Vec::with_capacity(count);
    let mut txids = Vec::with_capacity(count);
    let mut wtxids = Vec::with_capacity(count);
    let mut weights = Vec::with_capacity(count);
    let mut positions = HashMap::with_capacity(count);
    for (index, entry) in declared.transactions.iter().enumerate() {
        let (tx, ids) = parse(index, entry)?;
        if let Some(first) = positions.insert(ids.txid, index) {
            let detail = format!("transaction {} is in the template already, at {first}", ids.txid);
            return Err(TemplateError::impossible(format!("transactions[{index}]"), detail));
        }
        parsed.push(tx);
        txids.push(ids.txid);
        wtxids.push(ids.wtxid);
        weights.push(ids.weight);
    }

    let inputs = parsed.iter().map(|tx| tx.input.len()).sum();
    let mut spends = Spends { parsed: &parsed, positions: &positions, taken: HashSet::with_capacity(inputs) };
    let mut fees = Vec::with_capacity(count);
    let mut sigops = Vec::with_capacity(count);
    for (index, entry) in declared.transactions.iter().enumerate() {
        let spent = spends.outputs(index, entry.spent.as_deref())?;
        sigops.push(sigop_cost(index, entry, &parsed[index], &spent)?);
        fees.push(fee(index, entry, &parsed[index], &spent)?);
    }

    let facts = Facts {
        total_fees: sum("the sum of all fees", fees.iter().copied())?,
        total_weight: weights.iter().map(|w| u64::from(*w)).sum(),
        total_sigops: sigops.iter().map(|s| u64::from(*s)).sum(),
        merkle_path: merkle::path(txids.iter().map(|id| id.to_byte_array())),
        witness_commitment: witness_commitment(&wtxids),
        txids,
        wtxids,
        weights,
        fees,
        sigops,
    };
    let subsidy = subsidy(declared.height, declared.network);
    check_coinbase(&declared, subsidy, &facts)?;
    Ok(Template {
        digest: digest(&declared, &facts),
        provenance: declared.provenance,
        height: declared.height,
        version: declared.version,
        previous_block_hash: declared.previous_block_hash,
        bits: declared.bits,
        min_time: declared.min_time,
        current_time: declared.current_time,
        coinbase_value: declared.coinbase_value,
        subsidy,
        transactions: parsed,
        facts,
    })
}

fn check_header(declared: &Declared) -> Result<(), TemplateError> {
    let Declared { bits, network, min_time, current_time, height, .. } = declared;
    let target = Target::from_compact(*bits);
    if target == Target::ZERO || target > network.params().max_attainable_target {
        let detail = format!("{:#010x} is no target that a block on {network} may have", bits.to_consensus());
        return Err(TemplateError::impossible("bits", detail));
    }
    if current_time < min_time {
        let detail = format!("{current_time} lies before the smallest allowed time {min_time}");
        return Err(TemplateError::impossible("current time", detail));
    }
    if *height == 0 {
        return Err(TemplateError::impossible("height", "0 is the genesis block"));
    }
    Ok(())
}

/// What the raw bytes of one transaction say without looking at any other.
struct Ids {
    txid: Txid,
    wtxid: Wtxid,
    weight: u32,
}

fn parse(index: usize, entry: &DeclaredTransaction) -> Result<(Transaction, Ids), TemplateError> {
    let field = |name: &str| format!("transactions[{index}].{name}");
    let tx: Transaction = consensus::deserialize(&entry.bytes).map_err(|e| TemplateError::Undecodable {
        field: format!("transactions[{index}]"),
        detail: e.to_string(),
    })?;
    if tx.input.is_empty() || tx.output.is_empty() {
        return Err(TemplateError::impossible(format!("transactions[{index}]"), "has no input or no output"));
    }
    let ids = ids(&tx, &entry.bytes);
    if let Some(declared) = entry.txid.filter(|id| *id != ids.txid) {
        return Err(TemplateError::mismatch(field("txid"), declared, ids.txid));
    }
    if let Some(declared) = entry.wtxid.filter(|id| *id != ids.wtxid) {
        return Err(TemplateError::mismatch(field("wtxid"), declared, ids.wtxid));
    }
    if let Some(declared) = entry.weight.filter(|weight| *weight != u64::from(ids.weight)) {
        return Err(TemplateError::mismatch(field("weight"), declared, ids.weight));
    }
    Ok((tx, ids))
}

/// Ids and weight from the bytes that `tx` was parsed from, without serializing it again. The layout is
/// version (4), marker and flag (2), inputs and outputs, witnesses, lock time (4); the txid leaves out
/// the second and the fourth (BIP 144).
fn ids(tx: &Transaction, bytes: &[u8]) -> Ids {
    let wtxid = sha256d::Hash::hash(bytes);
    let has_witness = tx.input.iter().any(|input| !input.witness.is_empty());
    let (txid, base_size) = if has_witness {
        let witnesses: usize = tx.input.iter().map(|input| input.witness.size()).sum();
        let lock_time = bytes.len() - 4;
        let mut engine = sha256d::Hash::engine();
        engine.input(&bytes[..4]);
        engine.input(&bytes[6..lock_time - witnesses]);
        engine.input(&bytes[lock_time..]);
        (sha256d::Hash::from_engine(engine), bytes.len() - 2 - witnesses)
    } else {
        (wtxid, bytes.len())
    };
    let weight = u32::try_from(3 * base_size + bytes.len()).unwrap_or(u32::MAX);
    Ids { txid: Txid::from_raw_hash(txid), wtxid: Wtxid::from_raw_hash(wtxid), weight }
}

/// Follows what each transaction spends, in block order.
struct Spends<'a> {
    parsed: &'a [Transaction],
    positions: &'a HashMap<Txid, usize>,
    taken: HashSet<OutPoint>,
}

impl<'a> Spends<'a> {
    /// The outputs that the transaction at `index` spends, in input order, as far as they are known.
    fn outputs(
        &mut self,
        index: usize,
        given: Option<&'a [TxOut]>,
    ) -> Result<Vec<Option<&'a TxOut>>, TemplateError> {
        let inputs = &self.parsed[index].input;
        let impossible =
            |detail: String| Err(TemplateError::impossible(format!("transactions[{index}]"), detail));
        if let Some(given) = given.filter(|given| given.len() != inputs.len()) {
            return impossible(format!("{} spent outputs given for {} inputs", given.len(), inputs.len()));
        }
        let mut outputs = Vec::with_capacity(inputs.len());
        for (i, input) in inputs.iter().enumerate() {
            let spent = input.previous_output;
            if spent.is_null() {
                return impossible("is a coinbase".to_owned());
            }
            if !self.taken.insert(spent) {
                return impossible(format!("spends {spent}, which the template spends already"));
            }
            let created_here = match self.positions.get(&spent.txid) {
                Some(parent) if *parent >= index => {
                    return impossible(format!("stands before its parent {}", spent.txid));
                }
                Some(parent) => match self.parsed[*parent].output.get(spent.vout as usize) {
                    Some(output) => Some(output),
                    None => return impossible(format!("spends {spent}, which its parent does not have")),
                },
                None => None,
            };
            outputs.push(match (created_here, given.map(|given| &given[i])) {
                (Some(output), Some(given)) if output != given => {
                    return impossible(format!("the spent output given for input {i} is not its parent's"));
                }
                (created_here, given) => created_here.or(given),
            });
        }
        Ok(outputs)
    }
}

fn sigop_cost(
    index: usize,
    entry: &DeclaredTransaction,
    tx: &Transaction,
    spent: &[Option<&TxOut>],
) -> Result<u32, TemplateError> {
    let cost = sigops::cost(tx, |input| spent[input]);
    let kept = match entry.sigops {
        Some(declared) if declared < cost.low || declared > cost.high => {
            let derived = format!("{} to {}", cost.low, cost.high);
            return Err(TemplateError::mismatch(format!("transactions[{index}].sigops"), declared, derived));
        }
        Some(declared) => declared,
        None => cost.likely,
    };
    Ok(u32::try_from(kept).unwrap_or(u32::MAX))
}

fn fee(
    index: usize,
    entry: &DeclaredTransaction,
    tx: &Transaction,
    spent: &[Option<&TxOut>],
) -> Result<u64, TemplateError> {
    let field = || format!("transactions[{index}].fee");
    let paid = sum(&field(), tx.output.iter().map(|output| output.value.to_sat()))?;
    let known: Option<Vec<u64>> =
        spent.iter().map(|output| output.map(|output| output.value.to_sat())).collect();
    match (known, entry.fee) {
        (Some(values), declared) => {
            let available = sum(&field(), values.into_iter())?;
            let Some(fee) = available.checked_sub(paid) else {
                let detail = format!("the outputs pay {paid} sat, the inputs bring {available}");
                return Err(TemplateError::impossible(field(), detail));
            };
            match declared {
                Some(declared) if declared != fee => Err(TemplateError::mismatch(field(), declared, fee)),
                _ => Ok(fee),
            }
        }
        (None, Some(declared)) => Ok(declared),
        (None, None) => Err(TemplateError::impossible(
            field(),
            "is not declared, and cannot be computed without the outputs that the transaction spends",
        )),
    }
}

/// Adds satoshis; more than there can ever be is an error, which also keeps later sums from overflowing.
fn sum(field: &str, mut values: impl Iterator<Item = u64>) -> Result<u64, TemplateError> {
    values
        .try_fold(0u64, |total, value| {
            total.checked_add(value).filter(|total| *total <= Amount::MAX_MONEY.to_sat())
        })
        .ok_or_else(|| TemplateError::impossible(field, "comes to more than 21 million bitcoin"))
}

/// SHA256d(witness root || 32 zero bytes), the coinbase counting as 32 zero bytes in the tree (BIP 141).
fn witness_commitment(wtxids: &[Wtxid]) -> [u8; 32] {
    let coinbase = std::iter::once([0; 32]);
    let root = merkle::root(coinbase.chain(wtxids.iter().map(|id| id.to_byte_array())).collect());
    merkle::parent(&root, &[0; 32])
}

fn check_coinbase(declared: &Declared, subsidy: u64, facts: &Facts) -> Result<(), TemplateError> {
    let derived = facts.witness_commitment_script();
    if let Some(script) = declared.witness_commitment_script.as_ref().filter(|script| **script != derived) {
        return Err(TemplateError::mismatch(
            "default_witness_commitment",
            script.to_hex_string(),
            derived.to_hex_string(),
        ));
    }
    // Both terms are at most 21 million bitcoin.
    let value = subsidy + facts.total_fees;
    if declared.coinbase_value != value {
        let derived = format!("{value} (subsidy {subsidy} and fees {})", facts.total_fees);
        return Err(TemplateError::mismatch("coinbasevalue", declared.coinbase_value, derived));
    }
    Ok(())
}

fn digest(declared: &Declared, facts: &Facts) -> TemplateDigest {
    let mut engine = sha256::Hash::engine();
    engine.input(declared.previous_block_hash.as_byte_array());
    engine.input(&declared.height.to_le_bytes());
    engine.input(&declared.version.to_consensus().to_le_bytes());
    engine.input(&declared.bits.to_consensus().to_le_bytes());
    engine.input(&declared.min_time.to_le_bytes());
    engine.input(&declared.current_time.to_le_bytes());
    engine.input(&declared.coinbase_value.to_le_bytes());
    engine.input(&[match declared.provenance {
        Provenance::Node => 0,
        Provenance::Declared => 1,
    }]);
    engine.input(&facts.witness_commitment);
    for ((txid, fee), sigops) in facts.txids.iter().zip(&facts.fees).zip(&facts.sigops) {
        engine.input(txid.as_byte_array());
        engine.input(&fee.to_le_bytes());
        engine.input(&sigops.to_le_bytes());
    }
    TemplateDigest(sha256::Hash::from_engine(engine).to_byte_array())
}
