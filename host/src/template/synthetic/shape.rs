//! How a row looks: what kind of output it spends, its own outputs, and the padding that makes its
//! weight exactly the one asked for.

use super::{
    SyntheticError,
    rows::{Plan, RowTable, wrong},
};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, VarInt, WPubkeyHash, Witness,
    absolute::LockTime,
    hashes::Hash,
    opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_RETURN},
    script::{Builder, PushBytesBuf},
    transaction::Version,
};

/// Weight of an ordinary payment: one P2WPKH input, two P2WPKH outputs. WU.
const PAYMENT_WEIGHT: u64 = 561;
/// The heaviest block, WU.
const MAX_WEIGHT: u64 = 4_000_000;
/// What an ordinary output pays, satoshi.
pub(super) const PAYMENT: u64 = 50_000;

/// The kind of output that an input spends, which decides what its sigops are.
#[derive(Clone)]
pub(super) enum Kind {
    /// 1 sigop.
    P2wpkh,
    /// None, with witness.
    P2tr,
    /// As many as the script has.
    P2wsh(ScriptBuf),
    /// None, without witness: P2SH of OP_TRUE.
    P2sh,
}

/// The redeem script of [`Kind::P2sh`], and the push of it.
const OP_TRUE: u8 = 0x51;
const REDEEM_PUSH: [u8; 2] = [1, OP_TRUE];

impl Kind {
    pub(super) fn of(row: &RowTable) -> Self {
        match (row.segwit, row.sigops.unwrap_or(1)) {
            (false, _) => Self::P2sh,
            (true, 0) => Self::P2tr,
            (true, 1) => Self::P2wpkh,
            (true, count) => Self::P2wsh(sigop_script(count)),
        }
    }

    pub(super) fn script_pubkey(&self) -> ScriptBuf {
        match self {
            Self::P2wpkh => payment_script(),
            Self::P2tr => taproot_script(),
            Self::P2wsh(script) => ScriptBuf::new_p2wsh(&script.wscript_hash()),
            Self::P2sh => ScriptBuf::new_p2sh(&ScriptBuf::from_bytes(vec![OP_TRUE]).script_hash()),
        }
    }

    /// The element that a witness ends with.
    fn last_element(&self) -> Option<Vec<u8>> {
        match self {
            Self::P2wpkh => Some([&[2][..], &[7; 32]].concat()),
            Self::P2wsh(script) => Some(script.to_bytes()),
            Self::P2tr | Self::P2sh => None,
        }
    }
}

/// A script of this many sigops, counted as scripts without a number before OP_CHECKMULTISIG are: 20.
fn sigop_script(count: u64) -> ScriptBuf {
    let many = std::iter::repeat_n(OP_CHECKMULTISIG, (count / 20) as usize);
    let single = std::iter::repeat_n(OP_CHECKSIG, (count % 20) as usize);
    many.chain(single).fold(Builder::new(), Builder::push_opcode).into_script()
}

fn payment_script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]))
}

fn taproot_script() -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x51, 0x20][..], &[7; 32]].concat())
}

/// How a row looks, apart from what it spends and from the values of what others spend of it.
pub(super) struct Shape {
    /// Outputs that are spent nowhere.
    pub(super) payments: usize,
    /// Sigops in an output of their own, each costs 4.
    output_sigops: u64,
    /// Bytes of padding in the input.
    padding: usize,
    /// Where the length of the padding takes one byte more and steps over a weight: empty elements in
    /// the witness, or payments whose script is a byte longer.
    steps: usize,
}

impl Shape {
    pub(super) fn new(row: usize, rows: &[&RowTable], plan: &Plan) -> Result<Self, SyntheticError> {
        let table = rows[row];
        let padding = match (&plan.kinds[row], table.segwit) {
            (_, false) => 106,
            (Kind::P2tr, true) => 64,
            (_, true) => 71,
        };
        let output_sigops = output_sigops(row, table, &plan.kinds[row])?;
        let mut shape = Self { payments: 2, output_sigops, padding, steps: 0 };
        if table.repeats.is_some() {
            return Ok(shape);
        }
        let natural = shape.weight(row, table, plan);
        let weight = match table.weight {
            None if !table.segwit || natural >= PAYMENT_WEIGHT => return Ok(shape),
            None => PAYMENT_WEIGHT,
            Some(weight) => weight,
        };
        let other_outputs = plan.children[row].len() as u64 + output_sigops + u64::from(table.data.is_some());
        let must_pay = table.taproot || plan.shared[row] || other_outputs == 0;
        for payments in (usize::from(must_pay)..=2).rev() {
            let most_steps = if table.segwit { 2 } else { payments };
            for steps in 0..=most_steps {
                (shape.payments, shape.steps, shape.padding) = (payments, steps, 0);
                let without = shape.weight(row, table, plan);
                if let Some(padding) = shape.padding(without, weight, table.segwit) {
                    shape.padding = padding;
                    return Ok(shape);
                }
            }
        }
        (shape.payments, shape.steps, shape.padding) = (usize::from(must_pay), 0, 0);
        let least = shape.weight(row, table, plan);
        wrong(
            row,
            match weight {
                _ if weight < least => format!(
                    "a weight of {weight} cannot be reached: with outputs and sigops it weighs {least} at least"
                ),
                _ if weight > MAX_WEIGHT => format!(
                    "a weight of {weight} cannot be reached: no block has room for more than {MAX_WEIGHT}"
                ),
                _ if !table.segwit && !weight.is_multiple_of(4) => format!(
                    "a weight of {weight} cannot be reached: without witness data it is a multiple of 4"
                ),
                _ => format!("a weight of {weight} cannot be reached exactly; take a slightly different one"),
            },
        )
    }

    /// The padding that makes up the difference between the weight without and the weight wanted.
    fn padding(&self, without: u64, wanted: u64, segwit: bool) -> Option<usize> {
        let missing = wanted.checked_sub(without).filter(|_| wanted <= MAX_WEIGHT)?;
        let (unit, before) = if segwit { (1, 0) } else { (4, REDEEM_PUSH.len()) };
        let missing = missing.is_multiple_of(unit).then(|| (missing / unit) as usize)?;
        let length = |bytes: usize| VarInt::from(before + bytes).size() + bytes;
        let candidates = [0, 2, 4].map(|longer| missing.checked_sub(longer));
        candidates.into_iter().flatten().find(|bytes| length(*bytes) - length(0) == missing)
    }

    fn weight(&self, row: usize, table: &RowTable, plan: &Plan) -> u64 {
        self.transaction(row, table, plan).weight().to_wu()
    }

    /// The transaction, but for what it spends and for the values of outputs that others spend.
    pub(super) fn transaction(&self, row: usize, table: &RowTable, plan: &Plan) -> Transaction {
        let output = |value, script_pubkey| TxOut { value: Amount::from_sat(value), script_pubkey };
        let spenders = plan.children[row].iter().filter_map(|spenders| spenders.first());
        let mut outputs: Vec<_> =
            spenders.map(|spender| output(0, plan.kinds[*spender].script_pubkey())).collect();
        let longer = if table.segwit { 0 } else { self.steps };
        for payment in 0..self.payments {
            let script = match payment {
                0 if table.taproot => taproot_script(),
                _ if self.payments - payment <= longer => Kind::P2sh.script_pubkey(),
                _ => payment_script(),
            };
            outputs.push(output(PAYMENT, script));
        }
        if self.output_sigops > 0 {
            outputs.push(output(0, sigop_script(self.output_sigops)));
        }
        if let Some(data) = &table.data {
            let data = PushBytesBuf::try_from(data.clone()).unwrap_or_default();
            outputs.push(output(0, Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script()));
        }
        let (mut script_sig, mut witness) = (ScriptBuf::new(), Witness::new());
        if table.segwit {
            witness.push(vec![0x30; self.padding]);
            (0..self.steps).for_each(|_| witness.push([]));
            plan.kinds[row].last_element().into_iter().for_each(|element| witness.push(element));
        } else {
            // Empty pushes, a byte each.
            script_sig = ScriptBuf::from_bytes([&vec![0; self.padding][..], &REDEEM_PUSH].concat());
        }
        let sequence = match (table.sequence, table.rbf) {
            (Some(sequence), _) => Sequence(sequence),
            (None, true) => Sequence::ENABLE_RBF_NO_LOCKTIME,
            (None, false) if table.lock_time != 0 => Sequence::ENABLE_LOCKTIME_NO_RBF,
            (None, false) => Sequence::MAX,
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(table.lock_time),
            input: vec![TxIn { previous_output: OutPoint::null(), script_sig, sequence, witness }],
            output: outputs,
        }
    }
}

/// The sigops that outputs have to bring, beyond those of the input.
fn output_sigops(row: usize, table: &RowTable, kind: &Kind) -> Result<u64, SyntheticError> {
    let Some(wanted) = table.sigops else { return Ok(0) };
    let input = match kind {
        Kind::P2wpkh => 1,
        Kind::P2wsh(script) if table.segwit => script.count_sigops() as u64,
        _ => 0,
    };
    match wanted.checked_sub(input) {
        Some(rest) if rest.is_multiple_of(4) => Ok(rest / 4),
        _ => wrong(
            row,
            format!(
                "a sigop cost of {wanted} cannot be reached: what it spends costs {input}, and every sigop in an \
                 output costs 4 (with `segwit`, and without `double_spends`, every number can be reached)"
            ),
        ),
    }
}
