//! The coinbase transaction: BIP 34 height, the pool's tag, the extranonce; the payout, and the
//! witness commitment as the last output.

use super::EXTRANONCE_LEN;
use crate::template::Template;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    absolute::LockTime,
    consensus::encode,
    script::{Builder, PushBytesBuf},
    transaction::Version,
};

/// Consensus limit on the coinbase's scriptSig, bytes.
const MAX_SCRIPT_LEN: usize = 100;

/// What the operator wants in the coinbase.
#[derive(Clone, Debug)]
pub struct CoinbaseSpec {
    /// Where subsidy and fees go.
    pub payout: ScriptBuf,
    /// Put into the script for people to recognise the pool by. May be empty.
    pub tag: String,
}

/// Why no coinbase can be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoinbaseError {
    /// Height, tag and extranonce together exceed the consensus limit.
    #[error("the coinbase script would be {0} bytes long, more than 100: shorten [coinbase] tag")]
    ScriptTooLong(usize),
    /// The tag cannot be pushed.
    #[error("[coinbase] tag is too long to be pushed in a script")]
    TagTooLong,
}

/// Bytes before and after the extranonce, witness stripped.
pub(super) fn split(template: &Template, spec: &CoinbaseSpec) -> Result<(Vec<u8>, Vec<u8>), CoinbaseError> {
    let mut script = Builder::new().push_int(i64::from(template.height)).into_script();
    if !spec.tag.is_empty() {
        let tag =
            PushBytesBuf::try_from(spec.tag.clone().into_bytes()).map_err(|_| CoinbaseError::TagTooLong)?;
        script.push_slice(tag);
    }
    // As a push: consensus counts signature operations in this script, too, and random bytes may look
    // like some.
    script.push_slice([0; EXTRANONCE_LEN]);
    let extranonce_at = script.len() - EXTRANONCE_LEN;
    if script.len() > MAX_SCRIPT_LEN {
        return Err(CoinbaseError::ScriptTooLong(script.len()));
    }
    let coinbase = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: script,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![
            TxOut { value: Amount::from_sat(template.coinbase_value), script_pubkey: spec.payout.clone() },
            TxOut { value: Amount::ZERO, script_pubkey: template.witness_commitment_script() },
        ],
    };
    // version (4), input count (1), null outpoint (36), script length (1, since it is at most 100)
    let cut = 4 + 1 + 36 + 1 + extranonce_at;
    let mut prefix = encode::serialize(&coinbase);
    let suffix = prefix.split_off(cut + EXTRANONCE_LEN);
    prefix.truncate(cut);
    Ok((prefix, suffix))
}

/// Puts the witness reserved value (32 zero bytes, BIP 141) back into a stripped coinbase.
pub(super) fn restore_witness(coinbase: &mut Transaction) {
    for input in &mut coinbase.input {
        input.witness = Witness::from_slice(&[[0u8; 32]]);
    }
}
