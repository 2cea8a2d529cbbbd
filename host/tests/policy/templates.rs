//! Templates for tests and benches of the policy room: as many transactions as asked for, each with
//! the fee that is asked for.

use bitcoin::{
    Amount, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
    absolute::LockTime,
    block,
    consensus::encode::{deserialize, serialize},
    hashes::Hash,
    transaction,
};
use reservegrid::template::{
    CoinbaseParts, CoinbaseSpec, Context, Declared, DeclaredTransaction, MempoolState, Provenance, Sourced,
    Template,
    facts::{assemble, subsidy, witness_commitment_script},
};
use std::sync::Arc;

const HEIGHT: u32 = 120;

/// A template whose transactions pay these fees, satoshi.
pub(crate) fn with_fees(fees: impl IntoIterator<Item = u64>) -> Arc<Template> {
    Arc::new(assemble(&declared(fees)).expect("the template is well-formed"))
}

/// The same as it comes from a source.
#[allow(dead_code, reason = "the bench does not need it")]
pub(crate) fn sourced(fees: impl IntoIterator<Item = u64>, context: Context) -> Sourced {
    let declared = declared(fees);
    let template = assemble(&declared).expect("the template is well-formed");
    Sourced::new(declared, template, context)
}

/// The same with transactions of 396 weight units, of which 10,000 fit into a block.
#[allow(dead_code, reason = "most tests do not need it")]
pub(crate) fn small_with_fees(fees: impl IntoIterator<Item = u64>) -> Arc<Template> {
    Arc::new(assemble(&paying_to(22, fees)).expect("the template is well-formed"))
}

/// The same as a source declares it.
pub(crate) fn declared(fees: impl IntoIterator<Item = u64>) -> Declared {
    paying_to(34, fees)
}

/// Transactions that pay to scripts of this length.
fn paying_to(script_len: usize, fees: impl IntoIterator<Item = u64>) -> Declared {
    let entry = |(index, fee)| transaction(index, fee, script_len);
    let transactions: Vec<DeclaredTransaction> = (0..).zip(fees).map(entry).collect();
    let total: u64 = transactions.iter().filter_map(|transaction| transaction.fee).sum();
    let commitment = {
        let wtxid = |entry: &DeclaredTransaction| {
            deserialize::<Transaction>(&entry.bytes).expect("made here").compute_wtxid()
        };
        witness_commitment_script(&transactions.iter().map(wtxid).collect::<Vec<_>>())
    };
    Declared {
        network: Network::Regtest,
        provenance: Provenance::Node,
        height: HEIGHT,
        version: block::Version::from_consensus(0x2000_0000),
        previous_block_hash: BlockHash::from_byte_array([7; 32]),
        bits: CompactTarget::from_consensus(0x207f_ffff),
        min_time: 1_750_000_000,
        current_time: 1_750_000_600,
        coinbase_value: subsidy(HEIGHT, Network::Regtest) + total,
        coinbase: CoinbaseParts::Planned(CoinbaseSpec {
            payout: ScriptBuf::from_bytes(vec![0x51]).into(),
            tag: "/tests/".to_owned(),
        }),
        target: None,
        merkle_path: None,
        transaction_count: None,
        witness_commitment_script: Some(commitment),
        transactions,
    }
}

/// One input that the template does not create (a key spend of a taproot output), one output.
fn transaction(index: u32, fee: u64, script_len: usize) -> DeclaredTransaction {
    let transaction = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([9; 32]), index),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1_u8; 64]]),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(50_000),
            script_pubkey: ScriptBuf::from(vec![0x51; script_len]),
        }],
    };
    DeclaredTransaction { bytes: serialize(&transaction), fee: Some(fee), ..Default::default() }
}

/// A mempool of this many vbytes.
#[allow(dead_code, reason = "not every suite needs it")]
pub(crate) fn mempool(total_vsize: u64) -> Context {
    let mempool = MempoolState { transaction_count: 5_000, total_vsize, total_fees: 1_000_000 };
    Context { mempool: Some(mempool), ..Context::default() }
}
