//! What the embedded chain knows, and the rules by which it takes a block or says why not.
//!
//! The checks are those of a node, in a node's order and words (BIP 22, `validation.cpp` of Bitcoin
//! Core): proof of work, place, time, merkle root, coinbase, witness commitment, weight, sigops, coins,
//! signatures, coinbase value. Three simplifications, each on the strict side: no side branches are
//! kept; only the wallet's coins are remembered, so that a block spending others is refused; and a
//! block may be at most 4,000,000 WU with a coinbase of the usual kind.

use super::{MATURITY, mint::Spendable, wallet::Wallet};
use crate::template::{facts, sigops};
use bitcoin::{
    Block, BlockHash, CompactTarget, Network, OutPoint, Target, Transaction, TxOut, Weight,
    absolute::{Height, Time},
    hashes::Hash,
    script::Builder,
};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Headers remembered: enough for the median time and to recognise late blocks.
const REMEMBERED: usize = 288;
/// The median time past is over this many blocks (BIP 113).
const MEDIAN_SPAN: usize = 11;
/// A header may be this far ahead of the clock, seconds.
const MAX_FUTURE: u32 = 2 * 3600;
/// Sigop cost of a block (BIP 141).
const MAX_SIGOPS: u64 = 80_000;

/// The last block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    pub(super) height: u32,
    pub(super) hash: BlockHash,
    time: u32,
}

#[derive(Debug)]
struct Coin {
    output: TxOut,
    height: u32,
    coinbase: bool,
}

impl Coin {
    fn is_mature_at(&self, height: u32) -> bool {
        !self.coinbase || height - self.height >= MATURITY
    }
}

/// Headers and coins.
#[derive(Debug)]
pub(super) struct State {
    /// Newest last; never empty.
    recent: VecDeque<Tip>,
    /// The wallet's. Ordered, so that a seed gives the same transactions again.
    coins: BTreeMap<OutPoint, Coin>,
}

impl State {
    pub(super) fn new() -> Self {
        let genesis = bitcoin::constants::genesis_block(Network::Regtest);
        let tip = Tip { height: 0, hash: genesis.block_hash(), time: genesis.header.time };
        Self { recent: VecDeque::from([tip]), coins: BTreeMap::new() }
    }

    pub(super) fn tip(&self) -> Tip {
        self.recent[self.recent.len() - 1]
    }

    pub(super) fn median_time_past(&self) -> u32 {
        let mut times: Vec<u32> = self.recent.iter().rev().take(MEDIAN_SPAN).map(|tip| tip.time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// What may be spent in a block at `height`.
    pub(super) fn spendable(&self, height: u32) -> Vec<Spendable> {
        let mature = self.coins.iter().filter(|(_, coin)| coin.is_mature_at(height));
        mature.map(|(outpoint, coin)| (*outpoint, coin.output.clone())).collect()
    }

    /// Takes `block` as the new tip, or says why not in the words of BIP 22. Nothing changes then.
    pub(super) fn connect(
        &mut self,
        block: &Block,
        bits: CompactTarget,
        now: u32,
        wallet: &Wallet,
    ) -> Result<(), &'static str> {
        let hash = block.block_hash();
        if self.recent.iter().any(|tip| tip.hash == hash) {
            return Err("duplicate");
        }
        let height = self.tip().height + 1;
        self.check_header(block, bits, now)?;
        check_transactions(block, height)?;
        check_witness_commitment(block)?;
        let Changes { spent, created, fees } = self.check_spends(block, height, wallet)?;
        let paid = block.txdata[0]
            .output
            .iter()
            .map(|output| output.value.to_sat())
            .try_fold(0u64, u64::checked_add);
        if paid.is_none_or(|paid| paid > facts::subsidy(height, Network::Regtest) + fees) {
            return Err("bad-cb-amount");
        }

        for outpoint in spent {
            self.coins.remove(&outpoint);
        }
        let created = created.into_iter().filter(|(_, coin)| wallet.owns(&coin.output.script_pubkey));
        self.coins.extend(created);
        self.recent.push_back(Tip { height, hash, time: block.header.time });
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
        Ok(())
    }

    fn check_header(&self, block: &Block, bits: CompactTarget, now: u32) -> Result<(), &'static str> {
        let header = &block.header;
        if header.prev_blockhash != self.tip().hash {
            let known = self.recent.iter().any(|tip| tip.hash == header.prev_blockhash);
            return Err(if known { "inconclusive-not-best-prevblk" } else { "bad-prevblk" });
        }
        if header.bits != bits {
            return Err("bad-diffbits");
        }
        if header.validate_pow(Target::from_compact(bits)).is_err() {
            return Err("high-hash");
        }
        if header.time <= self.median_time_past() {
            return Err("time-too-old");
        }
        if header.time > now.saturating_add(MAX_FUTURE) {
            return Err("time-too-new");
        }
        if header.version.to_consensus() < 4 {
            return Err("bad-version");
        }
        Ok(())
    }

    /// Follows every coin; counts sigops on the way.
    fn check_spends(&self, block: &Block, height: u32, wallet: &Wallet) -> Result<Changes, &'static str> {
        let mut spent = HashSet::new();
        let mut created: HashMap<OutPoint, Coin> = HashMap::new();
        let mut fees = 0u64;
        let mut sigops = sigops::legacy_cost(&block.txdata[0]);
        for (position, tx) in block.txdata.iter().enumerate() {
            if position > 0 {
                let outputs = self.check_inputs(tx, height, &mut spent, &created)?;
                let brought =
                    outputs.iter().map(|output| output.value.to_sat()).try_fold(0u64, u64::checked_add);
                let paid =
                    tx.output.iter().map(|output| output.value.to_sat()).try_fold(0u64, u64::checked_add);
                let fee = brought.zip(paid).and_then(|(brought, paid)| brought.checked_sub(paid));
                fees = fee.and_then(|fee| fees.checked_add(fee)).ok_or("bad-txns-in-belowout")?;
                sigops += sigops::cost(tx, |i| outputs.get(i)).likely;
                if !is_signed(tx, &outputs, wallet) {
                    return Err("block-script-verify-flag-failed");
                }
            }
            let txid = tx.compute_txid();
            for (vout, output) in (0u32..).zip(&tx.output) {
                let coin = Coin { output: output.clone(), height, coinbase: position == 0 };
                created.insert(OutPoint { txid, vout }, coin);
            }
        }
        if sigops > MAX_SIGOPS {
            return Err("bad-blk-sigops");
        }
        created.retain(|outpoint, _| !spent.contains(outpoint));
        Ok(Changes { spent, created, fees })
    }

    fn check_inputs(
        &self,
        tx: &Transaction,
        height: u32,
        spent: &mut HashSet<OutPoint>,
        created: &HashMap<OutPoint, Coin>,
    ) -> Result<Vec<TxOut>, &'static str> {
        let mut outputs = Vec::with_capacity(tx.input.len());
        for input in &tx.input {
            let outpoint = input.previous_output;
            let coin = created.get(&outpoint).or_else(|| self.coins.get(&outpoint));
            let coin = coin.filter(|_| spent.insert(outpoint)).ok_or("bad-txns-inputs-missingorspent")?;
            if !coin.is_mature_at(height) {
                return Err("bad-txns-premature-spend-of-coinbase");
            }
            outputs.push(coin.output.clone());
        }
        // A lock time is the last height or time at which the transaction is not yet final.
        let median_time = self.median_time_past().saturating_sub(1);
        let median_time = Time::from_consensus(median_time).unwrap_or(Time::MIN);
        let height = Height::from_consensus(height - 1).unwrap_or(Height::ZERO);
        if !tx.is_absolute_timelock_satisfied(height, median_time) {
            return Err("bad-txns-nonfinal");
        }
        Ok(outputs)
    }
}

/// What a block does to the coins.
struct Changes {
    spent: HashSet<OutPoint>,
    created: HashMap<OutPoint, Coin>,
    fees: u64,
}

/// Merkle root, coinbase, and size.
fn check_transactions(block: &Block, height: u32) -> Result<(), &'static str> {
    if !block.check_merkle_root() {
        return Err("bad-txnmrklroot");
    }
    let (coinbase, others) = block.txdata.split_first().ok_or("bad-blk-length")?;
    if !coinbase.is_coinbase() {
        return Err("bad-cb-missing");
    }
    if others.iter().any(Transaction::is_coinbase) {
        return Err("bad-cb-multiple");
    }
    if !(2..=100).contains(&coinbase.input[0].script_sig.len()) {
        return Err("bad-cb-length");
    }
    let bip34 = Builder::new().push_int(i64::from(height)).into_script();
    if !coinbase.input[0].script_sig.as_bytes().starts_with(bip34.as_bytes()) {
        return Err("bad-cb-height");
    }
    if block.weight() > Weight::MAX_BLOCK {
        return Err("bad-blk-weight");
    }
    Ok(())
}

fn check_witness_commitment(block: &Block) -> Result<(), &'static str> {
    let coinbase = &block.txdata[0];
    let commitment = coinbase.output.iter().rev().find_map(|output| {
        let rest = output.script_pubkey.as_bytes().strip_prefix(&facts::WITNESS_COMMITMENT_PREFIX)?;
        rest.first_chunk::<32>()
    });
    let Some(commitment) = commitment else {
        let any_witness = block.txdata.iter().flat_map(|tx| &tx.input).any(|input| !input.witness.is_empty());
        return if any_witness { Err("unexpected-witness") } else { Ok(()) };
    };
    let witness = &coinbase.input[0].witness;
    let reserved = witness.last().filter(|value| witness.len() == 1 && value.len() == 32);
    let reserved = reserved.ok_or("bad-witness-nonce-size")?;
    let root = block.witness_root().ok_or("bad-witness-merkle-match")?;
    let derived = Block::compute_witness_commitment(&root, reserved);
    if derived.as_byte_array() == commitment { Ok(()) } else { Err("bad-witness-merkle-match") }
}

fn is_signed(tx: &Transaction, spent: &[TxOut], wallet: &Wallet) -> bool {
    let signed = wallet.sign(tx, spent);
    signed.is_some_and(|witnesses| {
        witnesses
            .iter()
            .zip(&tx.input)
            .all(|(witness, input)| *witness == input.witness && input.script_sig.is_empty())
    })
}
