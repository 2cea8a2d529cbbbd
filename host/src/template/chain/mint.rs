//! Makes transactions for the embedded chain's templates: signed, varied, with known fees.
//!
//! Coins come from the chain's confirmed ones, and now and then from a transaction just made, so that
//! templates have parents and children. The shapes (one input or two, one output or two) are chosen
//! such that the number of coins goes back to about two for each transaction, whatever was mined.

use super::wallet::Wallet;
use bitcoin::{
    Amount, OutPoint, PubkeyHash, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    absolute::LockTime,
    hashes::Hash,
    secp256k1::rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom},
    transaction::Version,
};

/// Outputs below this are left to a transaction with two inputs.
const SMALL_COIN: Amount = Amount::from_sat(100_000);
/// The least that an output gets.
const LEAST_OUTPUT: Amount = Amount::from_sat(1_000);
/// Fee rates of ordinary transactions, sat/vB.
const FEE_RATES: std::ops::RangeInclusive<u64> = 4..=60;

/// A coin and how to name it.
pub(super) type Spendable = (OutPoint, TxOut);

/// A transaction and what is known about it.
pub(super) struct Minted {
    pub(super) tx: Transaction,
    pub(super) fee: u64,
    pub(super) spent: Vec<TxOut>,
}

/// The source of variety.
#[derive(Debug)]
pub(super) struct Minter {
    rng: StdRng,
}

impl Minter {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// Up to `count` transactions in an order fit for a block; fewer where the coins do not suffice.
    pub(super) fn mint(
        &mut self,
        wallet: &Wallet,
        mut coins: Vec<Spendable>,
        count: usize,
        low_fees: bool,
    ) -> Vec<Minted> {
        coins.shuffle(&mut self.rng);
        let plenty = coins.len() > 2 * count;
        let mut fresh: Vec<Spendable> = Vec::new();
        let mut minted = Vec::with_capacity(count);
        while minted.len() < count {
            let (inputs, outputs) = match (self.rng.gen_range(0..10), plenty) {
                (0..=5, true) => (2, 1),
                (0..=5, false) => (1, 2),
                (6, _) => (2, 2),
                (_, true) => (1, 1),
                (_, false) => (2, 1),
            };
            let Some(spent) = self.pick(&mut coins, &mut fresh, inputs) else { break };
            let rate = if low_fees { 1 } else { self.rng.gen_range(FEE_RATES) };
            let Some(made) = self.build(wallet, spent, outputs, rate) else { continue };
            let txid = made.tx.compute_txid();
            let created = (0u32..).zip(&made.tx.output).filter(|(_, o)| wallet.owns(&o.script_pubkey));
            fresh.extend(created.map(|(vout, output)| (OutPoint { txid, vout }, output.clone())));
            minted.push(made);
        }
        minted
    }

    /// Takes coins: `wanted`, and one more if they are small.
    fn pick(
        &mut self,
        coins: &mut Vec<Spendable>,
        fresh: &mut Vec<Spendable>,
        wanted: usize,
    ) -> Option<Vec<Spendable>> {
        let mut picked: Vec<Spendable> = Vec::new();
        while picked.len() < wanted || picked.iter().all(|(_, output)| output.value < SMALL_COIN) {
            let from_fresh = !fresh.is_empty() && self.rng.gen_bool(0.2);
            let next = if from_fresh {
                let position = self.rng.gen_range(0..fresh.len());
                Some(fresh.swap_remove(position))
            } else {
                coins.pop()
            };
            match next {
                Some(coin) => picked.push(coin),
                None if picked.is_empty() => return None,
                None => break,
            }
        }
        Some(picked)
    }

    /// Builds and signs; `None` when the coins do not cover fee and outputs.
    fn build(&mut self, wallet: &Wallet, coins: Vec<Spendable>, outputs: usize, rate: u64) -> Option<Minted> {
        let (outpoints, spent): (Vec<_>, Vec<_>) = coins.into_iter().unzip();
        let input = outpoints.iter().zip(&spent).map(|(outpoint, output)| TxIn {
            previous_output: *outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: expected_witness(output),
        });
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: input.collect(),
            output: Vec::new(),
        };
        for _ in 0..outputs {
            let script_pubkey = wallet.script(self.rng.gen_bool(0.4)).to_owned();
            tx.output.push(TxOut { value: LEAST_OUTPUT, script_pubkey });
        }
        if self.rng.gen_bool(0.1) {
            // A payment to somebody else, in the old style.
            let script_pubkey = ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(self.rng.r#gen()));
            tx.output.push(TxOut { value: LEAST_OUTPUT, script_pubkey });
        }
        let fee = Amount::from_sat(rate * tx.weight().to_vbytes_ceil());
        let available: Amount = spent.iter().map(|output| output.value).sum();
        let paid: Amount = tx.output.iter().map(|output| output.value).sum();
        let rest = available.checked_sub(paid)?.checked_sub(fee)?;
        let first = rest * self.rng.gen_range(20..80) / 100 * (outputs as u64 - 1);
        tx.output[0].value += rest - first;
        tx.output[outputs - 1].value += first;
        let witnesses = wallet.sign(&tx, &spent)?;
        for (input, witness) in tx.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
        Some(Minted { tx, fee: fee.to_sat(), spent })
    }
}

/// A witness of the size that the real one will have at most.
fn expected_witness(output: &TxOut) -> Witness {
    if output.script_pubkey.is_p2tr() {
        Witness::from_slice(&[[0u8; 64]])
    } else {
        Witness::from_slice(&[&[0u8; 72][..], &[0u8; 33]])
    }
}
