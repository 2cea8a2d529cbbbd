//! Block templates: where they come from and what is true about them.
//!
//! A source gives a [`Template`]: parsed once, with every heavy fact (txids, weights, sigops, merkle
//! path, witness commitment) derived from the bytes once. Everything downstream shares it behind an
//! `Arc` and never parses again. Where what the source *declares* and what its bytes *say* differ, the
//! bytes count, and the template carries the [`Discrepancy`] for policies to judge.
//!
//! - [`declared`]: what a source says, before it is believed
//! - [`coinbase`]: the coinbase, planned or declared, which is part of the template
//! - [`coinbase_only`]: templates without transactions, made by the gateway where the operator wants them
//! - [`discrepancy`]: differences between the two
//! - [`facts`]: what is derived from the bytes, and the only constructor of a template
//! - [`merkle`], [`sigops`]: the two parts of it that are ideas of their own
//! - [`best`]: the best that our nodes offered on a tip
//! - [`record`]: a template and its surroundings as JSON, to be judged again later
//! - [`synthetic`]: templates made to order, for test cases
//! - [`node`]: `getblocktemplate` over JSON-RPC from a Bitcoin node; [`answers`]: its words to a block
//! - [`provider`]: an SV2 Template Provider (Template Distribution protocol)
//! - [`chain`]: the embedded chain for demonstrations and tests

pub mod answers;
pub mod best;
pub mod chain;
pub mod coinbase;
pub mod coinbase_only;
mod context;
pub mod declared;
pub mod discrepancy;
pub mod facts;
mod gbt;
pub mod merkle;
pub mod node;
pub mod provider;
pub mod record;
mod rpc;
pub mod sigops;
mod spends;
pub mod synthetic;

use crate::reason::Reason;
use async_trait::async_trait;
use bitcoin::{
    Block, BlockHash, CompactTarget, Network, ScriptBuf, Transaction, TxMerkleNode, Work,
    block::{Header, Version},
    hashes::Hash,
};
pub use coinbase::{
    Coinbase, CoinbaseError, CoinbaseFrame, CoinbaseParts, CoinbaseSpec, Payout, RESERVED_SIGOPS,
    RESERVED_WEIGHT, Share,
};
pub use context::{ChainTip, Context, FeeRatePercentiles, MempoolState};
pub use declared::{Declared, DeclaredTransaction, TemplateError};
pub use discrepancy::{Discrepancy, DiscrepancyKind};
pub use facts::Facts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// What names a template: SHA-256 over everything that makes it this template and no other
/// (network, previous block, height, version, bits, times, coinbase value, provenance, coinbase,
/// witness commitment; txids, fees and sigops in order; discrepancies). Whatever a policy can see of a template is bound by it, so a verdict on
/// one digest is a verdict on one template.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateDigest(pub [u8; 32]);

impl fmt::Display for TemplateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TemplateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateDigest({self})")
    }
}

/// Who made a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Our own node.
    Node,
    /// A miner that declared it (Job Declaration).
    Declared,
    /// The gateway: a template without transactions, for when there is no other.
    Gateway,
}

/// One block template, parsed, with its facts. Fields are public to read; the only constructor is
/// [`facts::assemble`], which compares what was declared with the bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct Template {
    /// Its name.
    pub digest: TemplateDigest,
    /// The network it is for.
    pub network: Network,
    /// Who made it.
    pub provenance: Provenance,
    /// Height of the block it would become.
    pub height: u32,
    /// Block version.
    pub version: Version,
    /// The tip it builds on.
    pub previous_block_hash: BlockHash,
    /// Compact target ("nBits").
    pub bits: CompactTarget,
    /// Smallest header time the network accepts (median time past + 1), Unix seconds.
    pub min_time: u32,
    /// The source's clock when it made the template, Unix seconds.
    pub current_time: u32,
    /// What the coinbase may pay out, as declared: subsidy and fees if there is no discrepancy, satoshi.
    pub coinbase_value: u64,
    /// Block subsidy at this height, satoshi.
    pub subsidy: u64,
    /// The coinbase that will be mined, apart from the extranonce.
    pub coinbase: Coinbase,
    /// The transactions, without coinbase, in block order.
    pub transactions: Vec<Transaction>,
    /// What was derived from them.
    pub facts: Facts,
    /// Where what was declared is not what the bytes say: of the template as a whole first, then in
    /// block order.
    pub discrepancies: Vec<Discrepancy>,
}

/// What stands in a template for a tip that is not known yet: a hash that no block can have.
pub fn future_tip() -> BlockHash {
    BlockHash::from_byte_array([0xff; 32])
}

impl Template {
    /// It is for a tip that is not known yet.
    pub fn is_future(&self) -> bool {
        self.previous_block_hash == future_tip()
    }

    /// The gateway made it, without transactions.
    pub fn is_coinbase_only(&self) -> bool {
        self.provenance == Provenance::Gateway
    }

    /// This is what the future template became when its tip was there: the same in everything but what only
    /// the tip says, which is its hash and the times.
    pub fn activates(&self, future: &Template) -> bool {
        future.is_future()
            && !self.is_future()
            && self.height == future.height
            && facts::digest_as(self, future.previous_block_hash, future.min_time, future.current_time)
                == future.digest
    }

    /// The scriptPubKey of the coinbase output that carries the witness commitment (BIP 141).
    pub fn witness_commitment_script(&self) -> ScriptBuf {
        self.facts.witness_commitment_script()
    }

    /// The block that this template becomes with a coinbase and a solved header. The merkle root
    /// follows from the coinbase and the template's merkle path.
    pub fn to_block(&self, coinbase: Transaction, version: Version, time: u32, nonce: u32) -> Block {
        let root = merkle::root_from_path(coinbase.compute_txid().to_byte_array(), &self.facts.merkle_path);
        let header = Header {
            version,
            prev_blockhash: self.previous_block_hash,
            merkle_root: TxMerkleNode::from_byte_array(root),
            time,
            bits: self.bits,
            nonce,
        };
        let txdata = std::iter::once(coinbase).chain(self.transactions.iter().cloned()).collect();
        Block { header, txdata }
    }
}

/// The name of a network as the configuration writes it.
pub fn network_name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "mainnet",
        Network::Testnet => "testnet3",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}

/// A template with its surroundings, as a source hands it over.
#[derive(Clone, Debug)]
pub struct Sourced {
    /// What the source said, for records.
    pub declared: Arc<Declared>,
    /// The template that came of it.
    pub template: Arc<Template>,
    /// The surroundings, as far as the source knows them.
    pub context: Context,
    /// When the source gave it.
    pub received: Instant,
    /// The work in the chain up to the tip of `context`, where the source says it.
    pub tip_work: Option<Work>,
}

impl Sourced {
    /// A template that came just now.
    pub fn new(declared: Declared, template: Template, context: Context) -> Self {
        let (declared, template) = (Arc::new(declared), Arc::new(template));
        Self { declared, template, context, received: Instant::now(), tip_work: None }
    }

    /// Where its source stands: on the tip that it names beside the template, or else on the one that the
    /// template builds on. `None` for a tip that is still to come.
    pub fn place(&self) -> Option<Place> {
        if self.template.is_future() {
            return None;
        }
        Some(match self.context.tip {
            Some(tip) => Place { hash: tip.hash, height: tip.height, work: self.tip_work },
            None => Place {
                hash: self.template.previous_block_hash,
                height: self.template.height.saturating_sub(1),
                work: None,
            },
        })
    }
}

/// Where a source is on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Hash of its tip.
    pub hash: BlockHash,
    /// Height of its tip.
    pub height: u32,
    /// The work in the chain up to there, where the source says it.
    pub work: Option<Work>,
}

/// The tip of a source's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceTip {
    /// Its hash.
    pub hash: BlockHash,
    /// What the block after it must be like, as far as the source says it.
    pub next: Option<NextBlock>,
    /// Its height and the work up to it, where the source says them.
    pub place: Option<Place>,
}

impl SourceTip {
    /// A tip of which nothing but its hash is known.
    pub fn named(hash: BlockHash) -> Self {
        Self { hash, next: None, place: None }
    }
}

/// What a block must be like because of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextBlock {
    /// Its height.
    pub height: u32,
    /// Its compact target.
    pub bits: CompactTarget,
    /// Its smallest header time (median time past + 1), Unix seconds.
    pub min_time: u32,
}

/// What a source said to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// It is the source's new tip.
    Accepted,
    /// The source has it already and found it valid: the answer to an earlier delivery was lost, or it came
    /// by another way first.
    Known,
    /// It was refused; the source's own words (BIP 22).
    Rejected(String),
    /// It was handed to a source that gives no answer, and for a while its tip did not become this block; what
    /// was seen instead, in words.
    Unconfirmed(String),
}

/// Why a source could not do what was asked. Carries a reason code and words for people.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct SourceError {
    /// The code.
    pub reason: Reason,
    /// What happened, where, and what to do about it. Never a secret.
    pub detail: String,
}

/// Where templates come from and solved blocks go.
#[async_trait]
pub trait TemplateSource: Send + Sync {
    /// A name for people: kind and address, no secrets.
    fn name(&self) -> String;

    /// The current template at once when `after` is `None`; otherwise waits until there is another
    /// one than `after` (a new tip, or better content on the same tip), but at most about `patience`,
    /// and then answers `None`: "still the same".
    async fn next_template(
        &self,
        after: Option<TemplateDigest>,
        patience: Duration,
    ) -> Result<Option<Sourced>, SourceError>;

    /// The tip of the chain, in bounded time, where the source can say it without a template: for when it
    /// has one that cannot be used.
    async fn tip(&self) -> Result<Option<SourceTip>, SourceError> {
        Ok(None)
    }

    /// Whether every template counts, also one that has a newer one behind it: a replay is judged whole.
    fn gives_each(&self) -> bool {
        false
    }

    /// Delivers a solved block.
    async fn submit_block(&self, block: &Block) -> Result<SubmitOutcome, SourceError>;

    /// Asks whether a block would be valid but for its proof of work (BIP 23, proposal); `None` from a source
    /// that cannot say it. The rejection is in the source's own words.
    async fn propose(&self, _block: &Block) -> Result<Option<Result<(), String>>, SourceError> {
        Ok(None)
    }
}
