//! The share ledger: each accepted share is told twice, and the files prove it.
//!
//! 1. `share_accepted` is on disk before the miner hears Success.
//! 2. `share_forward_result` follows once the pool backend has answered for good.
//!
//! Both are binary records of one append-only log, chained by HMAC and joined by `share_id`. One thread owns
//! the log: it writes whatever has gathered, makes it durable with one `fdatasync`, then acknowledges. What
//! is forwarded is read back from the log, so a backlog costs disk and no memory, and a restart is nothing
//! special: accepted shares without a result are forwarded again under the same id. What may be without a
//! result is bounded; near the bound acknowledgements slow down, beyond it shares are refused with a reason.
//! `docs/ledger.md` says why it is made like this, with measurements.
//!
//! - [`log`]: opening, appending, recovery, rotation, retention; [`segment`]: its files; [`head`]: how far it
//!   goes; [`record`]: what stands in it, [`json`]: as others read it; [`chain`]: HMACs and keys; [`corrupt`]: what can be wrong with it
//! - `writer`: the thread that owns it; [`settle`]: which shares have their result; [`fault`]: faults for tests
//! - [`feed`]: shares back from the log; [`schedule`]: when they are sent; [`forward`]: how; [`answer`]: what
//!   the backend said; [`sign`], [`secret`]: the signature and its key
//! - [`read`]: a ledger for those who look at it; [`verify`], [`export`], [`stats`]: what they do with it; [`repair`]:
//!   a new head where that is lost

pub mod answer;
pub mod chain;
pub mod corrupt;
pub mod export;
pub mod fault;
pub mod feed;
pub mod forward;
pub mod head;
pub mod json;
pub mod log;
pub mod read;
pub mod record;
mod recover;
pub mod repair;
pub mod schedule;
pub mod secret;
pub mod segment;
pub mod settle;
pub mod sign;
pub mod stats;
pub mod verify;
mod writer;

use crate::{
    event::{Event, Events, schema},
    job::{EXTRANONCE_LEN, Job},
    reason::Reason,
    share::ValidShare,
};
use answer::Verdict;
use bitcoin::{BlockHash, hashes::Hash as _};
use chain::Keys;
use fault::Fault;
use feed::{Feed, Progress};
use forward::{ForwardConfig, Requests};
use log::{Log, LogConfig, Opened};
use record::Hash;
use secret::Watched;
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use writer::{State, Writer};

/// Shares that may wait to be written; more are refused.
const MAX_QUEUED: u64 = 1 << 18;
/// Batches that are read before they can be sent.
const READ_AHEAD: usize = 2;
/// Between two looks at what is to be done from time to time.
const TICK: Duration = Duration::from_secs(1);

/// The ledger's word on one share, for the connection that sent it.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// Channel of the share.
    pub channel_id: u32,
    /// The miner's number for it.
    pub sequence_number: u32,
    /// Its header hash.
    pub hash: BlockHash,
    /// The difficulty it is credited with.
    pub difficulty: f64,
    /// Recorded durably, or why not.
    pub recorded: Result<(), Reason>,
}

/// Where the ledger answers. Its capacity is the connection's limit on shares in flight.
pub type AckSender = mpsc::Sender<Ack>;

/// A share on its way to the writer: nothing in it is text yet that is not text already.
struct NewShare {
    share_id: Hash,
    job: Arc<Job>,
    connection: u64,
    version: u32,
    ntime: u32,
    nonce: u32,
    extranonce: [u8; EXTRANONCE_LEN],
    held: bool,
    solves_block: bool,
    user_identity: String,
    worker: Option<String>,
    quota: OwnedSemaphorePermit,
    ack: Ack,
    reply: AckSender,
}

enum Command {
    Share(NewShare),
    /// Answers, with the room they take until they are written.
    Verdicts(Vec<Verdict>, OwnedSemaphorePermit),
    Block(schema::BlockFound),
    Tick,
    /// Files are full beyond another size, and kept for another time.
    Keep {
        segment_size: u64,
        keep: Duration,
    },
    /// What is to be forwarded cannot be read.
    Corrupt(String),
    Drain,
}

/// What everybody who has shares sees of the ledger without asking it.
#[derive(Debug, Default)]
struct Gauge {
    /// Durable shares without a result.
    open: AtomicU64,
    /// As many may be.
    max_open: AtomicU64,
    /// Shares that are not durable yet.
    queued: AtomicU64,
    /// Groups that were made durable.
    groups: AtomicU64,
    /// Nothing is accepted any more.
    failed: AtomicBool,
    /// The disk had no room when it was last tried.
    full: AtomicBool,
}

/// Handle for those who have shares to record.
#[derive(Clone)]
pub struct Ledger {
    /// None: nothing is kept.
    commands: Option<mpsc::UnboundedSender<Command>>,
    gauge: Arc<Gauge>,
}

/// How many shares wait for the backend. It keeps nothing of the ledger alive.
#[derive(Clone, Debug)]
pub struct Backlog(Arc<Gauge>);

impl Backlog {
    /// Shares without a result.
    pub fn waiting(&self) -> u64 {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Shares are refused: too many wait, the disk is full, or the log cannot be written any more.
    pub fn is_refusing(&self) -> bool {
        let stuck = self.0.failed.load(Ordering::Relaxed) || self.0.full.load(Ordering::Relaxed);
        stuck || self.waiting() >= self.limit()
    }

    /// How many there may be; beyond that shares are refused.
    pub fn limit(&self) -> u64 {
        self.0.max_open.load(Ordering::Relaxed)
    }
}

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
    /// Its place in what its connection may have unanswered by the backend; given back with the result.
    pub quota: OwnedSemaphorePermit,
}

impl Ledger {
    /// A ledger that says yes at once and keeps nothing: to measure what stands before it.
    pub fn unrecorded() -> Self {
        Self {
            commands: None,
            gauge: Arc::new(Gauge { max_open: AtomicU64::new(u64::MAX), ..Gauge::default() }),
        }
    }

    /// What waits for the backend, to look at.
    pub fn backlog(&self) -> Backlog {
        Backlog(self.gauge.clone())
    }

    /// Hands a share over; the answer comes on `reply` once it is durable.
    ///
    /// # Errors
    /// [`Reason::ShareLedgerFull`] when too many shares wait for the backend or the disk, or the ledger cannot
    /// be written any more.
    pub fn record(&self, share: &ValidShare, origin: Origin<'_>, reply: &AckSender) -> Result<(), Reason> {
        let ack = Ack {
            channel_id: origin.channel_id,
            sequence_number: origin.sequence_number,
            hash: share.hash,
            difficulty: origin.difficulty,
            recorded: Ok(()),
        };
        let Some(commands) = &self.commands else {
            return reply.try_send(ack).map_err(|_| Reason::ShareLedgerFull);
        };
        let gauge = &self.gauge;
        let queued = gauge.queued.fetch_add(1, Ordering::Relaxed);
        let full = queued >= MAX_QUEUED
            || queued + gauge.open.load(Ordering::Relaxed) >= gauge.max_open.load(Ordering::Relaxed);
        let share = NewShare {
            share_id: share.hash.to_byte_array(),
            job: share.job.clone(),
            connection: origin.connection,
            version: share.header.version.to_consensus().cast_unsigned(),
            ntime: share.header.time,
            nonce: share.header.nonce,
            extranonce: share.extranonce,
            held: origin.held,
            solves_block: share.solves_block,
            user_identity: origin.user_identity.to_owned(),
            worker: origin.worker,
            quota: origin.quota,
            ack,
            reply: reply.clone(),
        };
        let refused = full || gauge.failed.load(Ordering::Relaxed);
        if refused || commands.send(Command::Share(share)).is_err() {
            gauge.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::ShareLedgerFull);
        }
        Ok(())
    }

    /// Writes down what the node said about a solved block.
    pub fn block(&self, answer: schema::BlockFound) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::Block(answer));
        }
    }

    /// Groups of records that this run made durable, each with one sync.
    pub fn groups(&self) -> u64 {
        self.gauge.groups.load(Ordering::Relaxed)
    }
}

/// What a ledger is made of.
#[derive(Clone)]
pub struct LedgerConfig {
    /// The log.
    pub log: LogConfig,
    /// What the chain is made with; without it the folder has a key of its own.
    pub keys: Option<Keys>,
    /// Where these keys are written, to be looked at again.
    pub key_file: Option<PathBuf>,
    /// Shares that may be without a result; more are refused.
    pub max_backlog: u64,
    /// What goes wrong with the disk, in tests.
    pub fault: Fault,
}

impl LedgerConfig {
    /// A ledger in this folder, with everything else as it is by default.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        let keep = Duration::from_secs(90 * 24 * 3_600);
        let log = LogConfig { folder: folder.into(), segment_size: 256 << 20, keep };
        Self { log, keys: None, key_file: None, max_backlog: 50_000_000, fault: Fault::None }
    }
}

/// What may change of a running ledger. It keeps nothing of the ledger alive.
#[derive(Clone)]
pub struct Dials {
    gauge: Arc<Gauge>,
    commands: mpsc::WeakUnboundedSender<Command>,
    batch_size: Arc<AtomicUsize>,
    requests: watch::Sender<Requests>,
}

impl Dials {
    /// Other limits of what is kept.
    pub fn set_limits(&self, segment_size: u64, keep: Duration, max_backlog: u64) {
        self.gauge.max_open.store(max_backlog, Ordering::Relaxed);
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.send(Command::Keep { segment_size, keep });
        }
    }

    /// Another backend, or another way to talk to it, from the next request on; one that is down is tried at
    /// once.
    pub fn set_requests(&self, requests: Requests, batch_size: usize) {
        self.batch_size.store(batch_size, Ordering::Relaxed);
        self.requests.send_if_modified(|before| {
            let differs = *before != requests;
            *before = requests;
            differs
        });
    }
}

/// The running parts of a ledger, to be ended with [`LedgerTasks::drain`].
pub struct LedgerTasks {
    /// What may change.
    pub dials: Dials,
    commands: mpsc::UnboundedSender<Command>,
    writer: tokio::task::JoinHandle<()>,
    forwarder: tokio::task::JoinHandle<()>,
    ticker: tokio::task::JoinHandle<()>,
}

impl LedgerTasks {
    /// Ends the ledger: records what was handed over, forwards what it can until `limit` has passed.
    /// What is left is in the log and is forwarded at the next start.
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
        self.ticker.abort();
        let _ = self.writer.await;
    }
}

/// Opens a ledger and starts it; must run inside a tokio runtime.
///
/// # Errors
/// When the folder cannot be used, is in use by another gateway, or holds a ledger that is not as it was
/// written; the error says where and what to do.
pub fn open(
    config: LedgerConfig,
    forward: ForwardConfig,
    events: Events,
) -> io::Result<(Ledger, LedgerTasks)> {
    let folder = config.log.folder.clone();
    let Opened { log, settled, cut } = Log::open(config.log, config.keys, config.fault)?;
    if let Some(detail) = cut {
        events.emit(Event::LedgerStatus { reason: Reason::LedgerTailCut, detail });
    }
    let first_share = log.next_share();
    let open = (first_share - 1).saturating_sub(settled.answered());
    let progress = Arc::new(Progress::new(log.end(), log.keys().clone()));
    let settled = Arc::new(Mutex::new(settled));
    let gauge = Arc::new(Gauge {
        open: AtomicU64::new(open),
        max_open: AtomicU64::new(config.max_backlog),
        queued: AtomicU64::new(0),
        groups: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        full: AtomicBool::new(false),
    });
    let (commands, inbox) = mpsc::unbounded_channel();
    let (batches, to_forward) = mpsc::channel(READ_AHEAD);
    let batch_size = Arc::new(AtomicUsize::new(forward.batch_size));
    let requests = watch::Sender::new(forward.requests.clone());
    let dials = Dials {
        gauge: gauge.clone(),
        commands: commands.downgrade(),
        batch_size: batch_size.clone(),
        requests: requests.clone(),
    };
    let feed = Feed::new(folder, progress.clone(), settled.clone(), first_share, batch_size)?;
    let trouble = commands.downgrade();
    std::thread::Builder::new().name("ledger-feed".into()).spawn(move || {
        if let Err(corruption) = feed.run(&batches)
            && let Some(commands) = trouble.upgrade()
        {
            let _ = commands.send(Command::Corrupt(corruption.to_string()));
        }
    })?;
    let forwarder = forward::Forwarder::new(forward, requests.subscribe(), commands.clone(), events.clone())?;
    let forwarder = tokio::spawn(forwarder.run(to_forward, open));
    let key_file = config.key_file.as_deref().map(Watched::new);
    let state = State::new(first_share);
    let writer = Writer { log, settled, progress, gauge: gauge.clone(), events, key_file, state };
    let writer = tokio::task::spawn_blocking(move || writer.run(inbox));
    let clock = commands.downgrade();
    let ticker = tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            let Some(commands) = clock.upgrade() else { return };
            let _ = commands.send(Command::Tick);
        }
    });
    let ledger = Ledger { commands: Some(commands.clone()), gauge };
    Ok((ledger, LedgerTasks { dials, commands, writer, forwarder, ticker }))
}
