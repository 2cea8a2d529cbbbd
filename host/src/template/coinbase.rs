//! The coinbase of a template: planned from the operator's wishes, or given whole by whoever made the
//! template. It is part of the template, so that what was judged is what is mined.
//!
//! The only thing that changes afterwards is the extranonce: [`EXTRANONCE_LEN`] bytes in the script,
//! zeros here. A planned coinbase is: BIP 34 height, tag, extranonce as a push; one output that takes
//! everything, or several that share it; the witness commitment as the last output.

use super::{TemplateError, facts::WITNESS_COMMITMENT_PREFIX, sigops};
use bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    absolute::LockTime,
    consensus::encode,
    script::{Builder, PushBytesBuf},
    transaction::Version,
};
use serde::{Deserialize, Serialize};

/// Bytes of extranonce in every coinbase: prefix chosen by the gateway, the rest by the miner.
pub const EXTRANONCE_LEN: usize = 20;
/// What nodes leave for a coinbase at least, by default, WU: Bitcoin Core reserves 4,000 (8,000 since 29.0) for
/// it, the header and the number of transactions.
pub const RESERVED_WEIGHT: u32 = 4_000 - 4 * (80 + 3);
/// The same of sigop cost (BIP 141).
pub const RESERVED_SIGOPS: u32 = 400;
/// Consensus limit on the coinbase's scriptSig, bytes.
const MAX_SCRIPT_LEN: usize = 100;
/// Bytes of a commitment output's script that count; what follows has no meaning yet (BIP 141).
pub(super) const COMMITMENT_LEN: usize = 38;
/// Weight of marker, flag, and a witness of one element of 32 bytes (BIP 141), which the stripped
/// coinbase does not show.
const WITNESS_WEIGHT: usize = 2 + 1 + 1 + 32;

/// What the operator wants in the coinbase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoinbaseSpec {
    /// Where subsidy and fees go.
    pub payout: Payout,
    /// Put into the script for people to recognise the pool by. May be empty.
    pub tag: String,
}

/// Who is paid by a planned coinbase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Payout {
    /// One script takes everything.
    All(ScriptBuf),
    /// Each takes its parts of the sum of all parts; what rounding leaves over goes to the first.
    Shared(Vec<Share>),
}

/// One of several who are paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Where to.
    pub script: ScriptBuf,
    /// How many parts.
    pub parts: u32,
}

impl From<ScriptBuf> for Payout {
    fn from(script: ScriptBuf) -> Self {
        Self::All(script)
    }
}

impl Payout {
    /// The outputs that pay out `value`, all of it.
    pub fn outputs(&self, value: Amount) -> Vec<TxOut> {
        let shares = match self {
            Self::All(script) => return vec![TxOut { value, script_pubkey: script.clone() }],
            Self::Shared(shares) => shares,
        };
        let all: u128 = shares.iter().map(|share| u128::from(share.parts)).sum();
        let part = |share: &Share| u128::from(value.to_sat()) * u128::from(share.parts) / all.max(1);
        let mut outputs: Vec<TxOut> = shares
            .iter()
            .map(|share| TxOut {
                // No more than the whole, which is a u64.
                value: Amount::from_sat(u64::try_from(part(share)).unwrap_or_default()),
                script_pubkey: share.script.clone(),
            })
            .collect();
        let paid: u64 = outputs.iter().map(|output| output.value.to_sat()).sum();
        if let Some(first) = outputs.first_mut() {
            first.value += Amount::from_sat(value.to_sat().saturating_sub(paid));
        }
        outputs
    }
}

/// What somebody else prescribes of a coinbase that we finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoinbaseFrame {
    /// Transaction version.
    pub version: Version,
    /// What the scriptSig begins with: the height (BIP 34), and perhaps more.
    pub script_start: ScriptBuf,
    /// Sequence number of the input.
    pub sequence: Sequence,
    /// What our outputs share among them.
    pub value: Amount,
    /// Outputs that stand behind ours.
    pub outputs: Vec<TxOut>,
    /// Lock time.
    pub lock_time: LockTime,
}

/// The coinbase as a source declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CoinbaseParts {
    /// To be planned by us: it pays the declared coinbase value and commits to what the transactions
    /// really are.
    Planned(CoinbaseSpec),
    /// Made by somebody else.
    Whole {
        /// The transaction as the network serializes it; its witness, if any, is left out.
        #[serde(with = "super::record::hex_bytes")]
        transaction: Vec<u8>,
        /// Where in the scriptSig the extranonce begins. Whether there is room for one shows when a
        /// job is made ([`Coinbase::split`]); a template can be judged without.
        extranonce_at: usize,
    },
}

/// The coinbase of a template, with what was derived from it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coinbase {
    /// Without witness (BIP 141 stripped), with zeros as extranonce.
    pub transaction: Transaction,
    /// Where in the scriptSig the extranonce begins.
    pub extranonce_at: usize,
    /// The height that the script begins with (BIP 34), if it is pushed as consensus wants it.
    pub height: Option<u32>,
    /// Weight with the witness that it will have: the reserved value of 32 zero bytes (BIP 141). WU.
    pub weight: u32,
    /// Sigop cost (BIP 141).
    pub sigops: u32,
    /// Address of each output on the template's network, where its script has one.
    pub addresses: Vec<Option<String>>,
}

/// Why a coinbase cannot be planned, or no job can be made with it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoinbaseError {
    /// The script exceeds the consensus limit.
    #[error("the coinbase script would be {0} bytes long, more than 100: shorten [coinbase] tag")]
    ScriptTooLong(usize),
    /// The tag cannot be pushed.
    #[error("[coinbase] tag is too long to be pushed in a script")]
    TagTooLong,
    /// The extranonce does not lie inside the script.
    #[error(
        "the coinbase script has {len} bytes and cannot be cut at {at} for an extranonce of 20 bytes: whoever \
         made the coinbase must leave room for it"
    )]
    NoExtranonce {
        /// Where it should begin.
        at: usize,
        /// Bytes of the script.
        len: usize,
    },
}

impl CoinbaseSpec {
    /// What the coinbase of a block takes at most: weight with its witness (WU), and sigop cost (BIP 141).
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn cost(&self) -> Result<(u32, u32), CoinbaseError> {
        // Heights of five bytes are thousands of years away.
        let commitment = ScriptBuf::from_bytes(vec![0x6a; COMMITMENT_LEN]);
        let (transaction, _) = self.plan(0x7f_ffff, Amount::MAX_MONEY, commitment)?;
        Ok(cost(&transaction))
    }

    /// The coinbase of a block at `height` that pays out `value`, witness stripped, and where in its
    /// script the extranonce begins. `commitment` is the script of the commitment output.
    ///
    /// # Errors
    /// When the tag does not fit into the script.
    pub fn plan(
        &self,
        height: u32,
        value: Amount,
        commitment: ScriptBuf,
    ) -> Result<(Transaction, usize), CoinbaseError> {
        self.plan_within(&CoinbaseFrame {
            version: Version::TWO,
            script_start: Builder::new().push_int(i64::from(height)).into_script(),
            sequence: Sequence::MAX,
            value,
            outputs: vec![TxOut { value: Amount::ZERO, script_pubkey: commitment }],
            lock_time: LockTime::ZERO,
        })
    }

    /// The same around what somebody else prescribes.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_within(&self, frame: &CoinbaseFrame) -> Result<(Transaction, usize), CoinbaseError> {
        let mut script = frame.script_start.clone();
        if !self.tag.is_empty() {
            let tag = PushBytesBuf::try_from(self.tag.clone().into_bytes());
            script.push_slice(tag.map_err(|_| CoinbaseError::TagTooLong)?);
        }
        // As a push: consensus counts signature operations in this script, too, and random bytes may
        // look like some.
        script.push_slice([0; EXTRANONCE_LEN]);
        if script.len() > MAX_SCRIPT_LEN {
            return Err(CoinbaseError::ScriptTooLong(script.len()));
        }
        let extranonce_at = script.len() - EXTRANONCE_LEN;
        let input = TxIn {
            previous_output: OutPoint::null(),
            script_sig: script,
            sequence: frame.sequence,
            witness: Witness::new(),
        };
        let (version, lock_time) = (frame.version, frame.lock_time);
        let output = self.outputs(frame.value).into_iter().chain(frame.outputs.clone()).collect();
        Ok((Transaction { version, lock_time, input: vec![input], output }, extranonce_at))
    }

    /// The outputs that pay `value` out.
    fn outputs(&self, value: Amount) -> Vec<TxOut> {
        self.payout.outputs(value)
    }

    /// What whoever chooses the transactions must leave room for: the serialized length of those outputs,
    /// bytes, and their sigop cost (BIP 141).
    pub fn reserved(&self) -> (usize, u64) {
        let outputs = self.outputs(Amount::ZERO);
        let sigops = outputs.iter().map(|output| sigops::count(output.script_pubkey.as_bytes(), false));
        (outputs.iter().map(TxOut::size).sum(), 4 * sigops.sum::<u64>())
    }
}

impl CoinbaseParts {
    /// A coinbase that exists already, if the last thing its script pushes is as long as an extranonce.
    pub fn of(coinbase: &Transaction) -> Option<Self> {
        let script = coinbase.input.first()?.script_sig.as_bytes();
        let at = script.len().checked_sub(EXTRANONCE_LEN)?;
        let last = coinbase.input[0].script_sig.instructions().last()?.ok()?;
        last.push_bytes().filter(|bytes| bytes.len() == EXTRANONCE_LEN)?;
        Some(Self::Whole { transaction: encode::serialize(coinbase), extranonce_at: at })
    }

    /// Parses or plans it, and derives its facts. `value` is what it may pay out, satoshi; `commitment`
    /// the script of the commitment output.
    pub(super) fn assemble(
        &self,
        height: u32,
        value: u64,
        commitment: ScriptBuf,
        network: Network,
    ) -> Result<Coinbase, TemplateError> {
        let impossible = |detail: String| TemplateError::impossible("coinbase", detail);
        let (transaction, extranonce_at) = match self {
            Self::Planned(spec) => spec
                .plan(height, Amount::from_sat(value), commitment)
                .map_err(|error| impossible(error.to_string()))?,
            Self::Whole { transaction, extranonce_at } => {
                (parse(transaction, *extranonce_at)?, *extranonce_at)
            }
        };
        let paid =
            transaction.output.iter().map(|output| output.value.to_sat()).try_fold(0, u64::checked_add);
        if paid.is_none_or(|paid| paid > Amount::MAX_MONEY.to_sat()) {
            return Err(impossible("pays more than 21 million bitcoin".to_owned()));
        }
        let (weight, sigops) = cost(&transaction);
        let address = |output: &TxOut| Address::from_script(&output.script_pubkey, network).ok();
        Ok(Coinbase {
            height: bip34_height(transaction.input[0].script_sig.as_bytes()),
            weight,
            sigops,
            addresses: transaction.output.iter().map(|o| address(o).map(|a| a.to_string())).collect(),
            transaction,
            extranonce_at,
        })
    }
}

/// Weight of a stripped coinbase once it has its witness, WU, and its sigop cost.
fn cost(coinbase: &Transaction) -> (u32, u32) {
    let narrow = |cost: u64| u32::try_from(cost).unwrap_or(u32::MAX);
    (narrow((4 * coinbase.base_size() + WITNESS_WEIGHT) as u64), narrow(sigops::legacy_cost(coinbase)))
}

/// A coinbase in its stripped form, with zeros where the extranonce goes.
fn parse(bytes: &[u8], extranonce_at: usize) -> Result<Transaction, TemplateError> {
    let mut coinbase: Transaction = encode::deserialize(bytes)
        .map_err(|e| TemplateError::Undecodable { field: "coinbase".to_owned(), detail: e.to_string() })?;
    if !coinbase.is_coinbase() || coinbase.output.is_empty() {
        let detail = "is none: it must have one input that spends nothing, and an output";
        return Err(TemplateError::impossible("coinbase", detail));
    }
    let input = &mut coinbase.input[0];
    input.witness.clear();
    let end = extranonce_at.saturating_add(EXTRANONCE_LEN);
    let mut script = std::mem::take(&mut input.script_sig).into_bytes();
    if let Some(extranonce) = script.get_mut(extranonce_at..end) {
        extranonce.fill(0);
    }
    input.script_sig = ScriptBuf::from_bytes(script);
    Ok(coinbase)
}

/// The height that a coinbase script begins with, if it is the one encoding that consensus accepts.
pub(super) fn bip34_height(script: &[u8]) -> Option<u32> {
    let height = match script {
        [0, ..] => 0,
        [opcode @ 0x51..=0x60, ..] => u32::from(opcode - 0x50),
        [len @ 1..=5, rest @ ..] => {
            let digits = rest.get(..usize::from(*len))?;
            let value = digits.iter().rev().fold(0u64, |value, digit| value << 8 | u64::from(*digit));
            u32::try_from(value).ok()?
        }
        _ => return None,
    };
    let expected = Builder::new().push_int(i64::from(height)).into_script();
    script.starts_with(expected.as_bytes()).then_some(height)
}

impl Coinbase {
    /// Bytes before and after the extranonce, witness stripped, as SV2 sends them.
    ///
    /// # Errors
    /// When the extranonce does not lie inside the script, or the script is longer than consensus allows.
    pub fn split(&self) -> Result<(Vec<u8>, Vec<u8>), CoinbaseError> {
        let len = self.transaction.input[0].script_sig.len();
        if self.extranonce_at.checked_add(EXTRANONCE_LEN).is_none_or(|end| end > len) {
            return Err(CoinbaseError::NoExtranonce { at: self.extranonce_at, len });
        }
        if len > MAX_SCRIPT_LEN {
            return Err(CoinbaseError::ScriptTooLong(len));
        }
        // version (4), input count (1), null outpoint (36), script length (1, since it is at most 100)
        let cut = 4 + 1 + 36 + 1 + self.extranonce_at;
        let mut prefix = encode::serialize(&self.transaction);
        let suffix = prefix.split_off(cut + EXTRANONCE_LEN);
        prefix.truncate(cut);
        Ok((prefix, suffix))
    }
}

/// The script of the output that commits to the witnesses: the last one of that form (BIP 141).
pub(super) fn commitment_script(coinbase: &Transaction) -> Option<&ScriptBuf> {
    let scripts = coinbase.output.iter().map(|output| &output.script_pubkey);
    scripts.rev().find(|script| {
        script.len() >= COMMITMENT_LEN && script.as_bytes().starts_with(&WITNESS_COMMITMENT_PREFIX)
    })
}

/// Puts the witness reserved value (32 zero bytes, BIP 141) back into a stripped coinbase.
pub(crate) fn restore_witness(coinbase: &mut Transaction) {
    for input in &mut coinbase.input {
        input.witness = Witness::from_slice(&[[0u8; 32]]);
    }
}
