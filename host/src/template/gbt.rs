//! The answer to `getblocktemplate` (BIP 22, 23, 145): the fields that matter, and no others.
//!
//! serde checks names and types; [`Answer::declare`] checks what is peculiar to the format (the rules a
//! client must know, the lengths of the two targets) and gives a [`Declared`] for assembly.

use super::{CoinbaseParts, CoinbaseSpec, Declared, DeclaredTransaction, Provenance, SourceError};
use crate::reason::Reason;
use bitcoin::{BlockHash, CompactTarget, Network, ScriptBuf, Txid, Wtxid, block::Version};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use std::fmt;

/// The rules that we know how to follow: a template may demand no others (BIP 9, `!`).
const KNOWN_RULES: [&str; 4] = ["csv", "segwit", "taproot", "signet"];

/// Longest name of work that is sent back, bytes.
const MAX_WORK_ID: usize = 256;

/// The answer, typed but not yet believed. What else the BIPs have and no node of today sends (`coinbasetxn`
/// alone, `expires`, `submitold`) is not needed; limits of the block are consensus, and judged by policies.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    version: i32,
    #[serde(default)]
    rules: Vec<String>,
    previousblockhash: BlockHash,
    transactions: Vec<Entry>,
    coinbasevalue: u64,
    /// Names this template when waiting for the next one.
    pub(super) longpollid: String,
    target: Option<Bytes>,
    mintime: u32,
    curtime: u32,
    bits: Bytes,
    height: u32,
    default_witness_commitment: Option<Bytes>,
    /// Version bits that must be set (BIP 9).
    #[serde(default)]
    vbrequired: u32,
    /// The nonces that may be used, first and last.
    noncerange: Option<Bytes>,
    /// What the node calls this work; it is told it again with the block.
    workid: Option<String>,
}

/// The version bits that miners may roll (BIP 323); a test compares them with what shares may.
const ROLLABLE: u32 = 0x1fff_ffe0;
/// Every nonce.
const ALL_NONCES: [u8; 8] = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

#[derive(Debug, Deserialize)]
struct Entry {
    data: Bytes,
    txid: Txid,
    hash: Wtxid,
    fee: u64,
    sigops: u64,
    weight: u64,
}

impl Answer {
    /// The name of the work, with the tip that it is on.
    pub(super) fn work_id(&self) -> Option<(BlockHash, String)> {
        let id = self.workid.as_ref().filter(|id| id.len() <= MAX_WORK_ID)?;
        Some((self.previousblockhash, id.clone()))
    }

    /// What the node says, for assembly. The coinbase is the gateway's.
    pub(super) fn declare(self, network: Network, coinbase: CoinbaseSpec) -> Result<Declared, SourceError> {
        let invalid = |detail: String| SourceError { reason: Reason::TemplateSourceInvalid, detail };
        if let Some(rule) = self.rules.iter().find(|rule| is_unknown_demand(rule)) {
            return Err(invalid(format!(
                "the template demands the rule {rule:?}, which this gateway does not know"
            )));
        }
        // Miners roll these bits and these nonces; there is no telling them not to.
        let rolled = self.vbrequired & ROLLABLE;
        if rolled != 0 {
            return Err(invalid(format!(
                "vbrequired: it needs version bits that miners roll ({rolled:#010x})"
            )));
        }
        if self.noncerange.as_ref().is_some_and(|range| range.0 != ALL_NONCES) {
            return Err(invalid("noncerange: it allows some nonces only, and miners use all".into()));
        }
        let bits = <[u8; 4]>::try_from(self.bits.0.as_slice())
            .map(|bytes| CompactTarget::from_consensus(u32::from_be_bytes(bytes)))
            .map_err(|_| invalid(format!("bits has {} bytes instead of 4", self.bits.0.len())))?;
        let target = self.target.map(|bytes| {
            <[u8; 32]>::try_from(bytes.0)
                .map_err(|bytes| invalid(format!("target has {} bytes instead of 32", bytes.len())))
        });
        let transactions = self.transactions.into_iter().map(|entry| DeclaredTransaction {
            bytes: entry.data.0,
            txid: Some(entry.txid),
            wtxid: Some(entry.hash),
            weight: Some(entry.weight),
            sigops: Some(entry.sigops),
            fee: Some(entry.fee),
            spent: None,
        });
        Ok(Declared {
            network,
            provenance: Provenance::Node,
            height: self.height,
            version: Version::from_consensus(self.version),
            previous_block_hash: self.previousblockhash,
            bits,
            target: target.transpose()?,
            min_time: self.mintime,
            current_time: self.curtime,
            coinbase_value: self.coinbasevalue,
            coinbase: CoinbaseParts::Planned(coinbase),
            merkle_path: None,
            transaction_count: None,
            witness_commitment_script: self
                .default_witness_commitment
                .map(|bytes| ScriptBuf::from_bytes(bytes.0)),
            transactions: transactions.collect(),
        })
    }
}

fn is_unknown_demand(rule: &str) -> bool {
    rule.strip_prefix('!').is_some_and(|rule| !KNOWN_RULES.contains(&rule))
}

/// Hex in JSON, decoded while parsing.
pub(super) struct Bytes(pub(super) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("hexadecimal digits")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                from_hex(text).map(Bytes).ok_or_else(|| E::custom("not hexadecimal digits in pairs"))
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

/// Value of each digit; others have high bits set.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// Decodes hex by table: a full template is 2.5 million digits, for which the `hex` crate took seven
/// times as long, more than all hashing together.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut seen = 0;
    let decode = |[high, low]: &[u8; 2]| {
        let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
        seen |= high | low;
        high << 4 | low & 0x0f
    };
    let bytes = pairs.iter().map(decode).collect();
    (rest.is_empty() && seen <= 0x0f).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_that_miners_roll_are_those_that_shares_may_have_rolled() {
        assert_eq!(ROLLABLE, crate::share::VERSION_ROLLING_MASK);
    }

    #[test]
    fn hex_is_decoded_in_either_case_and_nothing_else_is() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let lower = hex::encode(&every_byte);
        assert_eq!(from_hex(&lower), Some(every_byte.clone()));
        assert_eq!(from_hex(&lower.to_uppercase()), Some(every_byte));
        assert_eq!(from_hex(""), Some(vec![]));
        for bad in ["0", "0g", "g0", " 0", "0x", "00\u{e9}", "000"] {
            assert_eq!(from_hex(bad), None, "{bad:?}");
        }
    }
}
