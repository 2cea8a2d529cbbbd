//! The node behind the provider: its templates, and solved blocks for it.

use crate::node::Rpc;
use anyhow::{Context, Result};
use bitcoin::{
    Block, BlockHash, CompactTarget, Transaction, TxMerkleNode,
    block::{Header, Version},
    consensus::encode::{deserialize, deserialize_hex, serialize_hex},
    hashes::{Hash, sha256d},
};
use serde_json::{Value, json};
use template_distribution_sv2::SubmitSolution;

/// A template as the provider offers it.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    pub(super) id: u64,
    pub(super) future: bool,
    pub(super) version: u32,
    pub(super) height: u32,
    pub(super) value: u64,
    pub(super) previous: BlockHash,
    pub(super) time: u32,
    pub(super) bits: CompactTarget,
    /// scriptPubKey of the output with the witness commitment.
    pub(super) commitment: Vec<u8>,
    pub(super) transactions: Vec<Transaction>,
}

impl Offered {
    /// Hashes from the coinbase to the root, bottom up.
    pub(super) fn merkle_path(&self) -> Vec<[u8; 32]> {
        let mut level: Vec<[u8; 32]> = vec![[0; 32]];
        level.extend(self.transactions.iter().map(|tx| tx.compute_txid().to_byte_array()));
        let mut path = Vec::new();
        while level.len() > 1 {
            path.push(level[1]);
            let pair = |pair: &[[u8; 32]]| {
                let right = pair.get(1).unwrap_or(&pair[0]);
                sha256d::Hash::hash(&[pair[0], *right].concat()).to_byte_array()
            };
            level = level.chunks(2).map(pair).collect();
        }
        path
    }
}

/// See the module.
pub(super) struct Chain {
    rpc: Rpc,
    last_id: u64,
}

impl Chain {
    pub(super) fn new(rpc: Rpc) -> Self {
        Self { rpc, last_id: 0 }
    }

    async fn template(&self) -> Result<Value> {
        self.rpc.call("getblocktemplate", json!([{ "rules": ["segwit"] }])).await
    }

    /// The node's template; `ahead`, what it would be after an empty block.
    pub(super) async fn offer(&mut self, ahead: bool) -> Result<Offered> {
        let template = self.template().await?;
        self.last_id += 1;
        let number = |name: &str| template[name].as_u64().with_context(|| format!("no {name}"));
        let entries = template["transactions"].as_array().context("no transactions")?;
        let raw = |entry: &Value| Ok(deserialize_hex(entry["data"].as_str().context("no data")?)?);
        let mut offered = Offered {
            id: self.last_id,
            future: ahead,
            version: u32::try_from(number("version")?)?,
            height: u32::try_from(number("height")?)? + u32::from(ahead),
            value: number("coinbasevalue")?,
            previous: BlockHash::all_zeros(),
            time: 0,
            bits: CompactTarget::default(),
            commitment: hex::decode(
                template["default_witness_commitment"].as_str().context("no commitment")?,
            )?,
            transactions: entries.iter().map(raw).collect::<Result<_>>()?,
        };
        place(&mut offered, &template)?;
        Ok(offered)
    }

    /// Puts what was offered ahead onto the node's tip.
    pub(super) async fn move_to_tip(&self, offered: &mut Offered) -> Result<()> {
        let template = self.template().await?;
        offered.future = false;
        place(offered, &template)
    }

    /// Puts a block together and hands it to the node; its hash and the node's words.
    pub(super) async fn submit(
        &self,
        offered: &Offered,
        solution: &SubmitSolution<'_>,
    ) -> Result<(String, String)> {
        let coinbase: Transaction = deserialize(solution.coinbase_tx.as_bytes())?;
        let root = offered.merkle_path().iter().fold(
            sha256d::Hash::from_byte_array(coinbase.compute_txid().to_byte_array()),
            |node, sibling| sha256d::Hash::hash(&[node.to_byte_array(), *sibling].concat()),
        );
        let header = Header {
            version: Version::from_consensus(solution.version.cast_signed()),
            prev_blockhash: offered.previous,
            merkle_root: TxMerkleNode::from_raw_hash(root),
            time: solution.header_timestamp,
            bits: offered.bits,
            nonce: solution.header_nonce,
        };
        let txdata = std::iter::once(coinbase).chain(offered.transactions.iter().cloned()).collect();
        let block = Block { header, txdata };
        let said = self.rpc.call("submitblock", json!([serialize_hex(&block)])).await?;
        Ok((block.block_hash().to_string(), said.as_str().unwrap_or("accepted").to_owned()))
    }
}

/// What only the tip says.
fn place(offered: &mut Offered, template: &Value) -> Result<()> {
    let text = |name: &str| template[name].as_str().with_context(|| format!("no {name}"));
    offered.previous = text("previousblockhash")?.parse()?;
    offered.time = u32::try_from(template["curtime"].as_u64().context("no curtime")?)?;
    offered.bits = CompactTarget::from_consensus(u32::from_str_radix(text("bits")?, 16)?);
    Ok(())
}
