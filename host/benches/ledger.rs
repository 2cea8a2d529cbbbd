//! The share ledger on this machine's disk: durable shares a second, what an acknowledgement costs, how far
//! forwarding keeps up, how long a restart takes and what memory a backlog takes.
//!
//! The floor is what the disk does without a ledger: appending as many bytes at once as the ledger's groups
//! have, and one `fdatasync` for each. The folder is `RESERVEGRID_BENCH_DIR`, or a temporary one in `target`;
//! `RESERVEGRID_BENCH_SHARES` is the size of the backlog (10 million). Miners, ledger, HTTP and backend share
//! the machine's cores in this process, so the figures are those of a gateway that has nothing else to do.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
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
        sign,
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
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};

const SECRET: &str = "the secret of the bench";
/// Shares that are sent again and again; a ledger does not compare them.
const POOL: usize = 60_000;
/// Connections, each with as many shares in flight as the gateway lets it have.
const CONNECTIONS: usize = 64;
const IN_FLIGHT: usize = 256;
const TARGET_RATE: f64 = 100_000.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let backlog: u64 =
        std::env::var("RESERVEGRID_BENCH_SHARES").map_or(10_000_000, |text| text.parse().unwrap());
    let place = std::env::var_os("RESERVEGRID_BENCH_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = tempfile::Builder::new().prefix("ledger-bench-").tempdir_in(place).unwrap();
    runtime.block_on(async {
        let shares = Arc::new(shares().await);
        let at = |name: &str| folder.path().join(name);

        // As fast as it goes, the backend away.
        let speed = Run { folder: at("speed"), ..Run::default() }.offer(&shares, Duration::from_secs(5)).await;
        let bytes = size(&at("speed"));
        let each = bytes as f64 / speed.acked as f64;
        println!("durable shares, as fast as they come   {:>10.0} /s", speed.rate());
        println!("bytes of a share in the log            {each:>10.0}");
        let groups = speed.groups.max(1);
        let at_once = bytes as usize / usize::try_from(groups).unwrap();
        let floor = floor(&at("floor"), at_once);
        println!(
            "bare append and fdatasync, {:>7} bytes {:>9.0} /s: {:.0} shares/s; the ledger does {:.0} % of it",
            at_once,
            floor,
            floor * at_once as f64 / each,
            100.0 * speed.rate() / (floor * at_once as f64 / each)
        );
        fs::remove_dir_all(at("speed")).unwrap();

        // At the rate of the target, with and without syncs.
        let mut p99 = Vec::new();
        for (name, fault) in [("with fdatasync", Fault::None), ("without", Fault::NoSync)] {
            let run = Run { folder: at(name), fault, rate: Some(TARGET_RATE), ..Run::default() };
            let mut run = run.offer(&shares, Duration::from_secs(10)).await;
            let (p50, late) = (run.percentile(0.5), run.percentile(0.99));
            println!(
                "acks at {:>6.0} shares/s, {name:<14} p50 {:>7.2} ms, p99 {:>7.2} ms",
                run.rate(),
                ms(p50),
                ms(late)
            );
            p99.push(ms(late));
            fs::remove_dir_all(at(name)).unwrap();
        }
        println!("durability costs at p99                {:>10.2} ms (target: 15)", p99[0] - p99[1]);

        // The same with a backend that answers, in this process.
        let backend = Backend::start().await;
        let run = Run { folder: at("paid"), rate: Some(TARGET_RATE), backend: Some(&backend), ..Run::default() };
        let run = run.offer(&shares, Duration::from_secs(15)).await;
        println!(
            "forwarded while {:.0} shares/s come        {:>8.0} /s, {} of {} waited at the end",
            run.rate(),
            run.forwarded as f64 / run.took.as_secs_f64(),
            run.open,
            run.acked
        );
        fs::remove_dir_all(at("paid")).unwrap();

        // A backlog: its memory, a restart with it, and how fast it goes away.
        let before = resident();
        let run = Run { folder: at("backlog"), total: Some(backlog), ..Run::default() };
        let peak = run.offer(&shares, Duration::from_secs(3_600)).await.peak;
        println!(
            "memory, backlog of {backlog} shares    {:>6} MB before, {:>6} MB at most ({} MB on disk)",
            before >> 20,
            peak >> 20,
            size(&at("backlog")) >> 20
        );
        for what in ["after a clean end", "after a crash"] {
            if what == "after a crash" {
                // The head of a second ago.
                copy_head(&at("backlog"), "head.before", "head");
            }
            let started = Instant::now();
            let (ledger, tasks) = open(&at("backlog"), Fault::None, None);
            println!(
                "restart with it, {what:<18}    {:>8.3} s, {} shares open",
                started.elapsed().as_secs_f64(),
                ledger.backlog().waiting()
            );
            copy_head(&at("backlog"), "head", "head.before");
            if what == "after a clean end" {
                offer_some(&ledger, &shares).await;
            }
            drop(ledger);
            tasks.drain(Duration::ZERO).await;
        }
        let (ledger, tasks) = open(&at("backlog"), Fault::None, Some(&backend));
        let (started, first) = (Instant::now(), backend.shares.load(Ordering::Relaxed));
        while started.elapsed() < Duration::from_secs(15) && ledger.backlog().waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let rate = (backend.shares.load(Ordering::Relaxed) - first) as f64 / started.elapsed().as_secs_f64();
        println!("a backlog is forwarded at               {rate:>9.0} /s, {} MB resident", resident() >> 20);
        drop(ledger);
        tasks.drain(Duration::ZERO).await;
    });
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Bytes of the segments in a folder.
fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.filter(|file| file.path().extension().is_some()).map(|file| file.metadata().unwrap().len()).sum()
}

fn copy_head(folder: &Path, from: &str, to: &str) {
    fs::copy(folder.join(from), folder.join(to)).unwrap();
}

/// Memory of this process, bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4_096
}

/// Appends of so many bytes, each with its sync, a second.
fn floor(path: &Path, bytes: usize) -> f64 {
    let mut file = File::create(path).unwrap();
    let chunk: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as u8).collect();
    let (started, mut count) = (Instant::now(), 0u32);
    while started.elapsed() < Duration::from_secs(3) {
        file.write_all(&chunk).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    let rate = f64::from(count) / started.elapsed().as_secs_f64();
    fs::remove_file(path).unwrap();
    rate
}

/// Real shares, judged by the gateway's own rules, on a job of the embedded chain.
async fn shares() -> Vec<ValidShare> {
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

fn open(folder: &Path, fault: Fault, backend: Option<&Backend>) -> (Ledger, LedgerTasks) {
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
struct Run<'a> {
    folder: PathBuf,
    fault: Fault,
    /// Shares a second that come; as many as are taken without.
    rate: Option<f64>,
    /// Shares in all; those of the time without.
    total: Option<u64>,
    backend: Option<&'a Backend>,
}

struct Measured {
    took: Duration,
    acked: u64,
    groups: u64,
    delays: Vec<Duration>,
    forwarded: u64,
    open: u64,
    peak: u64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.acked as f64 / self.took.as_secs_f64()
    }

    fn percentile(&mut self, part: f64) -> Duration {
        self.delays.sort_unstable();
        self.delays[((self.delays.len() - 1) as f64 * part) as usize]
    }
}

impl Run<'_> {
    async fn offer(self, shares: &Arc<Vec<ValidShare>>, time: Duration) -> Measured {
        let (ledger, tasks) = open(&self.folder, self.fault, self.backend);
        let forwarded = || self.backend.map_or(0, |backend| backend.shares.load(Ordering::Relaxed));
        let before = forwarded();
        let stop = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicU64::new(self.total.unwrap_or(u64::MAX)));
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
                tokio::spawn(connection.run(rate, started))
            })
            .collect();
        let mut peak = 0;
        while started.elapsed() < time && left.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            peak = peak.max(resident());
        }
        let (came, open_shares) = (forwarded() - before, ledger.backlog().waiting());
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
        Measured { took, acked, groups, delays, forwarded: came, open: open_shares, peak }
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
                sent.push_back(Instant::now());
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
                        delays.push(now - began);
                    }
                }
            }
        }
    }
}

/// Some more shares for a ledger.
async fn offer_some(ledger: &Ledger, shares: &[ValidShare]) {
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

/// Checks signatures and says yes to every share.
struct Backend {
    url: String,
    shares: Arc<AtomicU64>,
}

impl Backend {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/shares", listener.local_addr().unwrap());
        let shares = Arc::new(AtomicU64::new(0));
        let app = Router::new().route("/shares", post(take)).with_state(shares.clone());
        let app = app.layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shares }
    }
}

async fn take(State(shares): State<Arc<AtomicU64>>, headers: HeaderMap, body: Bytes) -> String {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let signature = header(sign::SIGNATURE_HEADER);
    assert!(sign::verify(SECRET.as_bytes(), &header(sign::TIMESTAMP_HEADER), &body, &signature));
    // A pool would parse it all; this is to measure the gateway.
    const NEEDLE: &[u8] = b"\"share_id\":\"";
    let mut answer = String::from("{\"results\":[");
    let (mut at, mut count) = (0, 0);
    while let Some(found) = body[at..].windows(NEEDLE.len()).position(|window| window == NEEDLE) {
        let id = at + found + NEEDLE.len();
        answer.push_str(if count > 0 { ",{\"share_id\":\"" } else { "{\"share_id\":\"" });
        answer.push_str(std::str::from_utf8(&body[id..id + 64]).unwrap());
        answer.push_str("\",\"accepted\":true}");
        // What follows an id has a known length at least.
        at = (id + 400).min(body.len());
        count += 1;
    }
    answer.push_str("]}");
    shares.fetch_add(count, Ordering::Relaxed);
    answer
}
