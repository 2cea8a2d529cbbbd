//! Templates from a Bitcoin node (Bitcoin Core, Knots): `getblocktemplate` with long polling.
//!
//! A node answers a long poll when it has something new: at once when the tip moves, and after about a
//! minute when its mempool has changed. It serves each one with a thread of few, so there is never
//! more than one under way, and it is never abandoned: when the caller's patience ends first, the poll
//! stays and the next call goes on waiting for it. Silence is not trusted for ever: each time patience
//! ends, the node is asked for its tip, which shows a node that is gone and a poll that was forgotten.
//! Where the node publishes new blocks by ZMQ, that is a second way to hear of a tip at once.
//!
//! - `mempool`: what waits in the node's mempool, asked beside the templates
//! - `zmq`: new blocks as the node publishes them
//!
//! Retrying and backing off are the caller's; here every call ends with a template, with "still the
//! same", or with an error that says who has to act.

mod mempool;
mod zmq;

use super::{
    ChainTip, CoinbaseSpec, Context, NextBlock, Place, SourceError, SourceTip, Sourced, SubmitOutcome,
    TemplateDigest, TemplateSource, facts,
    gbt::Answer,
    rpc::{Rpc, Wait},
};
use crate::{event::schema::millis, reason::Reason};
use async_trait::async_trait;
use bitcoin::{Block, BlockHash, CompactTarget, Network, Work, consensus};
use mempool::{Looked, Mempool};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

pub use super::rpc::Auth;
pub use zmq::Endpoint;

/// Mempool and tip are context, not the template: they must not hold up work on a new tip.
const CONTEXT_PATIENCE: Duration = Duration::from_secs(1);
/// How soon a long poll that brought nothing new is repeated, should a node answer at once.
const POLL_PACE: Duration = Duration::from_millis(250);
/// Names of work that are remembered for submissions, one for each tip.
const MAX_WORK_IDS: usize = 8;

/// How to reach a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its address, `http://host:port/`.
    pub url: String,
    /// The credentials.
    pub auth: Auth,
    /// The network it must be on.
    pub network: Network,
    /// How long it may take to answer anything but a long poll.
    pub request_timeout: Duration,
    /// Where it publishes new blocks by ZMQ.
    pub zmq_hashblock: Option<Endpoint>,
    /// What the coinbase of the templates is to be like.
    pub coinbase: CoinbaseSpec,
}

/// A Bitcoin node as a source of templates.
#[derive(Debug)]
pub struct NodeSource {
    client: Arc<NodeClient>,
    zmq_hashblock: Option<Endpoint>,
    state: tokio::sync::Mutex<State>,
}

/// What is remembered between calls.
#[derive(Debug, Default)]
struct State {
    /// The node was asked for its chain and gave the right one.
    checked: bool,
    /// The last template handed out, and how to wait for the next.
    last: Option<Last>,
    /// The one long poll under way.
    poll: Option<Poll>,
    /// What runs beside from the first question on.
    beside: Option<Beside>,
}

/// What runs beside; ends with the source.
#[derive(Debug)]
struct Beside {
    /// Tips that the node publishes, where it does.
    tips: watch::Receiver<Option<BlockHash>>,
    mempool: JoinHandle<()>,
}

impl Beside {
    /// The node publishes a tip that is another than this; each is told once.
    async fn another_than(&mut self, tip: Option<BlockHash>) {
        loop {
            if self.tips.changed().await.is_err() {
                return pending().await;
            }
            if *self.tips.borrow_and_update() != tip {
                return;
            }
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.mempool.abort();
    }
}

#[derive(Debug)]
struct Last {
    digest: TemplateDigest,
    tip: BlockHash,
    long_poll_id: String,
}

/// A template and the id to wait for its successor with.
type Fetched = (Sourced, String);

/// A long poll under way; ends with whoever waits for it.
#[derive(Debug)]
struct Poll {
    long_poll_id: String,
    answer: JoinHandle<Result<Fetched, SourceError>>,
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl NodeSource {
    /// Prepares a source; the node is first spoken to when a template is asked for.
    ///
    /// # Errors
    /// `ConfigInvalid` when the address is not usable.
    pub fn new(config: NodeConfig) -> Result<Self, SourceError> {
        let rpc = Rpc::new(&config.url, config.auth, config.request_timeout)?;
        let client = NodeClient {
            rpc: Arc::new(rpc),
            network: config.network,
            coinbase: config.coinbase,
            mempool: Arc::default(),
            work_ids: Mutex::default(),
        };
        let (zmq_hashblock, state) = (config.zmq_hashblock, Default::default());
        Ok(Self { client: Arc::new(client), zmq_hashblock, state })
    }
}

#[async_trait]
impl TemplateSource for NodeSource {
    fn name(&self) -> String {
        format!("node {} ({})", self.client.rpc.url(), self.client.network)
    }

    async fn next_template(
        &self,
        after: Option<TemplateDigest>,
        patience: Duration,
    ) -> Result<Option<Sourced>, SourceError> {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock().await;
        state.beside.get_or_insert_with(|| self.start_beside());
        let tip = |state: &State| state.last.as_ref().map(|last| last.tip);
        let before = tip(&state);
        let answer = self.client.next_template(&mut state, after, deadline).await;
        if before.is_some() && tip(&state) != before {
            self.client.mempool.look_again();
        }
        if answer.is_err() {
            // Whatever answers next time may be another node.
            state.checked = false;
        }
        answer
    }

    async fn tip(&self) -> Result<Option<SourceTip>, SourceError> {
        self.client.whole_tip().await.map(Some)
    }

    /// `submitblock` (BIP 22), with the name of the work where the template had one. Besides null, `duplicate`
    /// is a success: the node has this very block and found it valid. `inconclusive` is not: the node keeps
    /// the block, but another one is its tip.
    async fn submit_block(&self, block: &Block) -> Result<SubmitOutcome, SourceError> {
        let mut params = vec![json!(consensus::encode::serialize_hex(block))];
        params.extend(self.client.work_id(block.header.prev_blockhash).map(|id| json!({ "workid": id })));
        let answer: Option<String> = self.client.rpc.call("submitblock", params.into(), Wait::Normal).await?;
        Ok(SubmitOutcome::of_node(answer.as_deref()))
    }

    async fn propose(&self, block: &Block) -> Result<Option<Result<(), String>>, SourceError> {
        let mut request = self.client.request();
        request["mode"] = json!("proposal");
        request["data"] = json!(consensus::encode::serialize_hex(block));
        let rpc = &self.client.rpc;
        let answer: Option<String> = rpc.call("getblocktemplate", json!([request]), Wait::Normal).await?;
        Ok(Some(answer.map_or(Ok(()), Err)))
    }
}

impl NodeSource {
    /// The mempool is looked at, and the node's publications are listened to, where there are any.
    fn start_beside(&self) -> Beside {
        let (told, tips) = watch::channel(None);
        if let Some(endpoint) = self.zmq_hashblock.clone() {
            // It ends when nobody looks at the tips any more.
            tokio::spawn(zmq::listen(endpoint, told));
        }
        let mempool = tokio::spawn(self.client.mempool.clone().follow(self.client.rpc.clone()));
        Beside { tips, mempool }
    }
}

/// The questions, without memory of earlier ones.
#[derive(Debug)]
struct NodeClient {
    rpc: Arc<Rpc>,
    network: Network,
    coinbase: CoinbaseSpec,
    mempool: Arc<Mempool>,
    /// What the node calls the work on a tip, where it does; the newest last.
    work_ids: Mutex<VecDeque<(BlockHash, String)>>,
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
    #[serde(with = "super::record::compact")]
    bits: CompactTarget,
}

impl NodeClient {
    async fn next_template(
        self: &Arc<Self>,
        state: &mut State,
        after: Option<TemplateDigest>,
        deadline: Instant,
    ) -> Result<Option<Sourced>, SourceError> {
        if !state.checked {
            self.check_chain().await?;
            state.checked = true;
        }
        loop {
            let id = match (&state.last, after) {
                (Some(last), Some(after)) if last.digest == after => last.long_poll_id.clone(),
                _ => {
                    // The caller has nothing, or something else than we gave last.
                    let fresh = self.template(None).await?;
                    return Ok(remember(state, fresh, after));
                }
            };
            let poll = state.poll.get_or_insert_with(|| {
                let (client, long_poll_id) = (Arc::clone(self), id.clone());
                let answer = tokio::spawn(async move { client.template(Some(&long_poll_id)).await });
                Poll { long_poll_id: id.clone(), answer }
            });
            let (beside, tip) = (&mut state.beside, state.last.as_ref().map(|last| last.tip));
            let published = async {
                match beside {
                    Some(beside) => beside.another_than(tip).await,
                    None => pending().await,
                }
            };
            let finished = tokio::select! {
                finished = &mut poll.answer => finished,
                () = published => {
                    let fresh = self.template(None).await?;
                    match remember(state, fresh, after) {
                        Some(sourced) => return Ok(Some(sourced)),
                        None => continue,
                    }
                }
                () = sleep_until(deadline) => return self.after_patience(state, after).await,
            };
            // An answer to an earlier question may be older than what was fetched since.
            let outdated = poll.long_poll_id != id;
            state.poll = None;
            if outdated {
                continue;
            }
            let fetched = finished.map_err(|e| SourceError {
                reason: Reason::TemplateSourceUnreachable,
                detail: format!("the long poll was lost: {e}"),
            })??;
            if let Some(sourced) = remember(state, fetched, after) {
                return Ok(Some(sourced));
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + POLL_PACE)).await;
        }
    }

    /// The long poll did not answer in time. Is the node still there, and still on the same tip?
    async fn after_patience(
        &self,
        state: &mut State,
        after: Option<TemplateDigest>,
    ) -> Result<Option<Sourced>, SourceError> {
        let tip = self.best_block().await?;
        if state.last.as_ref().is_some_and(|last| last.tip == tip) {
            return Ok(None);
        }
        let fresh = self.template(None).await?;
        Ok(remember(state, fresh, after))
    }

    async fn best_block(&self) -> Result<BlockHash, SourceError> {
        self.rpc.call("getbestblockhash", json!([]), Wait::Normal).await
    }

    async fn check_chain(&self) -> Result<(), SourceError> {
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
    async fn template(&self, long_poll_id: Option<&str>) -> Result<Fetched, SourceError> {
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
    fn request(&self) -> Value {
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

    fn work_id(&self, tip: BlockHash) -> Option<String> {
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
    async fn whole_tip(&self) -> Result<SourceTip, SourceError> {
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

/// Notes what was fetched; gives it back if it is another one than `after`.
fn remember(
    state: &mut State,
    (sourced, long_poll_id): Fetched,
    after: Option<TemplateDigest>,
) -> Option<Sourced> {
    let template = &sourced.template;
    let digest = template.digest;
    state.last = Some(Last { digest, tip: template.previous_block_hash, long_poll_id });
    (after != Some(digest)).then_some(sourced)
}
