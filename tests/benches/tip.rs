//! From a new tip to the last of 1, 100 and 1,000 miners, measured three times over in one run:
//!
//! - by the miners' own clocks, from the moment at which the node has another block (so with the node's answer,
//!   assembly and verdict in it) to the SetNewPrevHash that each of them decoded;
//! - by the gateway's `tip_served` event, from the arrival of the template to the last byte handed to a socket;
//! - as a floor, the same number of bare TCP sockets, each written one message of that size.
//!
//! The node is a scripted one, the gateway the real binary with a real policy, the miners real Noise
//! connections in this process: on few cores they compete with what they measure.
//! `RESERVEGRID_TIP_ROUNDS` says how many tips (20).

use anyhow::{Context, Result, ensure};
use parsers_sv2::MiningOwned;
use reservegrid_tests::{
    backend::Backend,
    client::{Client, Message},
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
    scripted::{Gives, ScriptedNode},
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Connections at once.
const COUNTS: [usize; 3] = [1, 100, 1_000];
/// Bytes of a job and a SetNewPrevHash on the wire, about.
const MESSAGE: usize = 400;

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo passes --bench; `cargo test --benches` does not, and wants no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let rounds = std::env::var("RESERVEGRID_TIP_ROUNDS").ok().map_or(Ok(20), |text| text.parse())?;
    println!("{rounds} tips each, milliseconds: half of the times, 99 of 100, the longest\n");
    println!(
        "connections   miners' clocks          gateway, last miner     bare TCP                ratio of p99"
    );
    for count in COUNTS {
        let floor = bare(count, rounds).await?;
        let (miners, gateway) = measured(count, rounds).await?;
        println!(
            "{count:>11}   {}   {}   {}   {:>6.1}",
            line(&miners),
            line(&gateway),
            line(&floor),
            quantile(&miners, 0.99).as_secs_f64() / quantile(&floor, 0.99).as_secs_f64(),
        );
    }
    Ok(())
}

fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

fn line(sorted: &[Duration]) -> String {
    let ms = |part| quantile(sorted, part).as_secs_f64() * 1e3;
    format!("{:6.2} {:6.2} {:7.2}", ms(0.5), ms(0.99), ms(1.0))
}

/// The times of the miners, and of the gateway's own event.
async fn measured(count: usize, rounds: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (node, backend) =
        (ScriptedNode::start().await?, Backend::start("bench", "a secret of the pool").await?);
    let config = GatewayConfig::new("inline")?
        .set("gate", "verdict_timeout", "5s")
        .set("events", "console", "off")
        .set("miners", "idle_timeout", "1h")
        .pool(&backend)
        .policy("integrity", &policy("integrity")?, &json!({}))?;
    let mut gateway = Gateway::start(&node.configure(config)).await?;
    gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
    let (told, mut hears) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let mut client = Client::connect(&gateway).await?;
        client.setup(0).await?;
        client.open_extended(&format!("miner.{number}")).await?;
        let told = told.clone();
        tasks.spawn(async move {
            loop {
                if let Message::Mining(MiningOwned::SetNewPrevHash(_)) = client.next_message().await? {
                    let _ = told.send(Instant::now());
                }
            }
            #[expect(unreachable_code, reason = "names the type of the errors")]
            anyhow::Ok(())
        });
    }
    let (mut miners, skip) = (Vec::new(), gateway.events()?.len());
    for _ in 0..rounds {
        let start = Instant::now();
        node.move_tip(Gives::Template);
        for _ in 0..count {
            let at = timeout(DEADLINE, hears.recv()).await?.context("every miner is there")?;
            miners.push(at - start);
        }
    }
    let served = |e: &serde_json::Value| e["event"] == "tip_served";
    gateway
        .wait_until("the events", DEADLINE, |events| {
            events.iter().skip(skip).filter(|e| served(e)).count() >= rounds
        })
        .await?;
    tasks.abort_all();
    let events = gateway.events_named("tip_served")?;
    ensure!(events.iter().rev().take(rounds).all(|e| e["connections"] == count), "{events:?}");
    let times = events.iter().rev().take(rounds).filter_map(|e| e["since_tip_us"].as_u64());
    let mut gateway: Vec<_> = times.map(Duration::from_micros).collect();
    miners.sort_unstable();
    gateway.sort_unstable();
    Ok((miners, gateway))
}

/// One task writes a message to each of so many sockets, one after another.
async fn bare(count: usize, rounds: usize) -> Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (told, mut hears) = mpsc::unbounded_channel();
    let (mut writers, mut tasks) = (Vec::new(), tokio::task::JoinSet::new());
    for _ in 0..count {
        let (reader, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut reader, (writer, _)) = (reader?, accepted?);
        writer.set_nodelay(true)?;
        writers.push(writer);
        let told = told.clone();
        tasks.spawn(async move {
            let mut message = [0; MESSAGE];
            while reader.read_exact(&mut message).await.is_ok() {
                let _ = told.send(Instant::now());
            }
        });
    }
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        for writer in &mut writers {
            writer.write_all(&[7; MESSAGE]).await?;
        }
        for _ in 0..count {
            let at = timeout(DEADLINE, hears.recv()).await?.context("every reader is there")?;
            times.push(at - start);
        }
    }
    times.sort_unstable();
    Ok(times)
}
