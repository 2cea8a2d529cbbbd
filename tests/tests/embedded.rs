//! Modes, shares and restarts on the embedded chain: the real binary, real sockets, no node.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Result, ensure};
use reservegrid_tests::{
    account::{check_every_share_has_one_result, ledger_records, verified},
    backend::{Backend, Behaviour},
    gateway::{Channel, DEADLINE, Gateway, GatewayConfig, Miner, policy},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SECRET: &str = "a secret of the pool";

fn floor(min_avg_fee: u64) -> Value {
    json!({ "min_avg_fee": { "low": min_avg_fee, "mid": min_avg_fee, "high": min_avg_fee } })
}

fn config(mode: &str, backend: &Backend, min_avg_fee: u64) -> Result<GatewayConfig> {
    GatewayConfig::new(mode)?
        .embedded("207fffff", 40)
        .set("source", "refresh", "300ms")
        .set("miners", "shares_per_minute", 600.0)
        .pool(backend)
        .policy("fee-floor", &policy("fee-floor")?, &floor(min_avg_fee))
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|e| e["event"] == name).count()
}

#[tokio::test]
async fn blocks_are_found_on_both_kinds_of_channels_and_a_stop_loses_no_share() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let mut gateway = Gateway::start(&config("inline", &backend, 1)?).await?;
    let _standard = Miner::start(&gateway, Channel::Standard, 40, "alice")?;
    let _extended = Miner::start(&gateway, Channel::Extended, 40, "bob")?;
    gateway
        .wait_until("shares and blocks of both", DEADLINE, |events| {
            ["alice", "bob"].iter().all(|user| {
                let has =
                    |name: &str| events.iter().any(|e| e["event"] == name && e["user_identity"] == *user);
                has("share_accepted") && has("block_found")
            }) && count(events, "share_accepted") >= 60
        })
        .await?;
    let status = gateway.stop().await?;
    ensure!(status.success(), "{status}");
    check_every_share_has_one_result(gateway.events()?, &backend)?;
    // The ledger has what the node said about each block, too, and the share that solved it.
    let records = ledger_records(gateway.config())?;
    for block in gateway.events_named("block_found")? {
        let is = |record: &&Value| record["event"] == "block_found" && record["hash"] == block["hash"];
        ensure!(records.iter().filter(is).count() == 1, "{block} is not in the ledger");
        let share = |record: &Value| record["share_id"] == block["hash"] && record["solves_block"] == true;
        ensure!(records.iter().any(share), "{block} is not accounted for");
    }
    ensure!(gateway.events()?.last().unwrap()["event"] == "gateway_stopped");
    Ok(())
}

#[tokio::test]
async fn observe_serves_what_it_would_reject_and_marks_it() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let mut gateway = Gateway::start(&config("observe", &backend, 1_000_000_000)?).await?;
    let mut miner = Miner::start(&gateway, Channel::Standard, 20, "alice")?;
    miner.wait_for_line("a job", DEADLINE, |line| line.contains("on a new tip")).await?;
    let judged = gateway.wait_for_event("a verdict", DEADLINE, |e| e["event"] == "template_judged").await?;
    ensure!(judged["enforced"] == "would_reject", "{judged}");
    ensure!(judged["verdict"]["reason_code"] == "avg_fee_below_minimum", "{judged}");
    Ok(())
}

#[tokio::test]
async fn shadow_judges_and_listens_to_nobody() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let mut gateway = Gateway::start(&config("shadow", &backend, 1_000_000_000)?).await?;
    ensure!(gateway.address().is_err(), "shadow mode listens");
    let judged = gateway.wait_for_event("a verdict", DEADLINE, |e| e["event"] == "template_judged").await?;
    ensure!(judged["enforced"] == "logged" && judged["verdict"]["accepted"] == false, "{judged}");
    ensure!(gateway.stop().await?.success());
    ensure!(gateway.events_named("work_released")?.is_empty());
    Ok(())
}

#[tokio::test]
async fn some_templates_are_rejected_while_miners_stay_on_the_last_good_one() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config("inline", &backend, 400)?.set("source", "low_fee_every", 2);
    let mut gateway = Gateway::start(&config).await?;
    let mut miner = Miner::start(&gateway, Channel::Standard, 1, "alice")?;
    gateway
        .wait_until("both verdicts, twice", DEADLINE, |events| {
            ["refused", "admitted"].iter().all(|enforced| {
                events
                    .iter()
                    .filter(|e| e["event"] == "template_judged" && e["enforced"] == *enforced)
                    .count()
                    >= 2
            })
        })
        .await?;
    miner.process.check_running()?;
    ensure!(!miner.process.stdout().contains("closed"), "{}", miner.process.stdout());
    Ok(())
}

#[tokio::test]
async fn while_a_new_tip_has_no_admitted_work_shares_count_as_held_and_a_better_template_ends_it()
-> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    // Every other template is poor, so about every other new tip begins with a refusal.
    let config = config("inline", &backend, 400)?.set("source", "low_fee_every", 2);
    let mut gateway = Gateway::start(&config).await?;
    let miner = Miner::start(&gateway, Channel::Extended, 40, "alice")?;
    gateway
        .wait_until("a hold, a held share, and work on the new tip", DEADLINE, |events| {
            let after =
                |events: &[Value], is: &dyn Fn(&Value) -> bool| events.iter().position(is).map(|at| at + 1);
            let held = after(events, &|e| e["event"] == "gate_held" && e["reason"] == "prevhash_held");
            let share = held.and_then(|at| {
                let share = |e: &Value| e["event"] == "share_accepted" && e["held"] == true;
                after(&events[at..], &share).map(|next| at + next)
            });
            let switched = |e: &Value| e["event"] == "work_released" && e["reason"] == "prevhash_switched";
            share.is_some_and(|at| events[at..].iter().any(switched))
        })
        .await?;
    drop(miner);
    ensure!(gateway.stop().await?.success());
    ensure!(!gateway.events()?.iter().any(|e| e["event"] == "gate_expired"), "nobody had to go");
    let judged = gateway.events_named("template_judged")?;
    let templates: BTreeSet<_> = judged.iter().map(|e| e["template"].as_str()).collect();
    ensure!(templates.len() == judged.len(), "{} verdicts on {} templates", judged.len(), templates.len());
    check_every_share_has_one_result(gateway.events()?, &backend)?;
    Ok(())
}

#[tokio::test]
async fn shares_accepted_before_a_crash_are_forwarded_after_it() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    backend.behave(Behaviour::ServerError);
    let config = config("inline", &backend, 1)?;
    let mut gateway = Gateway::start(&config).await?;
    let miner = Miner::start(&gateway, Channel::Extended, 40, "alice")?;
    gateway
        .wait_until("shares nobody took", DEADLINE, |events| {
            count(events, "share_accepted") >= 20 && count(events, "forward_status") >= 1
        })
        .await?;
    drop(miner);
    gateway.process().kill()?;
    ensure!(count(gateway.events()?, "share_forward_result") == 0);

    backend.behave(Behaviour::Accept);
    let mut gateway = Gateway::start(&config).await?;
    let accepted = verified(&config)?["shares"].as_u64().unwrap() as usize;
    backend.wait_for("every share of the run before", DEADLINE, |shares| shares.len() >= accepted).await?;
    ensure!(gateway.stop().await?.success());
    // The ledger is the record; the event stream may lack what the crash cut off.
    let shares = check_every_share_has_one_result(&ledger_records(&config)?, &backend)?;
    ensure!(shares >= 20, "{shares}");
    Ok(())
}

#[tokio::test]
async fn shares_the_pool_refuses_have_a_final_result_with_its_words() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    backend.behave(Behaviour::RejectShares("account closed".into()));
    let mut gateway = Gateway::start(&config("inline", &backend, 1)?).await?;
    let _miner = Miner::start(&gateway, Channel::Standard, 20, "alice")?;
    let result =
        gateway.wait_for_event("a result", DEADLINE, |e| e["event"] == "share_forward_result").await?;
    ensure!(result["reason"] == "forward_rejected" && result["detail"] == "account closed", "{result}");
    Ok(())
}

#[tokio::test]
async fn a_backend_that_misbehaves_is_asked_again_until_it_answers() -> Result<()> {
    for behaviour in [Behaviour::ServerError, Behaviour::Nonsense, Behaviour::RefuseSignature] {
        let backend = Backend::start("test", SECRET).await?;
        backend.behave(behaviour.clone());
        let mut gateway = Gateway::start(&config("inline", &backend, 1)?).await?;
        let _miner = Miner::start(&gateway, Channel::Standard, 20, "alice")?;
        gateway.wait_for_event("a retry", DEADLINE, |e| e["reason"] == "forward_retrying").await?;
        ensure!(gateway.events_named("share_forward_result")?.is_empty(), "{behaviour:?}");
        backend.behave(Behaviour::Accept);
        gateway.wait_for_event("a result", DEADLINE, |e| e["reason"] == "forward_accepted").await?;
        ensure!(gateway.stop().await?.success());
        check_every_share_has_one_result(gateway.events()?, &backend)?;
    }
    Ok(())
}
