//! A real node behind something that breaks or changes what it says: each trouble has its code, none ends the
//! gateway, and nothing of it becomes work.

use super::{backend, event, patient, work_on};
use anyhow::{Result, ensure};
use bitcoin::{
    hashes::{Hash, sha256d},
    merkle_tree,
};
use reservegrid_tests::{
    front::{Front, Twist},
    gateway::{DEADLINE, Gateway},
    mempool::Wallet,
    node::Node,
};
use serde_json::{Value, json};

/// What the source is said to have.
const TROUBLES: [(&str, Twist, &str); 11] = [
    (
        "initial download",
        Twist::Fault(-10, "is in initial sync and waiting for blocks"),
        "template_source_unreachable",
    ),
    ("warming up", Twist::Fault(-28, "Verifying blocks"), "template_source_unreachable"),
    ("wrong credentials", Twist::Status(401), "template_source_refused"),
    ("away", Twist::Away, "template_source_unreachable"),
    ("cut off in mid-answer", Twist::CutOff, "template_source_unreachable"),
    ("no answer in time", Twist::Silence, "template_source_unreachable"),
    (
        "another chain",
        Twist::Change("getblockchaininfo", |answer| answer["chain"] = json!("main")),
        "template_source_refused",
    ),
    (
        "a height in the past",
        Twist::Change("getblocktemplate", |answer| answer["height"] = json!(9)),
        "template_source_invalid",
    ),
    (
        "a template without its bits",
        Twist::Change("getblocktemplate", |answer| answer["bits"] = json!("")),
        "template_source_invalid",
    ),
    (
        "a rule of tomorrow",
        Twist::Change("getblocktemplate", |answer| answer["rules"] = json!(["!quantum"])),
        "template_source_invalid",
    ),
    (
        "a transaction that does not parse",
        Twist::Change("getblocktemplate", |answer| answer["transactions"][0]["data"] = json!("0200")),
        "template_undecodable",
    ),
];

/// What the templates are refused for.
type Lie = (&'static str, fn(&mut Value), &'static str);

const LIES: [Lie; 6] = [
    (
        "a wrong commitment",
        |answer| answer["default_witness_commitment"] = json!(format!("6a24aa21a9ed{}", "11".repeat(32))),
        "witness_commitment_mismatch",
    ),
    (
        "a wrong id, and so a wrong merkle root",
        |answer| answer["transactions"][0]["txid"] = json!("22".repeat(32)),
        "merkle_root_mismatch",
    ),
    (
        "transactions out of order",
        |answer| {
            if let Some(transactions) = answer["transactions"].as_array_mut() {
                transactions.reverse();
            }
            commit(answer);
        },
        "transaction_order_invalid",
    ),
    (
        "a coinbase value that is a lie",
        |answer| answer["coinbasevalue"] = json!(99_0000_0000_u64),
        "coinbase_value_mismatch",
    ),
    ("a target of another chain", |answer| answer["bits"] = json!("1d00ffff"), "bits_mismatch"),
    (
        "a tip of another chain",
        |answer| answer["previousblockhash"] = json!("33".repeat(32)),
        "template_superseded",
    ),
];

/// The commitment to the transactions as they stand there now (BIP 141).
fn commit(answer: &mut Value) {
    let ids = answer["transactions"].as_array().into_iter().flatten();
    let ids = ids.filter_map(|entry| entry["hash"].as_str()?.parse::<sha256d::Hash>().ok());
    let root = merkle_tree::calculate_root(std::iter::once(sha256d::Hash::all_zeros()).chain(ids));
    let root = root.map(|root| root.to_byte_array()).unwrap_or_default();
    let commitment = sha256d::Hash::hash(&[root, [0; 32]].concat());
    answer["default_witness_commitment"] =
        json!(format!("6a24aa21a9ed{}", hex::encode(commitment.to_byte_array())));
}

#[tokio::test]
async fn every_trouble_with_a_node_has_its_code_and_passes_with_the_trouble() -> Result<()> {
    let node = Node::start().await?;
    let mut wallet = Wallet::funded(&node, 120).await?;
    wallet.fill(&node, 80).await?;
    let (backend, front) = (backend().await?, Front::start(&node).await?);
    let config = front.configure(patient(&backend)?).set("source", "request_timeout", "1s").set(
        "source",
        "fee_refresh",
        "1s",
    );
    let mut gateway = Gateway::start(&config).await?;
    work_on(&mut gateway, &node.tip().await?).await?;
    for (what, twist, code) in TROUBLES {
        let skip = gateway.events()?.len();
        front.twist(twist);
        let down = event(&mut gateway, skip, "source_down", code).await;
        let down = down.map_err(|error| error.context(what))?;
        ensure!(
            down["source"] == "main" && down["detail"].as_str().is_some_and(|it| !it.is_empty()),
            "{down}"
        );
        front.twist(Twist::Honest);
        let skip = gateway.events()?.len();
        let up = |e: &Value| e["event"] == "source_up";
        gateway.wait_for_event_after(skip, &format!("recovery from {what}"), DEADLINE, up).await?;
    }
    let tip = node.tip().await?;
    for (what, lie, code) in LIES {
        let skip = gateway.events()?.len();
        front.twist(Twist::Change("getblocktemplate", lie));
        let refused = |e: &Value| {
            e["reason"] == code || e["event"] == "template_judged" && e["verdict"]["reason_code"] == code
        };
        gateway.wait_for_event_after(skip, &format!("{code} for {what}"), DEADLINE, refused).await?;
        front.twist(Twist::Honest);
    }
    // After all of that it works as before, and nothing that was refused ever was work.
    let skip = gateway.events()?.len();
    let next = node.mine(1).await?;
    work_on(&mut gateway, &next).await?;
    ensure!(gateway.events()?[skip..].iter().all(|e| e["event"] != "gate_expired"));
    let judged = gateway.events_named("template_judged")?;
    for work in gateway.events_named("work_released")? {
        let accepted =
            judged.iter().any(|e| e["template"] == work["template"] && e["verdict"]["accepted"] == true);
        ensure!(accepted, "{work} was never accepted");
        ensure!(
            work["previous_block_hash"] == tip.as_str() || work["previous_block_hash"] == next.as_str(),
            "{work}"
        );
    }
    ensure!(gateway.stop().await?.success());
    Ok(())
}
