//! Policies are swapped while miners work: by HTTP, by SIGHUP and by changed files, with a dry run, one
//! step back, and refusals. The real binary, real sockets; nobody is disconnected and no share is lost.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use reservegrid_tests::{
    account::check_every_share_has_one_result,
    backend::Backend,
    gateway::{DEADLINE, Gateway, GatewayConfig, Miner, command, policy},
    pair::{self, TOO_MUCH, floor, with_floor},
    process::Process,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const SECRET: &str = "a secret of the pool";
/// Blocks are too hard to find, so templates change when the source refreshes them and at no other time.
fn config(backend: &Backend, refresh: &str, min_avg_fee: u64) -> Result<GatewayConfig> {
    Ok(pair::config(backend, min_avg_fee)?.set("source", "refresh", refresh).set(
        "gate",
        "hold_timeout",
        "2m",
    ))
}

/// A gateway with a miner on each kind of channel, each of which has a share accepted already.
struct Pool {
    backend: Backend,
    gateway: Gateway,
    miners: [Miner; 2],
    config: GatewayConfig,
}

impl Pool {
    async fn start(backend: Backend, config: GatewayConfig) -> Result<Self> {
        let mut gateway = Gateway::start(&config).await?;
        let miners = pair::miners(&mut gateway, 40).await?;
        Ok(Self { backend, gateway, miners, config })
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Value)> {
        let response = Client::new().request(method, format!("{}{path}", self.gateway.api()?)).send().await?;
        Ok((response.status(), response.json().await?))
    }

    async fn done(&self, method: Method, path: &str) -> Result<Value> {
        let (status, answer) = self.ask(method, path).await?;
        ensure!(status == StatusCode::OK, "{status}: {answer}");
        Ok(answer)
    }

    async fn running(&self) -> Result<String> {
        let status = self.done(Method::GET, "/v1/policies").await?;
        Ok(status["policy_set"].as_str().context("a digest")?.to_owned())
    }

    /// Waits for the next event of this name after the first `skip`.
    async fn event_after(&mut self, skip: usize, name: &str) -> Result<Value> {
        self.gateway.wait_for_event_after(skip, name, DEADLINE, |e| e["event"] == name).await
    }

    /// Waits for a verdict of this set after the first `skip` events.
    async fn verdict_of(&mut self, skip: usize, set: &str) -> Result<Value> {
        let is = |e: &Value| e["event"] == "template_judged" && e["policy_set"] == set;
        self.gateway.wait_for_event_after(skip, "a verdict of the set", DEADLINE, is).await
    }

    /// Both miners have another share accepted: they still work.
    async fn both_still_work(&mut self) -> Result<()> {
        let skip = self.gateway.events()?.len();
        for user in ["alice", "bob"] {
            let share = |e: &Value| e["event"] == "share_accepted" && e["user_identity"] == user;
            self.gateway.wait_for_event_after(skip, "another share", DEADLINE, share).await?;
        }
        Ok(())
    }

    /// Nobody was disconnected or refused a share, and every share has reached the pool.
    async fn nothing_was_lost(mut self) -> Result<()> {
        self.both_still_work().await?;
        for miner in &mut self.miners {
            miner.process.check_running()?;
        }
        for name in ["connection_closed", "share_rejected", "gate_expired", "events_dropped"] {
            let found = self.gateway.events_named(name)?;
            ensure!(found.is_empty(), "{found:?}");
        }
        drop(self.miners);
        ensure!(self.gateway.stop().await?.success());
        check_every_share_has_one_result(self.gateway.events()?, &self.backend)?;
        Ok(())
    }
}

#[tokio::test]
async fn a_swap_by_http_is_tried_first_then_done_then_taken_back() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?;
    let mut pool = Pool::start(backend, config).await?;
    let (status, answer) = pool.ask(Method::POST, "/v1/policies/rollback").await?;
    ensure!(status == StatusCode::CONFLICT, "{status}: {answer}");
    ensure!(answer["reason_code"] == "policy_rollback_unavailable", "{answer}");

    let first = pool.running().await?;
    with_floor(&pool.config, TOO_MUCH)?.write()?;
    let skip = pool.gateway.events()?.len();
    let dry = pool.done(Method::POST, "/v1/policies/swap?dry_run=true").await?;
    ensure!(dry["dry_run"] == true && dry["reason_code"] == "policy_set_swapped", "{dry}");
    let counts = &dry["difference"]["counts"];
    ensure!(counts["replayed"] == 1 && counts["newly_rejected"] == 1, "{dry}");
    let compared = &dry["difference"]["templates"][0];
    ensure!(compared["running"]["accepted"] == true && compared["outcome"] == "newly_rejected", "{dry}");
    ensure!(compared["proposed"]["reason_code"] == "avg_fee_below_minimum", "{dry}");
    ensure!(compared["proposed"]["fuel"].as_u64() > Some(0), "{dry}");
    ensure!(pool.running().await? == first, "a dry run changes nothing");

    let done = pool.done(Method::POST, "/v1/policies/swap").await?;
    let second = pool.running().await?;
    ensure!(done["difference"]["proposed"] == *second && done["difference"]["running"] == *first, "{done}");
    ensure!(dry["difference"]["proposed"] == *second, "the dry run named the same set");
    let swapped = pool.event_after(skip, "policy_set_swapped").await?;
    ensure!(swapped["from"] == *first && swapped["to"] == *second, "{swapped}");
    ensure!(swapped["trigger"] == "http" && swapped["difference"]["newly_rejected"] == 1, "{swapped}");
    // What miners work on is judged again at once, and taken back.
    let judged = pool.verdict_of(skip, &second).await?;
    ensure!(judged["verdict"]["reason_code"] == "avg_fee_below_minimum", "{judged}");
    ensure!(
        judged["enforced"] == "withdrawn" && judged["policies"][0]["enforcement"] == "enforce",
        "{judged}"
    );
    ensure!(pool.gateway.events_named("work_released")?.len() == 1, "nothing new is sent");

    let skip = pool.gateway.events()?.len();
    let back = pool.done(Method::POST, "/v1/policies/rollback").await?;
    ensure!(back["from"] == *second && back["to"] == *first, "{back}");
    let event = pool.event_after(skip, "policy_set_rolled_back").await?;
    ensure!(event["to"] == *first && event["trigger"] == "http", "{event}");
    let judged = pool.verdict_of(skip, &first).await?;
    ensure!(judged["verdict"]["accepted"] == true && judged["enforced"] == "admitted", "{judged}");
    pool.event_after(skip, "gate_resumed").await?;
    ensure!(pool.gateway.events_named("work_released")?.len() == 1, "the same work is not sent again");
    let status = pool.done(Method::GET, "/v1/policies").await?;
    ensure!(status["policy_set"] == *first && status["previous_set"] == *second, "{status}");
    pool.nothing_was_lost().await
}

#[tokio::test]
async fn the_running_policies_are_shown_with_all_that_names_them() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 7)?;
    let pool = Pool::start(backend, config).await?;
    let status = pool.done(Method::GET, "/v1/policies").await?;
    let shown = &status["policies"][0];
    let module = policy("fee-floor")?;
    let digest = hex::encode(Sha256::digest(std::fs::read(&module)?));
    ensure!(shown["name"] == "fee-floor" && shown["module_digest"] == *digest, "{status}");
    ensure!(shown["settings"] == floor(7) && shown["enforcement"] == "enforce", "{status}");
    ensure!(shown["fuel"] == 10_000_000 && shown["pinned"] == false, "{status}");
    ensure!(shown["codes"].as_array().is_some_and(|codes| codes.len() == 4), "{status}");
    ensure!(status["previous_set"].is_null() && status["remembered"] == 1, "{status}");
    let health = pool.done(Method::GET, "/v1/health").await?;
    ensure!(health["status"] == "ok", "{health}");
    pool.nothing_was_lost().await
}

#[tokio::test]
async fn templates_go_on_being_judged_while_sets_are_swapped_under_them() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "100ms", 1)?;
    let mut pool = Pool::start(backend, config).await?;
    pool.gateway
        .wait_until("some templates", DEADLINE, |events| {
            events.iter().filter(|e| e["event"] == "template_judged").count() >= 4
        })
        .await?;
    let first = pool.running().await?;
    with_floor(&pool.config, TOO_MUCH)?.write()?;
    let swapped = pool.done(Method::POST, "/v1/policies/swap").await?;
    let counts = &swapped["difference"]["counts"];
    ensure!(
        counts["replayed"].as_u64() >= Some(4) && counts["replayed"] == counts["newly_rejected"],
        "{swapped}"
    );
    let second = pool.running().await?;
    for _ in 0..10 {
        let skip = pool.gateway.events()?.len();
        let back = pool.done(Method::POST, "/v1/policies/rollback").await?;
        pool.verdict_of(skip, back["to"].as_str().context("a digest")?).await?;
    }
    // Whichever set judged, it said what it must.
    for judged in pool.gateway.events_named("template_judged")? {
        let accepted = judged["verdict"]["accepted"] == true;
        ensure!(accepted == (judged["policy_set"] == *first), "{judged}");
        ensure!(judged["policy_set"] == *first || judged["policy_set"] == *second, "{judged}");
        ensure!(accepted || judged["enforced"] != "admitted", "{judged}");
    }
    pool.nothing_was_lost().await
}

#[tokio::test]
async fn a_set_that_accepts_what_was_held_ends_the_hold_with_the_same_template() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", TOO_MUCH)?;
    let mut gateway = Gateway::start(&config).await?;
    let refused = gateway.wait_for_event("a refusal", DEADLINE, |e| e["enforced"] == "refused").await?;
    gateway.wait_for_event("the hold", DEADLINE, |e| e["event"] == "gate_held").await?;
    with_floor(&config, 1)?.write()?;
    gateway.process().signal("HUP")?;
    let released = gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
    ensure!(released["template"] == refused["template"], "{released} after {refused}");
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn sighup_applies_the_policies_and_names_what_waits_for_a_restart() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?;
    let mut pool = Pool::start(backend, config).await?;
    let skip = pool.gateway.events()?.len();
    pool.gateway.process().signal("HUP")?;
    let same = pool.event_after(skip, "policy_set_unchanged").await?;
    ensure!(same["trigger"] == "signal", "{same}");

    let first = pool.running().await?;
    let skip = pool.gateway.events()?.len();
    with_floor(&pool.config, 2)?.set("source", "refresh", "59m").set("engine", "workers", 1).write()?;
    pool.gateway.process().signal("HUP")?;
    let waits = pool.event_after(skip, "config_restart_needed").await?;
    ensure!(waits["keys"] == json!(["[source] refresh", "[engine] workers"]), "{waits}");
    let swapped = pool.event_after(skip, "policy_set_swapped").await?;
    ensure!(swapped["trigger"] == "signal" && swapped["from"] == *first, "{swapped}");

    // A file with faults changes nothing, and each is said.
    let second = pool.running().await?;
    let skip = pool.gateway.events()?.len();
    with_floor(&pool.config, 3)?.set("gate", "hold_timeout", "3").set("pool", "speed", 9).write()?;
    pool.gateway.process().signal("HUP")?;
    let refused = pool.event_after(skip, "policy_swap_refused").await?;
    ensure!(refused["reason"] == "config_invalid" && refused["running"] == *second, "{refused}");
    let faults: Vec<_> =
        refused["faults"].as_array().context("faults")?.iter().map(|f| f["detail"].to_string()).collect();
    ensure!(faults.len() == 2, "{refused}");
    ensure!(faults.iter().any(|f| f.contains("[gate] hold_timeout")), "{refused}");
    ensure!(faults.iter().any(|f| f.contains("[pool] speed")), "{refused}");
    ensure!(pool.running().await? == second);
    pool.nothing_was_lost().await
}

/// The same component with other bytes: a custom section more.
fn with_section(module: &[u8], content: &[u8]) -> Vec<u8> {
    let name = b"note";
    let mut section = vec![name.len() as u8];
    section.extend([&name[..], content].concat());
    [module, &[0, section.len() as u8], &section].concat()
}

/// Replaces a file as careful programs do.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, bytes)?;
    std::fs::rename(next, path)?;
    Ok(())
}

#[tokio::test]
async fn changed_files_are_taken_up_by_themselves_and_broken_ones_are_not() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?.set("swap", "watch", "50ms");
    let module = config.folder().join("policy.wasm");
    let original = std::fs::read(policy("fee-floor")?)?;
    std::fs::write(&module, &original)?;
    let config = config.without_policies().policy("fee-floor", &module, &floor(1))?;
    let mut pool = Pool::start(backend, config).await?;
    let first = pool.running().await?;

    // The module, by rename.
    let skip = pool.gateway.events()?.len();
    let other = with_section(&original, b"other bytes");
    replace(&module, &other)?;
    let swapped = pool.event_after(skip, "policy_set_swapped").await?;
    ensure!(swapped["trigger"] == "file" && swapped["from"] == *first, "{swapped}");
    let status = pool.done(Method::GET, "/v1/policies").await?;
    ensure!(status["policies"][0]["module_digest"] == hex::encode(Sha256::digest(&other)), "{status}");

    // The module, in place, to something that is none: refused, once.
    let second = pool.running().await?;
    let skip = pool.gateway.events()?.len();
    std::fs::write(&module, "not a module")?;
    let refused = pool.event_after(skip, "policy_swap_refused").await?;
    ensure!(refused["reason"] == "policy_swap_refused" && refused["trigger"] == "file", "{refused}");
    ensure!(refused["faults"][0]["reason"] == "policy_module_invalid", "{refused}");
    ensure!(refused["faults"][0]["policy"] == "fee-floor", "{refused}");
    ensure!(pool.running().await? == second);

    // The configuration, which also makes the module pinned: the broken file is still not taken.
    let skip = pool.gateway.events()?.len();
    let pinned =
        pool.config.clone().set_policy("fee-floor", "sha256", hex::encode(Sha256::digest(&original)));
    pinned.write()?;
    let refused = pool.event_after(skip, "policy_swap_refused").await?;
    ensure!(refused["faults"][0]["detail"].as_str().is_some_and(|d| d.contains("pins")), "{refused}");
    // Nor are other good bytes than the pinned ones.
    let skip = pool.gateway.events()?.len();
    replace(&module, &other)?;
    let refused = pool.event_after(skip, "policy_swap_refused").await?;
    ensure!(refused["faults"][0]["detail"].as_str().is_some_and(|d| d.contains("pins")), "{refused}");
    let skip = pool.gateway.events()?.len();
    replace(&module, &original)?;
    let swapped = pool.event_after(skip, "policy_set_swapped").await?;
    ensure!(swapped["to"] == *first, "pinning is no part of what a set says: {swapped}");

    let refusals = pool.gateway.events_named("policy_swap_refused")?.len();
    ensure!(refusals == 3, "each bad change is tried once, not {refusals} times");
    pool.nothing_was_lost().await
}

#[tokio::test]
async fn what_cannot_be_loaded_is_refused_with_every_fault_and_changes_nothing() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?;
    let mut pool = Pool::start(backend, config).await?;
    let first = pool.running().await?;
    let broken = pool.config.folder().join("broken.wasm");
    std::fs::write(&broken, "no module")?;
    let faulty = pool.config.clone().without_policies().policy("broken", &broken, &json!({}))?.policy(
        "settings",
        &policy("fee-floor")?,
        &json!({ "min_avg_fee": 5 }),
    )?;
    faulty.write()?;
    for path in ["/v1/policies/swap?dry_run=true", "/v1/policies/swap", "/v1/policies/swap?dry_run=false"] {
        let (status, answer) = pool.ask(Method::POST, path).await?;
        ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{status}: {answer}");
        ensure!(answer["reason_code"] == "policy_swap_refused", "{answer}");
        let faults = answer["faults"].as_array().context("faults")?;
        let of = |name: &str, reason: &str| {
            faults.iter().any(|fault| fault["policy"] == name && fault["reason"] == reason)
        };
        ensure!(
            of("broken", "policy_module_invalid") && of("settings", "policy_settings_invalid"),
            "{answer}"
        );
        ensure!(faults[0]["place"].as_str().is_some_and(|place| place.contains("gateway.toml:")), "{answer}");
    }
    let refusals = |events: &[Value]| events.iter().filter(|e| e["event"] == "policy_swap_refused").count();
    pool.gateway.wait_until("both refusals", DEADLINE, |events| refusals(events) >= 2).await?;
    ensure!(refusals(pool.gateway.events()?) == 2, "a dry run is no attempt");
    ensure!(pool.running().await? == first);
    pool.nothing_was_lost().await
}

#[tokio::test]
async fn requests_that_are_none_are_answered_with_a_code() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?;
    let pool = Pool::start(backend, config).await?;
    for (method, path, expected) in [
        (Method::GET, "/nothing", StatusCode::NOT_FOUND),
        (Method::GET, "/v1/policies/swap", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/v1/policies", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/v1/policies/swap?dry_run=maybe", StatusCode::BAD_REQUEST),
        (Method::POST, "/v1/policies/rollback?dry_run=true", StatusCode::BAD_REQUEST),
    ] {
        let (status, answer) = pool.ask(method.clone(), path).await?;
        ensure!(status == expected, "{method} {path}: {status}");
        ensure!(answer["reason_code"] == "api_request_invalid" && answer["detail"].is_string(), "{answer}");
    }
    let url = format!("{}/v1/policies/swap", pool.gateway.api()?);
    let body = Client::new().post(&url).body("[]").send().await?;
    ensure!(body.status() == StatusCode::BAD_REQUEST, "{}", body.status());
    let large = Client::new().post(&url).body("x".repeat(1 << 20)).send().await;
    // The connection may be closed before all of it was sent.
    ensure!(large.is_err() || large.is_ok_and(|large| large.status() == StatusCode::PAYLOAD_TOO_LARGE));
    let page = Client::new().post(&url).header("Origin", "http://evil.example").send().await?;
    ensure!(page.status() == StatusCode::UNAUTHORIZED, "{}", page.status());
    let answer: Value = page.json().await?;
    ensure!(answer["reason_code"] == "api_unauthorized", "{answer}");
    pool.nothing_was_lost().await
}

#[tokio::test]
async fn with_a_token_only_who_has_it_is_heard() -> Result<()> {
    const TOKEN: &str = "0123456789abcdef0123";
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?.set("api", "token_file", "token");
    std::fs::write(config.folder().join("token"), format!("{TOKEN}\n"))?;
    let pool = Pool::start(backend, config).await?;
    for path in ["/v1/policies/swap", "/v1/policies/rollback", "/v1/anything"] {
        let url = format!("{}{path}", pool.gateway.api()?);
        for request in
            [Client::new().post(&url), Client::new().post(&url).bearer_auth("0123456789abcdef0124")]
        {
            let response = request.send().await?;
            ensure!(response.status() == StatusCode::UNAUTHORIZED, "{path}: {}", response.status());
            let answer: Value = response.json().await?;
            ensure!(answer["reason_code"] == "api_unauthorized", "{answer}");
        }
    }
    let url = format!("{}/v1/policies", pool.gateway.api()?);
    ensure!(Client::new().get(&url).send().await?.status() == StatusCode::UNAUTHORIZED);
    ensure!(Client::new().get(&url).bearer_auth(TOKEN).send().await?.status() == StatusCode::OK);
    let health = Client::new().get(format!("{}/v1/health", pool.gateway.api()?)).send().await?;
    ensure!(health.status() == StatusCode::OK, "health is for everybody");
    pool.nothing_was_lost().await
}

#[tokio::test]
async fn a_monitored_policy_is_written_down_and_gates_only_when_it_enforces() -> Result<()> {
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?
        .policy("strict", &policy("fee-floor")?, &floor(TOO_MUCH))?
        .set_policy("strict", "enforcement", "monitor");
    let mut pool = Pool::start(backend, config).await?;
    let said = pool.event_after(0, "policy_monitored").await?;
    ensure!(
        said["policies"][0]["name"] == "strict" && said["policies"][0]["enforcement"] == "monitor",
        "{said}"
    );
    ensure!(said["policies"][0]["verdict"]["reason_code"] == "avg_fee_below_minimum", "{said}");
    let judged = pool.event_after(0, "template_judged").await?;
    ensure!(judged["template"] == said["template"] && judged["enforced"] == "admitted", "{judged}");
    ensure!(judged["policies"].as_array().is_some_and(|p| p.len() == 1), "{judged}");
    ensure!(judged["infrastructure_fault"] == false, "{judged}");

    pool.config.clone().set_policy("strict", "enforcement", "enforce").write()?;
    let swapped = pool.done(Method::POST, "/v1/policies/swap").await?;
    ensure!(swapped["difference"]["counts"]["newly_rejected"] == 1, "{swapped}");
    let set = pool.running().await?;
    let judged = pool.verdict_of(0, &set).await?;
    ensure!(judged["decided_by"] == "strict" && judged["verdict"]["accepted"] == false, "{judged}");
    pool.nothing_was_lost().await
}

/// Runs `reservegrid policy ...` until it ends: exit code, standard output, standard error.
async fn cli(pool: &Pool, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = command()?;
    command.arg("policy").args(arguments).args(["--api", pool.gateway.api()?]);
    let folder = tempfile::tempdir()?;
    let mut process = Process::start("cli", command, folder.path())?;
    let status = process.wait(DEADLINE).await?;
    Ok((status.code(), process.stdout(), process.stderr()))
}

#[tokio::test]
async fn the_command_line_swaps_shows_and_rolls_back() -> Result<()> {
    const TOKEN: &str = "0123456789abcdef0123";
    let backend = Backend::start("test", SECRET).await?;
    let config = config(&backend, "1h", 1)?.variable("RESERVEGRID_API__TOKEN", TOKEN);
    let file = config.folder().join("token");
    std::fs::write(&file, TOKEN)?;
    let token = ["--token-file", file.to_str().context("a path")?];
    let pool = Pool::start(backend, config).await?;
    let (code, _, stderr) = cli(&pool, &["status"]).await?;
    ensure!(code == Some(1) && stderr.contains("api_unauthorized"), "{code:?} {stderr}");
    let (code, status, stderr) = cli(&pool, &["status", token[0], token[1]]).await?;
    ensure!(code == Some(0) && status.contains("fee-floor (enforce)"), "{status}{stderr}");
    ensure!(status.contains("previous none"), "{status}");

    with_floor(&pool.config, TOO_MUCH)?.write()?;
    let (code, dry, _) = cli(&pool, &["swap", "--dry-run", token[0], token[1]]).await?;
    ensure!(code == Some(0) && dry.contains("nothing was changed"), "{dry}");
    ensure!(dry.contains("1 newly rejected") && dry.contains("avg_fee_below_minimum by fee-floor"), "{dry}");
    let (code, done, _) = cli(&pool, &["swap", token[0], token[1], "--json"]).await?;
    let done: Value = serde_json::from_str(&done)?;
    ensure!(code == Some(0) && done["reason_code"] == "policy_set_swapped", "{done}");
    let (code, back, _) = cli(&pool, &["rollback", token[0], token[1]]).await?;
    ensure!(code == Some(0) && back.starts_with("policy_set_rolled_back"), "{back}");

    pool.config.clone().set_policy("fee-floor", "module", "gone.wasm").write()?;
    let (code, _, stderr) = cli(&pool, &["swap", token[0], token[1]]).await?;
    ensure!(code == Some(1) && stderr.contains("policy_swap_refused"), "{stderr}");
    ensure!(stderr.contains("policy \"fee-floor\": policy_set_unavailable"), "{stderr}");
    pool.nothing_was_lost().await
}
