//! Templates made to order, for test cases: what the tables `[template]` and `[context]` of a case file
//! ask for, as real bytes that [`assemble`] derives exactly that from.
//!
//! What is not asked for is ordinary: a mainnet template at height 900,000 whose transactions are small
//! segwit payments, with a coinbase that pays everything to one address. Every lie is one that was asked
//! for, so a discrepancy in the assembled template is the one that the case is about.
//!
//! - here: header, coinbase, declarations, context
//! - [`rows`]: the transactions; `shape`: how large each is and why

mod rows;
mod shape;
#[cfg(test)]
mod tests;

pub use rows::{DeclaredRow, RowTable};

use super::{
    ChainTip, CoinbaseParts, CoinbaseSpec, Context, Declared, FeeRatePercentiles, MempoolState, Provenance,
    TemplateError,
    coinbase::EXTRANONCE_LEN,
    facts::{assemble, subsidy},
    record,
};
use bitcoin::{
    Address, Amount, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxOut, Witness,
    absolute::LockTime,
    address::NetworkUnchecked,
    block::Version,
    consensus::encode,
    hashes::Hash,
    script::{Builder, PushBytesBuf},
    transaction,
};
use serde::{Deserialize, Deserializer, de::Error};

/// Where a coinbase pays to when the case does not say.
const PAYOUT: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

/// The table `[template]` of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TemplateTable {
    /// "main", "test", "signet" or "regtest".
    #[serde(deserialize_with = "network")]
    pub network: Network,
    /// "node" or "declared".
    pub provenance: Provenance,
    /// Height of the block.
    pub height: u32,
    /// Block version, as in the header.
    pub version: u32,
    /// The tip it builds on.
    pub previous_block_hash: BlockHash,
    /// Compact target, eight hex digits.
    #[serde(with = "record::compact")]
    pub bits: CompactTarget,
    /// Smallest header time, Unix seconds.
    pub min_time: u32,
    /// The source's clock, Unix seconds.
    pub current_time: u32,
    /// Declared coinbase value, satoshi; subsidy and fees where left out.
    pub coinbase_value: Option<u64>,
    /// The transactions, in block order.
    pub transactions: Vec<RowTable>,
    /// Other things that are declared, rightly or wrongly.
    pub declared: DeclaredTable,
    /// The coinbase, where it is not the ordinary one.
    pub coinbase: CoinbaseTable,
}

impl Default for TemplateTable {
    fn default() -> Self {
        let mut previous = [0x11; 32];
        previous[28..].fill(0); // internal byte order: the zeros come first when it is shown
        Self {
            network: Network::Bitcoin,
            provenance: Provenance::Node,
            height: 900_000,
            version: 0x2000_0000,
            previous_block_hash: BlockHash::from_byte_array(previous),
            bits: CompactTarget::from_consensus(0x1703_a30c),
            min_time: 1_750_000_000,
            current_time: 1_750_000_600,
            coinbase_value: None,
            transactions: Vec::new(),
            declared: DeclaredTable::default(),
            coinbase: CoinbaseTable::default(),
        }
    }
}

/// What is declared about the template as a whole.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeclaredTable {
    /// The target, 32 bytes.
    pub target: Option<HexHash>,
    /// The merkle path of the coinbase, each hash in display order.
    #[serde(with = "record::path")]
    pub merkle_path: Option<Vec<[u8; 32]>>,
    /// Number of transactions.
    pub transaction_count: Option<u32>,
    /// The script of the witness commitment, or "none"; the right one where left out.
    pub witness_commitment: Option<Commitment>,
}

/// A declared witness commitment.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum Commitment {
    /// There is none.
    Missing,
    /// This script.
    Script(ScriptBuf),
}

impl TryFrom<String> for Commitment {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Missing);
        }
        let script = ScriptBuf::from_hex(&text);
        script
            .map(Self::Script)
            .map_err(|error| format!("{text:?} is neither \"none\" nor a script: {error}"))
    }
}

/// The coinbase of a case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoinbaseTable {
    /// The height that its script begins with (BIP 34).
    pub height: Option<u32>,
    /// The whole script, instead of height, tag and extranonce.
    pub script: Option<ScriptBuf>,
    /// Text that names the pool; empty for none.
    pub tag: Option<String>,
    /// The outputs, without the witness commitment.
    pub outputs: Option<Vec<OutputTable>>,
}

/// One output of the coinbase.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputTable {
    /// Satoshi; where left out, what the other outputs leave of the coinbase value.
    pub value: Option<u64>,
    /// Where it goes.
    pub address: Option<Address<NetworkUnchecked>>,
    /// The same as a script.
    pub script: Option<ScriptBuf>,
}

/// 32 bytes as hex, in the order they stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct HexHash(#[serde(with = "hex_hash")] pub [u8; 32]);

mod hex_hash {
    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let (text, mut bytes) = (String::deserialize(from)?, [0; 32]);
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|error| D::Error::custom(format_args!("{text:?} is not 32 bytes of hex: {error}")))?;
        Ok(bytes)
    }
}

fn network<'de, D: Deserializer<'de>>(from: D) -> Result<Network, D::Error> {
    let text = String::deserialize(from)?;
    Network::from_core_arg(&text).map_err(|_| {
        D::Error::custom(format_args!("{text:?} is not a network; write main, test, signet or regtest"))
    })
}

/// The table `[context]` of a case: what is left out is not known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContextTable {
    /// Unix seconds; the template's clock where left out.
    pub taken_at: Option<u64>,
    /// How long the gateway has the template, milliseconds.
    pub template_age_ms: u64,
    /// The block that our nodes build on.
    pub tip: Option<TipTable>,
    /// The mempool.
    pub mempool: Option<MempoolState>,
    /// Fee rates in the mempool.
    pub fee_rates: Option<FeeRatePercentiles>,
    /// The best template value of our nodes, satoshi.
    pub best_template_value: Option<u64>,
    /// Whether it is known which transactions our nodes know; they know all but the `unknown` ones.
    pub known: bool,
}

/// The tip of a case; what is left out agrees with the template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TipTable {
    /// Its hash.
    pub hash: Option<BlockHash>,
    /// Its height.
    pub height: Option<u32>,
    /// Compact target of the next block, eight hex digits.
    #[serde(with = "record::compact_option")]
    pub next_bits: Option<CompactTarget>,
}

/// Why a template cannot be made as asked.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// A row asks for what no transaction can be.
    #[error("transactions row {row}: {problem}")]
    Row {
        /// The row, counted from 0 with every `count` taken into account.
        row: usize,
        /// What, and what to do about it.
        problem: String,
    },
    /// The coinbase cannot be like that.
    #[error("coinbase: {0}")]
    Coinbase(String),
    /// It can be made, but there is nothing to judge.
    #[error("no gateway would make a template of this: {0}")]
    Template(#[from] TemplateError),
}

/// Makes what the tables ask for.
///
/// # Errors
/// [`SyntheticError`] names the row and what it asks too much of.
pub fn build(
    template: &TemplateTable,
    context: &ContextTable,
) -> Result<(Declared, Context), SyntheticError> {
    let (transactions, unknown) = rows::build(&template.transactions)?;
    let mut declared = Declared {
        network: template.network,
        provenance: template.provenance,
        height: template.height,
        version: Version::from_consensus(template.version.cast_signed()),
        previous_block_hash: template.previous_block_hash,
        bits: template.bits,
        target: template.declared.target.as_ref().map(|target| target.0),
        min_time: template.min_time,
        current_time: template.current_time,
        coinbase_value: 0,
        coinbase: CoinbaseParts::Planned(CoinbaseSpec {
            payout: default_payout()?.into(),
            tag: String::new(),
        }),
        merkle_path: template.declared.merkle_path.clone(),
        transaction_count: template.declared.transaction_count,
        witness_commitment_script: None,
        transactions,
    };
    // What the bytes say is needed for the rest, and nothing says it better than what will be asked later.
    let facts = assemble(&declared)?.facts;
    let value = subsidy(template.height, template.network) + facts.total_fees;
    declared.coinbase_value = template.coinbase_value.unwrap_or(value);
    declared.witness_commitment_script = match &template.declared.witness_commitment {
        None => Some(facts.witness_commitment_script()),
        Some(Commitment::Missing) => None,
        Some(Commitment::Script(script)) => Some(script.clone()),
    };
    declared.coinbase = coinbase(template, &declared)?;
    let context = surroundings(template, context, &unknown);
    Ok((declared, context))
}

fn default_payout() -> Result<ScriptBuf, SyntheticError> {
    let address = PAYOUT.parse::<Address<NetworkUnchecked>>();
    let address = address.map_err(|error| SyntheticError::Coinbase(error.to_string()))?;
    Ok(address.assume_checked().script_pubkey())
}

/// Planned where it is ordinary and our own, whole where the case says what is in it or a miner made it.
fn coinbase(template: &TemplateTable, declared: &Declared) -> Result<CoinbaseParts, SyntheticError> {
    let CoinbaseTable { height, script, tag, outputs } = &template.coinbase;
    let tag = tag.clone().unwrap_or_else(|| "/synthetic/".to_owned());
    let ordinary = height.is_none() && script.is_none() && outputs.is_none();
    if ordinary && template.provenance == Provenance::Node {
        return Ok(CoinbaseParts::Planned(CoinbaseSpec { payout: default_payout()?.into(), tag }));
    }
    let (script_sig, extranonce_at) = match script {
        // No bytes of it are an extranonce: it stays as it is.
        Some(script) => (script.clone(), script.len()),
        None => {
            let mut script =
                Builder::new().push_int(i64::from(height.unwrap_or(template.height))).into_script();
            if !tag.is_empty() {
                let tag = PushBytesBuf::try_from(tag.into_bytes());
                script.push_slice(tag.map_err(|error| SyntheticError::Coinbase(error.to_string()))?);
            }
            script.push_slice([0; EXTRANONCE_LEN]);
            let extranonce_at = script.len() - EXTRANONCE_LEN;
            (script, extranonce_at)
        }
    };
    let value = declared.coinbase_value;
    let mut output = match outputs {
        None => vec![TxOut { value: Amount::from_sat(value), script_pubkey: default_payout()? }],
        Some(outputs) => {
            let given = outputs.iter().filter_map(|output| output.value).fold(0, u64::saturating_add);
            let rest = value.saturating_sub(given);
            outputs
                .iter()
                .map(|output| {
                    let value = Amount::from_sat(output.value.unwrap_or(rest));
                    Ok(TxOut { value, script_pubkey: output_script(output, template.network)? })
                })
                .collect::<Result<_, SyntheticError>>()?
        }
    };
    let commitment = declared.witness_commitment_script.iter();
    output.extend(commitment.map(|script| TxOut { value: Amount::ZERO, script_pubkey: script.clone() }));
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    };
    Ok(CoinbaseParts::Whole { transaction: encode::serialize(&coinbase), extranonce_at })
}

fn output_script(output: &OutputTable, network: Network) -> Result<ScriptBuf, SyntheticError> {
    match (&output.address, &output.script) {
        (None, Some(script)) => Ok(script.clone()),
        (Some(address), None) => match address.clone().require_network(network) {
            Ok(address) => Ok(address.script_pubkey()),
            Err(_) => {
                let shown = address.clone().assume_checked();
                Err(SyntheticError::Coinbase(format!("outputs: the address {shown} is none of {network}")))
            }
        },
        _ => Err(SyntheticError::Coinbase("outputs: each needs an address or a script, and not both".into())),
    }
}

fn surroundings(template: &TemplateTable, table: &ContextTable, unknown: &[bool]) -> Context {
    Context {
        taken_at: table.taken_at.unwrap_or(u64::from(template.current_time)),
        template_age_ms: table.template_age_ms,
        tip: table.tip.as_ref().map(|tip| ChainTip {
            hash: tip.hash.unwrap_or(template.previous_block_hash),
            height: tip.height.unwrap_or(template.height.saturating_sub(1)),
            next_bits: tip.next_bits,
        }),
        mempool: table.mempool,
        fee_rates: table.fee_rates,
        mempool_age_ms: None,
        best_template_value: table.best_template_value,
        known: table.known.then(|| unknown.iter().map(|unknown| !unknown).collect()),
    }
}
