//! The gate as miners and operators see it: the mode is changed under load, policies that never end hold
//! and let go, a node without a usable template still tells its tip, and every miner is told of a new one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "modes/hostile.rs"]
mod hostile;
#[path = "modes/policy.rs"]
mod wat_policy;

use anyhow::{Context, Result, bail, ensure};
use parsers_sv2::MiningOwned;
use reqwest::{Method, StatusCode};
use reservegrid_tests::{
    account::check_every_share_has_one_result,
    backend::Backend,
    client::{Client, Message, Open, OpenChannel, Share, gateway_for_clients},
    gateway::{Channel, DEADLINE, Gateway, GatewayConfig, Miner, command, policy},
    process::Process,
    scripted::{Gives, ScriptedNode},
};
use serde_json::{Value, json};

const SECRET: &str = "a secret of the pool";
/// No template of the embedded chain pays that much.
const TOO_MUCH: u64 = 1_000_000_000;

fn with_floor(config: GatewayConfig, min_avg_fee: u64) -> Result<GatewayConfig> {
    let settings = json!({ "min_avg_fee": { "low": min_avg_fee, "mid": min_avg_fee, "high": min_avg_fee } });
    config.without_policies().policy("fee-floor", &policy("fee-floor")?, &settings)
}

/// Nothing here depends on how fast the machine is: verdicts may take long, and holds as well.
fn config(backend: &Backend, mode: &str, refresh: &str, min_avg_fee: u64) -> Result<GatewayConfig> {
    let config = GatewayConfig::new(mode)?
        .embedded("1b00ffff", 20)
        .set("source", "refresh", refresh)
        .set("gate", "verdict_timeout", "10s")
        .set("gate", "hold_timeout", "2m")
        .set("miners", "shares_per_minute", 600.0)
        .set("miners", "min_difficulty", 0.0)
        .set("api", "listen", "127.0.0.1:0")
        .set("swap", "watch", "0s")
        .pool(backend);
    with_floor(config, min_avg_fee)
}

async fn ask(gateway: &Gateway, method: Method, path: &str, body: &str) -> Result<(StatusCode, Value)> {
    let url = format!("{}{path}", gateway.api()?);
    let response = reqwest::Client::new().request(method, url).body(body.to_owned()).send().await?;
    Ok((response.status(), response.json().await?))
}

async fn done(gateway: &Gateway, method: Method, path: &str, body: &str) -> Result<Value> {
    let (status, answer) = ask(gateway, method, path, body).await?;
    ensure!(status == StatusCode::OK, "{status}: {answer}");
    Ok(answer)
}

async fn set_mode(gateway: &Gateway, mode: &str) -> Result<Value> {
    done(gateway, Method::POST, "/v1/mode", &json!({ "mode": mode }).to_string()).await
}

async fn gate(gateway: &Gateway) -> Result<Value> {
    done(gateway, Method::GET, "/v1/gate", "").await
}

async fn event_after(gateway: &mut Gateway, skip: usize, name: &str) -> Result<Value> {
    gateway.wait_for_event_after(skip, name, DEADLINE, |e| e["event"] == name).await
}

const USERS: [&str; 2] = ["alice", "bob"];

/// A miner on each kind of channel, each of which has a share accepted already.
async fn miners(gateway: &mut Gateway) -> Result<[Miner; 2]> {
    let miners = [
        Miner::start(gateway, Channel::Standard, 40, USERS[0])?,
        Miner::start(gateway, Channel::Extended, 40, USERS[1])?,
    ];
    both_work(gateway, 0, false).await?;
    Ok(miners)
}

/// Both miners have a share accepted after the first `skip` events, marked as held or not.
async fn both_work(gateway: &mut Gateway, skip: usize, held: bool) -> Result<()> {
    for user in USERS {
        let share =
            |e: &Value| e["event"] == "share_accepted" && e["user_identity"] == user && e["held"] == held;
        gateway.wait_for_event_after(skip, "a share", DEADLINE, share).await?;
    }
    Ok(())
}

/// Nobody was disconnected or refused a share, and every share has reached the pool.
async fn nothing_was_lost(mut gateway: Gateway, mut miners: [Miner; 2], backend: &Backend) -> Result<()> {
    for miner in &mut miners {
        miner.process.check_running()?;
    }
    for name in ["connection_closed", "share_rejected", "gate_expired", "events_dropped"] {
        let found = gateway.events_named(name)?;
        ensure!(found.is_empty(), "{found:?}");
    }
    drop(miners);
    ensure!(gateway.stop().await?.success());
    check_every_share_has_one_result(gateway.events()?, backend)?;
    Ok(())
}

#[tokio::test]
async fn changing_the_mode_under_load_loses_no_share_and_closes_no_connection() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "observe", "200ms", 1)?;
    let mut gateway = Gateway::start(&config).await?;
    let miners = miners(&mut gateway).await?;
    let before = gate(&gateway).await?;
    ensure!(before["mode"] == "observe" && before["phase"] == "following", "{before}");

    // By HTTP.
    let skip = gateway.events()?.len();
    let answer = set_mode(&gateway, "inline").await?;
    ensure!(
        answer == json!({ "reason_code": "mode_changed", "from": "observe", "to": "inline" }),
        "{answer}"
    );
    let shown = gate(&gateway).await?;
    ensure!(shown["mode"] == "inline", "{shown}");
    ensure!(shown["mode_since_ms"].as_u64() > before["mode_since_ms"].as_u64(), "{shown}");
    let changed = event_after(&mut gateway, skip, "mode_changed").await?;
    ensure!(changed["from"] == "observe" && changed["to"] == "inline", "{changed}");
    ensure!(changed["trigger"] == "http" && changed["reason"] == "mode_changed", "{changed}");
    both_work(&mut gateway, skip, false).await?;

    // By SIGHUP: what counts is the file, which says observe.
    let skip = gateway.events()?.len();
    gateway.process().signal("HUP")?;
    let changed = event_after(&mut gateway, skip, "mode_changed").await?;
    ensure!(changed["to"] == "observe" && changed["trigger"] == "signal", "{changed}");
    event_after(&mut gateway, skip, "policy_set_unchanged").await?;
    both_work(&mut gateway, skip, false).await?;

    // By a reload over HTTP, looked at before it is done.
    config.clone().mode("inline").write()?;
    let dry = done(&gateway, Method::POST, "/v1/policies/swap?dry_run=true", "").await?;
    ensure!(dry["mode"]["from"] == "observe" && dry["mode"]["to"] == "inline", "{dry}");
    ensure!(gate(&gateway).await?["mode"] == "observe", "a dry run changes nothing");
    let skip = gateway.events()?.len();
    let report = done(&gateway, Method::POST, "/v1/policies/swap", "").await?;
    ensure!(report["mode"]["reason_code"] == "mode_changed", "{report}");
    ensure!(report["restart_needed"] == json!([]), "{report}");
    ensure!(gate(&gateway).await?["mode"] == "inline");
    both_work(&mut gateway, skip, false).await?;

    // A file with faults changes nothing, and the mode is no exception.
    let skip = gateway.events()?.len();
    config.clone().set_policy("fee-floor", "module", "gone.wasm").write()?;
    gateway.process().signal("HUP")?;
    event_after(&mut gateway, skip, "policy_swap_refused").await?;
    ensure!(gate(&gateway).await?["mode"] == "inline");

    // Back and forth, and back.
    let skip = gateway.events()?.len();
    for mode in ["observe", "inline", "observe", "inline", "observe"] {
        set_mode(&gateway, mode).await?;
    }
    both_work(&mut gateway, skip, false).await?;
    let changes = gateway.events_named("mode_changed")?.len();
    ensure!(changes == 8, "{changes} changes");
    nothing_was_lost(gateway, miners, &backend).await
}

#[tokio::test]
async fn inline_takes_back_what_observe_gave_out_and_observe_resumes_it() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let mut gateway = Gateway::start(&config(&backend, "observe", "1h", TOO_MUCH)?).await?;
    let miners = miners(&mut gateway).await?;
    let released = event_after(&mut gateway, 0, "work_released").await?;
    ensure!(released["would_reject"] == "avg_fee_below_minimum", "{released}");
    ensure!(released["mode"] == "observe" && released["held_ms"].is_null(), "{released}");

    let skip = gateway.events()?.len();
    set_mode(&gateway, "inline").await?;
    let held = event_after(&mut gateway, skip, "gate_held").await?;
    ensure!(held["reason"] == "work_withdrawn" && held["mode"] == "inline", "{held}");
    ensure!(held["template"] == released["template"], "{held}");
    ensure!(held["tip"] == released["previous_block_hash"] && held["since_tip_ms"].is_u64(), "{held}");
    both_work(&mut gateway, skip, true).await?;
    let shown = gate(&gateway).await?;
    ensure!(shown["phase"] == "holding" && shown["held"] == true, "{shown}");
    ensure!(shown["job"]["job"] == released["job"], "{shown}");
    ensure!(shown["job"]["would_reject"] == "avg_fee_below_minimum", "{shown}");

    let skip = gateway.events()?.len();
    set_mode(&gateway, "observe").await?;
    let resumed = event_after(&mut gateway, skip, "gate_resumed").await?;
    ensure!(resumed["reason"] == "work_resumed" && resumed["held_ms"].is_u64(), "{resumed}");
    ensure!(resumed["template"] == released["template"] && resumed["mode"] == "observe", "{resumed}");
    let skip = gateway.events()?.len();
    both_work(&mut gateway, skip, false).await?;
    ensure!(gateway.events_named("work_released")?.len() == 1, "the same work is not sent again");
    nothing_was_lost(gateway, miners, &backend).await
}

/// Runs `reservegrid mode ...` until it ends: exit code, standard output, standard error.
async fn cli(gateway: &Gateway, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = command()?;
    command.arg("mode").args(arguments).args(["--api", gateway.api()?]);
    let folder = tempfile::tempdir()?;
    let mut process = Process::start("cli", command, folder.path())?;
    let status = process.wait(DEADLINE).await?;
    Ok((status.code(), process.stdout(), process.stderr()))
}

#[tokio::test]
async fn shadow_is_a_matter_of_the_start_and_bad_requests_are_answered_with_a_code() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "inline", "1h", 1)?;
    let mut gateway = Gateway::start(&config).await?;
    event_after(&mut gateway, 0, "work_released").await?;
    let (status, answer) = ask(&gateway, Method::POST, "/v1/mode", r#"{"mode":"shadow"}"#).await?;
    ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{status}: {answer}");
    ensure!(answer["reason_code"] == "mode_restart_needed", "{answer}");
    ensure!(answer["detail"].as_str().is_some_and(|d| d.contains("mode = \"shadow\"")), "{answer}");
    for body in ["", "inline", "{}", r#"{"mode":"Inline"}"#, r#"{"mode":"inline","now":true}"#, "[1]"] {
        let (status, answer) = ask(&gateway, Method::POST, "/v1/mode", body).await?;
        ensure!(status == StatusCode::BAD_REQUEST, "{body}: {status}");
        ensure!(answer["reason_code"] == "api_request_invalid", "{body}: {answer}");
    }
    let (status, _) = ask(&gateway, Method::POST, "/v1/mode?mode=observe", r#"{"mode":"observe"}"#).await?;
    ensure!(status == StatusCode::BAD_REQUEST, "{status}");
    let (status, _) = ask(&gateway, Method::GET, "/v1/mode", "").await?;
    ensure!(status == StatusCode::METHOD_NOT_ALLOWED, "{status}");
    let same = set_mode(&gateway, "inline").await?;
    ensure!(same["reason_code"] == "mode_unchanged", "{same}");

    // In the file it is named, and waits.
    config.clone().mode("shadow").write()?;
    let report = done(&gateway, Method::POST, "/v1/policies/swap", "").await?;
    ensure!(report["restart_needed"] == json!(["mode"]) && report["mode"]["to"] == "inline", "{report}");
    ensure!(gateway.events_named("mode_changed")?.is_empty());

    // The command line.
    let (code, shown, _) = cli(&gateway, &[]).await?;
    ensure!(code == Some(0) && shown.starts_with("mode  inline\nphase following\n"), "{shown}");
    let (code, _, stderr) = cli(&gateway, &["shadow"]).await?;
    ensure!(code == Some(2), "{code:?} {stderr}");
    let (code, set, stderr) = cli(&gateway, &["observe"]).await?;
    ensure!(code == Some(0) && set.starts_with("mode_changed: inline -> observe"), "{set}{stderr}");
    ensure!(gate(&gateway).await?["mode"] == "observe");
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn work_that_was_taken_back_is_given_to_nobody_who_comes_later_until_it_is_good_again() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| {
        let config = config.mode("observe").set("api", "listen", "127.0.0.1:0");
        with_floor(config, TOO_MUCH).unwrap()
    })
    .await?;
    let mut there = Client::connect(&gateway).await?;
    there.setup(0).await?;
    let first = there.open_standard("alice").await?;
    set_mode(&gateway, "inline").await?;
    event_after(&mut gateway, 0, "gate_held").await?;

    // On the connection of somebody who has the work, and on one of its own.
    let mut later = Client::connect(&gateway).await?;
    later.setup(0).await?;
    let mut opened = Vec::new();
    for client in [&mut there, &mut later] {
        client.request_open(&Open::new(Channel::Standard, "bob")).await?;
        opened.push(match client.next_message().await? {
            Message::Mining(MiningOwned::OpenStandardMiningChannelSuccess(m)) => m.channel_id,
            other => bail!("awaited an open channel, came {other:?}"),
        });
        // A share of no job is answered after whatever else had to be said.
        let channel = OpenChannel { id: opened[opened.len() - 1], ..first.clone() };
        let answer = client.submit(&channel, &Share { job_id: 999, ..first.share() }).await?;
        ensure!(answer.code() == "invalid-job-id", "{answer:?}");
        let job = client.heard(|message| matches!(message, MiningOwned::NewMiningJob(_)).then_some(()));
        ensure!(job.is_none(), "work that was taken back was given to a new channel");
    }
    ensure!(there.submit(&first, &first.good_share(0)?).await?.is_accepted(), "it is held, not refused");

    set_mode(&gateway, "observe").await?;
    for (client, id) in [(&mut there, opened[0]), (&mut later, opened[1])] {
        let mut channel = OpenChannel { id, ..first.clone() };
        let of = |message: &MiningOwned| match message {
            MiningOwned::NewMiningJob(m) => m.channel_id == id,
            MiningOwned::SetNewPrevHash(m) => m.channel_id == id,
            _ => false,
        };
        let work = |message: &MiningOwned| of(message).then(|| message.clone());
        let job_id = channel.take_job(&client.pick("the job", work).await?)?;
        channel.take_tip(job_id, &client.pick("its tip", work).await?)?;
        ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    }
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_policy_that_never_ends_holds_the_miners_lets_them_go_and_is_recovered_from() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| {
        config
            .set("api", "listen", "127.0.0.1:0")
            .set("swap", "watch", "0s")
            .set("gate", "verdict_timeout", "2s")
            .set("gate", "hold_timeout", "4s")
    })
    .await?;
    let mut client = Client::connect(&gateway).await?;
    client.setup(0).await?;
    let channel = client.open_standard("alice").await?;
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());

    let module = gateway.config().folder().join("endless.wasm");
    std::fs::write(&module, wat_policy::component("(loop $for-ever (br $for-ever)) unreachable")?)?;
    gateway.config().clone().without_policies().policy("endless", &module, &json!({}))?.write()?;
    let skip = gateway.events()?.len();
    done(&gateway, Method::POST, "/v1/policies/swap", "").await?;
    let held = event_after(&mut gateway, skip, "gate_held").await?;
    ensure!(held["reason"] == "work_withdrawn" && held["template"].is_string(), "{held}");
    let judged = event_after(&mut gateway, skip, "template_judged").await?;
    let code = &judged["verdict"]["reason_code"];
    ensure!(code == "policy_fuel_exhausted" || code == "policy_deadline_exceeded", "{judged}");

    client.told("prevhash_hold_expired").await?;
    let expired = event_after(&mut gateway, skip, "gate_expired").await?;
    ensure!(expired["reason"] == "prevhash_hold_expired" && expired["connections"] == 1, "{expired}");
    ensure!(expired["since_tip_ms"].as_u64() >= Some(4_000), "{expired}");
    ensure!(expired["held_ms"].as_u64() >= Some(4_000) && expired["template"].is_string(), "{expired}");
    let shown = gate(&gateway).await?;
    ensure!(shown["phase"] == "expired" && shown["job"].is_null(), "{shown}");
    ensure!(Client::connect(&gateway).await.is_err(), "nobody is let in without work");

    let skip = gateway.events()?.len();
    done(&gateway, Method::POST, "/v1/policies/rollback", "").await?;
    event_after(&mut gateway, skip, "work_released").await?;
    let mut client = Client::connect(&gateway).await?;
    client.setup(0).await?;
    let channel = client.open_standard("alice").await?;
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn the_last_of_the_miners_that_were_there_is_told_of_once_for_each_tip() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut clients = Vec::new();
    for user in ["a", "b", "c"] {
        let mut client = Client::connect(&gateway).await?;
        client.setup(0).await?;
        let channel = client.open_standard(user).await?;
        clients.push((client, channel));
    }
    for expected in [3, 4] {
        let skip = gateway.events()?.len();
        let (finder, channel) = clients.last_mut().context("clients")?;
        finder.send_share(channel.id, &channel.solution()?).await?;
        for (client, channel) in &mut clients {
            ensure!(client.follow(channel).await?, "the job is on a new tip");
        }
        let served = event_after(&mut gateway, skip, "tip_served").await?;
        let released = event_after(&mut gateway, skip, "work_released").await?;
        ensure!(released["reason"] == "prevhash_switched", "{released}");
        ensure!(served["reason"] == "prevhash_served" && served["job"] == released["job"], "{served}");
        ensure!(served["tip"] == released["previous_block_hash"], "{served}");
        ensure!(served["connections"] == expected, "{served}");
        let (tip, release) = (served["since_tip_us"].as_u64(), served["since_release_us"].as_u64());
        ensure!(release.is_some() && tip > release, "{served}");
        // It gets the new tip from the beginning: it was not waited for.
        let mut late = Client::connect(&gateway).await?;
        late.setup(0).await?;
        let channel = late.open_standard("late").await?;
        clients.push((late, channel));
    }
    ensure!(gateway.events_named("tip_served")?.len() == 2);
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_node_without_a_usable_template_on_its_new_tip_still_ends_the_work_on_the_old_one() -> Result<()> {
    let node = ScriptedNode::start().await?;
    let backend = Backend::start("test", SECRET).await?;
    let config = GatewayConfig::new("inline")?
        .set("gate", "verdict_timeout", "2s")
        .set("gate", "hold_timeout", "5s")
        .set("miners", "vardiff", "off")
        .set("miners", "min_difficulty", 0.0)
        .set("api", "listen", "127.0.0.1:0")
        .pool(&backend);
    let module = config.folder().join("accepts.wasm");
    std::fs::write(&module, wat_policy::component("i32.const 1024")?)?;
    let config = node.configure(config).policy("accepts", &module, &json!({}))?;
    let mut gateway = Gateway::start(&config).await?;
    event_after(&mut gateway, 0, "work_released").await?;
    let mut client = Client::connect(&gateway).await?;
    client.setup(0).await?;
    let channel = client.open_standard("alice").await?;

    let skip = gateway.events()?.len();
    let tip = node.move_tip(Gives::Nonsense);
    let moved = event_after(&mut gateway, skip, "tip_changed").await?;
    ensure!(moved["tip"] == *tip && moved["template"].is_null(), "{moved}");
    let held = event_after(&mut gateway, skip, "gate_held").await?;
    ensure!(held["reason"] == "prevhash_template_missing" && held["tip"] == *tip, "{held}");
    ensure!(held["template"].is_null(), "{held}");
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    let share = event_after(&mut gateway, skip, "share_accepted").await?;
    ensure!(share["held"] == true, "{share}");
    client.told("prevhash_hold_expired").await?;

    node.mend();
    let released = event_after(&mut gateway, skip, "work_released").await?;
    ensure!(released["previous_block_hash"] == *tip, "{released}");
    let mut client = Client::connect(&gateway).await?;
    client.setup(0).await?;
    let channel = client.open_standard("alice").await?;
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    ensure!(gateway.stop().await?.success());
    Ok(())
}
