//! Two real nodes, one of which gives the templates: blocks arrive from the other while miners work, and
//! branches lose to longer ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Result, ensure};
use reservegrid_tests::{
    account::check_every_share_has_one_result,
    backend::Backend,
    client::{Client, OpenChannel},
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
    node::Node,
};
use serde_json::{Value, json};

/// Ours, theirs, and a gateway on ours whose policies look at the tip.
struct Scene {
    ours: Node,
    theirs: Node,
    backend: Backend,
    gateway: Gateway,
    /// Where shares begin to look, so that no two are the same.
    nonce: u32,
}

impl Scene {
    async fn new(coinbase_only: &str) -> Result<Self> {
        let (ours, theirs) = (Node::start().await?, Node::start().await?);
        ours.mine(10).await?;
        ours.connect(&theirs).await?;
        theirs.follows(&ours.tip().await?).await?;
        let backend = Backend::start("test", "a secret of the pool").await?;
        let config = GatewayConfig::new("inline")?
            .node(&ours)
            .pool(&backend)
            .set("gate", "verdict_timeout", "5s")
            .set("gate", "hold_timeout", "2m")
            .set("gate", "coinbase_only", coinbase_only)
            // The node is looked at every two seconds, should it not say that its tip went back.
            .set("source", "stale_after", "6s")
            .set("miners", "vardiff", "off")
            .set("miners", "min_difficulty", 0.0)
            .policy("integrity", &policy("integrity")?, &json!({}))?;
        let gateway = Gateway::start(&config).await?;
        Ok(Self { ours, theirs, backend, gateway, nonce: 0 })
    }

    async fn client(&mut self) -> Result<(Client, OpenChannel)> {
        let tip = self.ours.tip().await?;
        self.worked_on(&tip).await?;
        let mut client = Client::connect(&self.gateway).await?;
        client.setup(0).await?;
        let channel = client.open_extended("alice").await?;
        Ok((client, channel))
    }

    /// Waits for work on a tip.
    async fn worked_on(&mut self, tip: &str) -> Result<Value> {
        let on = |e: &Value| e["event"] == "work_released" && e["previous_block_hash"] == tip;
        self.gateway.wait_for_event(&format!("work on {tip}"), DEADLINE, on).await
    }

    /// The miner gets a job on this tip, and a share on it counts.
    async fn mines_on(&mut self, tip: &str, client: &mut Client, channel: &mut OpenChannel) -> Result<()> {
        self.worked_on(tip).await?;
        self.nonce += 1_000;
        loop {
            let mut hash = channel.job.prev_hash;
            hash.reverse();
            if hex::encode(hash) == tip {
                let answer = client.submit(channel, &channel.good_share(self.nonce)?).await?;
                ensure!(answer.is_accepted(), "{answer:?}");
                return Ok(());
            }
            client.follow(channel).await?;
        }
    }

    /// Nobody was disconnected or held, and every share has reached the pool.
    async fn end(mut self) -> Result<()> {
        for name in ["connection_closed", "gate_held", "gate_expired"] {
            let found = self.gateway.events_named(name)?;
            ensure!(found.is_empty(), "{found:?}");
        }
        ensure!(self.gateway.stop().await?.success());
        check_every_share_has_one_result(self.gateway.events()?, &self.backend)?;
        Ok(())
    }
}

#[tokio::test]
async fn blocks_that_arrive_from_another_node_move_the_miners_and_cost_no_share() -> Result<()> {
    let mut scene = Scene::new("off").await?;
    let (mut client, mut channel) = scene.client().await?;
    for _ in 0..5 {
        let tip = scene.theirs.mine(1).await?;
        scene.mines_on(&tip, &mut client, &mut channel).await?;
    }
    scene.end().await
}

#[tokio::test]
async fn a_block_of_another_node_makes_the_job_current_that_miners_had_in_advance() -> Result<()> {
    let mut scene = Scene::new("ahead").await?;
    for _ in 0..3 {
        let skip = scene.gateway.events()?.len();
        let ahead = |e: &Value| e["event"] == "work_ahead";
        let seen = scene.gateway.events_named("work_ahead")?.len();
        let released = scene.gateway.events_named("work_released")?;
        let activated = released.iter().filter(|e| e["reason"] == "prevhash_activated").count();
        if seen <= activated {
            scene.gateway.wait_for_event_after(skip, "work ahead", DEADLINE, ahead).await?;
        }
        let tip = scene.theirs.mine(1).await?;
        let released = scene.worked_on(&tip).await?;
        ensure!(
            released["reason"] == "prevhash_activated" && released["coinbase_only"] == true,
            "{released}"
        );
        let full = |e: &Value| {
            e["event"] == "work_released" && e["previous_block_hash"] == *tip && e["coinbase_only"] == false
        };
        scene.gateway.wait_for_event("the full template", DEADLINE, full).await?;
    }
    scene.end().await
}

#[tokio::test]
async fn a_branch_that_loses_takes_its_work_with_it_whether_it_had_one_block_or_three() -> Result<()> {
    let mut scene = Scene::new("off").await?;
    let (mut client, mut channel) = scene.client().await?;
    for depth in [1, 3] {
        scene.ours.disconnect(&scene.theirs).await?;
        let lost = scene.ours.mine(depth).await?;
        scene.mines_on(&lost, &mut client, &mut channel).await?;
        let stale = channel.clone();
        let won = scene.theirs.mine(depth + 1).await?;
        scene.ours.connect(&scene.theirs).await?;
        scene.ours.follows(&won).await?;
        scene.mines_on(&won, &mut client, &mut channel).await?;
        let answer = client.submit(&stale, &stale.good_share(7)?).await?;
        ensure!(answer.code() == "stale-share", "{answer:?}");
    }
    // And back, to a tip that is lower than the one before.
    scene.ours.disconnect(&scene.theirs).await?;
    let won = scene.ours.tip().await?;
    scene.ours.rpc.call("invalidateblock", json!([won])).await?;
    let lower = scene.ours.tip().await?;
    ensure!(lower != won);
    scene.mines_on(&lower, &mut client, &mut channel).await?;
    scene.end().await
}
