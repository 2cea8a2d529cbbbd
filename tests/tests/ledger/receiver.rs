//! The reference receiver of `examples/`, with the real gateway before it.

use super::miner::{Miner, config};
use anyhow::{Context, Result, ensure};
use hmac::{Hmac, Mac};
use reservegrid_tests::{
    account::{ledger_records, verified},
    gateway::{DEADLINE, Gateway},
    process::Process,
    wait,
};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

const SECRET: &str = "a secret of the pool";

async fn start(folder: &Path) -> Result<(Process, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/receiver/receiver.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--listen", "127.0.0.1:0", "--books"]).arg(folder.join("books.sqlite"));
    command.env("RECEIVER_KEYS", format!("k1={SECRET}\nk2=another secret of it\n"));
    let mut process = Process::start("receiver", command, folder)?;
    let url = wait::until("the receiver", DEADLINE, async || {
        process.check_running()?;
        Ok(process.stdout().trim().strip_prefix("receiving on ").map(str::to_owned))
    })
    .await?;
    Ok((process, url))
}

async fn post(url: &str, id: &str, secret: &str, at: u64, body: &str) -> Result<(u16, Value)> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{at}.{body}").as_bytes());
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client
        .post(url)
        .header("X-ReserveGrid-Key-Id", id)
        .header("X-ReserveGrid-Timestamp", at.to_string())
        .header("X-ReserveGrid-Signature", hex::encode(mac.finalize().into_bytes()))
        .body(body.to_owned());
    let response = request.send().await?;
    Ok((response.status().as_u16(), serde_json::from_str(&response.text().await?)?))
}

#[tokio::test]
async fn the_receiver_of_the_examples_books_each_share_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_process, url) = start(folder.path()).await?;
    let config = config()?
        .set("pool", "url", url.clone())
        .set("pool", "key_id", "k1")
        .variable("RESERVEGRID_POOL__SECRET", SECRET);
    let mut gateway = Gateway::start(&config).await?;
    Miner::start(&gateway, "alice.1").await?.mine(64).await?;
    Miner::start(&gateway, "nobody.1").await?.mine(32).await?;
    let answered =
        |events: &[Value]| events.iter().filter(|e| e["event"] == "share_forward_result").count() == 96;
    gateway.wait_until("results", DEADLINE, answered).await?;
    ensure!(gateway.stop().await?.success());
    let report = verified(&config)?;
    ensure!(report["forward_accepted"] == 64 && report["forward_rejected"] == 32, "{report}");

    // A replay within the time: answered as the first time, and not booked again.
    let records = ledger_records(&config)?;
    let shares: Vec<_> = records.iter().filter(|r| r["event"] == "share_accepted").collect();
    let refused = shares.iter().position(|s| s["user_identity"] == "nobody.1").context("a refused share")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let body = json!({ "shares": shares }).to_string();
    for (id, secret) in [("k1", SECRET), ("k2", "another secret of it")] {
        let (status, answer) = post(&url, id, secret, now, &body).await?;
        ensure!(status == 200 && answer["results"].as_array().is_some_and(|r| r.len() == 96), "{answer}");
        ensure!(answer["results"][0]["accepted"] == true, "{answer}");
        ensure!(answer["results"][refused]["reason"] == "no such account", "{answer}");
    }
    // Whatever is wrong with a request, nothing in it counts.
    let stranger =
        json!({ "shares": [{ "share_id": "00".repeat(32), "user_identity": "x", "difficulty": 1 }] })
            .to_string();
    for (id, secret, at, status) in [
        ("k3", SECRET, now, 401),
        ("k1", "another secret of it", now, 401),
        ("k1", SECRET, now - 400, 401),
        ("k1", SECRET, now + 400, 401),
    ] {
        let (said, answer) = post(&url, id, secret, at, &stranger).await?;
        ensure!(said == status && answer["error"].is_string(), "{said} {answer}");
    }
    for nonsense in [" ", "[]", "{\"shares\":3}", "{\"shares\":[{\"share_id\":\"x\"}]}"] {
        ensure!(post(&url, "k1", SECRET, now, nonsense).await?.0 == 400, "{nonsense}");
    }
    ensure!(post(&url.replace("/shares", "/other"), "k1", SECRET, now, &body).await?.0 == 404);
    let count = Command::new("python3")
        .args(["-c", "import sqlite3,sys; print(*sqlite3.connect(sys.argv[1]).execute('select count(*), sum(accepted) from shares').fetchone())"])
        .arg(folder.path().join("books.sqlite"))
        .output()?;
    ensure!(String::from_utf8(count.stdout)?.trim() == "96 64");
    Ok(())
}
