//! Jobs: an admitted template, its coinbase cut at the extranonce.
//!
//! One [`Job`] per admitted template, shared by every channel. What differs between channels is only
//! the extranonce: [`EXTRANONCE_LEN`] bytes inside the coinbase script, the same length everywhere
//! because the script's length stands before them. A channel's merkle root, and a solved block, are
//! computed from the job and those bytes. The coinbase itself is the template's: what was judged is what
//! is mined.

use crate::{
    gate::Admitted,
    template::{Template, coinbase, merkle},
};
use bitcoin::{
    Block, BlockHash, Target, Transaction, TxMerkleNode,
    block::{Header, Version},
    consensus::encode,
    hashes::{Hash, HashEngine, sha256d},
};
pub use coinbase::{CoinbaseError, EXTRANONCE_LEN};
use std::sync::OnceLock;

/// Work for miners: an admitted template with its coinbase in two parts.
#[derive(Debug)]
pub struct Job {
    /// Counts the jobs of this process, from 1.
    pub serial: u64,
    /// What it was made from.
    pub template: Admitted<Template>,
    /// Coinbase up to the extranonce, without witness (BIP 141 stripped), as SV2 sends it.
    pub coinbase_prefix: Vec<u8>,
    /// Coinbase after the extranonce, without witness.
    pub coinbase_suffix: Vec<u8>,
    /// Hashes at or below solve the block.
    pub network_target: Target,
    /// Serial of the future job that this one became, now that its tip is there: the same coinbase and
    /// transactions.
    pub ahead: Option<u64>,
    /// Room for what the job's message is for every channel alike, encoded once for all connections.
    pub(crate) encoded: OnceLock<Vec<u8>>,
}

impl Job {
    /// Makes the one job of an admitted template.
    ///
    /// # Errors
    /// When the template's coinbase cannot be cut at an extranonce, or its script is longer than consensus
    /// allows ([`CoinbaseError`]). Neither can happen to a coinbase that the gateway planned.
    pub fn new(template: Admitted<Template>, serial: u64) -> Result<Self, CoinbaseError> {
        let (coinbase_prefix, coinbase_suffix) = template.coinbase.split()?;
        let network_target = Target::from_compact(template.bits);
        let (ahead, encoded) = (None, OnceLock::new());
        Ok(Self { serial, template, coinbase_prefix, coinbase_suffix, network_target, ahead, encoded })
    }

    /// The merkle root for one full extranonce, internal byte order.
    pub fn merkle_root(&self, extranonce: &[u8; EXTRANONCE_LEN]) -> TxMerkleNode {
        let mut engine = sha256d::Hash::engine();
        engine.input(&self.coinbase_prefix);
        engine.input(extranonce);
        engine.input(&self.coinbase_suffix);
        let txid = sha256d::Hash::from_engine(engine).to_byte_array();
        TxMerkleNode::from_byte_array(merkle::root_from_path(txid, &self.template.facts.merkle_path))
    }

    /// The block header of a solution.
    pub fn header(&self, merkle_root: TxMerkleNode, version: u32, time: u32, nonce: u32) -> Header {
        Header {
            version: Version::from_consensus(version.cast_signed()),
            prev_blockhash: self.template.previous_block_hash,
            merkle_root,
            time,
            bits: self.template.bits,
            nonce,
        }
    }

    /// The whole block of a solution, with the coinbase's witness put back (BIP 141).
    ///
    /// # Errors
    /// Never for a job built by [`Job::new`]; the error names what did not parse.
    pub fn block(&self, header: Header, extranonce: &[u8; EXTRANONCE_LEN]) -> Result<Block, encode::Error> {
        let bytes = [&self.coinbase_prefix[..], extranonce, &self.coinbase_suffix[..]].concat();
        let mut coinbase: Transaction = encode::deserialize(&bytes)?;
        coinbase::restore_witness(&mut coinbase);
        Ok(self.template.to_block(coinbase, header.version, header.time, header.nonce))
    }

    /// The tip this job builds on.
    pub fn previous_block_hash(&self) -> BlockHash {
        self.template.previous_block_hash
    }
}
