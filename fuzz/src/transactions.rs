//! The transactions of a template, as a source or a miner might hand them over.
//!
//! Promises: bytes become a template or a fault, never a panic; where they become a template, each
//! transaction is one that the `bitcoin` crate reads from the same bytes, with its ids and its weight; and
//! what the `bitcoin` crate does not read becomes no template.

use crate::Choices;
use bitcoin::{
    Amount, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime,
    block::Version,
    consensus::{deserialize, serialize},
    hashes::Hash,
    transaction,
};
use reservegrid::template::{CoinbaseParts, CoinbaseSpec, Declared, DeclaredTransaction, Provenance, facts};

/// Transactions, each behind its length (two bytes).
pub fn one(data: &[u8]) {
    let mut choices = Choices(data);
    let mut transactions = Vec::new();
    while !choices.done() {
        let length = usize::from(choices.short());
        let bytes = choices.bytes(length).to_vec();
        transactions.push(DeclaredTransaction { bytes, fee: Some(1_000), ..DeclaredTransaction::default() });
    }
    let read: Option<Vec<Transaction>> = transactions.iter().map(|t| deserialize(&t.bytes).ok()).collect();
    let declared = Declared {
        network: Network::Regtest,
        provenance: Provenance::Node,
        height: 200,
        version: Version::from_consensus(0x2000_0000),
        previous_block_hash: bitcoin::BlockHash::all_zeros(),
        bits: CompactTarget::from_consensus(0x207f_ffff),
        target: None,
        min_time: 1_700_000_000,
        current_time: 1_700_000_600,
        coinbase_value: 25 * 100_000_000,
        coinbase: CoinbaseParts::Planned(CoinbaseSpec {
            payout: ScriptBuf::new().into(),
            tag: String::new(),
        }),
        merkle_path: None,
        transaction_count: None,
        witness_commitment_script: None,
        transactions,
    };
    let Ok(template) = facts::assemble(&declared) else { return };
    let read = read.expect("a template is made only of what the bitcoin crate reads, too");
    assert_eq!(template.facts.txids, read.iter().map(Transaction::compute_txid).collect::<Vec<_>>());
    assert_eq!(template.facts.wtxids, read.iter().map(Transaction::compute_wtxid).collect::<Vec<_>>());
    let weights: Vec<u64> = read.iter().map(|transaction| transaction.weight().to_wu()).collect();
    assert_eq!(template.facts.weights.iter().map(|weight| u64::from(*weight)).collect::<Vec<_>>(), weights);
}

/// A transaction with and one without witness, a chain of two, one twice.
pub fn seeds() -> Vec<Vec<u8>> {
    let spend = |txid: Txid, witness: Witness| Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid, vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness,
        }],
        output: vec![TxOut {
            value: Amount::from_sat(5_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    };
    let behind_its_length = |transaction: &Transaction| {
        let bytes = serialize(transaction);
        [&u16::try_from(bytes.len()).unwrap().to_le_bytes()[..], &bytes].concat()
    };
    let plain = spend(Txid::from_byte_array([7; 32]), Witness::new());
    let child = spend(plain.compute_txid(), Witness::from_slice(&[[1; 70].as_slice(), &[2; 33]]));
    let (plain, child) = (behind_its_length(&plain), behind_its_length(&child));
    vec![plain.clone(), child.clone(), [plain.clone(), child].concat(), [plain.clone(), plain].concat()]
}
