//! Templates from a Bitcoin node (Bitcoin Core, Knots): `getblocktemplate` with long polling.
//!
//! A node answers a long poll when it has something new: at once when the tip moves, and after about a
//! minute when its mempool has changed. It serves each one with a thread of few, so there is never
//! more than one under way, and it is never abandoned: when the caller's patience ends first, the poll
//! stays and the next call goes on waiting for it. Silence is not trusted for ever: each time patience
//! ends, the node is asked for its tip, which shows a node that is gone and a poll that was forgotten.
//!
//! Retrying and backing off are the caller's; here every call ends with a template, with "still the
//! same", or with an error that says who has to act.

use super::{
    ChainTip, CoinbaseSpec, Context, MempoolState, NextBlock, SourceError, SourceTip, Sourced, SubmitOutcome,
    TemplateDigest, TemplateSource, facts,
    gbt::Answer,
    rpc::{Rpc, Wait},
};
use crate::reason::Reason;
use async_trait::async_trait;
use bitcoin::{Amount, Block, BlockHash, CompactTarget, Network, consensus};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

pub use super::rpc::Auth;

/// Mempool and tip are context, not the template: they must not hold up work on a new tip.
const CONTEXT_PATIENCE: Duration = Duration::from_secs(1);
/// How soon a long poll that brought nothing new is repeated, should a node answer at once.
const POLL_PACE: Duration = Duration::from_millis(250);

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
    /// What the coinbase of the templates is to be like.
    pub coinbase: CoinbaseSpec,
}

/// A Bitcoin node as a source of templates.
#[derive(Debug)]
pub struct NodeSource {
    client: Arc<NodeClient>,
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
        let client = NodeClient { rpc, network: config.network, coinbase: config.coinbase };
        Ok(Self { client: Arc::new(client), state: Default::default() })
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
        let answer = self.client.next_template(&mut state, after, deadline).await;
        if answer.is_err() {
            // Whatever answers next time may be another node.
            state.checked = false;
        }
        answer
    }

    async fn tip(&self) -> Result<Option<SourceTip>, SourceError> {
        self.client.whole_tip().await.map(Some)
    }

    /// `submitblock` (BIP 22). Besides null, `duplicate` is a success: the node has this very block
    /// and found it valid, so it is a repeated delivery. `inconclusive` is not: the node keeps the
    /// block, but another one is its tip.
    async fn submit_block(&self, block: &Block) -> Result<SubmitOutcome, SourceError> {
        let params = json!([consensus::encode::serialize_hex(block)]);
        let answer: Option<String> = self.client.rpc.call("submitblock", params, Wait::Normal).await?;
        Ok(match answer.as_deref() {
            None | Some("duplicate") => SubmitOutcome::Accepted,
            Some(words) => SubmitOutcome::Rejected(words.chars().take(200).collect()),
        })
    }
}

/// The questions, without memory of earlier ones.
#[derive(Debug)]
struct NodeClient {
    rpc: Rpc,
    network: Network,
    coinbase: CoinbaseSpec,
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

#[derive(Deserialize)]
struct MempoolInfo {
    size: u64,
    bytes: u64,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    total_fee: Amount,
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
            let Ok(finished) = timeout_at(deadline, &mut poll.answer).await else {
                return self.after_patience(state, after).await;
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
        let mut request = json!({ "rules": ["segwit"] });
        if self.network == Network::Signet {
            request["rules"] = json!(["segwit", "signet"]);
        }
        let wait = match long_poll_id {
            Some(id) => {
                request["longpollid"] = json!(id);
                Wait::LongPoll
            }
            None => Wait::Normal,
        };
        let answer: Answer = self.rpc.call("getblocktemplate", json!([request]), wait).await?;
        let long_poll_id = answer.longpollid.clone();
        let (network, coinbase) = (self.network, self.coinbase.clone());
        let assembly = tokio::task::spawn_blocking(move || {
            let declared = answer.declare(network, coinbase)?;
            let template = facts::assemble(&declared)?;
            Ok::<_, SourceError>((declared, template))
        });
        let (assembled, mempool, tip) = tokio::join!(assembly, self.mempool(), self.tip());
        let (declared, template) = assembled.map_err(|e| SourceError {
            reason: Reason::TemplateSourceInvalid,
            detail: format!("the template was not assembled: {e}"),
        })??;
        // The node made it from its own mempool.
        let known = Some(vec![true; template.transactions.len()].into());
        let context = Context { tip, mempool, known, ..Context::default() };
        Ok((Sourced::new(declared, template, context), long_poll_id))
    }

    /// State of the mempool; unknown when the node does not say it soon.
    async fn mempool(&self) -> Option<MempoolState> {
        let info: MempoolInfo = self.context("getmempoolinfo").await?;
        Some(MempoolState {
            transaction_count: info.size,
            total_vsize: info.bytes,
            total_fees: info.total_fee.to_sat(),
        })
    }

    /// The tip as the node sees it; unknown when the node does not say it soon.
    async fn tip(&self) -> Option<ChainTip> {
        let (tip, mining) = tokio::join!(
            self.context::<TipInfo>("getblockchaininfo"),
            self.context::<MiningInfo>("getmininginfo")
        );
        let TipInfo { blocks: height, bestblockhash: hash, .. } = tip?;
        Some(ChainTip { hash, height, next_bits: after(mining, height).map(|next| next.bits) })
    }

    /// The tip, and what comes after it where the node says that soon.
    async fn whole_tip(&self) -> Result<SourceTip, SourceError> {
        let (tip, mining) = tokio::join!(
            self.rpc.call::<TipInfo>("getblockchaininfo", json!([]), Wait::Normal),
            self.context::<MiningInfo>("getmininginfo")
        );
        let TipInfo { blocks, bestblockhash: hash, mediantime } = tip?;
        let next = after(mining, blocks).zip(mediantime).map(|(next, median)| NextBlock {
            height: next.height,
            bits: next.bits,
            min_time: median.saturating_add(1),
        });
        Ok(SourceTip { hash, next })
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
