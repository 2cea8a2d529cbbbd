//! Blocks across a change of the target: on a signet of the test's own, whose target follows every two blocks.
//! Regtest never changes its target.

use super::{backend, event, patient, work_on};
use anyhow::{Context, Result, ensure};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness,
    absolute::LockTime,
    block::{Header, Version},
    consensus::encode::{serialize, serialize_hex},
    hashes::{Hash, HashEngine, sha256d},
    script::Builder,
    transaction,
};
use reservegrid_tests::{
    gateway::{Channel, DEADLINE, Gateway, Miner},
    node::{Auth, Chain, Node},
};
use serde_json::{Value, json};

const DAY: u64 = 24 * 3_600;

/// Mines the block of the node's template with a time of its own.
async fn mine_at(node: &Node, time: u64) -> Result<()> {
    let template = node.template().await?;
    let text = |name: &str| template[name].as_str().with_context(|| format!("{template} without {name}"));
    let height = template["height"].as_i64().context("a height")?;
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(height).push_int(0).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0; 32]]),
        }],
        output: vec![
            TxOut { value: Amount::from_sat(50_0000_0000), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) },
            TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_hex(text("default_witness_commitment")?)?,
            },
        ],
    };
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: text("previousblockhash")?.parse()?,
        merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
        time: time.try_into()?,
        bits: CompactTarget::from_unprefixed_hex(text("bits")?)?,
        nonce: 0,
    };
    let target = Target::from_compact(header.bits);
    let mut start = sha256d::Hash::engine();
    start.input(&serialize(&header)[..76]);
    let solves = |nonce: u32| {
        let mut engine = start.clone();
        engine.input(&nonce.to_le_bytes());
        target.is_met_by(BlockHash::from_raw_hash(sha256d::Hash::from_engine(engine)))
    };
    header.nonce = (0..=u32::MAX).find(|nonce| solves(*nonce)).context("no nonce solves the block")?;
    let block = Block { header, txdata: vec![coinbase] };
    let answer = node.rpc.call("submitblock", json!([serialize_hex(&block)])).await?;
    ensure!(answer.is_null(), "{answer}");
    Ok(())
}

async fn bits(node: &Node) -> Result<String> {
    Ok(node.template().await?["bits"].as_str().context("bits")?.to_owned())
}

#[tokio::test]
async fn blocks_are_found_and_accepted_before_and_after_the_target_changes() -> Result<()> {
    let node = Node::start_on(Chain::Signet, Auth::Cookie).await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    // The two blocks before the change are to be a little less than 14 days apart.
    mine_at(&node, now - 13 * DAY - 1_000).await?;
    mine_at(&node, now - 13 * DAY).await?;
    let before = bits(&node).await?;

    let backend = backend().await?;
    let config = patient(&backend)?
        .node(&node)
        .set("source", "network", "signet")
        .set("coinbase", "payout_address", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx")
        // A share is a hundredth of a block.
        .set("miners", "min_difficulty", 0.00001);
    let mut gateway = Gateway::start(&config).await?;
    work_on(&mut gateway, &node.tip().await?).await?;
    let _miner = Miner::start(&gateway, Channel::Extended, 100_000_000, "alice")?;
    let found = |events: &[Value]| {
        events.iter().filter(|e| e["event"] == "block_found" && e["reason"] == "block_submitted").count()
    };
    gateway.wait_until("two blocks", 4 * DEADLINE, |events| found(events) >= 2).await?;
    ensure!(node.height().await? >= 4);
    let header = |height: u64| {
        let rpc = node.rpc.clone();
        async move {
            let hash = rpc.call("getblockhash", json!([height])).await?;
            rpc.call("getblockheader", json!([hash])).await
        }
    };
    let (third, fourth) = (header(3).await?, header(4).await?);
    ensure!(third["bits"] == before.as_str(), "{third}");
    ensure!(fourth["bits"] != third["bits"], "the target did not change: {fourth}");
    ensure!(fourth["difficulty"].as_f64() > third["difficulty"].as_f64(), "{third} {fourth}");
    let judged = gateway.events_named("template_judged")?;
    ensure!(judged.iter().all(|e| e["verdict"]["accepted"] == true), "{judged:?}");
    event(&mut gateway, 0, "block_answered", "block_submitted").await?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}
