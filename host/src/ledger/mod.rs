//! The share ledger: each accepted share is told twice, and the file proves it.
//!
//! 1. `share_accepted` is on disk before the miner hears Success.
//! 2. `share_forward_result` follows once the pool backend has answered for good.
//!
//! Both are NDJSON lines of `shares.ndjson`, joined by `share_id`. One thread owns the file: it
//! writes whatever has gathered, makes it durable with one `fdatasync`, then acknowledges and hands the
//! shares to the forwarder. At the next start, accepted shares without a result are forwarded again
//! under the same id. What may be unforwarded is bounded; beyond it shares are refused with a reason.
//!
//! - [`file`]: the file, its lock and what a restart finds in it
//! - [`forward`]: batches to the pool backend
//! - [`sign`]: HMAC over what is sent

pub mod file;
pub mod forward;
pub mod sign;

use crate::{
    event::{Event, Events, Stamped, schema},
    reason::Reason,
    share::ValidShare,
};
use file::LedgerFile;
use forward::{ForwardConfig, Forwardable};
use std::{io, path::Path, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Shares accepted but not yet answered for by the backend; more are refused.
pub const MAX_BACKLOG: usize = 100_000;
/// Records made durable together.
const MAX_GROUP: usize = 4_096;

/// The ledger's word on one share, for the connection that sent it.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// Channel of the share.
    pub channel_id: u32,
    /// The miner's number for it.
    pub sequence_number: u32,
    /// The difficulty it is credited with.
    pub difficulty: f64,
    /// Recorded durably, or why not.
    pub recorded: Result<(), Reason>,
}

/// Where the ledger answers. Its capacity is the connection's limit on shares in flight.
pub type AckSender = mpsc::Sender<Ack>;

struct NewShare {
    record: schema::ShareAccepted,
    ack: Ack,
    reply: AckSender,
    permit: Permit,
}

enum Command {
    Share(Box<NewShare>),
    Results(Vec<schema::ShareForwardResult>),
    Drain,
}

/// Handle for those who have shares to record.
#[derive(Clone)]
pub struct Ledger {
    /// None: nothing is kept.
    commands: Option<mpsc::UnboundedSender<Command>>,
    backlog: Arc<Semaphore>,
}

/// How many shares wait for the backend.
#[derive(Clone, Debug)]
pub struct Backlog(Arc<Semaphore>);

impl Backlog {
    /// Shares of this run without the backend's answer.
    pub fn waiting(&self) -> usize {
        MAX_BACKLOG.saturating_sub(self.0.available_permits())
    }

    /// How many there may be; beyond that shares are refused.
    pub const fn limit(&self) -> usize {
        MAX_BACKLOG
    }
}

/// A share's places in what may be unanswered: of this gateway, and of its connection.
pub type Permit = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Who a share came from and how it is answered.
pub struct Origin<'a> {
    /// Number of the connection.
    pub connection: u64,
    /// Channel on it.
    pub channel_id: u32,
    /// The miner's number for the share.
    pub sequence_number: u32,
    /// Who mined it.
    pub user_identity: &'a str,
    /// Which machine behind a proxy.
    pub worker: Option<String>,
    /// The difficulty it is credited with.
    pub difficulty: f64,
    /// Mined while newer work was held back.
    pub held: bool,
    /// Its place in what its connection may have unanswered by the backend.
    pub quota: OwnedSemaphorePermit,
}

impl Ledger {
    /// A ledger that says yes at once and keeps nothing: to measure what stands before it.
    pub fn unrecorded() -> Self {
        Self { commands: None, backlog: Arc::new(Semaphore::new(0)) }
    }

    /// What waits for the backend, to look at: it keeps nothing of the ledger alive.
    pub fn backlog(&self) -> Backlog {
        Backlog(self.backlog.clone())
    }

    /// Hands a share over; the answer comes on `reply` once it is durable.
    ///
    /// # Errors
    /// [`Reason::ShareLedgerFull`] when too many shares wait for the backend.
    pub fn record(&self, share: &ValidShare, origin: Origin<'_>, reply: &AckSender) -> Result<(), Reason> {
        let ack = Ack {
            channel_id: origin.channel_id,
            sequence_number: origin.sequence_number,
            difficulty: origin.difficulty,
            recorded: Ok(()),
        };
        let Some(commands) = &self.commands else {
            return reply.try_send(ack).map_err(|_| Reason::ShareLedgerFull);
        };
        let permit = self.backlog.clone().try_acquire_owned().map_err(|_| Reason::ShareLedgerFull)?;
        let (record, quota) = accepted(share, origin);
        let command =
            Command::Share(Box::new(NewShare { record, ack, reply: reply.clone(), permit: (permit, quota) }));
        commands.send(command).map_err(|_| Reason::ShareLedgerFull)
    }
}

fn accepted(share: &ValidShare, origin: Origin<'_>) -> (schema::ShareAccepted, OwnedSemaphorePermit) {
    let template = &share.job.template;
    let record = schema::ShareAccepted {
        share_id: share.hash.to_string(),
        user_identity: origin.user_identity.to_owned(),
        worker: origin.worker,
        connection: origin.connection,
        channel: origin.channel_id,
        job: share.job.serial,
        template: template.digest.to_string(),
        height: template.height,
        previous_block_hash: template.previous_block_hash.to_string(),
        difficulty: origin.difficulty,
        version: share.header.version.to_consensus().cast_unsigned(),
        ntime: share.header.time,
        nonce: share.header.nonce,
        extranonce: hex::encode(share.extranonce),
        held: origin.held,
        solves_block: share.solves_block,
    };
    (record, origin.quota)
}

/// The running parts of a ledger, to be ended with [`LedgerTasks::drain`].
pub struct LedgerTasks {
    commands: mpsc::UnboundedSender<Command>,
    writer: tokio::task::JoinHandle<()>,
    forwarder: tokio::task::JoinHandle<()>,
}

impl LedgerTasks {
    /// Ends the ledger: records what was handed over, forwards what it can until `limit` has passed.
    /// What is left is in the file and is forwarded at the next start.
    pub async fn drain(self, limit: Duration) {
        let _ = self.commands.send(Command::Drain);
        drop(self.commands);
        let forwarder = self.forwarder.abort_handle();
        let ended = tokio::time::timeout(limit, async {
            let _ = self.forwarder.await;
        });
        if ended.await.is_err() {
            forwarder.abort();
        }
        let _ = self.writer.await;
    }
}

/// Opens the ledger in `folder` and starts it; must run inside a tokio runtime.
///
/// # Errors
/// When the file cannot be opened, is in use by another gateway, or holds a line that is no record
/// (the error names it).
pub fn open(folder: &Path, forward: ForwardConfig, events: Events) -> io::Result<(Ledger, LedgerTasks)> {
    let (file, recovered) = LedgerFile::open(folder)?;
    let (commands, inbox) = mpsc::unbounded_channel();
    // Unbounded channels, bounded by the permits that every share of this run in them carries.
    let (to_forward, forward_inbox) = mpsc::unbounded_channel();
    let forwarder = forward::Forwarder::new(forward, commands.clone(), events.clone())?;
    let forwarder = tokio::spawn(forwarder.run(forward_inbox, recovered));
    let writer = Writer { file, to_forward: Some(to_forward), events, failed: false };
    let writer = tokio::task::spawn_blocking(move || writer.run(inbox));
    let ledger = Ledger { commands: Some(commands.clone()), backlog: Arc::new(Semaphore::new(MAX_BACKLOG)) };
    Ok((ledger, LedgerTasks { commands, writer, forwarder }))
}

struct Writer {
    file: LedgerFile,
    to_forward: Option<mpsc::UnboundedSender<Forwardable>>,
    events: Events,
    failed: bool,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while inbox.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
            self.write(group.drain(..));
        }
    }

    fn write(&mut self, group: impl Iterator<Item = Command>) {
        let mut shares = Vec::new();
        let mut results = Vec::new();
        let mut drain = false;
        for command in group {
            match command {
                Command::Share(share) => {
                    let stamped = Stamped::now(Event::ShareAccepted(share.record.clone()));
                    let line = if self.failed { String::new() } else { self.file.push(&stamped) };
                    shares.push((*share, line));
                }
                Command::Results(_) if self.failed => {}
                Command::Results(group) => {
                    for result in group {
                        self.file.push(&Stamped::now(Event::ShareForwardResult(result.clone())));
                        results.push(result);
                    }
                }
                Command::Drain => drain = true,
            }
        }
        // After a failed write or sync nobody knows what is on the disk: nothing is acknowledged any
        // more in this run. A restart reads what is really there.
        if !self.failed
            && let Err(error) = self.file.commit()
        {
            self.failed = true;
            let detail =
                format!("{error}; no share is accepted until the gateway is restarted on a healthy disk");
            tracing::error!(%detail, "the share ledger cannot be written");
            self.events.emit(Event::LedgerFailed { reason: Reason::ShareLedgerFull, detail });
        }
        for (share, line) in shares {
            let NewShare { record, mut ack, reply, permit } = share;
            if self.failed {
                ack.recorded = Err(Reason::ShareLedgerFull);
            } else {
                if let Some(to_forward) = &self.to_forward {
                    let share_id = record.share_id.clone();
                    let _ =
                        to_forward.send(Forwardable { share_id, line, attempts: 0, permit: Some(permit) });
                }
                self.events.emit(Event::ShareAccepted(record));
            }
            // Never full: its capacity is the number of shares the connection may have in flight.
            // Closed when the miner has gone; the share counts all the same.
            let _ = reply.try_send(ack);
        }
        if !self.failed {
            results.into_iter().for_each(|result| self.events.emit(Event::ShareForwardResult(result)));
        }
        if drain {
            self.to_forward = None;
        }
    }
}
