//! `reservegrid-load`: measures a Stratum V2 pool and prints what it saw beside what is wanted.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use reservegrid_load::{
    bare, hostile,
    pool::Pool,
    scenario::{
        arrive, crowd, miners_gently, scrape,
        shares::{self, Kind},
        tips,
    },
};
use std::{
    net::SocketAddr,
    process::{Command as Process, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[derive(Parser)]
#[command(about = "Load for Stratum V2 pools; without --address the gateway is started and measured")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone, Copy)]
struct Target {
    /// A pool that runs already, IP:PORT.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// The id of its process, for processor time and memory.
    #[arg(long, requires = "address")]
    pid: Option<u32>,
}

#[derive(Subcommand)]
enum Command {
    /// Everything, one after the other.
    All {
        #[command(flatten)]
        target: Target,
    },
    /// Shares a second, their cost and the latency of their answers.
    Shares {
        #[command(flatten)]
        target: Target,
        /// Connections.
        #[arg(long, default_value_t = 50)]
        connections: usize,
        /// Shares of each connection in one run; a gateway takes at most 65,536 of a channel and tip.
        #[arg(long, default_value_t = 12_000)]
        each: u32,
        /// Runs; the best one counts.
        #[arg(long, default_value_t = 3)]
        runs: u32,
        /// The whole gateway with its ledger in this folder (/dev/shm: without waiting for a disk) rather
        /// than the mining server alone; its pool backend, too, has to keep up, so take fewer shares.
        #[arg(long)]
        ledger: Option<std::path::PathBuf>,
    },
    /// What a connection costs, and how soon it has work.
    Arrive {
        #[command(flatten)]
        target: Target,
        /// Connections.
        #[arg(long, default_value_t = 3_000)]
        connections: usize,
    },
    /// Memory of connections that do nothing.
    Idle {
        #[command(flatten)]
        target: Target,
        /// Connections.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// How often all come back.
        #[arg(long, default_value_t = 4)]
        times: usize,
    },
    /// How long a new tip takes to the last of many connections; the pool's blocks must be easy.
    Tips {
        #[command(flatten)]
        target: Target,
        /// Connections.
        #[arg(long, default_value_t = 5_000)]
        connections: usize,
        /// Tips.
        #[arg(long, default_value_t = 5)]
        tips: usize,
    },
    /// A healthy miner alone, and the same miner among hostile peers.
    Hostile {
        #[command(flatten)]
        target: Target,
        /// Hostile connections.
        #[arg(long, default_value_t = 2_000)]
        connections: usize,
        /// Seconds with and without them, each.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// What a Prometheus that scrapes ten times a second costs miners.
    Scrape {
        /// Connections, each with a channel.
        #[arg(long, default_value_t = 1_000)]
        connections: usize,
        /// Seconds of each turn, with and without it.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Is hostile until its input ends.
    #[command(hide = true)]
    BeHostile {
        #[arg(long)]
        address: SocketAddr,
        #[arg(long)]
        connections: usize,
        /// Only one kind, by its place in the list.
        #[arg(long)]
        kind: Option<usize>,
    },
    /// Serves miners with a ledger that keeps nothing.
    #[command(hide = true)]
    ServeBare {
        #[arg(long)]
        success_batch: u32,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::All { target } => {
            measure_shares(target, 50, 12_000, 3, None).await?;
            measure_arrivals(target, 3_000).await?;
            measure_idle(target, 10_000, 4).await?;
            measure_tips(target, 5_000, 5).await?;
            measure_tips(target, 10_000, 5).await?;
            measure_hostile(target, 2_000, Duration::from_secs(15)).await?;
            scrape::measure(1_000, Duration::from_secs(5)).await
        }
        Command::Shares { target, connections, each, runs, ledger } => {
            measure_shares(target, connections, each, runs, ledger.as_deref()).await
        }
        Command::Arrive { target, connections } => measure_arrivals(target, connections).await,
        Command::Idle { target, connections, times } => measure_idle(target, connections, times).await,
        Command::Tips { target, connections, tips } => measure_tips(target, connections, tips).await,
        Command::Hostile { target, connections, seconds } => {
            measure_hostile(target, connections, Duration::from_secs(seconds)).await
        }
        Command::Scrape { connections, seconds } => {
            scrape::measure(connections, Duration::from_secs(seconds)).await
        }
        Command::BeHostile { address, connections, kind } => be_hostile(address, connections, kind).await,
        Command::ServeBare { success_batch } => bare::serve(success_batch).await,
    }
}

impl Target {
    /// The pool: that of the arguments, or the gateway on a chain with these blocks.
    async fn pool(self, bits: &str) -> Result<Pool> {
        match self.address {
            Some(address) => Ok(Pool::elsewhere(address, self.pid)),
            None => Pool::start(|config| config.set("source", "bits", bits)).await,
        }
    }
}

/// Blocks that nobody finds by accident.
const HARD: &str = "1d00ffff";
/// Blocks of 65,537 hashes.
const EASY: &str = "1f00ffff";

async fn measure_shares(
    target: Target,
    connections: usize,
    each: u32,
    runs: u32,
    ledger: Option<&std::path::Path>,
) -> Result<()> {
    let program = std::env::current_exe()?;
    let batches: &[u32] = if target.address.is_some() { &[0] } else { &[1_000, 1] };
    // Goes with its content when the measurement is over.
    let folder = ledger
        .map(|ledger| tempfile::Builder::new().prefix("reservegrid-load-").tempdir_in(ledger))
        .transpose()?;
    for batch in batches {
        let (what, pool): (String, _) = match (target.address, &folder) {
            (Some(address), _) => (address.to_string(), target.pool(HARD).await?),
            (None, None) => ("the mining server alone".into(), Pool::bare(&program, *batch)?),
            (None, Some(folder)) => {
                let dir = folder.path().join(batch.to_string()).display().to_string();
                let (section, key) = ("miners", "standard_success_batch");
                let started =
                    Pool::start(|c| c.set("ledger", "dir", dir).set(section, key, i64::from(*batch))).await?;
                ("the whole gateway".into(), started)
            }
        };
        println!("shares over {connections} connections to {what}, one Success for at most {batch}:");
        let mut miners = miners_gently(&pool, connections).await?;
        let (mut from, mut best) = (0, None::<shares::Flood>);
        for _ in 0..runs {
            let flood = shares::flood(&pool, &mut miners, each, from, Kind::Valid).await?;
            println!("  valid: {flood}");
            from += each + 1_000;
            best = Some(best.filter(|best| best.elapsed < flood.elapsed).unwrap_or(flood));
        }
        if let Some(best) = best {
            println!("  valid, best run: {best} (wanted: 250,000 a second, 4 us)");
        }
        if ledger.is_some() {
            continue;
        }
        for kind in [Kind::Duplicate, Kind::UnknownJob] {
            let flood = shares::flood(&pool, &mut miners, each, 0, kind).await?;
            println!("  {kind:?}: {flood} (wanted: as valid ones)");
        }
        let before = pool.cpu()?;
        let time = Duration::from_secs(5);
        let samples = shares::paced(&mut miners, 50_000, time, from).await?;
        let cpu = (pool.cpu()? - before).as_secs_f64() * 1e6 / samples.len() as f64;
        println!("  50,000 a second: {samples}, {cpu:.2} us of the pool's CPU each (wanted: p99 5 ms)");
    }
    Ok(())
}

async fn measure_arrivals(target: Target, connections: usize) -> Result<()> {
    let pool = target.pool(HARD).await?;
    arrive::connections(&pool, 200).await?;
    let mut costs = Vec::new();
    for _ in 0..3 {
        costs.push(arrive::connections(&pool, connections).await?);
    }
    let best = costs.iter().min().context("no run")?.as_secs_f64() * 1e3;
    println!(
        "connection with handshake and setup: {best:.3} ms of the pool's CPU, {costs:?} (wanted: 0.3 ms)"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let samples = arrive::first_jobs(&pool, 1_000).await?;
    println!("first job after a channel is asked for: {samples} (wanted: 0.5 ms)");
    Ok(())
}

async fn measure_idle(target: Target, connections: usize, times: usize) -> Result<()> {
    let pool = target.pool(HARD).await?;
    let sizes = crowd::idle(&pool, connections, times).await?;
    let sizes: Vec<_> = sizes.iter().map(|size| format!("{:.1}", *size as f64 / 1_024.0)).collect();
    println!(
        "{connections} idle connections: {} KiB each, time after time (wanted: 32, and the same)",
        sizes.join(", ")
    );
    Ok(())
}

async fn measure_tips(target: Target, connections: usize, count: usize) -> Result<()> {
    let mut pool = target.pool(EASY).await?;
    let tips = tips::tips(&mut pool, connections, count).await?;
    let millis = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    let seen: Vec<_> = tips.iter().map(|tip| millis(tip.seen)).collect();
    let told: Vec<_> = tips.iter().filter_map(|tip| tip.told).map(millis).collect();
    let cpu: Vec<_> = tips.iter().map(|tip| millis(tip.cpu)).collect();
    println!(
        "a new tip to {connections} connections: {told:?} ms from its arrival until the last was sent, {seen:?} ms from \
         the block until the last has read it; {cpu:?} ms of the pool's CPU (wanted: {} ms)",
        connections * 12 / 1_000
    );
    Ok(())
}

async fn measure_hostile(target: Target, connections: usize, time: Duration) -> Result<()> {
    let pool = target.pool(HARD).await?;
    let mut healthy = miners_gently(&pool, 1).await?;
    let per_second = 200;
    shares::paced(&mut healthy, per_second, Duration::from_secs(1), 0).await?;
    let quiet = shares::paced(&mut healthy, per_second, time, 10_000).await?;
    let memory = pool.resident()?;
    // In a process of its own that gives way: what is measured is the pool, not who has the processor.
    let mut enemy = Process::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe()?)
        .args(["be-hostile", "--connections", &connections.to_string()])
        .args(["--address", &pool.address.to_string()])
        .stdin(Stdio::piped())
        .spawn()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = pool.cpu()?;
    let among = shares::paced(&mut healthy, per_second, time, 100_000).await;
    let cpu = (pool.cpu()? - before).as_secs_f64() / time.as_secs_f64();
    let now = pool.resident()?;
    drop(enemy.stdin.take());
    let ended = enemy.wait()?;
    ensure!(ended.success(), "the hostile crowd ended with {ended}");
    let among = among.context("the healthy miner")?;
    let ratio = |part| among.percentile(part).as_secs_f64() / quiet.percentile(part).as_secs_f64();
    println!("a healthy miner alone: {quiet}");
    println!(
        "among {connections} hostile connections: {among}: {:.1} and {:.1} times (wanted: 3); pool: {cpu:.2} processors, \
         memory {} to {} MiB",
        ratio(0.5),
        ratio(0.99),
        memory >> 20,
        now >> 20
    );
    Ok(())
}

async fn be_hostile(address: SocketAddr, connections: usize, kind: Option<usize>) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut peers = tokio::task::JoinSet::new();
    for number in 0..connections {
        let stop = stop.clone();
        let kind = hostile::Kind::ALL[kind.unwrap_or(number) % hostile::Kind::ALL.len()];
        peers.spawn(async move { hostile::run(address, number, kind, &stop).await });
    }
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    stop.store(true, Ordering::Relaxed);
    peers.shutdown().await;
    Ok(())
}
