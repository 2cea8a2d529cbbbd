//! Disks that are full, fail, or cannot be written; files that were touched; clocks that go back.

use super::miner::{Miner, config};
use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    account::{check_every_share_has_one_result, ledger, ledger_records, verified},
    backend::Backend,
    gateway::{DEADLINE, Gateway, GatewayConfig},
};
use std::fs;

const FAULT: &str = "RESERVEGRID_LEDGER_FAULT";
const SECRET: &str = "a secret of the pool";

/// A ledger with some shares, all answered, of a gateway that has ended.
async fn used(backend: &Backend) -> Result<GatewayConfig> {
    let config = config()?.pool(backend);
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    miner.mine(64).await?;
    ensure!(miner.acked.len() == 64, "{:?}", miner.refused);
    ensure!(gateway.stop().await?.success());
    ensure!(verified(&config)?["shares"] == 64);
    Ok(config)
}

async fn does_not_start(config: &GatewayConfig) -> Result<String> {
    let mut gateway = Gateway::spawn(config)?;
    let status = gateway.process().wait(DEADLINE).await?;
    ensure!(!status.success(), "{status}");
    Ok(gateway.process().stderr())
}

#[tokio::test]
async fn on_a_full_disk_shares_are_refused_and_counted_again_when_there_is_room() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config()?.pool(&backend).variable(FAULT, "full:10000:2");
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    let mut tries = 0;
    while miner.refused.is_empty() {
        miner.mine(32).await?;
        tries += 1;
        ensure!(tries < 100, "the disk does not become full");
    }
    ensure!(miner.refused.iter().all(|code| code == "share-ledger-full"), "{:?}", miner.refused);
    let is = |reason: &'static str| {
        move |e: &serde_json::Value| e["event"] == "ledger_status" && e["reason"] == reason
    };
    let full = gateway.wait_for_event("a full disk", DEADLINE, is("ledger_disk_full")).await?;
    ensure!(
        full["detail"].as_str().is_some_and(|detail| detail.contains("refused until there is room")),
        "{full}"
    );
    gateway.wait_for_event("room", DEADLINE, is("ledger_resumed")).await?;
    let before = miner.acked.len();
    miner.mine(32).await?;
    ensure!(miner.acked.len() > before, "nothing is accepted after there is room");
    ensure!(gateway.stop().await?.success());
    let records = ledger_records(&config)?;
    ensure!(check_every_share_has_one_result(&records, &backend)? == miner.acked.len());
    Ok(())
}

#[tokio::test]
async fn after_a_sync_that_failed_nothing_is_acknowledged_and_a_restart_has_what_was() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config()?.pool(&backend);
    let mut gateway = Gateway::start(&config.clone().variable(FAULT, "sync:4")).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    for _ in 0..8 {
        miner.mine(32).await?;
    }
    let failed = gateway.wait_for_event("the failure", DEADLINE, |e| e["event"] == "ledger_failed").await?;
    ensure!(failed["reason"] == "ledger_write_failed", "{failed}");
    ensure!(failed["detail"].as_str().unwrap().contains("until the gateway is restarted"), "{failed}");
    ensure!(!miner.refused.is_empty() && miner.refused.iter().all(|code| code == "share-ledger-full"));
    let before = miner.acked.len();
    miner.mine(32).await?;
    ensure!(miner.acked.len() == before, "something was acknowledged after the failure");
    gateway.process().kill()?;

    let mut gateway = Gateway::start(&config).await?;
    let acked = miner.acked;
    backend
        .wait_for("the shares of before", DEADLINE, |paid| acked.iter().all(|id| paid.contains_key(id)))
        .await?;
    ensure!(gateway.stop().await?.success());
    check_every_share_has_one_result(&ledger_records(&config)?, &backend)?;
    Ok(())
}

#[tokio::test]
async fn on_a_read_only_file_system_it_does_not_start_and_says_so() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config()?.pool(&backend).variable(FAULT, "read-only");
    let said = does_not_start(&config).await?;
    ensure!(said.contains("ledger: ") && said.contains("read-only"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_torn_last_record_is_cut_off_with_an_event_and_a_changed_one_keeps_it_from_starting() -> Result<()>
{
    let backend = Backend::start("test", SECRET).await?;
    let config = used(&backend).await?;
    let path = config.ledger().join("0000000001.rgl");
    let whole = fs::read(&path)?;
    fs::write(&path, [&whole[..], &whole[whole.len() - 40..]].concat())?;
    let mut gateway = Gateway::start(&config).await?;
    let cut = gateway.wait_for_event("the cut", DEADLINE, |e| e["reason"] == "ledger_tail_cut").await?;
    ensure!(cut["detail"].as_str().unwrap().contains("40 bytes"), "{cut}");
    ensure!(gateway.stop().await?.success());
    ensure!(fs::read(&path)? == whole, "more was cut off than was torn");

    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    fs::write(&path, &changed)?;
    let said = does_not_start(&config).await?;
    ensure!(said.contains("0000000001.rgl, record ") && said.contains("from a backup"), "{said}");

    fs::remove_file(&path)?;
    let said = does_not_start(&config).await?;
    ensure!(said.contains("0000000001.rgl: the file is missing"), "{said}");
    fs::write(&path, &whole)?;
    ensure!(Gateway::start(&config).await?.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn without_its_head_it_does_not_start_until_a_repair_says_what_cannot_be_proved_and_nothing_is_paid_twice()
-> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = used(&backend).await?;
    let head = config.ledger().join("head");
    fs::remove_file(&head)?;
    let said = does_not_start(&config).await?;
    ensure!(
        said.contains("head: the file is missing") && said.contains("reservegrid ledger repair"),
        "{said}"
    );

    let looked = ledger(&config, "repair", &[])?;
    let (said, hint) = (String::from_utf8(looked.stdout)?, String::from_utf8(looked.stderr)?);
    ensure!(looked.status.code() == Some(1) && hint.contains("--write") && !head.exists(), "{hint}");
    ensure!(said.contains("CANNOT BE PROVED: that no record is missing behind record 128"), "{said}");
    ensure!(said.contains("64 shares accepted; the pool took 64"), "{said}");

    let written = ledger(&config, "repair", &["--write"])?;
    ensure!(written.status.success() && head.exists(), "{written:?}");
    let report = fs::read_dir(config.ledger())?.flatten().find(|file| {
        file.file_name().to_str().is_some_and(|name| name.starts_with("repair-") && name.ends_with(".txt"))
    });
    ensure!(fs::read_to_string(report.context("no report is kept")?.path())? == said);

    let mut gateway = Gateway::start(&config).await?;
    ensure!(String::from_utf8(ledger(&config, "repair", &[])?.stdout)?.contains("another gateway"));
    Miner::start(&gateway, "alice").await?.mine(64).await?;
    ensure!(gateway.stop().await?.success());
    check_every_share_has_one_result(&ledger_records(&config)?, &backend)?;
    let again = ledger(&config, "repair", &["--write"])?;
    ensure!(String::from_utf8(again.stdout)?.starts_with("there is nothing to repair"));
    Ok(())
}

#[tokio::test]
async fn a_ledger_whose_last_records_the_disk_forgot_goes_on_after_a_repair_that_counts_them() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = used(&backend).await?;
    let path = config.ledger().join("0000000001.rgl");
    let whole = fs::read(&path)?;
    fs::write(&path, &whole[..whole.len() - 30])?;
    let said = does_not_start(&config).await?;
    ensure!(said.contains("its tail is missing") && said.contains("reservegrid ledger repair"), "{said}");
    let written = ledger(&config, "repair", &["--write", "--format", "json"])?;
    let findings: serde_json::Value = serde_json::from_slice(&written.stdout)?;
    ensure!(written.status.success(), "{written:?}");
    ensure!(findings["lost"][0].as_str().unwrap().starts_with("1 record(s), 128 to 128"), "{findings}");
    // Its share is sent again, under its id.
    let mut gateway = Gateway::start(&config).await?;
    gateway.wait_for_event("the cut", DEADLINE, |e| e["reason"] == "ledger_tail_cut").await?;
    gateway.wait_for_event("the result", DEADLINE, |e| e["event"] == "share_forward_result").await?;
    ensure!(gateway.stop().await?.success());
    let report = verified(&config)?;
    ensure!(report["shares"] == 64 && report["open"] == 0, "{report}");
    Ok(())
}

#[tokio::test]
async fn the_record_of_a_version_before_is_not_passed_over() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config()?.pool(&backend);
    fs::create_dir_all(config.ledger())?;
    fs::write(config.ledger().join("shares.ndjson"), "{\"event\":\"share_accepted\"}\n")?;
    let said = does_not_start(&config).await?;
    ensure!(said.contains("shares.ndjson is the ledger of a version before"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_clock_that_went_back_changes_neither_chain_nor_joins() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = used(&backend).await?;
    // The files are of a future that the clock of this run does not know yet.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    for entry in fs::read_dir(config.ledger())? {
        fs::File::options().append(true).open(entry?.path())?.set_modified(later)?;
    }
    let config = config.set("ledger", "segment_size", "64KiB").set("ledger", "keep", "1s");
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    miner.mine(640).await?;
    ensure!(gateway.stop().await?.success());
    let report = verified(&config)?;
    ensure!(report["shares"] == 704 && report["open"] == 0, "{report}");
    ensure!(report["segments"].as_u64() >= Some(2), "{report}");
    Ok(())
}

#[tokio::test]
async fn work_of_before_a_restart_is_not_accepted_again() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config()?.pool(&backend);
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    let share = miner.next_share()?;
    miner.send_share(&share).await?;
    miner.settle(0).await?;
    let first = miner.acked;
    gateway.process().kill()?;
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    // The same message to the same channel: it is other work now, since no extranonce comes twice.
    ensure!(first != [miner.id(&share)], "the same work twice");
    miner.send_share(&share).await?;
    miner.settle(0).await?;
    ensure!(miner.acked != first, "accepted again");
    ensure!(gateway.stop().await?.success());
    verified(&config)?;
    Ok(())
}

#[tokio::test]
async fn a_solved_block_that_nobody_answered_for_is_submitted_again_at_the_next_start() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config()?.pool(&backend);
    fs::create_dir_all(config.ledger())?;
    // A block that this chain does not take, so that there is a no.
    let block = bitcoin::constants::genesis_block(bitcoin::Network::Signet);
    let file = config.ledger().join(format!("block-{}.hex", block.block_hash()));
    fs::write(&file, bitcoin::consensus::encode::serialize_hex(&block))?;
    let mut gateway = Gateway::start(&config).await?;
    let told = gateway.wait_for_event("the answer", DEADLINE, |e| e["event"] == "block_found").await?;
    ensure!(
        told["reason"] == "block_rejected_by_node" && told["hash"] == block.block_hash().to_string(),
        "{told}"
    );
    ensure!(gateway.stop().await?.success());
    ensure!(!file.exists(), "it would be submitted for ever");
    let records = ledger_records(&config)?;
    ensure!(records.len() == 1 && records[0]["reason"] == "block_rejected_by_node", "{records:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_old_and_answered_is_removed_and_the_chain_stays_whole() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config()?.pool(&backend).set("ledger", "segment_size", "64KiB").set("ledger", "keep", "1s");
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    miner.mine(1_280).await?;
    gateway.wait_for_event("retention", DEADLINE, |e| e["reason"] == "ledger_retired").await?;
    ensure!(!config.ledger().join("0000000001.rgl").exists());
    let live = verified(&config)?;
    ensure!(live["in_use"] == true && live["shares"].as_u64() < Some(1_280), "{live}");
    ensure!(gateway.stop().await?.success());
    let report = verified(&config)?;
    ensure!(report["open"] == 0 && backend.shares().len() == 1_280, "{report}");
    ensure!(Gateway::start(&config).await?.stop().await?.success());
    Ok(())
}
