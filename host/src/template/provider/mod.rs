//! Templates from an SV2 Template Provider: the client of the Template Distribution protocol.
//!
//! A provider pushes: templates as they become better, and the tip of the chain with the template for it. A
//! task keeps one connection and what came of it; [`TemplateSource`] looks at that. The full transactions of
//! a template are fetched, and the template is assembled and compared like any other, before it is handed on.
//! A template for the tip after this one is handed on as a future template, and when that tip comes once
//! more, as itself.
//!
//! Whatever breaks the protocol, is late, or cannot be assembled ends the connection with a reason code; when
//! to connect again is the caller's to say, by asking for the next template.
//!
//! - `message`: what comes, checked for form
//! - `feed`: the conversation as a state machine
//! - `memory`: what outlives a connection
//! - `talk`: the task
//!
//! What a provider does not say is unknown: the fees of single transactions, which transactions our nodes know,
//! the mempool. The smallest time of a block is not said either; the time to begin with stands for it.
//!
//! Source: Stratum V2 specification, 07 Template Distribution Protocol.

mod feed;
mod memory;
mod message;
mod talk;
#[cfg(test)]
mod tests;

pub use feed::{Draft, Feed, Tip};
pub use memory::Memory;
pub use message::{Heard, NewTip, Offer, read};

use super::{
    CoinbaseSpec, SourceError, SourceTip, Sourced, SubmitOutcome, TemplateDigest, TemplateSource,
    network_name,
};
use crate::{noise::AuthorityPublicKey, reason::Reason};
use async_trait::async_trait;
use bitcoin::{Block, Network, consensus::encode::serialize};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use talk::{Command, Shared, State};
use template_distribution_sv2::SubmitSolutionOwned;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// A provider that was heard so lately is not asked whether it is alive.
const LATELY: Duration = Duration::from_secs(1);
/// How long a block has to become the provider's tip.
const CONFIRM: Duration = Duration::from_secs(10);
/// Commands that wait for the task.
const MAX_COMMANDS: usize = 16;

/// How to reach a Template Provider.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Its address, `host:port`.
    pub address: String,
    /// Its authority key; without it the connection leads to whoever answers there.
    pub authority_key: Option<AuthorityPublicKey>,
    /// The network it is on, which it does not say.
    pub network: Network,
    /// How long it may take for anything it owes.
    pub request_timeout: Duration,
    /// What our part of the coinbase is to be like.
    pub coinbase: CoinbaseSpec,
}

/// A Template Provider as a source of templates.
#[derive(Debug)]
pub struct ProviderSource {
    config: Arc<ProviderConfig>,
    memory: Shared,
    line: Mutex<Option<Line>>,
    told: tokio::sync::Mutex<Told>,
}

/// The running connection; ends with this.
#[derive(Debug)]
struct Line {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the caller was told.
#[derive(Debug, Default)]
struct Told {
    current: u64,
    future: u64,
    last: Option<TemplateDigest>,
}

impl ProviderSource {
    /// Prepares a source; the provider is first spoken to when a template is asked for.
    pub fn new(config: ProviderConfig) -> Self {
        Self {
            config: Arc::new(config),
            memory: Shared::default(),
            line: Mutex::default(),
            told: Default::default(),
        }
    }

    /// The connection, opened if there is none.
    fn open(&self) -> (mpsc::Sender<Command>, watch::Receiver<State>) {
        let mut line = lock(&self.line);
        let line = line.get_or_insert_with(|| {
            let (commands, heard) = mpsc::channel(MAX_COMMANDS);
            let (says, state) = watch::channel(State::default());
            let task = talk::run(self.config.clone(), self.memory.clone(), heard, says);
            Line { commands, state, task: tokio::spawn(task) }
        });
        (line.commands.clone(), line.state.clone())
    }

    /// The template to hand on now, if there is one that the caller was not told of.
    fn news(&self, state: &State, told: &mut Told) -> Option<Result<Sourced, SourceError>> {
        if let Some((reason, detail)) = &state.ended {
            *lock(&self.line) = None;
            return Some(Err(SourceError { reason: *reason, detail: detail.clone() }));
        }
        let slots = [(&state.current, &mut told.current), (&state.future, &mut told.future)];
        let (serial, sourced, seen) = slots.into_iter().find_map(|(slot, seen)| {
            slot.as_ref()
                .filter(|(serial, _)| serial != seen)
                .map(|(serial, sourced)| (*serial, sourced, seen))
        })?;
        *seen = serial;
        told.last = Some(sourced.template.digest);
        Some(Ok(sourced.clone()))
    }
}

/// Asks a provider that was not heard for a while something that it must answer. What it answers, or that it
/// does not, shows in the state.
async fn prove_alive(commands: &mpsc::Sender<Command>, state: &mut watch::Receiver<State>, until: Instant) {
    let before = {
        let state = state.borrow();
        let lately = state.heard.is_some_and(|heard| heard.elapsed() < LATELY);
        if lately || state.current.is_none() || state.ended.is_some() {
            return;
        }
        state.answers
    };
    if commands.send(Command::Probe).await.is_ok() {
        let answered = |state: &State| state.answers != before || state.ended.is_some();
        let _ = timeout_at(until, state.wait_for(answered)).await;
    }
}

#[async_trait]
impl TemplateSource for ProviderSource {
    fn name(&self) -> String {
        format!("template provider {} ({})", self.config.address, network_name(self.config.network))
    }

    async fn next_template(
        &self,
        after: Option<TemplateDigest>,
        patience: Duration,
    ) -> Result<Option<Sourced>, SourceError> {
        let deadline = Instant::now() + patience;
        let mut told = self.told.lock().await;
        let (commands, mut state) = self.open();
        if after.is_none() {
            let until = Instant::now() + self.config.request_timeout.max(patience);
            prove_alive(&commands, &mut state, until).await;
        }
        if after != told.last || after.is_none() {
            told.current = 0; // The caller has something else: what is current is news.
        }
        loop {
            let news = self.news(&state.borrow_and_update(), &mut told);
            if let Some(news) = news {
                return news.map(Some);
            }
            match timeout_at(deadline, state.changed()).await {
                Err(_) => return Ok(None),
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    // The task says why it ends, unless it was lost.
                    if let Some(news) = self.news(&state.borrow_and_update(), &mut told) {
                        return news.map(Some);
                    }
                    *lock(&self.line) = None;
                    let detail = "the connection to the Template Provider was lost".into();
                    return Err(SourceError { reason: Reason::TemplateSourceUnreachable, detail });
                }
            }
        }
    }

    async fn tip(&self) -> Result<Option<SourceTip>, SourceError> {
        Ok(lock(&self.memory).tip)
    }

    /// SubmitSolution. It has no answer: the block counts as accepted when the provider tells it as its tip.
    async fn submit_block(&self, block: &Block) -> Result<SubmitOutcome, SourceError> {
        let hash = block.block_hash();
        if lock(&self.memory).was_tip(hash) {
            return Ok(SubmitOutcome::Accepted);
        }
        let failed = |reason, detail: &str| SourceError {
            reason,
            detail: format!("{}: {detail}", self.config.address),
        };
        let solution = lock(&self.memory).template_of(block).and_then(|id| solution(id, block));
        let Some(solution) = solution else {
            let detail = "the block is not of a template that this Template Provider gave lately, and it takes \
                          no others";
            return Err(failed(Reason::TemplateIdUnknown, detail));
        };
        let away = |detail| failed(Reason::TemplateSourceUnreachable, detail);
        let line = lock(&self.line).as_ref().map(|line| (line.commands.clone(), line.state.clone()));
        let Some((commands, mut state)) = line else {
            return Err(away("there is no connection to the Template Provider at the moment"));
        };
        let (sent, left) = oneshot::channel();
        if commands.send(Command::Submit(Box::new(solution), sent)).await.is_err() || left.await.is_err() {
            return Err(away("the connection ended before the block had left"));
        }
        let until = Instant::now() + CONFIRM;
        loop {
            state.mark_unchanged();
            if lock(&self.memory).was_tip(hash) {
                return Ok(SubmitOutcome::Accepted);
            }
            match timeout_at(until, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    return Err(away("the connection ended before the block was seen in the chain"));
                }
                Err(_) => break,
            }
        }
        let tip = lock(&self.memory).tip.map_or("unknown".into(), |tip| tip.hash.to_string());
        let detail = format!(
            "handed to the Template Provider, which gives no answer; within {} s its tip did not become this \
             block but is {tip}",
            CONFIRM.as_secs()
        );
        Ok(SubmitOutcome::Unconfirmed(detail))
    }
}

fn solution(template_id: u64, block: &Block) -> Option<SubmitSolutionOwned> {
    Some(SubmitSolutionOwned {
        template_id,
        version: block.header.version.to_consensus().cast_unsigned(),
        header_timestamp: block.header.time,
        header_nonce: block.header.nonce,
        coinbase_tx: serialize(block.coinbase()?).try_into().ok()?,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
