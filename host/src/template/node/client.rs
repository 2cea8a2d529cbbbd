//! The single questions to a node: its templates with what is known around them, its tip, its chain.

use super::mempool::{Looked, Mempool};
use crate::{
    event::schema::millis,
    reason::Reason,
    template::{
        ChainTip, CoinbaseSpec, Context, NextBlock, Place, SourceError, SourceTip, Sourced, facts,
        gbt::Answer,
        record,
        rpc::{Rpc, Wait},
    },
};
use bitcoin::{BlockHash, CompactTarget, Network, Work};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// Mempool and tip are context, not the template: they must not hold up work on a new tip.
const CONTEXT_PATIENCE: Duration = Duration::from_secs(1);
/// Names of work that are remembered for submissions, one for each tip.
const MAX_WORK_IDS: usize = 8;

/// A template and the id to wait for its successor with.
pub(super) type Fetched = (Sourced, String);

/// The questions, without memory of earlier ones.
#[derive(Debug)]
pub(super) struct NodeClient {
    pub(super) rpc: Arc<Rpc>,
    pub(super) network: Network,
    pub(super) coinbase: CoinbaseSpec,
    pub(super) mempool: Arc<Mempool>,
    /// What the node calls the work on a tip, where it does; the newest last.
    pub(super) work_ids: Mutex<VecDeque<(BlockHash, String)>>,
}

#[derive(Deserialize)]
struct ChainInfo {
    chain: String,
}

/// `getblockchaininfo` again, for the tip.
#[derive(Deserialize)]
struct TipInfo {
    blocks: u32,
    bestblockhash: BlockHash,
    /// Median time past, Unix seconds.
    mediantime: Option<u32>,
    #[serde(default, deserialize_with = "work")]
    chainwork: Option<Work>,
}

/// The work in a chain, in hex.
fn work<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Work>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes: Option<[u8; 32]> = hex::decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(|bytes| Some(Work::from_be_bytes(bytes)))
        .ok_or_else(|| D::Error::custom("not 64 hexadecimal digits"))
}

/// `getmininginfo`. What the next block needs is there since Bitcoin Core 29.
#[derive(Deserialize)]
struct MiningInfo {
    next: Option<NextInfo>,
}

#[derive(Deserialize)]
struct NextInfo {
    height: u32,
    #[serde(with = "record::compact")]
    bits: CompactTarget,
}

impl NodeClient {
    pub(super) async fn best_block(&self) -> Result<BlockHash, SourceError> {
        self.rpc.call("getbestblockhash", json!([]), Wait::Normal).await
    }

    pub(super) async fn check_chain(&self) -> Result<(), SourceError> {
        let info: ChainInfo = self.rpc.call("getblockchaininfo", json!([]), Wait::Normal).await?;
        let wanted = self.network.to_core_arg();
        if info.chain == wanted {
            return Ok(());
        }
        let found: String = info.chain.chars().filter(|c| c.is_ascii_alphanumeric()).take(20).collect();
        let detail = format!(
            "{} is on the chain \"{found}\", but the configured network is \"{wanted}\"; correct the network \
             or the node's address",
            self.rpc.url()
        );
        Err(SourceError { reason: Reason::TemplateSourceRefused, detail })
    }

    /// One `getblocktemplate`, assembled. With a long poll id the node answers when it has another.
    pub(super) async fn template(&self, long_poll_id: Option<&str>) -> Result<Fetched, SourceError> {
        let mut request = self.request();
        let wait = match long_poll_id {
            Some(id) => {
                request["longpollid"] = json!(id);
                Wait::LongPoll
            }
            None => Wait::Normal,
        };
        let answer: Answer = self.rpc.call("getblocktemplate", json!([request]), wait).await?;
        let long_poll_id = answer.longpollid.clone();
        self.note_work_id(answer.work_id());
        let (network, coinbase) = (self.network, self.coinbase.clone());
        let assembly = tokio::task::spawn_blocking(move || {
            let declared = answer.declare(network, coinbase)?;
            let template = facts::assemble(&declared)?;
            Ok::<_, SourceError>((declared, template))
        });
        let (assembled, mempool, tip) = tokio::join!(assembly, self.mempool(), self.tip());
        let (tip, tip_work) = tip.unzip();
        let (declared, template) = assembled.map_err(|e| SourceError {
            reason: Reason::TemplateSourceInvalid,
            detail: format!("the template was not assembled: {e}"),
        })??;
        // The node made it from its own mempool.
        let known = Some(vec![true; template.transactions.len()].into());
        if let Some(tip) = tip
            && tip.hash == template.previous_block_hash
            && template.height.checked_sub(1) != Some(tip.height)
        {
            let detail = format!(
                "height: the template is for {}, but the tip that it builds on is at {}",
                template.height, tip.height
            );
            return Err(SourceError { reason: Reason::TemplateSourceInvalid, detail });
        }
        let context = Context {
            tip,
            mempool: mempool.map(|looked| looked.state),
            fee_rates: mempool.and_then(|looked| looked.fee_rates),
            mempool_age_ms: mempool.map(|looked| millis(looked.at.elapsed())),
            known,
            ..Context::default()
        };
        let sourced = Sourced { tip_work: tip_work.flatten(), ..Sourced::new(declared, template, context) };
        Ok((sourced, long_poll_id))
    }

    /// What every `getblocktemplate` says.
    pub(super) fn request(&self) -> Value {
        let rules: &[&str] =
            if self.network == Network::Signet { &["segwit", "signet"] } else { &["segwit"] };
        json!({ "rules": rules, "capabilities": ["proposal", "workid"] })
    }

    fn note_work_id(&self, id: Option<(BlockHash, String)>) {
        let Some((tip, id)) = id else { return };
        let mut ids = self.work_ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|(known, _)| *known != tip);
        ids.push_back((tip, id));
        if ids.len() > MAX_WORK_IDS {
            ids.pop_front();
        }
    }

    pub(super) fn work_id(&self, tip: BlockHash) -> Option<String> {
        let ids = self.work_ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.iter().find(|(known, _)| *known == tip).map(|(_, id)| id.clone())
    }

    /// The mempool as it was looked at last; the first time it is looked at now, and unknown when the node
    /// does not say it soon.
    async fn mempool(&self) -> Option<Looked> {
        match self.mempool.last() {
            Some(looked) => Some(looked),
            None => timeout(CONTEXT_PATIENCE, self.mempool.look(&self.rpc)).await.ok()?.ok(),
        }
    }

    /// The tip as the node sees it, and the work up to it; unknown when the node does not say it soon.
    async fn tip(&self) -> Option<(ChainTip, Option<Work>)> {
        let (tip, mining) = tokio::join!(
            self.context::<TipInfo>("getblockchaininfo"),
            self.context::<MiningInfo>("getmininginfo")
        );
        let TipInfo { blocks: height, bestblockhash: hash, chainwork, .. } = tip?;
        let next_bits = after(mining, height).map(|next| next.bits);
        Some((ChainTip { hash, height, next_bits }, chainwork))
    }

    /// The tip, and what comes after it where the node says that soon.
    pub(super) async fn whole_tip(&self) -> Result<SourceTip, SourceError> {
        let (tip, mining) = tokio::join!(
            self.rpc.call::<TipInfo>("getblockchaininfo", json!([]), Wait::Normal),
            self.context::<MiningInfo>("getmininginfo")
        );
        let TipInfo { blocks, bestblockhash: hash, mediantime, chainwork: work } = tip?;
        let next = after(mining, blocks).zip(mediantime).map(|(next, median)| NextBlock {
            height: next.height,
            bits: next.bits,
            min_time: median.saturating_add(1),
        });
        Ok(SourceTip { hash, next, place: Some(Place { hash, height: blocks, work }) })
    }

    /// Asks for something that is good to know and nothing to wait for.
    async fn context<T: DeserializeOwned + Send + 'static>(&self, method: &'static str) -> Option<T> {
        match timeout(CONTEXT_PATIENCE, self.rpc.call::<T>(method, json!([]), Wait::Normal)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, method, "the context is not known in full");
                None
            }
            Err(_) => None,
        }
    }
}

/// What the block after the one at `height` must be like: the tip may have moved between two answers.
fn after(mining: Option<MiningInfo>, height: u32) -> Option<NextInfo> {
    mining.and_then(|info| info.next).filter(|next| Some(next.height) == height.checked_add(1))
}
