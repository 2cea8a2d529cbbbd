//! Miners that bring shares to a ledger, as fast as it takes them or at a fixed rate.
//!
//! At a rate the load is open: each share has a time at which it is due, whatever became of those before,
//! and its delay is counted from then on. Only the bound that the gateway has too, so many shares of a connection
//! without an answer, holds a share back, and what it waits there counts.

use crate::{
    backend::{Backend, SECRET},
    machine::{Processors, resident},
};
use reservegrid::{
    config::Secret,
    event,
    gate::{Action, Gate, Mode, Timings},
    job::{EXTRANONCE_LEN, Job},
    ledger::{
        self, Ack, Ledger, LedgerConfig, LedgerTasks, Origin,
        fault::Fault,
        forward::{ForwardConfig, Requests},
        secret::SigningKeys,
    },
    policy::Verdict,
    share::{self, ChannelJob, Seen, Submission, ValidShare, target},
    template::{
        TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
    },
};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, mpsc},
};

/// Shares that are sent again and again; a ledger does not compare them.
const POOL: usize = 60_000;
/// Connections, each with as many shares in flight as the gateway lets it have.
const CONNECTIONS: usize = 64;
const IN_FLIGHT: usize = 256;

/// Real shares, judged by the gateway's own rules, on a job of the embedded chain.
pub(crate) async fn shares() -> Vec<ValidShare> {
    let chain =
        EmbeddedChain::new(EmbeddedConfig { transactions_per_template: 3, ..EmbeddedConfig::default() });
    let sourced = chain.unwrap().next_template(None, Duration::from_secs(9)).await.unwrap().unwrap();
    let hour = Duration::from_secs(3_600);
    let timings = Timings { verdict_timeout: hour, hold_timeout: hour, coinbase_only_after: None };
    let mut gate = Gate::new(Mode::Observe, timings, Instant::now());
    let digest = sourced.template.digest;
    let mut actions = gate.on_template(Instant::now(), sourced.template);
    actions.extend(gate.on_verdict(Instant::now(), digest, &Verdict::accept()));
    let released = actions.into_iter().find_map(|action| match action {
        Action::Release { template, .. } => Some(template),
        _ => None,
    });
    let job = Arc::new(Job::new(released.unwrap(), 1).unwrap());
    let version = job.template.version.to_consensus().cast_unsigned();
    let ntime = job.template.current_time.max(job.template.min_time);
    let channel_job = ChannelJob {
        job_id: 1,
        job: job.clone(),
        target: target::easiest(),
        difficulty: target::difficulty(target::easiest()),
        min_ntime: ntime,
    };
    let extranonce = [7; EXTRANONCE_LEN];
    let root = job.merkle_root(&extranonce);
    let mut seen = Seen::default();
    let judge = |nonce| {
        let submission = Submission { nonce, ntime, version };
        share::validate(&channel_job, submission, extranonce, root, &mut seen, ntime).ok()
    };
    (0..).filter_map(judge).take(POOL).collect()
}

pub(crate) fn open(folder: &Path, fault: Fault, backend: Option<&Backend>) -> (Ledger, LedgerTasks) {
    let (events, _) = event::start(None, None).unwrap();
    let forward = ForwardConfig {
        keys: Arc::new(SigningKeys::new(&Secret::new(SECRET), "bench").unwrap()),
        batch_size: 512,
        requests: Requests {
            url: backend.map_or("http://127.0.0.1:1/".into(), |backend| backend.url.clone()),
            in_flight: 4,
            timeout: Duration::from_secs(5),
        },
    };
    let config = LedgerConfig { max_backlog: u64::MAX, fault, ..LedgerConfig::in_folder(folder) };
    ledger::open(config, forward, events).unwrap()
}

/// One measurement.
#[derive(Default)]
pub(crate) struct Run<'a> {
    pub(crate) folder: PathBuf,
    pub(crate) fault: Fault,
    /// Shares a second that come; as many as are taken without.
    pub(crate) rate: Option<f64>,
    /// Shares in all; those of the time without.
    pub(crate) total: Option<u64>,
    pub(crate) backend: Option<&'a Backend>,
}

pub(crate) struct Measured {
    pub(crate) took: Duration,
    pub(crate) acked: u64,
    pub(crate) groups: u64,
    pub(crate) delays: Vec<Duration>,
    pub(crate) forwarded: u64,
    pub(crate) open: u64,
    /// Time on a processor: the gateway's threads, those of the miners, those of the backend.
    pub(crate) spent: [Duration; 3],
    /// Memory when so many shares had come: a tenth, two tenths, ... of the total.
    pub(crate) memory: Vec<(u64, u64)>,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.acked as f64 / self.took.as_secs_f64()
    }

    /// Microseconds of a processor for each share: gateway, miners, backend.
    pub(crate) fn each(&self) -> [f64; 3] {
        self.spent.map(|spent| spent.as_secs_f64() * 1e6 / self.acked as f64)
    }
}

impl Run<'_> {
    /// Brings shares for a while; called on the gateway's own runtime.
    pub(crate) async fn offer(
        self,
        miners: &Runtime,
        shares: &Arc<Vec<ValidShare>>,
        time: Duration,
    ) -> Measured {
        let (ledger, tasks) = open(&self.folder, self.fault, self.backend);
        let forwarded = || self.backend.map_or(0, Backend::shares);
        let before = (forwarded(), Processors::now());
        let stop = Arc::new(AtomicBool::new(false));
        let total = self.total.unwrap_or(u64::MAX);
        let left = Arc::new(AtomicU64::new(total));
        let started = Instant::now();
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let connection = Connection {
                    number: number as u64,
                    ledger: ledger.clone(),
                    shares: shares.clone(),
                    stop: stop.clone(),
                    left: left.clone(),
                };
                let rate = self.rate.map(|rate| rate / CONNECTIONS as f64);
                miners.spawn(connection.run(rate, started))
            })
            .collect();
        let mut memory = Vec::new();
        let step = total / 10;
        while started.elapsed() < time && left.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let came = total - left.load(Ordering::Relaxed);
            if came >= step * (memory.len() as u64 + 1) {
                memory.push((came, resident()));
            }
        }
        let (came, open) = (forwarded() - before.0, ledger.backlog().waiting());
        let now = Processors::now();
        // The main thread has the clock and the measuring.
        let parts: [&[&str]; 3] = [&["gateway", "ledger-feed"], &["miners"], &["backend"]];
        let spent = parts.map(|names| now.since(&before.1, names));
        stop.store(true, Ordering::Relaxed);
        let (mut acked, mut delays) = (0, Vec::new());
        for connection in connections {
            let (count, more) = connection.await.unwrap();
            acked += count;
            delays.extend(more);
        }
        let took = started.elapsed();
        let groups = ledger.groups();
        drop(ledger);
        tasks.drain(Duration::ZERO).await;
        Measured { took, acked, groups, delays, forwarded: came, open, spent, memory }
    }
}

/// What a connection's task does with shares and acknowledgements.
struct Connection {
    number: u64,
    ledger: Ledger,
    shares: Arc<Vec<ValidShare>>,
    stop: Arc<AtomicBool>,
    left: Arc<AtomicU64>,
}

impl Connection {
    async fn run(self, rate: Option<f64>, started: Instant) -> (u64, Vec<Duration>) {
        let (sender, mut acks) = mpsc::channel(IN_FLIGHT);
        let quota = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        // Of those without an answer, in order, as the answers come.
        let (mut sent, mut count) = (VecDeque::<Instant>::new(), 0u64);
        let (mut acked, mut delays, mut taken) = (0u64, Vec::new(), Vec::<Ack>::new());
        let mut at = self.number as usize * (POOL / CONNECTIONS);
        loop {
            let due = rate.map_or(u64::MAX, |rate| (started.elapsed().as_secs_f64() * rate) as u64);
            let stopped = self.stop.load(Ordering::Relaxed);
            while !stopped && count < due && sent.len() < IN_FLIGHT {
                let counted =
                    self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                if counted.is_err() {
                    break;
                }
                let origin = Origin {
                    connection: self.number,
                    channel_id: 1,
                    sequence_number: count as u32,
                    user_identity: "account.worker-17",
                    worker: None,
                    difficulty: 1.0,
                    held: false,
                    quota: quota.clone().try_acquire_owned().unwrap(),
                };
                at = (at + 1) % POOL;
                let at_rate = |rate: f64| started + Duration::from_secs_f64(count as f64 / rate);
                sent.push_back(rate.map_or_else(Instant::now, at_rate));
                count += 1;
                self.ledger.record(&self.shares[at], origin, &sender).unwrap();
            }
            if sent.is_empty() && (stopped || self.left.load(Ordering::Relaxed) == 0) {
                return (acked, delays);
            }
            let patience = Duration::from_millis(if rate.is_some() { 2 } else { 50 });
            if sent.is_empty() {
                tokio::time::sleep(patience).await;
            } else if tokio::time::timeout(patience, acks.recv_many(&mut taken, IN_FLIGHT)).await.is_ok() {
                let now = Instant::now();
                for ack in taken.drain(..) {
                    ack.recorded.unwrap();
                    acked += 1;
                    let began = sent.pop_front().unwrap();
                    if rate.is_some() {
                        delays.push(now.saturating_duration_since(began));
                    }
                }
            }
        }
    }
}

/// Some more shares for a ledger.
pub(crate) async fn offer_some(ledger: &Ledger, shares: &[ValidShare]) {
    let (sender, mut acks) = mpsc::channel(IN_FLIGHT);
    let quota = Arc::new(Semaphore::new(IN_FLIGHT));
    for share in &shares[..IN_FLIGHT] {
        let origin = Origin {
            connection: 1,
            channel_id: 1,
            sequence_number: 1,
            user_identity: "account",
            worker: None,
            difficulty: 1.0,
            held: false,
            quota: quota.clone().try_acquire_owned().unwrap(),
        };
        ledger.record(share, origin, &sender).unwrap();
    }
    for _ in 0..IN_FLIGHT {
        acks.recv().await.unwrap().recorded.unwrap();
    }
}
