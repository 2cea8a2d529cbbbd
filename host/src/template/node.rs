//! Templates from a Bitcoin node (Bitcoin Core, Knots): `getblocktemplate` with long polling.
//!
//! A node answers a long poll when it has something new: at once when the tip moves, and after about a
//! minute when its mempool has changed. It serves each one with a thread of few, so there is never
//! more than one under way, and it is never abandoned: when the caller's patience ends first, the poll
//! stays and the next call goes on waiting for it. Silence is not trusted for ever: each time patience
//! ends, the node is asked for its tip, which shows a node that is gone and a poll that was forgotten.
//! Where the node publishes new blocks by ZMQ, that is a second way to hear of a tip at once.
//!
//! - `client`: the single questions
//! - `mempool`: what waits in the node's mempool, asked beside the templates
//! - `zmq`: new blocks as the node publishes them
//!
//! Retrying and backing off are the caller's; here every call ends with a template, with "still the
//! same", or with an error that says who has to act.

mod client;
mod mempool;
mod zmq;

use super::{
    CoinbaseSpec, SourceError, SourceTip, Sourced, SubmitOutcome, TemplateDigest, TemplateSource,
    network_name,
    rpc::{Rpc, Wait},
};
use crate::reason::Reason;
use async_trait::async_trait;
use bitcoin::{Block, BlockHash, Network, consensus};
use client::{Fetched, NodeClient};
use serde_json::json;
use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

pub use super::rpc::Auth;
pub use zmq::Endpoint;

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
        format!("node {} ({})", self.client.rpc.url(), network_name(self.client.network))
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
