//! Template sources that are real nodes: several with failover, all the ways they speak, and what they say when
//! something is wrong with them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad;
mod blocks;
mod failover;
mod retarget;
mod ways;

use anyhow::{Result, ensure};
use reservegrid_tests::{
    backend::Backend,
    client::{Client, OpenChannel},
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
    node::Node,
};
use serde_json::{Value, json};

/// Nothing changes unless a test does it, whatever is measured has time, and any hash may be a share.
fn patient(backend: &Backend) -> Result<GatewayConfig> {
    GatewayConfig::new("inline")?
        .set("gate", "verdict_timeout", "10s")
        .set("gate", "hold_timeout", "2m")
        .set("miners", "vardiff", "off")
        .set("miners", "min_difficulty", 0.0)
        .set("api", "listen", "127.0.0.1:0")
        .set("swap", "watch", "0s")
        .pool(backend)
        .policy("integrity", &policy("integrity")?, &json!({}))
}

async fn backend() -> Result<Backend> {
    Backend::start("test", "a secret of the pool").await
}

/// Two nodes that know each other and have the same ten blocks.
async fn two_nodes() -> Result<(Node, Node)> {
    let (first, second) = tokio::try_join!(Node::start(), Node::start())?;
    first.mine(10).await?;
    first.connect(&second).await?;
    second.follows(&first.tip().await?).await?;
    Ok((first, second))
}

async fn client(gateway: &Gateway) -> Result<(Client, OpenChannel)> {
    let mut client = Client::connect(gateway).await?;
    client.setup(0).await?;
    let channel = client.open_extended("alice").await?;
    Ok((client, channel))
}

async fn event(gateway: &mut Gateway, skip: usize, name: &str, reason: &str) -> Result<Value> {
    let is = |e: &Value| e["event"] == name && e["reason"] == reason;
    gateway.wait_for_event_after(skip, &format!("{name} with {reason}"), DEADLINE, is).await
}

/// Waits for work on a tip.
async fn work_on(gateway: &mut Gateway, tip: &str) -> Result<Value> {
    let on = |e: &Value| e["event"] == "work_released" && e["previous_block_hash"] == tip;
    gateway.wait_for_event(&format!("work on {tip}"), DEADLINE, on).await
}

/// The channel's job is on this tip.
async fn follow_to(client: &mut Client, channel: &mut OpenChannel, tip: &str) -> Result<()> {
    loop {
        let mut hash = channel.job.prev_hash;
        hash.reverse();
        if hex::encode(hash) == tip {
            return Ok(());
        }
        client.follow(channel).await?;
    }
}

/// Nobody was held, let go, or disconnected.
fn nobody_was_disturbed(gateway: &mut Gateway) -> Result<()> {
    for name in ["connection_closed", "gate_held", "gate_expired"] {
        let found = gateway.events_named(name)?;
        ensure!(found.is_empty(), "{found:?}");
    }
    Ok(())
}
