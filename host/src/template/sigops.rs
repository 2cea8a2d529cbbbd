//! Sigop costs (BIP 141), exact where the spent output is known and bounded where it is not.
//!
//! A legacy sigop costs 4 and is in the bytes. A sigop of a redeem script (P2SH, cost 4) or of a witness
//! program (version 0, cost 1) counts only if the output spent is of that kind, and a template does
//! not carry the outputs it spends, unless it creates them itself. For the others the input's own
//! shape says what it must be, or probably is:
//!
//! | scriptSig | witness | the output spent | sigop cost of the input |
//! |---|---|---|---|
//! | empty | none | nothing that counts | 0, certain |
//! | not empty | some | P2SH around a witness program (any other is invalid, BIP 141) | certain |
//! | empty | `[sig][33-byte key]` | P2WPKH | 1 |
//! | empty | one 64 or 65-byte signature, or a control block last (annex aside) | taproot (BIP 341) | 0 |
//! | empty | anything else | P2WSH, the last element is its script | sigops of the script |
//! | `[sig][key]`, or a signature last | none | P2PKH, P2PK, bare multisig | 0 |
//! | pushes only, anything else last | none | P2SH, the last push is its script | 4 × sigops of the script |
//!
//! BIP 341 chose leaf versions and annex so that the first byte of the last element tells a taproot
//! spend from a version 0 one. An output of a later witness version can look like either and costs
//! nothing, hence a [`Cost`] has bounds beside the likely value.
//!
//! Counting follows consensus byte by byte, including that a script that breaks off counts up to there.

use bitcoin::{Transaction, TxOut, Witness, opcodes::all as op};

/// Sigop cost of one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// It cannot be less, whatever is spent.
    pub low: u64,
    /// What the inputs look like; equal to the other two where everything is certain.
    pub likely: u64,
    /// It cannot be more.
    pub high: u64,
}

impl Cost {
    fn certain(cost: u64) -> Self {
        Self { low: cost, likely: cost, high: cost }
    }

    fn add(&mut self, other: Self) {
        self.low += other.low;
        self.likely += other.likely;
        self.high += other.high;
    }
}

/// Sigop cost of a transaction other than a coinbase. `spent` gives the output that an input (by its
/// position) spends, where it is known.
pub fn cost<'a>(tx: &Transaction, spent: impl Fn(usize) -> Option<&'a TxOut>) -> Cost {
    let mut cost = Cost::certain(legacy_cost(tx));
    for (i, input) in tx.input.iter().enumerate() {
        let script_sig = input.script_sig.as_bytes();
        cost.add(match spent(i) {
            Some(output) => {
                Cost::certain(input_cost(output.script_pubkey.as_bytes(), script_sig, &input.witness))
            }
            None => guessed_input_cost(script_sig, &input.witness),
        });
    }
    cost
}

/// The part of the cost that needs no spent output, of any transaction including a coinbase.
pub fn legacy_cost(tx: &Transaction) -> u64 {
    let inputs = tx.input.iter().map(|i| count(i.script_sig.as_bytes(), false));
    let outputs = tx.output.iter().map(|o| count(o.script_pubkey.as_bytes(), false));
    4 * inputs.chain(outputs).sum::<u64>()
}

/// What one input adds when it spends `script_pubkey`.
fn input_cost(script_pubkey: &[u8], script_sig: &[u8], witness: &Witness) -> u64 {
    match script_pubkey {
        // P2SH: OP_HASH160, 20 bytes, OP_EQUAL
        [0xa9, 0x14, hash @ .., 0x87] if hash.len() == 20 => p2sh_cost(script_sig, witness),
        _ => program_cost(script_pubkey, witness),
    }
}

fn p2sh_cost(script_sig: &[u8], witness: &Witness) -> u64 {
    let redeem_script = last_push(script_sig).unwrap_or_default();
    4 * count(redeem_script, true) + program_cost(redeem_script, witness)
}

/// What a witness program of version 0 adds; nothing for any other script.
fn program_cost(script: &[u8], witness: &Witness) -> u64 {
    match script {
        [0x00, 0x14, hash @ ..] if hash.len() == 20 => 1,
        [0x00, 0x20, hash @ ..] if hash.len() == 32 => count(witness.last().unwrap_or_default(), true),
        _ => 0,
    }
}

fn guessed_input_cost(script_sig: &[u8], witness: &Witness) -> Cost {
    match (script_sig.is_empty(), witness.is_empty()) {
        (true, true) => Cost::certain(0),
        (false, false) => Cost::certain(p2sh_cost(script_sig, witness)),
        (true, false) => {
            let script = count(witness.last().unwrap_or_default(), true);
            let likely = if is_p2wpkh_spend(witness) {
                1
            } else if is_taproot_spend(witness) {
                0
            } else {
                script
            };
            let high = if witness.len() == 2 { script.max(1) } else { script };
            Cost { low: 0, likely, high }
        }
        (false, true) => {
            let redeem_script = last_push(script_sig).unwrap_or_default();
            let high = 4 * count(redeem_script, true);
            let likely = if ends_like_a_legacy_spend(script_sig, redeem_script) { 0 } else { high };
            Cost { low: 0, likely, high }
        }
    }
}

fn is_p2wpkh_spend(witness: &Witness) -> bool {
    let mut elements = witness.iter();
    matches!((elements.next(), elements.next(), elements.next()), (Some(sig), Some(key), None)
        if is_signature(sig) && is_key(key) && key.len() == 33)
}

fn is_taproot_spend(witness: &Witness) -> bool {
    let annex = witness.len() >= 2 && witness.last().is_some_and(|last| last.first() == Some(&0x50));
    let rest = witness.len() - usize::from(annex);
    let Some(last) = rest.checked_sub(1).and_then(|i| witness.nth(i)) else { return false };
    match (rest, last) {
        // Key path: a Schnorr signature, with a sighash type or without.
        (1, [..]) if last.len() == 64 => true,
        (1, [.., sighash]) if last.len() == 65 => matches!(sighash, 1..=3 | 0x81..=0x83),
        // Script path: the control block. Its leaf version is no opcode a script can begin with.
        (2.., [version, path @ ..]) => {
            let unmistakable =
                matches!(version & 0xfe, 0x66 | 0x7e | 0x80 | 0x84 | 0x96 | 0x98 | 0xba..=0xfe);
            unmistakable && path.len() >= 32 && path.len() % 32 == 0 && path.len() <= 32 * 129
        }
        _ => false,
    }
}

fn ends_like_a_legacy_spend(script_sig: &[u8], last: &[u8]) -> bool {
    is_signature(last)
        || is_key(last)
            && matches!(pushes(script_sig).collect::<Option<Vec<_>>>().as_deref(),
                Some([Push::Data(sig), Push::Data(_)]) if is_signature(sig))
}

/// DER signature with a sighash type byte.
fn is_signature(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, len, 0x02, ..] if usize::from(*len) + 3 == bytes.len() && bytes.len() <= 73)
}

fn is_key(bytes: &[u8]) -> bool {
    matches!((bytes.first(), bytes.len()), (Some(2 | 3), 33) | (Some(4), 65))
}

/// One operation of a script.
enum Push<'a> {
    Data(&'a [u8]),
    Op(u8),
}

/// Splits a script into operations; ends with `None` where a push runs past the end.
fn pushes(script: &[u8]) -> impl Iterator<Item = Option<Push<'_>>> {
    let mut rest = script;
    std::iter::from_fn(move || {
        let (&opcode, after) = rest.split_first()?;
        let (size_len, len) = match opcode {
            0..=0x4b => (0, usize::from(opcode)),
            0x4c => (1, after.first().map_or(usize::MAX, |b| usize::from(*b))),
            0x4d => (2, after.first_chunk().map_or(usize::MAX, |b| usize::from(u16::from_le_bytes(*b)))),
            0x4e => (4, after.first_chunk().map_or(usize::MAX, |b| u32::from_le_bytes(*b) as usize)),
            _ => {
                rest = after;
                return Some(Some(Push::Op(opcode)));
            }
        };
        let data = after.get(size_len..).and_then(|tail| tail.split_at_checked(len));
        rest = data.map_or(&[], |(_, tail)| tail);
        Some(data.map(|(data, _)| Push::Data(data)))
    })
}

/// What the last operation pushes, if the script does nothing but push (BIP 16). OP_1 to OP_16 and
/// OP_1NEGATE push a number that is no script.
fn last_push(script: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    for push in pushes(script) {
        last = match push? {
            Push::Data(data) => Some(data),
            Push::Op(opcode) if opcode <= op::OP_PUSHNUM_16.to_u8() => None,
            Push::Op(_) => return None,
        };
    }
    last
}

/// Sigops in a script. `accurate` counts a multisig by its number of keys where that is written right
/// before it (redeem and witness scripts); otherwise, and always in legacy scripts, it counts 20.
pub(super) fn count(script: &[u8], accurate: bool) -> u64 {
    const ONE: u8 = op::OP_PUSHNUM_1.to_u8();
    const SIXTEEN: u8 = op::OP_PUSHNUM_16.to_u8();
    const CHECKSIG: u8 = op::OP_CHECKSIG.to_u8();
    const CHECKSIGVERIFY: u8 = op::OP_CHECKSIGVERIFY.to_u8();
    const CHECKMULTISIG: u8 = op::OP_CHECKMULTISIG.to_u8();
    const CHECKMULTISIGVERIFY: u8 = op::OP_CHECKMULTISIGVERIFY.to_u8();

    let mut sigops = 0;
    let mut before = 0;
    for push in pushes(script) {
        let opcode = match push {
            Some(Push::Op(opcode)) => opcode,
            Some(Push::Data(_)) => 0,
            None => break,
        };
        sigops += match (opcode, before) {
            (CHECKSIG | CHECKSIGVERIFY, _) => 1,
            (CHECKMULTISIG | CHECKMULTISIGVERIFY, ONE..=SIXTEEN) if accurate => u64::from(before - ONE) + 1,
            (CHECKMULTISIG | CHECKMULTISIGVERIFY, _) => 20,
            _ => 0,
        };
        before = opcode;
    }
    sigops
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use bitcoin::{Script, hex::FromHex};

    fn bytes(hex: &str) -> Vec<u8> {
        Vec::from_hex(hex).unwrap()
    }

    fn signature() -> Vec<u8> {
        let mut sig = bytes("3044022000");
        sig.resize(71, 7);
        sig
    }

    fn guess(script_sig: &[u8], witness: &[&[u8]]) -> u64 {
        let cost = guessed_input_cost(script_sig, &Witness::from_slice(witness));
        assert!(cost.low <= cost.likely && cost.likely <= cost.high, "{cost:?}");
        cost.likely
    }

    #[test]
    fn counts_like_consensus() {
        assert_eq!(count(&bytes("ac"), false), 1);
        assert_eq!(count(&bytes("52ae"), false), 20, "legacy scripts do not look at the number of keys");
        assert_eq!(count(&bytes("52ae"), true), 2);
        assert_eq!(count(&bytes("52acae"), true), 21, "the number must stand right before the multisig");
        assert_eq!(count(&bytes("02acac"), true), 0, "pushed bytes are no operations");
        assert_eq!(count(&bytes("ac05acac"), true), 1, "a push past the end stops the count");
        assert_eq!(count(&bytes("4e"), true) + count(&bytes("4dff"), true) + count(&bytes("4c"), true), 0);
    }

    #[test]
    fn agrees_with_the_bitcoin_crate_on_random_scripts() {
        let mut state = 7u64;
        for _ in 0..2_000 {
            let script: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    b"\x01\x02\x4c\x4d\x51\x53\x60\x61\xac\xad\xae\xaf\xb0\x00"[(state >> 33) as usize % 14]
                })
                .collect();
            assert_eq!(count(&script, false), Script::from_bytes(&script).count_sigops_legacy() as u64);
        }
    }

    #[test]
    fn an_input_shows_what_it_spends() {
        let key = [2u8; 33];
        let sig = signature();
        let multisig = bytes("52ae");
        assert_eq!(guess(&[], &[&sig, &key]), 1, "P2WPKH");
        assert_eq!(guess(&[], &[&[], &sig, &multisig]), 2, "P2WSH");
        assert_eq!(guess(&[], &[&[7; 64]]), 0, "taproot key path");
        assert_eq!(guess(&[], &[&[0xac; 64]]), 0, "a Schnorr signature is not a script");
        assert_eq!(guess(&[], &[&[7; 64], &[0x50, 0xac]]), 0, "taproot key path with annex");
        assert_eq!(guess(&[], &[&[7; 64], &bytes("ac"), &[0xc0; 33]]), 0, "taproot script path");
        assert_eq!(guess(&[], &[&bytes("acac")]), 2, "P2WSH of a script without arguments");

        let nested_key = [&bytes("160014")[..], &[9; 20]].concat();
        let nested_script = [&bytes("220020")[..], &[9; 32]].concat();
        assert_eq!(guess(&nested_key, &[&sig, &key]), 1, "P2SH-P2WPKH");
        assert_eq!(guess(&nested_script, &[&[], &multisig]), 2, "P2SH-P2WSH");

        let p2pkh = [&[71], &sig[..], &[33], &key].concat();
        assert_eq!(guess(&p2pkh, &[]), 0, "P2PKH");
        assert_eq!(guess(&[&[0, 71], &sig[..]].concat(), &[]), 0, "bare multisig");
        assert_eq!(guess(&[&[0, 71], &sig[..], &[2], &multisig].concat(), &[]), 8, "P2SH");
        assert_eq!(guess(&[], &[]), 0, "anyone can spend");
    }
}
