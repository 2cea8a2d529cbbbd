//! The configuration is read again while miners work: what changed takes effect, or nothing does and every
//! fault is said. By signal and over HTTP.

use super::stream::Stream;
use anyhow::{Context, Result, ensure};
use reqwest::{Client as Http, StatusCode};
use reservegrid_tests::{
    backend::Backend,
    client::{Client, gateway_for_clients},
    gateway::{Channel, DEADLINE, Gateway, Miner},
    wait,
};
use serde_json::{Value, json};
use std::path::Path;

async fn status(api: &str, token: &str) -> Result<StatusCode> {
    Ok(Http::new().get(format!("{api}/v1/gate")).bearer_auth(token).send().await?.status())
}

async fn post(api: &str, path: &str, token: &str) -> Result<(StatusCode, Value)> {
    let response = Http::new().post(format!("{api}{path}")).bearer_auth(token).send().await?;
    Ok((response.status(), response.json().await?))
}

async fn hang_up(gateway: &mut Gateway) -> Result<usize> {
    let skip = gateway.events()?.len();
    gateway.process().signal("HUP")?;
    Ok(skip)
}

/// Whether one more miner is let in.
async fn is_let_in(gateway: &Gateway) -> Result<Option<Client>> {
    let mut client = match Client::connect(gateway).await {
        Ok(client) => client,
        Err(_) => return Ok(None),
    };
    client.setup(0).await?;
    Ok(Some(client))
}

fn write_token(path: &Path, token: &str) -> Result<()> {
    std::fs::write(path.with_extension("next"), token)?;
    Ok(std::fs::rename(path.with_extension("next"), path)?)
}

#[tokio::test]
async fn a_signal_changes_limits_log_levels_and_tokens_and_each_key_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    let [before, after] = ["the-token-before", "the-token-afterwards"];
    write_token(&token, before)?;
    let (_backend, mut gateway) = gateway_for_clients(|config| {
        config
            .set("api", "listen", "127.0.0.1:0")
            .set("api", "token_file", token.display().to_string())
            .set("log", "levels", "error")
            .set("miners", "max_connections_per_address", 1)
            .set("swap", "watch", "0s")
    })
    .await?;
    let api = gateway.api()?.to_owned();
    let mut first = is_let_in(&gateway).await?.context("the first miner")?;
    let mut channel = first.open_standard("alice").await?;
    ensure!(is_let_in(&gateway).await?.is_none(), "one connection of an address, and there were two");
    ensure!(status(&api, after).await? == StatusCode::UNAUTHORIZED);
    ensure!(!gateway.process().stderr().contains("refused"), "{}", gateway.process().stderr());
    let mut stream = Stream::open_with(&api, "event=gateway_stopped", None, before).await?;

    write_token(&token, after)?;
    let changed = gateway
        .config()
        .clone()
        .set("log", "levels", "error,reservegrid::api=warn")
        .set("miners", "max_connections_per_address", 3)
        .set("miners", "listen", "127.0.0.1:1");
    changed.write()?;
    let skip = hang_up(&mut gateway).await?;
    let told = gateway
        .wait_for_event_after(skip, "the reload", DEADLINE, |e| e["event"] == "config_reloaded")
        .await?;
    let keys = ["[api] token", "[miners] max_connections_per_address", "[log] levels"];
    ensure!(told["trigger"] == "signal" && told["keys"] == json!(keys), "{told}");
    let waits = |e: &Value| e["event"] == "config_restart_needed";
    let waits = gateway.wait_for_event_after(skip, "what waits", DEADLINE, waits).await?;
    ensure!(waits["keys"] == json!(["[miners] listen"]), "{waits}");

    // The limit holds for the next connection, and the one of before goes on.
    let second = is_let_in(&gateway).await?.context("a second miner")?;
    let _third = is_let_in(&gateway).await?.context("a third miner")?;
    ensure!(is_let_in(&gateway).await?.is_none(), "three connections of an address, and there were four");
    let share = channel.good_share(0)?;
    ensure!(first.submit(&channel, &share).await?.is_accepted());
    drop((second, &mut channel));
    // Who followed events with the token of before has to come again.
    let end = stream.next().await?;
    ensure!(end.event == "end" && end.data["reason_code"] == "api_unauthorized", "{end:?}");
    ensure!(status(&api, before).await? == StatusCode::UNAUTHORIZED);
    ensure!(status(&api, after).await? == StatusCode::OK);
    wait::until("a line of the log", DEADLINE, async || {
        Ok(gateway.process().stderr().contains("[api] refused").then_some(()))
    })
    .await?;

    // The same file again is no news, but what waits is said again.
    let skip = hang_up(&mut gateway).await?;
    gateway
        .wait_for_event_after(skip, "the next reload", DEADLINE, |e| e["event"] == "policy_set_unchanged")
        .await?;
    let again = gateway.events()?.iter().skip(skip).any(|e| e["event"] == "config_reloaded");
    ensure!(!again, "nothing had changed");
    Ok(())
}

#[tokio::test]
async fn a_reload_by_http_moves_forwarding_to_another_pool_or_changes_nothing_and_says_every_fault()
-> Result<()> {
    let (backend, mut gateway) = gateway_for_clients(|config| {
        config
            .set("api", "listen", "127.0.0.1:0")
            .set("miners", "shares_per_minute", 600.0)
            .set("swap", "watch", "0s")
    })
    .await?;
    let api = gateway.api()?.to_owned();
    let _miner = Miner::start(&gateway, Channel::Standard, 40, "alice")?;
    backend.wait_for("a share", DEADLINE, |shares| !shares.is_empty()).await?;
    let other = Backend::start("k2", "another secret of the pool").await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, other.secret())?;

    // A users file that is not there, and a policy that is none: nothing changes, and both are said.
    let good = gateway.config().clone().set("pool", "url", other.url()).set("pool", "batch_size", 7);
    let module = folder.path().join("none.wasm");
    std::fs::write(&module, "no component")?;
    good.clone()
        .set("miners", "users_file", folder.path().join("nobody").display().to_string())
        .policy("none", &module, &json!({}))?
        .write()?;
    let (code, refused) = post(&api, "/v1/reload", "").await?;
    ensure!(code == StatusCode::UNPROCESSABLE_ENTITY, "{code} {refused}");
    let faults = refused["faults"].as_array().context("faults")?;
    let of = |part: &str| faults.iter().filter(|fault| fault.to_string().contains(part)).count();
    ensure!(
        faults.len() == 2
            && of("[miners] users_file") == 1
            && of("policy_set_unavailable") + of("policy_module") > 0,
        "{refused}"
    );
    ensure!(gateway.events_named("config_reloaded")?.is_empty());
    ensure!(other.requests().is_empty(), "nothing was to change");

    good.write()?;
    let (code, dry) = post(&api, "/v1/reload?dry_run=true", "").await?;
    ensure!(code == StatusCode::OK && dry["dry_run"] == true, "{code} {dry}");
    ensure!(dry["reloaded"] == json!(["[pool] url", "[pool] batch_size"]), "{dry}");
    ensure!(gateway.events_named("config_reloaded")?.is_empty(), "a dry run changes nothing");
    // The key of the other pool is in a file; the variable would go before it, so it is the same secret there.
    let (code, done) = post(&api, "/v1/reload", "").await?;
    ensure!(code == StatusCode::OK && done["reloaded"] == dry["reloaded"], "{code} {done}");
    ensure!(done["reason_code"] == "policy_set_unchanged" && done["restart_needed"] == json!([]), "{done}");
    wait::until("requests at the other pool", DEADLINE, async || {
        Ok((!other.requests().is_empty()).then_some(()))
    })
    .await?;
    // It does not know the key: it is down to us, and nothing is lost.
    let retrying = |e: &Value| e["event"] == "forward_status" && e["reason"] == "forward_retrying";
    gateway.wait_for_event("the other pool refuses", DEADLINE, retrying).await?;

    // Back again: it is tried at once, and every share arrives.
    gateway.config().write()?;
    let (code, back) = post(&api, "/v1/reload", "").await?;
    ensure!(code == StatusCode::OK && back["reloaded"] == dry["reloaded"], "{code} {back}");
    let accepted = gateway.events_named("share_accepted")?;
    let last = accepted.last().and_then(|e| e["share_id"].as_str()).context("a share")?.to_owned();
    backend.wait_for("the shares of meanwhile", DEADLINE, |shares| shares.contains_key(&last)).await?;
    Ok(())
}

#[tokio::test]
async fn a_surface_that_others_can_reach_keeps_its_token_until_it_is_moved() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("token");
    let token = "the-token-of-operators";
    write_token(&path, token)?;
    let (_backend, mut gateway) = gateway_for_clients(|config| {
        config
            .set("api", "listen", "0.0.0.0:0")
            .set("api", "token_file", path.display().to_string())
            .set("swap", "watch", "0s")
    })
    .await?;
    let api = gateway.api()?.replace("0.0.0.0", "127.0.0.1");
    // Without a token, but on loopback: a good configuration, which this process is not on yet.
    let file = gateway.config().file();
    let text = std::fs::read_to_string(&file)?.replace("0.0.0.0:0", "127.0.0.1:0");
    let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("token_file")).collect();
    std::fs::write(&file, kept.join("\n"))?;
    let (code, refused) = post(&api, "/v1/reload", token).await?;
    ensure!(code == StatusCode::UNPROCESSABLE_ENTITY, "{code} {refused}");
    ensure!(refused["faults"][0]["detail"].to_string().contains("[api] token: is missing"), "{refused}");
    ensure!(status(&api, "").await? == StatusCode::UNAUTHORIZED);
    ensure!(status(&api, token).await? == StatusCode::OK);
    ensure!(gateway.events_named("config_reloaded")?.is_empty());
    Ok(())
}
