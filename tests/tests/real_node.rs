//! The thin path on a real node: a mempool of thousands of real transactions, templates judged by the real
//! policy, work to real miners over Noise, shares to a pool that checks signatures, blocks to the node.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Result, ensure};
use reservegrid_tests::{
    account::check_every_share_has_one_result,
    backend::Backend,
    gateway::{Channel, DEADLINE, Gateway, GatewayConfig, Miner, policy},
    mempool::Wallet,
    node::{Auth, Node},
};
use serde_json::{Value, json};

/// More than two thousand, as many as make one full template.
const TRANSACTIONS: usize = 2_300;

fn floor(min_avg_fee: u64) -> Value {
    json!({
        "min_avg_fee": { "low": min_avg_fee, "mid": min_avg_fee, "high": min_avg_fee },
        "unknown_mempool": "reject",
        "accept_empty": true,
    })
}

fn config(node: &Node, backend: &Backend, min_avg_fee: u64) -> Result<GatewayConfig> {
    GatewayConfig::new("inline")?
        .node(node)
        .pool(backend)
        // One hash a share: on regtest about every second share solves a block.
        .set("miners", "shares_per_minute", 600.0)
        .policy("fee-floor", &policy("fee-floor")?, &floor(min_avg_fee))
}

/// The same with the whole standard pack before the floor.
fn with_pack(config: GatewayConfig, min_avg_fee: u64) -> Result<GatewayConfig> {
    let coinbase = json!({
        "payouts": [{ "address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "min_permille": 1000 }],
        "tag": "/ReserveGrid/",
    });
    let pack = [
        ("integrity", json!({ "unknown_tip": "reject" })),
        ("limits", json!({})),
        ("coinbase-guard", coinbase),
        ("mempool-agreement", json!({ "max_unknown": 0 })),
        ("revenue-guard", json!({})),
        ("fee-floor", floor(min_avg_fee)),
    ];
    let mut config = config.without_policies();
    for (name, settings) in pack {
        config = config.policy(name, &policy(name)?, &settings)?;
    }
    Ok(config)
}

#[tokio::test]
async fn miners_find_blocks_that_the_node_accepts_and_every_share_is_told_twice() -> Result<()> {
    let node = Node::start().await?;
    let mut wallet = Wallet::funded(&node, TRANSACTIONS + 100).await?;
    let filled = wallet.fill(&node, TRANSACTIONS).await?;
    ensure!(filled.transactions > 2_000);
    let height = node.height().await?;
    let backend = Backend::start("test", "a secret of the pool").await?;

    let mut gateway = Gateway::start(&with_pack(config(&node, &backend, 1)?, 1)?).await?;
    let judged = gateway.wait_for_event("a verdict", DEADLINE, |e| e["event"] == "template_judged").await?;
    ensure!(judged["verdict"]["accepted"] == true, "{judged}");
    let said = judged["policies"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(said.len() == 6 && said.iter().all(|policy| policy["verdict"]["accepted"] == true), "{judged}");
    ensure!(judged["transactions"].as_u64() > Some(2_000), "{judged}");
    let _standard = Miner::start(&gateway, Channel::Standard, 4, "alice.standard")?;
    let _extended = Miner::start(&gateway, Channel::Extended, 4, "bob.extended")?;

    let submitted = |e: &&Value| e["event"] == "block_found" && e["reason"] == "block_submitted";
    gateway
        .wait_until("five blocks and both miners' shares", DEADLINE, |events| {
            let by = |user: &str| {
                events.iter().any(|e| e["event"] == "share_accepted" && e["user_identity"] == user)
            };
            events.iter().filter(submitted).count() >= 5 && by("alice.standard") && by("bob.extended")
        })
        .await?;
    let status = gateway.stop().await?;
    ensure!(status.success(), "{status}");

    let blocks: Vec<Value> = gateway.events()?.iter().filter(submitted).cloned().collect();
    let grown = node.height().await? - height;
    ensure!(grown as usize == blocks.len(), "{grown} blocks more, {} submitted", blocks.len());
    let first = node.rpc.call("getblock", json!([blocks[0]["hash"], 1])).await?;
    ensure!(first["nTx"].as_u64() > Some(2_000), "the first block has {} transactions", first["nTx"]);
    for block in &blocks {
        let block = node.rpc.call("getblock", json!([block["hash"], 1])).await?;
        ensure!(block["confirmations"].as_i64() > Some(0), "{} is not in the chain", block["hash"]);
    }
    let shares = check_every_share_has_one_result(gateway.events()?, &backend)?;
    ensure!(shares >= blocks.len(), "{shares} shares for {} blocks", blocks.len());
    Ok(())
}

#[tokio::test]
async fn blocks_pay_everybody_who_has_a_share_of_them_to_the_last_satoshi() -> Result<()> {
    const POOL: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    // Who is paid by script: P2WSH of OP_TRUE, as the node shows it.
    const SCRIPT: &str = "00204ae81572f06e1b88fd5ced7a1a000945432e83e1551e6f721ee9c00b8cc33260";
    let node = Node::start().await?;
    let mut wallet = Wallet::funded(&node, 60).await?;
    wallet.fill(&node, 40).await?;
    let backend = Backend::start("test", "a secret of the pool").await?;
    let parts = [(POOL.to_owned(), 700), (format!("script:{SCRIPT}"), 275), ("script:51".to_owned(), 25)];
    let payouts: toml::Table = parts.iter().map(|(to, parts)| (to.clone(), (*parts).into())).collect();
    let guard = json!({
        "payouts": [{ "address": POOL, "min_permille": 700 }], "other_outputs": "accept", "tag": "/ReserveGrid/",
    });
    let config = config(&node, &backend, 0)?
        .without_policies()
        .policy("coinbase-guard", &policy("coinbase-guard")?, &guard)?
        .unset("coinbase", "payout_address")
        .set("coinbase", "payouts", payouts);
    let mut gateway = Gateway::start(&config).await?;
    let _miner = Miner::start(&gateway, Channel::Extended, 4, "alice")?;
    let submitted = |e: &&Value| e["event"] == "block_found" && e["reason"] == "block_submitted";
    gateway
        .wait_until("ten blocks", DEADLINE, |events| events.iter().filter(submitted).count() >= 10)
        .await?;
    ensure!(gateway.stop().await?.success());
    for found in gateway.events()?.iter().filter(submitted) {
        let block = node.rpc.call("getblock", json!([found["hash"], 2])).await?;
        let outputs = block["tx"][0]["vout"].as_array().unwrap();
        let satoshi = |at: usize| (outputs[at]["value"].as_f64().unwrap() * 1e8).round() as u64;
        let value = found["coinbase_value"].as_u64().unwrap();
        ensure!(outputs.len() == 4 && outputs[3]["scriptPubKey"]["type"] == "nulldata", "{outputs:?}");
        ensure!(outputs[0]["scriptPubKey"]["address"] == POOL, "{outputs:?}");
        ensure!(outputs[1]["scriptPubKey"]["hex"] == SCRIPT, "{outputs:?}");
        ensure!((satoshi(1), satoshi(2)) == (value * 275 / 1_000, value * 25 / 1_000), "{outputs:?}");
        ensure!(satoshi(0) == value - satoshi(1) - satoshi(2), "{outputs:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_floor_above_the_average_fee_keeps_every_job_from_the_miner_and_says_why() -> Result<()> {
    const FLOOR: u64 = 50_000_000;
    let node = Node::start_with(Auth::Password).await?;
    let mut wallet = Wallet::funded(&node, TRANSACTIONS + 100).await?;
    wallet.fill(&node, TRANSACTIONS).await?;
    let height = node.height().await?;
    let backend = Backend::start("test", "a secret of the pool").await?;

    let config = config(&node, &backend, FLOOR)?.set("gate", "hold_timeout", "3s");
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, Channel::Standard, 100, "alice")?;
    let judged = gateway.wait_for_event("a verdict", DEADLINE, |e| e["event"] == "template_judged").await?;
    let average = judged["total_fees"].as_u64().unwrap() / judged["transactions"].as_u64().unwrap();
    let verdict = &judged["verdict"];
    ensure!(verdict["accepted"] == false, "{verdict}");
    ensure!(verdict["reason_code"] == "avg_fee_below_minimum", "{verdict}");
    ensure!(verdict["reason_detail"] == format!("avg_fee={average} < min_avg_fee_used={FLOOR}"), "{verdict}");
    ensure!(verdict["policy_context"]["min_avg_fee_used"] == FLOOR, "{verdict}");
    ensure!(judged["enforced"] == "refused", "{judged}");

    gateway
        .wait_for_event("the end of the hold", DEADLINE, |e| {
            e["event"] == "gate_expired" && e["reason"] == "prevhash_hold_expired"
        })
        .await?;
    miner.wait_for_line("the miner to be told", DEADLINE, |line| line.starts_with("closed")).await?;
    gateway.stop().await?;
    ensure!(gateway.events_named("work_released")?.is_empty(), "work left the gateway");
    ensure!(gateway.events_named("share_accepted")?.is_empty());
    ensure!(!miner.process.stdout().contains("job"), "{}", miner.process.stdout());
    ensure!(node.height().await? == height);
    Ok(())
}

#[tokio::test]
async fn a_block_found_elsewhere_moves_the_miners_to_the_new_tip() -> Result<()> {
    let node = Node::start().await?;
    let wallet = Wallet::funded(&node, 10).await?;
    let backend = Backend::start("test", "a secret of the pool").await?;
    let mut gateway = Gateway::start(&config(&node, &backend, 0)?).await?;
    // So slow that it finds nothing itself during the test.
    let mut miner = Miner::start(&gateway, Channel::Extended, 1, "alice")?;
    miner.wait_for_line("the first job", DEADLINE, |line| line.contains("on a new tip")).await?;
    let seen = gateway.events()?.len();
    let hash = wallet.mine(&node, 1).await?.remove(0);
    gateway
        .wait_for_event_after(seen, "work on the new tip", DEADLINE, |e| {
            e["event"] == "work_released" && e["reason"] == "prevhash_switched"
        })
        .await?;
    let judged = gateway.events_named("template_judged")?;
    ensure!(judged.iter().any(|e| e["previous_block_hash"] == hash.as_str()), "{judged:?}");
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_are_named_and_tried_again() -> Result<()> {
    let node = Node::start_with(Auth::Password).await?;
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = config(&node, &backend, 0)?.variable("RESERVEGRID_SOURCE__PASSWORD", "not the password");
    let mut gateway = Gateway::start(&config).await?;
    gateway
        .wait_until("two attempts", DEADLINE, |events| {
            events
                .iter()
                .filter(|e| e["event"] == "source_down" && e["reason"] == "template_source_refused")
                .count()
                >= 2
        })
        .await?;
    ensure!(gateway.stop().await?.success());
    let text = std::fs::read_to_string(gateway.config().folder().join("events.ndjson"))?;
    ensure!(!text.contains("not the password"), "a secret is in the events");
    Ok(())
}

#[tokio::test]
async fn a_node_that_dies_is_named_and_miners_are_let_go_when_it_stays_away() -> Result<()> {
    let mut node = Node::start().await?;
    Wallet::funded(&node, 10).await?;
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = config(&node, &backend, 0)?.set("source", "stale_after", "2s");
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, Channel::Standard, 1, "alice")?;
    miner.wait_for_line("the first job", DEADLINE, |line| line.contains("on a new tip")).await?;
    node.process().kill()?;
    gateway
        .wait_for_event("the source to be gone", DEADLINE, |e| {
            e["event"] == "source_down" && e["reason"] == "template_source_unreachable"
        })
        .await?;
    gateway
        .wait_for_event("the end of the work", DEADLINE, |e| {
            e["event"] == "gate_expired" && e["reason"] == "template_source_stale"
        })
        .await?;
    miner
        .wait_for_line("the miner to be told", DEADLINE, |line| line.contains("template_source_stale"))
        .await?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_block_that_cannot_be_delivered_is_kept_for_the_operator() -> Result<()> {
    let mut node = Node::start().await?;
    Wallet::funded(&node, 10).await?;
    let backend = Backend::start("test", "a secret of the pool").await?;
    let mut gateway = Gateway::start(&config(&node, &backend, 0)?).await?;
    gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
    node.process().kill()?;
    let _miner = Miner::start(&gateway, Channel::Extended, 4, "alice")?;
    let solved = gateway.wait_for_event("a solved block", DEADLINE, |e| e["solves_block"] == true).await?;
    ensure!(gateway.stop().await?.success());
    let lost = gateway.events_named("block_found")?;
    let lost = lost.iter().find(|e| e["hash"] == solved["share_id"]).expect("an event for the block");
    ensure!(lost["reason"] == "block_submit_failed", "{lost}");
    let file = gateway.config().ledger().join(format!("block-{}.hex", solved["share_id"].as_str().unwrap()));
    ensure!(lost["detail"].as_str().unwrap().contains(&file.display().to_string()), "{lost}");
    let block: bitcoin::Block = bitcoin::consensus::encode::deserialize_hex(&std::fs::read_to_string(file)?)?;
    ensure!(block.block_hash().to_string() == solved["share_id"].as_str().unwrap());
    ensure!(block.check_merkle_root() && block.check_witness_commitment());
    Ok(())
}
