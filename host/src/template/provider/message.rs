//! What a Template Provider sends, as values that were checked for form: nothing borrowed, nothing believed.
//!
//! Source: Stratum V2 specification, 07 Template Distribution Protocol. The structs on the wire are SRI's.

use super::super::{CoinbaseFrame, SourceError, coinbase, future_tip};
use crate::{dial::words, reason::Reason};
use bitcoin::{
    Amount, BlockHash, CompactTarget, ScriptBuf, Sequence, TxOut, absolute::LockTime, block,
    consensus::Decodable, hashes::Hash, transaction,
};
use common_messages_sv2::MESSAGE_TYPE_RECONNECT;
use parsers_sv2::TemplateDistribution;
use template_distribution_sv2::{
    MESSAGE_TYPE_COINBASE_OUTPUT_CONSTRAINTS, MESSAGE_TYPE_SUBMIT_SOLUTION, NewTemplate, SetNewPrevHash,
};

/// Most bytes that a Template Provider may prescribe at the beginning of the coinbase's script.
const MAX_PREFIX: usize = 8;
/// Hashes in the merkle path of the largest block.
const MAX_PATH: usize = 17;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// NewTemplate.
    Offer(Box<Offer>),
    /// SetNewPrevHash.
    Tip(NewTip),
    /// RequestTransactionData.Success.
    Transactions {
        /// Of which template.
        id: u64,
        /// Each as the network serializes it.
        list: Vec<Vec<u8>>,
    },
    /// RequestTransactionData.Error.
    Refused {
        /// Of which template.
        id: u64,
        /// The error code, printable.
        code: String,
    },
    /// Reconnect: it will close the connection.
    Reconnect,
    /// Something that this version of the protocol does not have.
    Unknown,
}

/// A template without its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its number.
    pub id: u64,
    /// It is for a tip that is still to be told.
    pub future: bool,
    /// Header version.
    pub version: block::Version,
    /// Height of the block, which the coinbase prefix begins with (BIP 34).
    pub height: u32,
    /// What the coinbase must be like.
    pub coinbase: CoinbaseFrame,
    /// Hashes from the coinbase's txid to the merkle root, bottom up, internal byte order.
    pub merkle_path: Vec<[u8; 32]>,
}

/// The tip of the chain, and what the block after it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTip {
    /// The future template that is for it.
    pub template_id: u64,
    /// Its hash.
    pub hash: BlockHash,
    /// Header time to begin with, Unix seconds; not the smallest that is allowed.
    pub time: u32,
    /// Compact target of the next block.
    pub bits: CompactTarget,
    /// The target in full, big-endian.
    pub target: [u8; 32],
}

/// Reads a message of the base protocol.
///
/// # Errors
/// `template_provider_protocol` for what does not decode, breaks a rule of form, or is not for a client.
pub fn read(msg_type: u8, payload: &mut [u8]) -> Result<Heard, SourceError> {
    use TemplateDistribution as Message;
    match msg_type {
        MESSAGE_TYPE_COINBASE_OUTPUT_CONSTRAINTS..=MESSAGE_TYPE_SUBMIT_SOLUTION => {}
        MESSAGE_TYPE_RECONNECT => return Ok(Heard::Reconnect),
        _ => return Ok(Heard::Unknown),
    }
    let message = Message::try_from((msg_type, payload)).map_err(|error| {
        nonsense(format!("message type 0x{msg_type:02x} does not decode: {}", words(format!("{error:?}"))))
    })?;
    Ok(match message {
        Message::NewTemplate(template) => Heard::Offer(Box::new(offer(&template)?)),
        Message::SetNewPrevHash(tip) => Heard::Tip(new_tip(&tip)?),
        Message::RequestTransactionDataSuccess(data) => Heard::Transactions {
            id: data.template_id,
            list: data.transaction_list.iter().map(|bytes| bytes.as_bytes().to_vec()).collect(),
        },
        Message::RequestTransactionDataError(error) => {
            Heard::Refused { id: error.template_id, code: words(error.error_code.as_utf8_or_hex()) }
        }
        Message::CoinbaseOutputConstraints(_)
        | Message::RequestTransactionData(_)
        | Message::SubmitSolution(_) => {
            return Err(nonsense(format!("message type 0x{msg_type:02x} is for servers")));
        }
    })
}

/// The provider broke the protocol.
pub(super) fn nonsense(detail: String) -> SourceError {
    SourceError { reason: Reason::TemplateProviderProtocol, detail }
}

fn offer(message: &NewTemplate<'_>) -> Result<Offer, SourceError> {
    let id = message.template_id;
    let prefix = message.coinbase_prefix.as_bytes();
    if prefix.len() > MAX_PREFIX {
        let detail =
            format!("template {id}: a coinbase prefix of {} bytes; at most 8 are allowed", prefix.len());
        return Err(nonsense(detail));
    }
    let height = coinbase::bip34_height(prefix).ok_or_else(|| {
        nonsense(format!("template {id}: the coinbase prefix does not begin with a height"))
    })?;
    let path = message.merkle_path.iter();
    if path.len() > MAX_PATH {
        return Err(nonsense(format!("template {id}: a merkle path of {} hashes", path.len())));
    }
    Ok(Offer {
        id,
        future: message.future_template,
        version: block::Version::from_consensus(message.version.cast_signed()),
        height,
        coinbase: CoinbaseFrame {
            version: transaction::Version(message.coinbase_tx_version.cast_signed()),
            script_start: ScriptBuf::from_bytes(prefix.to_vec()),
            sequence: Sequence(message.coinbase_tx_input_sequence),
            value: Amount::from_sat(message.coinbase_tx_value_remaining),
            outputs: outputs(message)?,
            lock_time: LockTime::from_consensus(message.coinbase_tx_locktime),
        },
        merkle_path: path.map(|hash| *hash.as_array()).collect(),
    })
}

/// The outputs stand one behind the other, without their number.
fn outputs(message: &NewTemplate<'_>) -> Result<Vec<TxOut>, SourceError> {
    let (id, count) = (message.template_id, message.coinbase_tx_outputs_count);
    let mut rest = message.coinbase_tx_outputs.as_bytes();
    let mut outputs = Vec::new();
    while !rest.is_empty() {
        outputs.push(TxOut::consensus_decode(&mut rest).map_err(|error| {
            nonsense(format!("template {id}: its coinbase outputs do not parse: {error}"))
        })?);
    }
    if outputs.len() != count as usize {
        let detail = format!("template {id}: {} coinbase outputs, announced were {count}", outputs.len());
        return Err(nonsense(detail));
    }
    Ok(outputs)
}

fn new_tip(message: &SetNewPrevHash<'_>) -> Result<NewTip, SourceError> {
    let hash = BlockHash::from_byte_array(*message.prev_hash.as_array());
    if hash == future_tip() {
        return Err(nonsense(format!("no block can have the hash {hash}")));
    }
    // Little-endian on the wire.
    let mut target = *message.target.as_array();
    target.reverse();
    Ok(NewTip {
        template_id: message.template_id,
        hash,
        time: message.header_timestamp,
        bits: CompactTarget::from_consensus(message.n_bits),
        target,
    })
}
