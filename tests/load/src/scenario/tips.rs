//! New tips: how long until the last of many connections has the work on it.

use super::miners_gently;
use crate::{
    link::{Link, PATIENCE, STANDARD_JOBS},
    pool::Pool,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{runtime::Builder, sync::mpsc, time::timeout};

/// How one tip came through.
#[derive(Clone, Copy, Debug)]
pub struct Tip {
    /// From the block's submission to SetNewPrevHash at the last miner: also what the pool and its node took
    /// to make a template of it, and what the miners here took to read.
    pub seen: Duration,
    /// Processor time of the pool for it.
    pub cpu: Duration,
    /// From the tip's arrival at the gateway to the last byte handed to a socket, as the gateway says.
    pub told: Option<Duration>,
}

/// Solves so many blocks, one after the other, with this many miners connected.
///
/// The pool must be on a chain whose blocks a processor can solve.
///
/// # Errors
/// When a miner hears nothing of a tip.
pub async fn tips(pool: &mut Pool, count: usize, times: usize) -> Result<Vec<Tip>> {
    // Jobs for its channel alone rather than for a group.
    let mut solver = Link::connect(pool.address, 0).await?;
    solver.setup(STANDARD_JOBS).await?;
    let mut channel = solver.open("solver").await?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let crowd = miners_gently(pool, count).await?;
    let listeners =
        Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(give_way).build()?;
    for (link, _) in crowd {
        let seen = seen.clone();
        listeners.spawn(async move {
            let Ok(mut link) = link.moved() else { return };
            // Ends with the pool or with whoever counts.
            while let Ok(msg_type) = link.listen().await {
                if msg_type == 0x20 && seen.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
    }
    let mut tips = Vec::new();
    for number in 0..times {
        // Everybody rests.
        tokio::time::sleep(Duration::from_secs(1)).await;
        while arrivals.try_recv().is_ok() {}
        let nonce = channel.solution();
        let (before, begin) = (pool.cpu()?, Instant::now());
        solver.send(0x1a, &channel.submit(number as u32, nonce)).await?;
        let mut last = begin;
        for heard in 0..count {
            let arrived = timeout(PATIENCE, arrivals.recv()).await;
            let arrived = arrived.with_context(|| format!("{heard} of {count} miners heard of the tip"))?;
            last = last.max(arrived.context("no miner is left")?);
        }
        let (job, tip) = (solver.next_of(0x15).await?, solver.next_of(0x20).await?);
        channel.take_job(&job)?;
        channel.take_tip(&tip)?;
        let told = told(pool, number).await?;
        tips.push(Tip { seen: last - begin, cpu: pool.cpu()? - before, told });
    }
    listeners.shutdown_background();
    Ok(tips)
}

/// Makes this thread wait for those of the pool: real miners are on machines of their own.
fn give_way() {
    let thread = std::fs::read_link("/proc/thread-self").ok();
    let id = thread.as_ref().and_then(|path| path.file_name()).and_then(|id| id.to_str());
    // Without it the figures are only worse.
    if let Some(id) = id {
        let _ = Command::new("renice").args(["-n", "19", "-p", id]).stdout(Stdio::null()).status();
    }
}

/// What the gateway says about the `nth` tip.
async fn told(pool: &mut Pool, nth: usize) -> Result<Option<Duration>> {
    let Some(own) = &mut pool.own else { return Ok(None) };
    let served = |events: &[Value]| events.iter().filter(|e| e["event"] == "tip_served").count() > nth;
    own.gateway.wait_until("the last miner served", PATIENCE, served).await?;
    let event = own.gateway.events_named("tip_served")?;
    let micros = event.get(nth).and_then(|e| e["since_tip_us"].as_u64());
    ensure!(micros.is_some(), "an event without its time");
    Ok(micros.map(Duration::from_micros))
}
