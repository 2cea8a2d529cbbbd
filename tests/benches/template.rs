//! From a node's new tip to the admitted template, beside the node's own `getblocktemplate`, for full blocks.
//!
//! A real node with a mempool that fills a block gets an empty block on top, again and again, so that each
//! template is full. Two measures, from the moment at which the node is told to make the block:
//!
//! - the node alone: until the answer to a long poll of the benchmark's own has been read, and is not looked at;
//! - the gateway: until its event says that the template, read, parsed, compared and admitted by a policy, is work.
//!
//! The gateway is stopped while the node is measured alone, so that each of them is the only one that asks.
//! `RESERVEGRID_TEMPLATE_ROUNDS` says how many tips (15).

use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    backend::Backend,
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
    mempool::Wallet,
    node::Node,
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Transactions in the mempool: more than fit into a block.
const TRANSACTIONS: usize = 6_000;
/// Nobody's address.
const NOBODY: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo passes --bench; `cargo test --benches` does not, and wants no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let rounds = std::env::var("RESERVEGRID_TEMPLATE_ROUNDS").ok().map_or(Ok(15), |text| text.parse())?;
    let node = Node::start().await?;
    let mut wallet = Wallet::funded(&node, TRANSACTIONS + 200).await?;
    wallet.fill(&node, TRANSACTIONS).await?;
    let template = node.template().await?;
    let transactions = template["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let weight: u64 = transactions.iter().filter_map(|entry| entry["weight"].as_u64()).sum();
    println!(
        "a template of {} transactions, {weight} WU; {rounds} tips each, milliseconds\n",
        transactions.len()
    );
    ensure!(weight > 3_900_000, "the template is not full");

    // In turns, so that both meet whatever else the machine does.
    let (mut alone, mut gateway) = (Vec::new(), Vec::new());
    for part in [rounds / 2, rounds - rounds / 2] {
        alone.extend(of_the_node(&node, part).await?);
        gateway.extend(of_the_gateway(&node, part).await?);
    }
    let [alone, gateway] = [alone, gateway].map(|mut times| {
        times.sort_unstable();
        times
    });
    println!("{:<38}{:>8}{:>8}{:>8}", "", "best", "median", "longest");
    println!("{:<38}{}", "the node's answer, read", line(&alone));
    println!("{:<38}{}", "the gateway's work, admitted", line(&gateway));
    let on_top = (median(&gateway).as_secs_f64() / median(&alone).as_secs_f64() - 1.0) * 100.0;
    println!("\nparsing, facts and verdict on top of the node's own time: {on_top:.1} % of the medians");
    Ok(())
}

fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn line(sorted: &[Duration]) -> String {
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    format!("{:8.1}{:8.1}{:8.1}", ms(sorted.first()), ms(sorted.get(sorted.len() / 2)), ms(sorted.last()))
}

fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// A new tip whose block takes nothing out of the mempool; gives the time of the call and the hash.
async fn new_tip(node: &Node) -> Result<(Duration, String)> {
    let start = now()?;
    let made = node.rpc.call("generateblock", json!([NOBODY, []])).await?;
    Ok((start, made["hash"].as_str().context("a hash")?.to_owned()))
}

async fn of_the_node(node: &Node, rounds: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let id = node.template().await?["longpollid"].clone();
        let rpc = node.rpc.clone();
        let poll = tokio::spawn(async move {
            let params = json!([{ "rules": ["segwit"], "longpollid": id }]);
            let body = json!({ "jsonrpc": "1.0", "id": 0, "method": "getblocktemplate", "params": params });
            rpc.raw(&body).await?;
            now()
        });
        // The poll has to be there first.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (start, _) = new_tip(node).await?;
        times.push(poll.await??.saturating_sub(start));
    }
    Ok(times)
}

async fn of_the_gateway(node: &Node, rounds: usize) -> Result<Vec<Duration>> {
    let backend = Backend::start("bench", "a secret of the pool").await?;
    let config = GatewayConfig::new("inline")?
        .node(node)
        .set("gate", "verdict_timeout", "5s")
        .set("events", "console", "off")
        .pool(&backend)
        .policy("integrity", &policy("integrity")?, &json!({}))?;
    let mut gateway = Gateway::start(&config).await?;
    gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (start, tip) = new_tip(node).await?;
        let on = |e: &Value| e["event"] == "work_released" && e["previous_block_hash"] == *tip;
        let work = gateway.wait_for_event("work on the tip", DEADLINE, on).await?;
        let at = Duration::from_millis(work["time_ms"].as_u64().context("a time")?);
        times.push(at.saturating_sub(start));
    }
    ensure!(gateway.stop().await?.success());
    Ok(times)
}
