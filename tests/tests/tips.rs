//! Changes of the tip as miners see them: work that was there in advance, a way out without transactions, and
//! sources that flip, lag behind, hang or have nothing to give.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use parsers_sv2::MiningOwned;
use reqwest::{Method, StatusCode};
use reservegrid_tests::{
    backend::Backend,
    client::{BITS, Client, Message, OpenChannel},
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
    scripted::{Gives, ScriptedNode},
    stall::Stall,
};
use serde_json::{Value, json};
use std::time::Duration;

/// No template with transactions pays that much.
const TOO_MUCH: u64 = 1_000_000_000;

/// Templates without transactions pass, the others must pay so much.
fn floor(min_avg_fee: u64) -> Value {
    json!({
        "min_avg_fee": { "low": min_avg_fee, "mid": min_avg_fee, "high": min_avg_fee },
        "accept_empty": true,
        "unknown_mempool": "low",
    })
}

/// Nothing changes unless a test does it, and whatever is measured has time.
fn patient(mode: &str, backend: &Backend) -> Result<GatewayConfig> {
    Ok(GatewayConfig::new(mode)?
        .set("gate", "verdict_timeout", "5s")
        .set("gate", "hold_timeout", "2m")
        .set("miners", "vardiff", "off")
        .set("miners", "min_difficulty", 0.0)
        .set("api", "listen", "127.0.0.1:0")
        .set("swap", "watch", "0s")
        .pool(backend))
}

/// On the embedded chain, whose templates have transactions.
fn embedded(mode: &str, backend: &Backend, min_avg_fee: u64) -> Result<GatewayConfig> {
    patient(mode, backend)?
        .embedded(BITS, 20)
        .set("source", "refresh", "1h")
        .set("source", "stale_after", "1h")
        .policy("integrity", &policy("integrity")?, &json!({}))?
        .policy("fee-floor", &policy("fee-floor")?, &floor(min_avg_fee))
}

/// On a node that does as it is told, whose templates have none.
fn scripted(mode: &str, backend: &Backend, node: &ScriptedNode) -> Result<GatewayConfig> {
    let config = patient(mode, backend)?.policy("integrity", &policy("integrity")?, &json!({}))?;
    Ok(node.configure(config))
}

async fn event(gateway: &mut Gateway, skip: usize, name: &str, reason: &str) -> Result<Value> {
    let is = |e: &Value| e["event"] == name && e["reason"] == reason;
    gateway.wait_for_event_after(skip, &format!("{name} with {reason}"), DEADLINE, is).await
}

async fn swap(gateway: &Gateway, path: &str) -> Result<(StatusCode, Value)> {
    let url = format!("{}/v1/policies/{path}", gateway.api()?);
    let response = reqwest::Client::new().request(Method::POST, url).send().await?;
    Ok((response.status(), response.json().await?))
}

async fn client(gateway: &Gateway) -> Result<(Client, OpenChannel)> {
    let mut client = Client::connect(gateway).await?;
    client.setup(0).await?;
    let channel = client.open_extended("alice").await?;
    Ok((client, channel))
}

fn job_id(message: &MiningOwned) -> Option<u32> {
    match message {
        MiningOwned::NewExtendedMiningJob(m) => Some(m.job_id),
        MiningOwned::SetNewPrevHash(m) => Some(m.job_id),
        _ => None,
    }
}

#[tokio::test]
async fn a_job_that_miners_had_in_advance_becomes_current_with_one_message_and_solves_a_block() -> Result<()>
{
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = embedded("inline", &backend, 1)?.set("gate", "coinbase_only", "ahead");
    let mut gateway = Gateway::start(&config).await?;
    let ahead = event(&mut gateway, 0, "work_ahead", "template_ahead").await?;
    ensure!(ahead["coinbase_only"] == true && ahead["mode"] == "inline", "{ahead}");
    let (mut finder, found) = client(&gateway).await?;
    let (mut miner, mut channel) = client(&gateway).await?;
    let is_job = |m: &MiningOwned| matches!(m, MiningOwned::NewExtendedMiningJob(_)).then(|| m.clone());
    let future = miner.pick("the future job", is_job).await?;
    let id = channel.take_job(&future)?;
    ensure!(channel.job.min_ntime.is_none(), "{future:?}");

    let skip = gateway.events()?.len();
    finder.send_share(found.id, &found.solution()?).await?;
    let Message::Mining(tip) = miner.next_message().await? else { panic!("another protocol") };
    ensure!(matches!(tip, MiningOwned::SetNewPrevHash(_)), "it is told the tip, and first: {tip:?}");
    ensure!(job_id(&tip) == Some(id), "{tip:?} for {future:?}");
    channel.take_tip(id, &tip)?;
    let released = event(&mut gateway, skip, "work_released", "prevhash_activated").await?;
    ensure!(released["coinbase_only"] == true && released["height"] == ahead["height"], "{released}");
    let served = event(&mut gateway, skip, "tip_served", "prevhash_served").await?;
    ensure!(served["connections"] == 2 && served["job"] == released["job"], "{served}");
    // The full template follows, and the one for the next tip.
    let full = event(&mut gateway, skip, "work_released", "template_admitted").await?;
    ensure!(full["coinbase_only"] == false, "{full}");
    ensure!(full["previous_block_hash"] == released["previous_block_hash"], "{full}");
    let next = event(&mut gateway, skip, "work_ahead", "template_ahead").await?;
    ensure!(next["height"].as_u64() == ahead["height"].as_u64().map(|height| height + 1), "{next}");
    // It was judged as itself as well.
    let judged = |e: &Value| e["event"] == "template_judged" && e["template"] == released["template"];
    let judged = gateway.wait_for_event_after(skip, "its own verdict", DEADLINE, judged).await?;
    ensure!(judged["provenance"] == "gateway" && judged["verdict"]["accepted"] == true, "{judged}");
    // Which of the two verdicts comes first, its own or that on the full template, is nobody's promise.
    ensure!(judged["enforced"] == "in_use" || judged["enforced"] == "superseded", "{judged}");

    ensure!(miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    let skip = gateway.events()?.len();
    miner.send_share(channel.id, &channel.solution()?).await?;
    event(&mut gateway, skip, "block_found", "block_submitted").await?;
    event(&mut gateway, skip, "work_released", "prevhash_activated").await?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_future_job_that_other_policies_refuse_is_not_used_and_the_tip_is_new_as_ever() -> Result<()> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = embedded("inline", &backend, 1)?.set("gate", "coinbase_only", "ahead");
    let mut gateway = Gateway::start(&config).await?;
    event(&mut gateway, 0, "work_ahead", "template_ahead").await?;
    let (mut miner, mut channel) = client(&gateway).await?;
    let is_job = |m: &MiningOwned| matches!(m, MiningOwned::NewExtendedMiningJob(_)).then(|| m.clone());
    let future = miner.pick("the future job", is_job).await?;

    let mut strict = floor(1);
    strict["accept_empty"] = false.into();
    let strict = config.without_policies().policy("fee-floor", &policy("fee-floor")?, &strict)?;
    strict.write()?;
    let skip = gateway.events()?.len();
    let (status, answer) = swap(&gateway, "swap").await?;
    ensure!(status == StatusCode::OK, "{answer}");
    // Both the work and the future job were judged again.
    let again = |e: &&Value| e["event"] == "template_judged";
    gateway
        .wait_until("two verdicts", DEADLINE, |events| events.iter().skip(skip).filter(again).count() >= 2)
        .await?;
    miner.send_share(channel.id, &channel.solution()?).await?;
    ensure!(miner.follow(&mut channel).await?, "a future job and its tip");
    ensure!(Some(channel.job.id) != job_id(&future), "{channel:?}");
    event(&mut gateway, skip, "work_released", "prevhash_switched").await?;
    ensure!(gateway.events_named("work_released")?.iter().all(|e| e["reason"] != "prevhash_activated"));
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn when_everything_is_refused_a_template_without_transactions_goes_out_if_it_is_admitted() -> Result<()>
{
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = embedded("inline", &backend, TOO_MUCH)?.set("gate", "coinbase_only", "fallback").set(
        "record",
        "dir",
        "recordings",
    );
    let mut gateway = Gateway::start(&config).await?;
    let wanted = event(&mut gateway, 0, "coinbase_only_wanted", "coinbase_only_wanted").await?;
    let released = event(&mut gateway, 0, "work_released", "coinbase_only_admitted").await?;
    ensure!(released["coinbase_only"] == true && released["template"] == wanted["template"], "{released}");
    ensure!(released["previous_block_hash"] == wanted["tip"], "{released}");
    let judged = |e: &Value| e["event"] == "template_judged" && e["template"] == wanted["template"];
    let judged = gateway.wait_for_event("its verdict", DEADLINE, judged).await?;
    ensure!(judged["provenance"] == "gateway" && judged["transactions"] == 0, "{judged}");
    ensure!(judged["enforced"] == "admitted", "{judged}");
    let (mut miner, mut channel) = client(&gateway).await?;
    ensure!(miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted());

    // Better policies, and the full template takes its place, as another job on the same tip.
    let skip = gateway.events()?.len();
    config.clone().without_policies().policy("fee-floor", &policy("fee-floor")?, &floor(1))?.write()?;
    let (status, answer) = swap(&gateway, "swap").await?;
    ensure!(status == StatusCode::OK, "{answer}");
    let full = event(&mut gateway, skip, "work_released", "template_admitted").await?;
    ensure!(full["coinbase_only"] == false, "{full}");
    ensure!(!miner.follow(&mut channel).await?, "the same tip");
    ensure!(miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    ensure!(gateway.stop().await?.success());
    // What was recorded says who made it.
    let recorded = config.recordings("recordings")?;
    let provenance = |recording: &Value| recording["template"]["declared"]["provenance"].clone();
    ensure!(recorded.iter().any(|one| provenance(one) == "gateway"), "{} recordings", recorded.len());
    Ok(())
}

#[tokio::test]
async fn a_fallback_that_is_refused_too_ends_in_an_expired_hold() -> Result<()> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let mut strict = floor(TOO_MUCH);
    strict["accept_empty"] = false.into();
    let config = embedded("inline", &backend, 1)?
        .without_policies()
        .policy("fee-floor", &policy("fee-floor")?, &strict)?
        .set("gate", "coinbase_only", "fallback")
        .set("gate", "hold_timeout", "6s");
    let mut gateway = Gateway::start(&config).await?;
    event(&mut gateway, 0, "coinbase_only_wanted", "coinbase_only_wanted").await?;
    event(&mut gateway, 0, "gate_expired", "prevhash_hold_expired").await?;
    ensure!(gateway.events_named("work_released")?.is_empty());
    ensure!(gateway.events_named("coinbase_only_wanted")?.len() == 1, "once a tip");
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_node_whose_template_is_unusable_still_leads_to_work_on_its_tip() -> Result<()> {
    let (node, backend) =
        (ScriptedNode::start().await?, Backend::start("test", "a secret of the pool").await?);
    let config = scripted("inline", &backend, &node)?.set("gate", "coinbase_only", "fallback");
    let mut gateway = Gateway::start(&config.set("gate", "verdict_timeout", "1s")).await?;
    event(&mut gateway, 0, "work_released", "prevhash_switched").await?;
    let (mut miner, mut channel) = client(&gateway).await?;

    let skip = gateway.events()?.len();
    let tip = node.move_tip(Gives::Nonsense);
    let held = event(&mut gateway, skip, "gate_held", "prevhash_template_missing").await?;
    ensure!(held["tip"] == *tip, "{held}");
    let released = event(&mut gateway, skip, "work_released", "coinbase_only_admitted").await?;
    ensure!(released["previous_block_hash"] == *tip && released["height"] == 9, "{released}");
    ensure!(miner.follow(&mut channel).await?);
    ensure!(miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    node.mend();
    let full = event(&mut gateway, skip, "work_released", "template_admitted").await?;
    ensure!(full["coinbase_only"] == false && full["previous_block_hash"] == *tip, "{full}");
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn observe_lets_miners_go_when_there_is_no_usable_template_on_the_tip() -> Result<()> {
    let (node, backend) =
        (ScriptedNode::start().await?, Backend::start("test", "a secret of the pool").await?);
    let config = scripted("observe", &backend, &node)?;
    let config = config.set("gate", "verdict_timeout", "100ms").set("gate", "hold_timeout", "2s");
    let mut gateway = Gateway::start(&config).await?;
    event(&mut gateway, 0, "work_released", "prevhash_switched").await?;
    let (mut miner, _) = client(&gateway).await?;
    let skip = gateway.events()?.len();
    let tip = node.move_tip(Gives::Nonsense);
    let held = event(&mut gateway, skip, "gate_held", "prevhash_template_missing").await?;
    ensure!(held["mode"] == "observe" && held["tip"] == *tip && held["template"].is_null(), "{held}");
    miner.told("prevhash_hold_expired").await?;
    node.mend();
    let released = event(&mut gateway, skip, "work_released", "prevhash_switched").await?;
    ensure!(released["previous_block_hash"] == *tip, "{released}");
    let (mut miner, channel) = client(&gateway).await?;
    ensure!(miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_template_for_an_old_tip_after_the_new_one_becomes_nobodys_work() -> Result<()> {
    let (node, backend) =
        (ScriptedNode::start().await?, Backend::start("test", "a secret of the pool").await?);
    // Its first old template may be the very one that it gave before: then the next look at its tip tells.
    let config = scripted("observe", &backend, &node)?.set("source", "stale_after", "6s");
    let mut gateway = Gateway::start(&config).await?;
    let first = event(&mut gateway, 0, "work_released", "prevhash_switched").await?;
    let (mut miner, mut channel) = client(&gateway).await?;
    let skip = gateway.events()?.len();
    let tip = node.move_tip(Gives::OldTemplate);
    let dropped = event(&mut gateway, skip, "template_superseded", "template_superseded").await?;
    let moved = event(&mut gateway, skip, "tip_changed", "prevhash_moved").await?;
    ensure!(moved["tip"] == *tip && moved["template"].is_null(), "{moved}");
    node.mend();
    ensure!(miner.follow(&mut channel).await?, "a job on the new tip, and none before");
    let released = event(&mut gateway, skip, "work_released", "prevhash_switched").await?;
    ensure!(
        released["previous_block_hash"] == *tip && released["template"] != dropped["template"],
        "{released}"
    );
    let tips = gateway.events_named("tip_changed")?;
    ensure!(tips.len() == 2 && tips[0]["tip"] == first["previous_block_hash"], "never back: {tips:?}");
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_node_that_flips_between_two_tips_ten_times_a_second_keeps_its_miners_on_one_of_them() -> Result<()>
{
    const FLIPS: u32 = 30;
    let (node, backend) =
        (ScriptedNode::start().await?, Backend::start("test", "a secret of the pool").await?);
    let mut gateway = Gateway::start(&scripted("inline", &backend, &node)?).await?;
    event(&mut gateway, 0, "work_released", "prevhash_switched").await?;
    let (mut miner, mut channel) = client(&gateway).await?;
    let skip = gateway.events()?.len();
    let mut tip = String::new();
    // The pace is what this is about; nothing waits for it.
    let mut clock = tokio::time::interval(Duration::from_millis(100));
    for flip in 1..=FLIPS {
        clock.tick().await;
        tip = node.flip_to(flip % 2);
        ensure!(miner.heard(|m| matches!(m, MiningOwned::CloseChannel(_)).then_some(())).is_none());
    }
    // It settles, and so do the miners.
    tip = if tip == node.flip_to(0) { node.flip_to(1) } else { node.flip_to(0) };
    let settled = |e: &Value| e["event"] == "work_released" && e["previous_block_hash"] == *tip;
    gateway.wait_for_event_after(skip, "work where it settled", DEADLINE, settled).await?;
    // Among what it was sent is a job on that tip that is the newest.
    loop {
        miner.follow(&mut channel).await?;
        let mut hash = channel.job.prev_hash;
        hash.reverse();
        if hex::encode(hash) == tip && miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted() {
            break;
        }
    }
    // Whatever left was on the tip that was the newest when it left.
    let mut newest = Value::Null;
    for event in gateway.events()? {
        match event["event"].as_str() {
            Some("tip_changed") => newest = event["tip"].clone(),
            Some("work_released") => ensure!(event["previous_block_hash"] == newest, "{event}"),
            Some("gate_expired" | "connection_closed") => anyhow::bail!("{event}"),
            _ => {}
        }
    }
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_source_that_hangs_in_the_middle_of_an_answer_is_given_up_and_found_again() -> Result<()> {
    let (node, backend) =
        (ScriptedNode::start().await?, Backend::start("test", "a secret of the pool").await?);
    let address = node.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let way = Stall::start(&address).await?;
    let config = node
        .configure_at(&format!("http://{}/", way.address()), scripted("inline", &backend, &node)?)
        .set("source", "request_timeout", "1s")
        .set("source", "stale_after", "4s");
    let mut gateway = Gateway::start(&config).await?;
    event(&mut gateway, 0, "work_released", "prevhash_switched").await?;
    let (mut miner, _) = client(&gateway).await?;
    let skip = gateway.events()?.len();
    way.stall();
    let tip = node.move_tip(Gives::Template);
    let down = event(&mut gateway, skip, "source_down", "template_source_unreachable").await?;
    ensure!(down["detail"].as_str().is_some_and(|detail| detail.contains("did not answer")), "{down}");
    miner.told("template_source_stale").await?;
    event(&mut gateway, skip, "gate_expired", "template_source_stale").await?;
    way.mend();
    let released = event(&mut gateway, skip, "work_released", "prevhash_switched").await?;
    ensure!(released["previous_block_hash"] == *tip, "{released}");
    let (mut miner, channel) = client(&gateway).await?;
    ensure!(miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_policy_set_that_cannot_be_loaded_during_a_hold_changes_nothing_and_held_shares_are_refused()
-> Result<()> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = embedded("inline", &backend, 1)?.set("gate", "held_shares", "refuse");
    let mut gateway = Gateway::start(&config).await?;
    event(&mut gateway, 0, "work_released", "prevhash_switched").await?;
    let (mut miner, channel) = client(&gateway).await?;
    ensure!(miner.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    let skip = gateway.events()?.len();
    config
        .clone()
        .without_policies()
        .policy("fee-floor", &policy("fee-floor")?, &floor(TOO_MUCH))?
        .write()?;
    swap(&gateway, "swap").await?;
    event(&mut gateway, skip, "gate_held", "work_withdrawn").await?;
    let refused = miner.submit(&channel, &channel.good_share(1)?).await?;
    ensure!(refused.code() == "stale-share", "{refused:?}");
    event(&mut gateway, skip, "share_rejected", "share_held").await?;

    config.clone().set_policy("fee-floor", "module", "gone.wasm").write()?;
    let (status, answer) = swap(&gateway, "swap").await?;
    ensure!(!status.is_success(), "{status}: {answer}");
    event(&mut gateway, skip, "policy_swap_refused", "policy_swap_refused").await?;
    let refused = miner.submit(&channel, &channel.good_share(2)?).await?;
    ensure!(refused.code() == "stale-share", "still held: {refused:?}");

    config.write()?;
    let (status, answer) = swap(&gateway, "swap").await?;
    ensure!(status == StatusCode::OK, "{answer}");
    event(&mut gateway, skip, "gate_resumed", "work_resumed").await?;
    ensure!(miner.submit(&channel, &channel.good_share(3)?).await?.is_accepted());
    ensure!(gateway.events_named("share_accepted")?.iter().all(|share| share["held"] == false));
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn many_who_are_refused_while_there_is_no_work_are_counted_and_do_not_fill_the_events() -> Result<()> {
    const KNOCKS: u64 = 1_000;
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = embedded("inline", &backend, 1)?;
    let mut strict = floor(TOO_MUCH);
    strict["accept_empty"] = false.into();
    let config = config.without_policies().policy("fee-floor", &policy("fee-floor")?, &strict)?;
    let mut gateway = Gateway::start(&config.set("gate", "hold_timeout", "6s")).await?;
    event(&mut gateway, 0, "gate_expired", "prevhash_hold_expired").await?;
    let address = gateway.address()?.to_owned();
    for _ in 0..KNOCKS {
        drop(tokio::net::TcpStream::connect(&address).await.context("the listener is there")?);
    }
    let each = |e: &&Value| e["event"] == "connection_closed" && e["reason"] == "prevhash_hold_expired";
    let rest = |e: &&Value| e["event"] == "connections_refused" && e["reason"] == "prevhash_hold_expired";
    gateway
        .wait_until("all of them to be told", DEADLINE, |events| {
            let counted: u64 = events.iter().filter(rest).filter_map(|e| e["count"].as_u64()).sum();
            counted + events.iter().filter(each).count() as u64 == KNOCKS
        })
        .await?;
    // 64 at once and 8 a second each for itself, and a line a second for the others.
    let told: Vec<&Value> = gateway.events()?.iter().filter(|e| each(e) || rest(e)).collect();
    let time = |event: Option<&&Value>| event.and_then(|e| e["time_ms"].as_u64()).unwrap_or_default();
    let seconds = (time(told.last()) - time(told.first())) / 1_000 + 2;
    ensure!(told.len() as u64 <= 64 + 9 * seconds, "{} lines for {KNOCKS} in {seconds} s", told.len());
    ensure!(gateway.stop().await?.success());
    Ok(())
}
