//! Backends that are slow, rude, confused or overloaded: whatever they do, each share has one result and is
//! paid once.

use super::{
    miner::{Miner, config},
    rude::{Proxy, Rude},
};
use anyhow::{Result, ensure};
use reservegrid_tests::{
    account::{check_every_share_has_one_result, ledger_records, verified},
    backend::{Backend, Behaviour},
    gateway::{DEADLINE, Gateway, GatewayConfig},
    wait,
};
use std::time::{Duration, Instant};

const SECRET: &str = "a secret of the pool";

/// Mines some shares, waits until all have their result, ends the gateway and checks the books.
async fn mined_and_paid(config: &GatewayConfig, backend: &Backend) -> Result<Gateway> {
    let mut gateway = Gateway::start(config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    miner.mine(64).await?;
    ensure!(miner.acked.len() == 64, "{:?}", miner.refused);
    let answered = |events: &[serde_json::Value]| {
        events.iter().filter(|e| e["event"] == "share_forward_result").count() >= 64
    };
    gateway.wait_until("64 results", DEADLINE, answered).await?;
    ensure!(gateway.stop().await?.success());
    ensure!(check_every_share_has_one_result(&ledger_records(config)?, backend)? == 64);
    let report = verified(config)?;
    ensure!(report["forward_accepted"] == 64 && report["open"] == 0, "{report}");
    Ok(gateway)
}

#[tokio::test]
async fn an_answer_that_ends_half_way_or_never_comes_or_comes_twice_is_asked_for_again() -> Result<()> {
    for rude in [Rude::CloseHalfWay, Rude::Slow, Rude::Twice] {
        let backend = Backend::start("test", SECRET).await?;
        let proxy = Proxy::start(&backend.url(), rude, 2).await?;
        let config = config()?.pool(&backend).set("pool", "url", proxy.url()).set("pool", "timeout", "300ms");
        let mut gateway = mined_and_paid(&config, &backend).await?;
        ensure!(proxy.spoilt() > 0, "{rude:?}");
        let retried =
            gateway.events_named("forward_status")?.iter().any(|e| e["reason"] == "forward_retrying");
        let deliveries: u32 = backend.shares().values().map(|share| share.deliveries).sum();
        if matches!(rude, Rude::Twice) {
            ensure!(deliveries == 64, "one of two equal answers is one answer: {deliveries}");
        } else {
            ensure!(retried && deliveries > 64, "{rude:?}: {deliveries}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_says_everything_twice_is_one_answer() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    backend.behave(Behaviour::Repeat);
    mined_and_paid(&config()?.pool(&backend), &backend).await?;
    Ok(())
}

#[tokio::test]
async fn a_backend_that_asks_for_patience_gets_it() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    backend.behave(Behaviour::TooMany(2));
    let config = config()?.pool(&backend);
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    // Before the first request: a slow machine makes what is measured longer, never shorter.
    let began = Instant::now();
    miner.mine(8).await?;
    gateway.wait_for_event("a retry", DEADLINE, |e| e["reason"] == "forward_retrying").await?;
    backend.behave(Behaviour::Accept);
    backend.wait_for("the shares", DEADLINE, |shares| shares.values().any(|s| !s.answers.is_empty())).await?;
    // Without Retry-After it would have come after 0.2 s.
    ensure!(began.elapsed() >= Duration::from_secs(2), "after {:?}", began.elapsed());
    ensure!(gateway.stop().await?.success());
    ensure!(check_every_share_has_one_result(&ledger_records(&config)?, &backend)? == 8);
    Ok(())
}

#[tokio::test]
async fn several_batches_are_on_their_way_at_once_and_no_more_than_allowed() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    backend.behave(Behaviour::Hang);
    let config = config()?
        .pool(&backend)
        .set("pool", "batch_size", 4)
        .set("pool", "in_flight", 3)
        .set("pool", "timeout", "1m");
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    miner.mine(64).await?;
    wait::until("three requests", DEADLINE, async || Ok((backend.requests().len() >= 3).then_some(())))
        .await?;
    // More would be there by the time that a question over another connection is answered.
    ensure!(miner.acked.len() == 64 && backend.requests().len() == 3, "{}", backend.requests().len());
    gateway.process().kill()?;
    backend.behave(Behaviour::Accept);
    let mut gateway = Gateway::start(&config).await?;
    backend
        .wait_for("all of them", DEADLINE, |shares| {
            shares.values().filter(|s| !s.answers.is_empty()).count() == 64
        })
        .await?;
    ensure!(gateway.stop().await?.success());
    ensure!(check_every_share_has_one_result(&ledger_records(&config)?, &backend)? == 64);
    Ok(())
}

#[tokio::test]
async fn a_full_backlog_slows_acknowledgements_down_and_then_refuses_and_loses_nothing() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    backend.behave(Behaviour::ServerError);
    let config = config()?.pool(&backend).set("ledger", "max_backlog", 200);
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    miner.mine(320).await?;
    ensure!(miner.acked.len() == 200, "{} of 320 were accepted", miner.acked.len());
    ensure!(miner.refused.iter().all(|code| code == "share-ledger-full"), "{:?}", miner.refused);
    gateway.wait_for_event("the slowing down", DEADLINE, |e| e["reason"] == "ledger_backlog_high").await?;
    backend.behave(Behaviour::Accept);
    let paid =
        |e: &[serde_json::Value]| e.iter().filter(|e| e["event"] == "share_forward_result").count() == 200;
    gateway.wait_until("the backlog's results", DEADLINE, paid).await?;
    miner.mine(32).await?;
    ensure!(miner.acked.len() == 232, "nothing is accepted after the backlog is gone");
    ensure!(gateway.stop().await?.success());
    ensure!(check_every_share_has_one_result(&ledger_records(&config)?, &backend)? == 232);
    Ok(())
}

#[tokio::test]
async fn keys_are_exchanged_without_a_restart() -> Result<()> {
    let (old, new) =
        (Backend::start("k1", SECRET).await?, Backend::start("k2", "the next secret of it").await?);
    // Only the new key's backend is there for a share in the end: the old one refuses its signature.
    let proxy = Proxy::start(&new.url(), Rude::Slow, 0).await?;
    let config = config()?.set("pool", "url", proxy.url()).set("pool", "key_id", old.key_id());
    let secret = config.folder().join("pool.secret");
    let chain = config.folder().join("chain.keys");
    std::fs::write(&secret, format!("{}\n", old.secret()))?;
    std::fs::write(&chain, "the first key of the chain\n")?;
    let config = config.set("pool", "secret_file", secret.display().to_string()).set(
        "ledger",
        "key_file",
        chain.display().to_string(),
    );
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, "alice").await?;
    miner.mine(32).await?;
    gateway.wait_for_event("a refused signature", DEADLINE, |e| e["reason"] == "forward_retrying").await?;
    ensure!(new.shares().is_empty() && new.bad_signatures() > 0);
    std::fs::write(&secret, format!("{}\n{}\n", new.secret(), new.key_id()))?;
    gateway.wait_for_event("the new key", DEADLINE, |e| e["reason"] == "forward_key_changed").await?;
    new.wait_for("the shares", DEADLINE, |shares| shares.len() == 32).await?;

    // A file that cannot be used changes nothing, and is said.
    std::fs::write(&chain, "the second key of the chain\n")?;
    let said =
        gateway.wait_for_event("the refusal", DEADLINE, |e| e["reason"] == "ledger_key_unusable").await?;
    ensure!(said["detail"].as_str().unwrap().contains("put it under the new one"), "{said}");
    std::fs::write(&chain, "the second key of the chain\nthe first key of the chain\n")?;
    gateway.wait_for_event("the chain's new key", DEADLINE, |e| e["reason"] == "ledger_key_changed").await?;
    miner.mine(32).await?;
    new.wait_for("all shares", DEADLINE, |shares| shares.len() == 64).await?;
    ensure!(gateway.stop().await?.success());
    let config = config.variable("RESERVEGRID_LEDGER__KEY", &std::fs::read_to_string(&chain)?);
    let report = verified(&config)?;
    ensure!(report["shares"] == 64 && report["segments"] == 2, "{report}");
    let everything = format!(
        "{}{}{}",
        gateway.process().stderr(),
        gateway.process().stdout(),
        std::fs::read_to_string(config.folder().join("events.ndjson"))?
    );
    for secret in [old.secret(), new.secret(), "key of the chain"] {
        ensure!(!everything.contains(secret), "a secret was written down");
    }
    Ok(())
}
