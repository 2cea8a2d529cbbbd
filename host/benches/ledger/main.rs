//! The share ledger on this machine's disk: durable shares a second, what an acknowledgement costs, how far
//! forwarding keeps up, how long a restart takes and what memory a backlog takes.
//!
//! The floors are what the disk does without a ledger: appending as many bytes at once as the ledger's groups
//! have, and one `fdatasync` for each; and shares of the same size that come at the same rate, appended and
//! synced by a thread that does nothing else. The folder is `RESERVEGRID_BENCH_DIR`, or a temporary one in
//! `target`; `RESERVEGRID_BENCH_SHARES` is the size of the backlog (10 million; 207 bytes each).
//!
//! Miners, gateway and backend are in this process, each on threads of its own, and share its processors: what
//! each of them takes of those for a share is printed, so that what the gateway needs by itself can be
//! told. Handing a share over is done by the miners' threads, as by those of the connections in a gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod backend;
mod crowd;
mod machine;

use backend::Backend;
use crowd::{Measured, Run, offer_some, open, shares};
use machine::{load, resident};
use reservegrid::ledger::fault::Fault;
use reservegrid::share::ValidShare;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

const TARGET_RATE: f64 = 100_000.0;

/// What all measurements need.
struct Bench<'a> {
    folder: &'a Path,
    shares: Arc<Vec<ValidShare>>,
    miners: &'a Runtime,
    backend: &'a Backend,
}

fn main() {
    let backlog: u64 =
        std::env::var("RESERVEGRID_BENCH_SHARES").map_or(10_000_000, |text| text.parse().unwrap());
    let place = std::env::var_os("RESERVEGRID_BENCH_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = tempfile::Builder::new().prefix("ledger-bench-").tempdir_in(place).unwrap();
    let [gateway, miners, pool] = ["gateway", "miners", "backend"].map(runtime);
    let backend = pool.block_on(Backend::start());
    gateway.block_on(async {
        let shares = Arc::new(shares().await);
        let bench = Bench { folder: folder.path(), shares, miners: &miners, backend: &backend };
        println!("load of the machine before: {}", load());
        let each = bench.speed().await;
        bench.acks(each).await;
        bench.forwarding().await;
        bench.backlog(backlog).await;
        println!("load of the machine after: {}", load());
    });
}

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

impl Bench<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn run(&self, run: Run<'_>, time: Duration) -> Measured {
        run.offer(self.miners, &self.shares, time).await
    }

    /// As fast as it goes, the backend away. Gives the bytes of a share.
    async fn speed(&self) -> usize {
        let folder = self.at("speed");
        let run = Run { folder: folder.clone(), ..Run::default() };
        let speed = self.run(run, Duration::from_secs(5)).await;
        let bytes = size(&folder);
        fs::remove_dir_all(&folder).unwrap();
        let each = bytes as f64 / speed.acked as f64;
        println!("durable shares, as fast as they come   {:>10.0} /s", speed.rate());
        println!("bytes of a share in the log            {each:>10.0}");
        let at_once = bytes as usize / usize::try_from(speed.groups.max(1)).unwrap();
        let floor = machine::appends(&folder, at_once);
        println!(
            "bare append and fdatasync, {at_once:>7} bytes {floor:>9.0} /s: {:.0} shares/s; the ledger does {:.0} % of it",
            floor * at_once as f64 / each,
            100.0 * speed.rate() / (floor * at_once as f64 / each)
        );
        processors(&speed);
        each as usize
    }

    /// At the rate of the target, with and without syncs.
    async fn acks(&self, each: usize) {
        let time = Duration::from_secs(10);
        let mut p99 = Vec::new();
        for (name, fault) in [("with fdatasync", Fault::None), ("without", Fault::NoSync)] {
            let run = Run { folder: self.at(name), fault, rate: Some(TARGET_RATE), ..Run::default() };
            let run = self.run(run, time).await;
            fs::remove_dir_all(self.at(name)).unwrap();
            println!("acks at {:>6.0} shares/s, {name:<14} {}", run.rate(), line(&run.delays));
            p99.push(percentile(&run.delays, 0.99));
        }
        println!("durability costs at p99                {:>10.2} ms (target: 15)", p99[0] - p99[1]);
        let disk = machine::ideal(&self.at("ideal"), TARGET_RATE, each, time);
        println!("the disk alone, the same bytes         {}", line(&disk));
    }

    /// At the same rate with a backend that answers.
    async fn forwarding(&self) {
        let folder = self.at("paid");
        let rate = Some(TARGET_RATE);
        let run = Run { folder: folder.clone(), rate, backend: Some(self.backend), ..Run::default() };
        let run = self.run(run, Duration::from_secs(15)).await;
        fs::remove_dir_all(folder).unwrap();
        println!(
            "forwarded while {:.0} shares/s come     {:>10.0} /s, {} of {} waited at the end",
            run.rate(),
            run.forwarded as f64 / run.took.as_secs_f64(),
            run.open,
            run.acked
        );
        processors(&run);
    }

    /// A backlog: its memory, a restart with it, and how fast it goes away.
    async fn backlog(&self, shares: u64) {
        let folder = self.at("backlog");
        println!("memory before a backlog                {:>10} MB", resident() >> 20);
        let run = Run { folder: folder.clone(), total: Some(shares), ..Run::default() };
        let run = self.run(run, Duration::from_secs(3_600)).await;
        for (came, memory) in run.memory {
            println!("with {came:>10} shares waiting        {:>10} MB", memory >> 20);
        }
        println!("on the disk                            {:>10} MB", size(&folder) >> 20);
        for what in ["after a clean end", "after a crash"] {
            if what == "after a crash" {
                // The head of a second ago.
                copy_head(&folder, "head.before", "head");
            }
            let started = Instant::now();
            let (ledger, tasks) = open(&folder, Fault::None, None);
            println!(
                "restart with it, {what:<18}    {:>8.3} s, {} shares open, {} MB",
                started.elapsed().as_secs_f64(),
                ledger.backlog().waiting(),
                resident() >> 20
            );
            copy_head(&folder, "head", "head.before");
            if what == "after a clean end" {
                offer_some(&ledger, &self.shares).await;
            }
            drop(ledger);
            tasks.drain(Duration::ZERO).await;
        }
        let (ledger, tasks) = open(&folder, Fault::None, Some(self.backend));
        let (started, first) = (Instant::now(), self.backend.shares());
        while started.elapsed() < Duration::from_secs(15) && ledger.backlog().waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let rate = (self.backend.shares() - first) as f64 / started.elapsed().as_secs_f64();
        println!("a backlog is forwarded at              {rate:>10.0} /s, {} MB", resident() >> 20);
        drop(ledger);
        tasks.drain(Duration::ZERO).await;
    }
}

fn processors(run: &Measured) {
    let [gateway, miners, backend] = run.each();
    println!(
        "processor time of a share: gateway {gateway:.2} us, miners {miners:.2}, backend {backend:.2}; at 100,000 a \
         second the gateway takes {:.2} of {} processors",
        gateway * TARGET_RATE / 1e6,
        std::thread::available_parallelism().map_or(1, usize::from)
    );
}

fn line(delays: &[Duration]) -> String {
    let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|part| percentile(delays, part));
    format!("p50 {p50:>7.2} ms, p99 {p99:>7.2} ms, worst {worst:>7.2} ms")
}

/// Milliseconds.
fn percentile(delays: &[Duration], part: f64) -> f64 {
    let mut delays = delays.to_vec();
    delays.sort_unstable();
    delays[((delays.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
}

/// Bytes of the segments in a folder.
fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.filter(|file| file.path().extension().is_some()).map(|file| file.metadata().unwrap().len()).sum()
}

fn copy_head(folder: &Path, from: &str, to: &str) {
    fs::copy(folder.join(from), folder.join(to)).unwrap();
}
