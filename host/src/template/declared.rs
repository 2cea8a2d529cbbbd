//! What a source says about a template, before anybody believes it, and why it may not be believed.
//!
//! Every source speaks its own language (JSON over HTTP, binary messages, memory); all of them end in a
//! [`Declared`]: raw transactions, header fields, and whatever the source claims about them. The one
//! way on is [`assemble`](super::facts::assemble), which yields a template, with a list of what was
//! declared wrongly, or a [`TemplateError`] where there is nothing to judge.

use super::{CoinbaseParts, CoinbaseSpec, Provenance, SourceError, coinbase, record};
use crate::reason::Reason;
use bitcoin::{
    Block, BlockHash, CompactTarget, Network, ScriptBuf, TxOut, Txid, Wtxid, block::Version, consensus,
};
use serde::{Deserialize, Serialize};

/// A template as its source describes it; nothing in it is believed yet. Its JSON form is that of
/// [`record`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The network it is for; decides the subsidy and the easiest target.
    pub network: Network,
    /// Who made it.
    pub provenance: Provenance,
    /// Height of the block it would become.
    pub height: u32,
    /// Block version.
    pub version: Version,
    /// The tip it builds on.
    pub previous_block_hash: BlockHash,
    /// Compact target.
    #[serde(with = "record::compact")]
    pub bits: CompactTarget,
    /// The target in full, big-endian as in `getblocktemplate`.
    #[serde(with = "record::hash")]
    pub target: Option<[u8; 32]>,
    /// Smallest header time the network accepts, Unix seconds.
    pub min_time: u32,
    /// The source's clock, Unix seconds.
    pub current_time: u32,
    /// Subsidy and fees together, satoshi.
    pub coinbase_value: u64,
    /// The coinbase.
    pub coinbase: CoinbaseParts,
    /// The hashes from the coinbase's txid to the merkle root, bottom up, internal byte order.
    #[serde(with = "record::path")]
    pub merkle_path: Option<Vec<[u8; 32]>>,
    /// Number of transactions, without the coinbase.
    pub transaction_count: Option<u32>,
    /// The source's idea of the commitment output's scriptPubKey (`default_witness_commitment`).
    pub witness_commitment_script: Option<ScriptBuf>,
    /// Transactions without coinbase, in block order.
    pub transactions: Vec<DeclaredTransaction>,
}

/// One transaction as its source describes it. What is `None` was not declared and is derived only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredTransaction {
    /// Network serialization with witness (BIP 144).
    #[serde(with = "record::hex_bytes")]
    pub bytes: Vec<u8>,
    /// Transaction id.
    pub txid: Option<Txid>,
    /// Witness transaction id (`hash` in BIP 145).
    pub wtxid: Option<Wtxid>,
    /// Weight, WU.
    pub weight: Option<u64>,
    /// Sigop cost (BIP 145). The source knows every spent output, so what it says is kept as long as
    /// it lies inside the bounds that the bytes set.
    pub sigops: Option<u64>,
    /// Fee, satoshi. Compared exactly where every spent output is known (created inside the template,
    /// or given in `spent`); for the others the coinbase value checks the sum. Where one is declared, it
    /// may be `None` only where it can be computed; a source that declares none (a Template Provider) leaves
    /// the others unknown.
    pub fee: Option<u64>,
    /// The outputs spent, in input order, where the source knows them and wants them checked. Of an
    /// output that the template creates, the template's own bytes count.
    pub spent: Option<Vec<TxOut>>,
}

/// Why a [`Declared`] is no [`Template`](super::Template).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Bytes that are no transaction.
    #[error("{field} does not parse as a transaction: {detail}")]
    Undecodable {
        /// Which bytes.
        field: String,
        /// What the parser said.
        detail: String,
    },
    /// No valid block can look like this.
    #[error("{field}: {detail}")]
    Impossible {
        /// Which field.
        field: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl TemplateError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Undecodable { .. } => Reason::TemplateUndecodable,
            Self::Impossible { .. } => Reason::TemplateSourceInvalid,
        }
    }

    pub(super) fn impossible(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Impossible { field: field.into(), detail: detail.into() }
    }
}

impl From<TemplateError> for SourceError {
    fn from(error: TemplateError) -> Self {
        Self { reason: error.reason(), detail: error.to_string() }
    }
}

impl Declared {
    /// The template that `block` was made from, as a node would have declared it: for replaying blocks
    /// of the chain. Fees are not in a block, hence they are given, one for each transaction behind the
    /// coinbase; `None` for a fee that can be computed.
    ///
    /// The block's own coinbase is kept where its script ends in an extranonce as this gateway makes
    /// them; otherwise one is planned that pays to the same first output.
    ///
    /// # Errors
    /// When the block has no coinbase, or none that begins with a height.
    pub fn from_block(
        block: &Block,
        network: Network,
        fees: impl IntoIterator<Item = Option<u64>>,
    ) -> Result<Self, TemplateError> {
        let no_height =
            || TemplateError::impossible("height", "the coinbase does not begin with it (BIP 34)");
        let (coinbase, others) = block.txdata.split_first().ok_or_else(no_height)?;
        let height = block.bip34_block_height().ok().and_then(|height| u32::try_from(height).ok());
        let values = coinbase.output.iter().map(|output| output.value.to_sat());
        let payout = coinbase.output.first().map(|output| output.script_pubkey.clone());
        let planned = || CoinbaseSpec { payout: payout.unwrap_or_default().into(), tag: String::new() };
        let mut fees = fees.into_iter();
        let transactions = others.iter().map(|tx| DeclaredTransaction {
            bytes: consensus::serialize(tx),
            fee: fees.next().flatten(),
            ..Default::default()
        });
        Ok(Self {
            network,
            provenance: Provenance::Node,
            height: height.ok_or_else(no_height)?,
            version: block.header.version,
            previous_block_hash: block.header.prev_blockhash,
            bits: block.header.bits,
            target: None,
            min_time: block.header.time,
            current_time: block.header.time,
            coinbase_value: values.fold(0, u64::saturating_add),
            coinbase: CoinbaseParts::of(coinbase).unwrap_or_else(|| CoinbaseParts::Planned(planned())),
            merkle_path: None,
            transaction_count: None,
            witness_commitment_script: coinbase::commitment_script(coinbase).cloned(),
            transactions: transactions.collect(),
        })
    }
}
