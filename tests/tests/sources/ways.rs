//! The ways in which a node says that something is new, and what it says of blocks that nobody solved yet.

use super::{backend, event, patient, work_on};
use anyhow::{Result, ensure};
use reservegrid_tests::{
    front::{Front, Twist},
    gateway::{DEADLINE, Gateway},
    mempool::Wallet,
    node::Node,
    wait,
};
use serde_json::Value;

#[tokio::test]
async fn a_new_tip_is_heard_by_zmq_when_the_long_poll_says_nothing() -> Result<()> {
    let node = Node::start().await?;
    node.mine(1).await?;
    let (backend, front) = (backend().await?, Front::start(&node).await?);
    front.twist(Twist::NoLongPoll);
    // Nothing else would notice within an hour.
    let config = front
        .configure(patient(&backend)?)
        .set("source", "zmq_hashblock", node.zmq())
        .set("source", "fee_refresh", "10m")
        .set("source", "stale_after", "1h");
    let mut gateway = Gateway::start(&config).await?;
    work_on(&mut gateway, &node.tip().await?).await?;
    // The subscription may be made after the first block, never after the last.
    for _ in 0..20 {
        let tip = node.mine(1).await?;
        let heard =
            tokio::time::timeout(std::time::Duration::from_secs(3), work_on(&mut gateway, &tip)).await;
        if heard.is_ok_and(|work| work.is_ok()) {
            let tip = node.mine(1).await?;
            work_on(&mut gateway, &tip).await?;
            return Ok(());
        }
    }
    anyhow::bail!("no tip was heard by ZMQ")
}

#[tokio::test]
async fn higher_fees_on_the_same_tip_are_seen_in_time_and_recorded_with_what_else_waits() -> Result<()> {
    let node = Node::start().await?;
    let mut wallet = Wallet::funded(&node, 30).await?;
    let (backend, front) = (backend().await?, Front::start(&node).await?);
    // A node says nothing of fees on a long poll for a minute; here it never does.
    front.twist(Twist::NoLongPoll);
    let config = front
        .configure(patient(&backend)?)
        .set("source", "fee_refresh", "1s")
        .set("record", "dir", "records");
    let mut gateway = Gateway::start(&config).await?;
    work_on(&mut gateway, &node.tip().await?).await?;
    let filled = wallet.fill(&node, 10).await?;
    let with_fees = |e: &Value| e["event"] == "template_judged" && e["total_fees"] == filled.fees.to_sat();
    gateway.wait_for_event("a template with the fees", DEADLINE, with_fees).await?;

    // The mempool is asked about beside the templates, so one of the next has it.
    let context = wait::until("the fee rates in a recording", DEADLINE, async || {
        let recorded = gateway.config().recordings("records")?;
        let contexts = recorded.iter().map(|recording| recording["template"]["context"].clone());
        Ok(contexts.into_iter().find(|context| context["fee_rates"].is_object()))
    })
    .await?;
    let rate = |name: &str| context["fee_rates"][name].as_u64().unwrap_or(0);
    // The wallet pays 1.1 satoshi per vbyte and more.
    ensure!(1_000 < rate("p10") && rate("p10") <= rate("p50") && rate("p50") <= rate("p90"), "{context}");
    ensure!(context["mempool"]["transaction_count"].as_u64() >= Some(10), "{context}");
    ensure!(context["mempool_age_ms"].as_u64() < Some(60_000), "{context}");
    Ok(())
}

#[tokio::test]
async fn the_node_finds_the_blocks_that_the_gateway_assembles_valid() -> Result<()> {
    let node = Node::start().await?;
    let mut wallet = Wallet::funded(&node, 30).await?;
    wallet.fill(&node, 10).await?;
    let backend = backend().await?;
    for proposal in ["watch", "gate"] {
        let config = patient(&backend)?.node(&node).set("source", "proposal", proposal);
        let mut gateway = Gateway::start(&config).await?;
        work_on(&mut gateway, &node.tip().await?).await?;
        let answered = event(&mut gateway, 0, "proposal_answered", "proposal_accepted").await?;
        ensure!(answered["source"] == "main" && answered["detail"] == "", "{answered}");
        ensure!(gateway.stop().await?.success());
    }
    Ok(())
}

#[tokio::test]
async fn a_block_that_the_node_would_refuse_is_told_and_becomes_no_work_where_it_gates() -> Result<()> {
    let node = Node::start().await?;
    node.mine(1).await?;
    let (backend, front) = (backend().await?, Front::start(&node).await?);
    front.twist(Twist::Proposal("bad-cb-amount"));
    let config = front.configure(patient(&backend)?).set("source", "proposal", "gate");
    let mut gateway = Gateway::start(&config).await?;
    let told = event(&mut gateway, 0, "proposal_answered", "proposal_rejected").await?;
    ensure!(told["detail"] == "bad-cb-amount", "{told}");
    let judged = gateway.wait_for_event("a verdict", DEADLINE, |e| e["event"] == "template_judged").await?;
    ensure!(judged["verdict"]["reason_code"] == "proposal_rejected", "{judged}");
    ensure!(judged["enforced"] == "refused", "{judged}");
    ensure!(gateway.events_named("work_released")?.is_empty());
    front.twist(Twist::Honest);
    let tip = node.mine(1).await?;
    work_on(&mut gateway, &tip).await?;
    ensure!(gateway.stop().await?.success());

    // Where it only watches, the miners have the work already.
    front.twist(Twist::Proposal("bad-cb-amount"));
    let mut gateway = Gateway::start(&config.set("source", "proposal", "watch")).await?;
    work_on(&mut gateway, &tip).await?;
    event(&mut gateway, 0, "proposal_answered", "proposal_rejected").await?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}
