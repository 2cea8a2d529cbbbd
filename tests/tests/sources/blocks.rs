//! Blocks found through the gateway: given to every node, accepted with and without transactions, on branches
//! that win and branches that lose.

use super::{backend, client, event, follow_to, patient, two_nodes, work_on};
use anyhow::{Result, ensure};
use reservegrid_tests::{
    client::{Client, OpenChannel},
    gateway::{DEADLINE, Gateway},
    mempool::Wallet,
    node::Node,
};
use serde_json::{Value, json};

/// The miner solves a block on its newest job; gives its hash when the nodes have decided.
async fn solve(gateway: &mut Gateway, client: &mut Client, channel: &OpenChannel) -> Result<Value> {
    let skip = gateway.events()?.len();
    let share = channel.solution()?;
    let answer = client.submit(channel, &share).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    let hash = channel.header(&share).block_hash().to_string();
    let found = |e: &Value| e["event"] == "block_found" && e["hash"] == *hash;
    gateway.wait_for_event_after(skip, "the block", DEADLINE, found).await
}

#[tokio::test]
async fn a_block_goes_to_every_node_and_each_answer_is_told() -> Result<()> {
    let (first, mut second) = two_nodes().await?;
    // Each hears of the block from the gateway alone.
    first.disconnect(&second).await?;
    let backend = backend().await?;
    let mut gateway = Gateway::start(&patient(&backend)?.node(&first).backup("second", &second)).await?;
    work_on(&mut gateway, &first.tip().await?).await?;
    let (mut client, mut channel) = client(&gateway).await?;
    let found = solve(&mut gateway, &mut client, &channel).await?;
    ensure!(found["reason"] == "block_submitted", "{found}");
    let hash = found["hash"].as_str().unwrap().to_owned();
    gateway
        .wait_until("both answers", DEADLINE, |events| {
            let by = |source: &str| {
                events.iter().any(|e| {
                    e["event"] == "block_answered"
                        && e["source"] == source
                        && e["reason"] == "block_submitted"
                        && e["hash"] == *hash
                })
            };
            by("main") && by("second")
        })
        .await?;
    ensure!(first.tip().await? == hash && second.tip().await? == hash);

    // A node that is away decides nothing.
    second.process().kill()?;
    follow_to(&mut client, &mut channel, &hash).await?;
    let found = solve(&mut gateway, &mut client, &channel).await?;
    ensure!(found["reason"] == "block_submitted", "{found}");
    ensure!(gateway.stop().await?.success());
    let answers = gateway.events_named("block_answered")?;
    let lost = answers.iter().find(|e| e["source"] == "second" && e["hash"] == found["hash"]).unwrap();
    ensure!(lost["reason"] == "block_submit_failed", "{lost}");
    Ok(())
}

/// A node, a gateway on it, and a miner.
struct Scene {
    node: Node,
    gateway: Gateway,
    client: Client,
    channel: OpenChannel,
}

impl Scene {
    /// Solves so many blocks one after another on the node's tip; with transactions in each if there is a wallet.
    async fn mine(&mut self, count: usize, mut wallet: Option<&mut Wallet>) -> Result<()> {
        for _ in 0..count {
            follow_to(&mut self.client, &mut self.channel, &self.node.tip().await?).await?;
            if let Some(wallet) = wallet.as_deref_mut() {
                let skip = self.gateway.events()?.len();
                wallet.fill(&self.node, 8).await?;
                let full =
                    |e: &Value| e["event"] == "template_judged" && e["transactions"].as_u64() > Some(0);
                let judged =
                    self.gateway.wait_for_event_after(skip, "them in a template", DEADLINE, full).await?;
                let released =
                    |e: &Value| e["event"] == "work_released" && e["template"] == judged["template"];
                self.gateway.wait_for_event_after(skip, "work with them", DEADLINE, released).await?;
                self.client.follow(&mut self.channel).await?;
            }
            let found = solve(&mut self.gateway, &mut self.client, &self.channel).await?;
            ensure!(found["reason"] == "block_submitted", "{found}");
            let hash = found["hash"].as_str().unwrap_or_default();
            self.node.follows(hash).await?;
            work_on(&mut self.gateway, hash).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn twenty_four_blocks_are_accepted_with_and_without_transactions_and_across_a_reorganisation()
-> Result<()> {
    let (ours, theirs) = two_nodes().await?;
    let mut wallet = Wallet::funded(&ours, 200).await?;
    theirs.follows(&ours.tip().await?).await?;
    let height = ours.height().await?;
    let backend = backend().await?;
    // The node is looked at every second, for fees and should it not say that its tip went back.
    let config = patient(&backend)?.node(&ours).set("source", "fee_refresh", "1s");
    let mut gateway = Gateway::start(&config).await?;
    work_on(&mut gateway, &ours.tip().await?).await?;
    let (client, channel) = client(&gateway).await?;
    let mut scene = Scene { node: ours, gateway, client, channel };
    scene.mine(9, None).await?;
    scene.mine(6, Some(&mut wallet)).await?;
    theirs.follows(&scene.node.tip().await?).await?;

    // Three of ours are lost to four of theirs.
    scene.node.disconnect(&theirs).await?;
    scene.mine(3, None).await?;
    let lost = scene.node.tip().await?;
    let won = theirs.mine_apart(4).await?;
    scene.node.connect(&theirs).await?;
    scene.node.follows(&won).await?;
    work_on(&mut scene.gateway, &won).await?;
    scene.mine(6, None).await?;

    let Scene { node: ours, mut gateway, .. } = scene;
    let found = gateway.events_named("block_found")?;
    ensure!(found.len() == 24 && found.iter().all(|e| e["reason"] == "block_submitted"), "{found:?}");
    ensure!(ours.height().await? == height + 15 + 4 + 6);
    let (mut full, mut empty, mut orphaned) = (0, 0, 0);
    for block in &found {
        let block = ours.rpc.call("getblock", json!([block["hash"], 1])).await?;
        match (block["confirmations"].as_i64(), block["nTx"].as_u64()) {
            (Some(..0), _) => orphaned += 1,
            (_, Some(1)) => empty += 1,
            (_, Some(_)) => full += 1,
            _ => {}
        }
    }
    ensure!(full >= 6 && full + empty == 21 && orphaned == 3, "{full} full, {empty} empty, {orphaned} lost");
    ensure!(theirs.tip().await? == ours.tip().await? && ours.tip().await? != lost);
    event(&mut gateway, 0, "block_answered", "block_submitted").await?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}
