//! A healthy miner among four hundred peers that mean harm: every share of its is answered, memory stays
//! bounded, and the peers end with the codes of what they did. How much longer answers take is printed; it
//! depends on the machine and is judged by the benchmark (`reservegrid-load hostile`, two thousand). And a crowd that comes back
//! again and again costs no more memory than the first time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use reservegrid_load::{hostile, pool::Pool, scenario};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

const HOSTILE: usize = 400;
/// What one of them may cost the gateway beside its share of what is there anyway.
const MEMORY_EACH: u64 = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hundred_hostile_peers_of_every_kind_cost_a_healthy_miner_no_share() -> Result<()> {
    let limits = |config: reservegrid_tests::gateway::GatewayConfig| {
        config.set("miners", "handshake_timeout", "2s").set("miners", "setup_timeout", "4s")
    };
    let mut pool = Pool::start(limits).await?;
    let mut healthy = scenario::miners(&pool, 1, 1).await?;
    let (rate, time) = (50, Duration::from_secs(2));
    let quiet = scenario::shares::paced(&mut healthy, rate, time, 0).await?;
    let before = pool.resident()?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut crowd = JoinSet::new();
    for number in 0..HOSTILE {
        let (stop, address) = (stop.clone(), pool.address);
        let kind = hostile::Kind::ALL[number % hostile::Kind::ALL.len()];
        crowd.spawn(async move { hostile::run(address, number, kind, &stop).await });
    }
    // Refused, sent away, timed out, hung up in the middle: until all of it has happened, and so long the
    // healthy miner mines. `paced` fails when one of its shares is refused or has no answer.
    let wanted: BTreeSet<&str> = [
        "noise_handshake_timeout",
        "frame_decrypt_failed",
        "setup_timeout",
        "message_unknown_budget_exceeded",
        "connection_closed",
    ]
    .into();
    let (mut from, mut among) = (100_000, scenario::shares::paced(&mut healthy, rate, time, 50_000).await?);
    let begin = std::time::Instant::now();
    loop {
        let own = pool.own.as_mut().context("a gateway of ours")?;
        let ends = own.gateway.events_named("connection_closed")?;
        let reasons: BTreeSet<&str> = ends.iter().filter_map(|end| end["reason"].as_str()).collect();
        if wanted.is_subset(&reasons) && ends.len() > HOSTILE / 2 {
            break;
        }
        ensure!(begin.elapsed() < DEADLINE, "{} ended, all with {reasons:?}", ends.len());
        among.append(scenario::shares::paced(&mut healthy, rate, time, from).await?);
        from += 1_000;
    }
    let during = pool.resident()?;
    stop.store(true, Ordering::Relaxed);
    crowd.shutdown().await;

    println!("alone: {quiet}; among {HOSTILE} hostile peers: {among}");
    println!("memory: {} KiB before, {} KiB among them", before >> 10, during >> 10);
    let bound = before + HOSTILE as u64 * MEMORY_EACH;
    ensure!(during < bound, "{} KiB before, {} KiB among them", before >> 10, during >> 10);

    // Nobody is left but the healthy miner, which goes on, and the gateway ends as it should.
    let own = pool.own.as_mut().context("a gateway of ours")?;
    let channel_ends = |events: &[Value]| events.iter().any(|e| e["event"] == "share_rejected");
    ensure!(channel_ends(own.gateway.events()?), "nobody was refused a share");
    scenario::shares::paced(&mut healthy, rate, Duration::from_millis(500), 900_000).await?;
    let own = pool.own.as_mut().context("a gateway of ours")?;
    ensure!(own.gateway.stop().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_back_at_once_takes_no_more_memory_than_the_first_time() -> Result<()> {
    const CROWD: usize = 1_000;
    let pool = Pool::start(|config| config).await?;
    let sizes = scenario::crowd::idle(&pool, CROWD, 4).await?;
    println!("bytes for each of {CROWD} connections: {sizes:?}");
    let first = sizes.first().context("a size")?;
    ensure!(*first < 32 << 10, "{sizes:?}");
    // A quarter more, and what the allocator rounds up to.
    let bound = first + first / 4 + 4_096;
    ensure!(sizes.iter().all(|size| *size < bound), "{sizes:?}");
    Ok(())
}
