//! `reservegrid ledger verify`, `export` and `stats`, on a ledger that a gateway wrote.

use super::miner::{Miner, config};
use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    account::{ledger, ledger_records, verified},
    backend::{Backend, Behaviour},
    gateway::{DEADLINE, Gateway, GatewayConfig, command},
};
use serde_json::Value;
use std::fs;

const SECRET: &str = "a secret of the pool";

/// Two users, one of them refused by the pool.
async fn two_users(backend: &Backend) -> Result<(GatewayConfig, Gateway)> {
    let config = config()?.pool(backend);
    let mut gateway = Gateway::start(&config).await?;
    let answered = |count: usize| {
        move |events: &[Value]| {
            events.iter().filter(|e| e["event"] == "share_forward_result").count() == count
        }
    };
    Miner::start(&gateway, "alice.1").await?.mine(64).await?;
    gateway.wait_until("alice's results", DEADLINE, answered(64)).await?;
    backend.behave(Behaviour::RejectShares("no such, account".into()));
    Miner::start(&gateway, "bob \"the\" miner").await?.mine(32).await?;
    gateway.wait_until("bob's results", DEADLINE, answered(96)).await?;
    Ok((config, gateway))
}

#[tokio::test]
async fn while_a_gateway_runs_and_afterwards_a_ledger_can_be_checked_exported_and_summed_up() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let (config, mut gateway) = two_users(&backend).await?;
    // What was written in the last second is not in the head yet.
    reservegrid_tests::wait::until("the live ledger to be whole", DEADLINE, async || {
        let report = verified(&config)?;
        ensure!(report["in_use"] == true, "{report}");
        Ok((report["shares"] == 96 && report["open"] == 0).then_some(()))
    })
    .await?;
    ensure!(ledger_records(&config)?.len() == 192);
    ensure!(gateway.stop().await?.success());

    let report = verified(&config)?;
    ensure!(report["forward_accepted"] == 64 && report["forward_rejected"] == 32, "{report}");
    ensure!(ledger(&config, "verify", &["--complete"])?.status.success());

    let records = ledger_records(&config)?;
    let mut told = gateway.events_named("share_accepted")?;
    told.extend(gateway.events_named("share_forward_result")?);
    for event in &mut told {
        // The event is emitted a moment after the record is written.
        event["time_ms"] = Value::Null;
        // The number in the stream is the event's alone.
        event.as_object_mut().context("an object")?.remove("seq");
    }
    for mut record in records {
        record["time_ms"] = Value::Null;
        ensure!(told.contains(&record), "the ledger has what was not told: {record}");
    }

    let text = String::from_utf8(ledger(&config, "export", &["--format", "csv"])?.stdout)?;
    ensure!(text.starts_with("record,time_ms,event,share_id,user_identity,worker,"), "{text}");
    ensure!(text.lines().count() == 193 && text.contains("\"bob \"\"the\"\" miner\""), "{text}");
    ensure!(text.contains("forward_rejected,\"no such, account\",1"), "{text}");

    let out = config.folder().join("shares.parquet");
    let exported = ledger(&config, "export", &["--format", "parquet", "--out", out.to_str().unwrap()])?;
    ensure!(exported.status.success(), "{exported:?}");
    let bytes = fs::read(&out)?;
    ensure!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "no Parquet file");

    let stats = |by: &str| -> Result<Vec<Value>> {
        let output = ledger(&config, "stats", &["--by", by, "--format", "json"])?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let users = stats("user")?;
    ensure!(users.len() == 2, "{users:?}");
    ensure!(users[0]["user_identity"] == "alice.1" && users[0]["forward_accepted"] == 64, "{users:?}");
    ensure!(users[1]["forward_rejected"] == 32 && users[1]["paid_difficulty"] == 0.0, "{users:?}");
    let all = stats("user,channel,hour")?;
    ensure!(
        all.len() >= 2 && all.iter().all(|row| row["hour"].is_u64() && row["channel"].is_u64()),
        "{all:?}"
    );
    let sum: u64 = all.iter().filter_map(|row| row["shares"].as_u64()).sum();
    ensure!(sum == 96, "{all:?}");
    let text = String::from_utf8(ledger(&config, "stats", &[])?.stdout)?;
    ensure!(text.contains("alice.1") && text.lines().count() == 3, "{text}");
    Ok(())
}

/// Where the records of a segment begin, by their lengths.
fn records(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 80;
    let mut records = Vec::new();
    while at + 2 <= bytes.len() {
        let length = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])) + 18;
        records.push((at, at + length));
        at += length;
    }
    records
}

#[tokio::test]
async fn verify_names_a_flipped_byte_a_removed_record_two_swapped_ones_and_a_truncated_tail() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let (config, mut gateway) = two_users(&backend).await?;
    ensure!(gateway.stop().await?.success());
    let path = config.ledger().join("0000000001.rgl");
    let whole = fs::read(&path)?;
    let places = records(&whole);
    ensure!(places.len() == 192 && places.last().context("none")?.1 == whole.len());
    let part = |from: usize, to: usize| &whole[places[from].0..places[to - 1].1];
    let head = &whole[..places[0].0];
    let mut flipped = whole.clone();
    flipped[places[40].0 + 30] ^= 1;
    let without = [head, part(0, 40), part(41, 192)].concat();
    let swapped = [head, part(0, 40), part(41, 42), part(40, 41), part(42, 192)].concat();
    let cases = [
        (flipped, "changed_record", 41),
        (without, "removed_record", 41),
        (swapped, "swapped_records", 41),
        (whole[..whole.len() - 7].to_vec(), "truncated_tail", 192),
        (whole[..places[190].1].to_vec(), "truncated_tail", 192),
    ];
    for (bytes, fault, record) in cases {
        fs::write(&path, &bytes)?;
        let output = ledger(&config, "verify", &["--format", "json"])?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(said["fault"] == fault && said["record"] == record, "{fault}: {said}");
        ensure!(said["file"].as_str().is_some_and(|file| file.ends_with("0000000001.rgl")), "{said}");
        if fault != "truncated_tail" {
            ensure!(said["share_id"].as_str().is_some_and(|id| id.len() == 64), "{said}");
        }
        let text = String::from_utf8(ledger(&config, "verify", &[])?.stdout)?;
        ensure!(
            text.contains(&format!("FAULT {fault}: ")) && text.contains(&format!("record {record} ")),
            "{text}"
        );
    }
    fs::write(&path, &whole)?;
    ensure!(ledger(&config, "verify", &[])?.status.success());
    Ok(())
}

#[tokio::test]
async fn a_folder_without_ledger_or_key_is_a_wrong_input() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = command()?;
        let output = command.args(["ledger", "verify"]).args(arguments).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let place = folder.path().to_str().unwrap();
    let (code, said) = run(&[place])?;
    ensure!(code == Some(64) && said.contains("--key-file"), "{code:?} {said}");
    let (code, said) = run(&["/nowhere/at/all"])?;
    ensure!(code == Some(64) && said.contains("no such folder"), "{code:?} {said}");
    fs::write(folder.path().join("chain.key"), "the key of a ledger that is not there")?;
    let mut command = command()?;
    let output = command.args(["ledger", "verify", place]).output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1) && said.contains("head: the file is missing"), "{said}");
    Ok(())
}
