//! What a job server and a miner do, in their smallest form.

use bitcoin::{
    Amount, Block, ScriptBuf, Sequence, Target, Transaction, TxIn, TxOut, Witness, absolute::LockTime,
    script::Builder, transaction,
};
use reservegrid::template::Template;

/// A coinbase that takes all that it may.
pub(crate) fn coinbase(template: &Template) -> Transaction {
    let height = Builder::new().push_int(i64::from(template.height)).push_slice(b"tests").into_script();
    let payout = ScriptBuf::new_p2wpkh(&"0000000000000000000000000000000000000007".parse().unwrap());
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: Default::default(),
            script_sig: height,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0; 32]]),
        }],
        output: vec![
            TxOut { value: Amount::from_sat(template.coinbase_value), script_pubkey: payout },
            TxOut { value: Amount::ZERO, script_pubkey: template.witness_commitment_script() },
        ],
    }
}

/// Turns the nonce until the header meets its own target.
pub(crate) fn grind(mut block: Block) -> Block {
    let target = Target::from_compact(block.header.bits);
    while block.header.validate_pow(target).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// The block of `template` with the usual coinbase.
pub(crate) fn solved(template: &Template) -> Block {
    grind(template.to_block(coinbase(template), template.version, template.current_time, 0))
}
