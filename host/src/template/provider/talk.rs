//! One connection to a Template Provider: a task that owns the socket and says what came of it in a watch.

use super::{
    super::{ChainTip, Context, SourceError, Sourced, facts},
    ProviderConfig,
    feed::{Draft, Feed},
    memory::Memory,
    message,
};
use crate::{
    dial::{DialError, Introduction, Link},
    reason::Reason,
    sv2::{DecodeError, Frame, Side},
};
use common_messages_sv2::Protocol;
use parsers_sv2::{TemplateDistribution, TemplateDistributionOwned};
use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use template_distribution_sv2::{CoinbaseOutputConstraints, RequestTransactionData, SubmitSolutionOwned};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::sleep_until,
};

/// What the task is asked to do.
pub(super) enum Command {
    /// Ask the provider something, to see whether it is alive.
    Probe,
    /// Hand a solution to the provider, and say when it has left.
    Submit(Box<SubmitSolutionOwned>, oneshot::Sender<()>),
}

/// What is known. Numbers tell news from what was there before.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The newest template on the tip.
    pub(super) current: Option<(u64, Sourced)>,
    /// The newest template for the tip after it.
    pub(super) future: Option<(u64, Sourced)>,
    /// When the provider was heard last.
    pub(super) heard: Option<Instant>,
    /// Answers that came.
    pub(super) answers: u64,
    /// Why there will be no more.
    pub(super) ended: Option<(Reason, String)>,
}

/// What outlives a connection.
pub(super) type Shared = Arc<Mutex<Memory>>;

/// Talks until the connection ends, and says why it did.
pub(super) async fn run(
    config: Arc<ProviderConfig>,
    memory: Shared,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<State>,
) {
    let Err(SourceError { reason, detail }) = Talk::begin(&config, memory, &state, commands).await;
    state.send_modify(|state| state.ended = Some((reason, format!("{}: {detail}", config.address))));
}

/// A template under assembly.
type Assembly = JoinHandle<(Draft, Result<Sourced, SourceError>)>;

struct Talk<'a> {
    config: &'a Arc<ProviderConfig>,
    memory: Shared,
    state: &'a watch::Sender<State>,
    link: Link,
    feed: Feed,
    serial: u64,
}

impl<'a> Talk<'a> {
    async fn begin(
        config: &'a Arc<ProviderConfig>,
        memory: Shared,
        state: &'a watch::Sender<State>,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Infallible, SourceError> {
        let patience = config.request_timeout;
        let address = &config.address;
        let mut link = Link::connect(address, config.authority_key, Side::Provider, patience).await?;
        let protocol = Protocol::TemplateDistributionProtocol;
        let who = Introduction { protocol, flags: 0, endpoint: address, device: "gateway" };
        link.setup(who, patience).await?;
        let (size, sigops) = config.coinbase.reserved();
        let constraints = CoinbaseOutputConstraints {
            coinbase_output_max_additional_size: u32::try_from(size).unwrap_or(u32::MAX),
            coinbase_output_max_additional_sigops: u16::try_from(sigops).unwrap_or(u16::MAX),
        };
        link.send(TemplateDistribution::CoinbaseOutputConstraints(constraints), patience).await?;
        let feed = Feed::new(Instant::now(), patience);
        // Numbers go on over connections, so that nothing new is taken for something old.
        let serial = memory.lock().unwrap_or_else(PoisonError::into_inner).serial;
        Talk { config, memory, state, link, feed, serial }.go_on(commands).await
    }

    async fn go_on(mut self, mut commands: mpsc::Receiver<Command>) -> Result<Infallible, SourceError> {
        let mut assembly: Option<Assembly> = None;
        loop {
            while let Some(id) = self.feed.next_request(Instant::now()) {
                self.request(id).await?;
            }
            if assembly.is_none() {
                assembly = self.feed.next_draft(Instant::now()).map(|draft| self.assemble(draft));
            }
            let deadline = self.feed.deadline();
            tokio::select! {
                frame = self.link.next_frame() => self.hear(frame?)?,
                done = finished(&mut assembly) => {
                    assembly = None;
                    let (draft, sourced) = done?;
                    self.publish(&draft, sourced?);
                }
                command = commands.recv() => match command {
                    Some(Command::Probe) => if let Some(id) = self.feed.probe(Instant::now()) {
                        self.request(id).await?;
                    },
                    Some(Command::Submit(solution, sent)) => {
                        let message = TemplateDistributionOwned::SubmitSolution(*solution);
                        self.link.send(message, self.config.request_timeout).await?;
                        let _ = sent.send(());
                    }
                    // Nobody wants to hear of it any more.
                    None => pending().await,
                },
                () = at(deadline) => self.feed.on_time(Instant::now())?,
            }
        }
    }

    async fn request(&mut self, template_id: u64) -> Result<(), SourceError> {
        let request = TemplateDistribution::RequestTransactionData(RequestTransactionData { template_id });
        Ok(self.link.send(request, self.config.request_timeout).await?)
    }

    fn hear(&mut self, mut frame: Frame) -> Result<(), SourceError> {
        let heard = match frame.header.extension {
            0 => message::read(frame.header.msg_type, &mut frame.payload)?,
            _ => message::Heard::Unknown,
        };
        let is_answer = matches!(heard, message::Heard::Transactions { .. } | message::Heard::Refused { .. });
        let before = self.feed.tip();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        self.feed.hear(heard, Instant::now(), &mut memory)?;
        drop(memory);
        let moved = self.feed.tip() != before;
        self.state.send_modify(|state| {
            state.heard = Some(Instant::now());
            state.answers += u64::from(is_answer);
            if moved {
                // Of the past; and what was for the next tip comes again if it is for this one.
                (state.current, state.future) = (None, None);
            }
        });
        Ok(())
    }

    fn assemble(&self, draft: Draft) -> Assembly {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || {
            let sourced = source(&draft, &config);
            (draft, sourced)
        })
    }

    /// Hands a template on, unless it was overtaken by another tip.
    fn publish(&mut self, draft: &Draft, sourced: Sourced) {
        if self.feed.tip() != Some(draft.tip.said.hash) {
            return;
        }
        self.serial += 1;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.serial = self.serial;
        if !draft.ahead {
            memory.given(draft.offer.id, &sourced.template);
        }
        drop(memory);
        let news = Some((self.serial, sourced));
        self.state.send_modify(|state| match draft.ahead {
            true => state.future = news,
            false => state.current = news,
        });
    }
}

fn source(draft: &Draft, config: &ProviderConfig) -> Result<Sourced, SourceError> {
    let declared = draft.declare(config.network, &config.coinbase)?;
    let template = facts::assemble(&declared)?;
    // The tip of a future template is not known. Of mempools a provider says nothing.
    let tip = (!draft.ahead).then_some(ChainTip {
        hash: draft.tip.said.hash,
        height: draft.tip.height,
        next_bits: Some(draft.tip.said.bits),
    });
    Ok(Sourced::new(declared, template, Context { tip, ..Context::default() }))
}

async fn finished(
    assembly: &mut Option<Assembly>,
) -> Result<(Draft, Result<Sourced, SourceError>), SourceError> {
    match assembly {
        Some(assembly) => assembly.await.map_err(|error| SourceError {
            reason: Reason::TemplateSourceInvalid,
            detail: format!("the template was not assembled: {error}"),
        }),
        None => pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

impl From<DialError> for SourceError {
    fn from(error: DialError) -> Self {
        let reason = match &error {
            DialError::Handshake(_) => Reason::TemplateProviderUntrusted,
            DialError::Refused(_) => Reason::TemplateSourceRefused,
            DialError::Decode(DecodeError::TooLarge { .. }) => Reason::TemplateMessageTooLarge,
            DialError::Decode(DecodeError::Forged(_)) | DialError::NoAnswer(_) => {
                Reason::TemplateProviderProtocol
            }
            DialError::Unreachable { .. }
            | DialError::Late { .. }
            | DialError::Closed { .. }
            | DialError::Broken(_) => Reason::TemplateSourceUnreachable,
            DialError::Encode(_) => Reason::InternalError,
        };
        Self { reason, detail: error.to_string() }
    }
}
