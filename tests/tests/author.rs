//! What the author of a policy does, with the real command: a project from nothing, cases, inspection,
//! measurement, verdicts on recorded templates, and recorded verdicts computed again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    gateway::{DEADLINE, Gateway, GatewayConfig, command, policy},
    process::Process,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Long enough for a compiler that shares its machine.
const COMPILER: Duration = Duration::from_secs(1_200);
/// Exit codes: a result that is not as expected, an input that cannot be used.
const NOT_SO: i32 = 1;
const UNUSABLE: i32 = 64;

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn end(command: Command, folder: &Path, deadline: Duration) -> Result<Ended> {
    let output = tempfile::tempdir()?;
    let mut command = command;
    command.current_dir(folder);
    let mut process = Process::start("command", command, output.path())?;
    let status = process.wait(deadline).await?;
    Ok(Ended { code: status.code(), stdout: process.stdout(), stderr: process.stderr() })
}

/// `reservegrid` in a folder, with the exit code that is expected.
async fn reservegrid(folder: &Path, expected: i32, arguments: &[&str]) -> Result<Ended> {
    let mut command = command()?;
    command.args(arguments);
    checked(end(command, folder, DEADLINE).await?, expected)
}

/// `reservegrid policy`.
async fn run(folder: &Path, expected: i32, arguments: &[&str]) -> Result<Ended> {
    reservegrid(folder, expected, &[&["policy"], arguments].concat()).await
}

fn checked(ended: Ended, expected: i32) -> Result<Ended> {
    let Ended { code, stdout, stderr } = &ended;
    ensure!(*code == Some(expected), "exit code {code:?}, not {expected}\n{stdout}\n{stderr}");
    Ok(ended)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

fn floor() -> Value {
    json!({ "min_avg_fee": { "low": 100, "mid": 200, "high": 1000 }, "unknown_mempool": "mid" })
}

#[tokio::test]
async fn a_new_project_builds_passes_its_tests_and_judges_its_cases() -> Result<()> {
    // In one place, so that the compiler's work is kept from run to run.
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("new-policy");
    let project = place.join("max-size");
    let target = place.join("target");
    if project.exists() {
        fs::remove_dir_all(&project)?;
    }
    fs::create_dir_all(&place)?;
    run(&place, 0, &["new", "max-size"]).await?;
    // The versions of this repository, which are on this machine.
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock"), project.join("Cargo.lock"))?;

    let mut unit_tests = Command::new("cargo");
    unit_tests.args(["test", "--quiet"]).env("CARGO_TARGET_DIR", &target);
    let ended = checked(end(unit_tests, &project, COMPILER).await?, 0)?;
    ensure!(ended.stdout.contains("2 passed"), "{}", ended.stdout);

    let mut cases = command()?;
    cases.args(["policy", "test", ".", "--strict"]).env("CARGO_TARGET_DIR", &target);
    let ended = checked(end(cases, &project, COMPILER).await?, 0)?;
    ensure!(ended.stdout.contains("2 cases, 2 passed, 0 failed"), "{}", ended.stdout);
    ensure!(!ended.stdout.contains("warning"), "{}", ended.stdout);

    let module = target.join("policies/max-size.wasm");
    let ended = run(&place, 0, &["inspect", text(&module)?]).await?;
    for words in [
        "max-size 0.1.0",
        "transaction_count_above_limit",
        "integer 1 to 1000000",
        "reservegrid:policy@0.1.0",
    ] {
        ensure!(ended.stdout.contains(words), "{words:?} is not in\n{}", ended.stdout);
    }
    let bench = ["bench", text(&module)?, "--transactions", "100", "--runs", "20", "--format", "json"];
    let measured: Value = serde_json::from_str(&run(&place, 0, &bench).await?.stdout)?;
    ensure!(measured["verdict"]["accepted"] == true && measured["deterministic"] == true, "{measured}");
    ensure!(measured["fuel"].as_u64().is_some_and(|fuel| fuel > 0), "{measured}");
    for time in ["p50_us", "p99_us", "instance_p50_us", "load_us"] {
        ensure!(measured[time].as_f64().is_some_and(|time| time > 0.0), "{time}: {measured}");
    }

    // A second one in the same place would overwrite the author's work.
    let ended = run(&place, NOT_SO, &["new", "max-size"]).await?;
    ensure!(ended.stderr.contains("--dir"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_case_that_fails_is_shown_with_what_was_expected_and_what_was_found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let module = policy("fee-floor")?;
    let case = |name: &str, fee: u64, expect: &str| {
        let text = format!(
            "meaning = \"A fee of {fee}.\"\n[settings]\nmin_avg_fee = {{ mid = 200, high = 1000 }}\n\
             [template]\ntransactions = [{{ count = 3, fee = {fee} }}]\n\
             [context]\nmempool = {{ transaction_count = 1, total_vsize = 2_000_000, total_fees = 1 }}\n\
             [expect]\n{expect}\n"
        );
        fs::write(folder.path().join(name), text)
    };
    case("good.toml", 200, "accepted = true")?;
    let poor = "accepted = false\nreason_code = \"avg_fee_below_minimum\"\n\
        reason_detail = \"avg_fee=141 < min_avg_fee_used=200\"\n\
        policy_context = { fee_tier = \"mid\", min_avg_fee_used = 200 }";
    case("poor.toml", 141, poor)?;
    let test = ["test", ".", "--module", text(&module)?];
    let ended = run(folder.path(), 0, &test).await?;
    ensure!(ended.stdout.contains("2 cases, 2 passed, 0 failed"), "{}", ended.stdout);
    let unreached = "no case reaches total_fees_below_minimum, transaction_fee_rate_below_minimum";
    ensure!(ended.stdout.contains(unreached), "{}", ended.stdout);
    run(folder.path(), NOT_SO, &[&test[..], &["--strict"]].concat()).await?;

    case("wrong.toml", 150, poor)?;
    let ended = run(folder.path(), NOT_SO, &test).await?;
    for line in [
        "FAIL  wrong.toml  A fee of 150.",
        "- reason_detail = \"avg_fee=141 < min_avg_fee_used=200\"",
        "+ reason_detail = \"avg_fee=150 < min_avg_fee_used=200\"",
        "3 cases, 2 passed, 1 failed",
    ] {
        ensure!(ended.stdout.contains(line), "{line:?} is not in\n{}", ended.stdout);
    }
    Ok(())
}

#[tokio::test]
async fn every_policy_of_the_pack_passes_its_own_cases_and_they_reach_every_code() -> Result<()> {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut names = Vec::new();
    for entry in fs::read_dir(&policies)? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().into_string().ok().context("a policy's name is text")?);
        }
    }
    ensure!(names.len() == 6, "the pack has other policies now: {names:?}");
    for name in names {
        let (cases, module) = (policies.join(&name), policy(&name)?);
        let ended =
            run(&policies, 0, &["test", "--strict", text(&cases)?, "--module", text(&module)?]).await?;
        let all = fs::read_dir(cases.join("cases"))?.count();
        let words = format!("{all} cases, {all} passed, 0 failed");
        ensure!(all > 0 && ended.stdout.contains(&words), "{name}: no {words:?} in\n{}", ended.stdout);
        ensure!(!ended.stdout.contains("no case reaches"), "{name}: {}", ended.stdout);
    }
    Ok(())
}

#[tokio::test]
async fn cases_that_cannot_be_used_are_all_named_and_nothing_is_judged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let module = policy("fee-floor")?;
    let expect = "[expect]\naccepted = true\n";
    fs::write(folder.path().join("a.toml"), format!("meaning = \"a\"\n[template]\nheigth = 3\n{expect}"))?;
    fs::write(
        folder.path().join("b.toml"),
        format!("meaning = \"b\"\n[template]\ntransactions = [{{ weight = 10 }}]\n{expect}"),
    )?;
    let ended = run(folder.path(), UNUSABLE, &["test", ".", "--module", text(&module)?]).await?;
    for words in [
        "a.toml:3:1: unknown field `heigth`",
        "did you mean `height`?",
        "b.toml: transactions row 0: a weight of 10",
    ] {
        ensure!(ended.stderr.contains(words), "{words:?} is not in\n{}", ended.stderr);
    }
    ensure!(ended.stdout.is_empty(), "{}", ended.stdout);
    let ended = run(folder.path(), UNUSABLE, &["test", "a.toml"]).await?;
    ensure!(ended.stderr.contains("--module"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_module_that_cannot_be_loaded_is_shown_with_what_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func (result u64))))))"#;
    for (name, bytes, code, import) in [
        ("text.wasm", b"this is no module".to_vec(), "policy_module_invalid", None),
        ("core.wasm", wat::parse_str("(module)")?, "policy_module_invalid", None),
        ("clock.wasm", wat::parse_str(clock)?, "policy_import_refused", Some("wasi:clocks/wall-clock@0.2.0")),
    ] {
        fs::write(folder.path().join(name), &bytes)?;
        let ended = run(folder.path(), NOT_SO, &["inspect", name]).await?;
        ensure!(ended.stdout.contains(&format!("NOT LOADABLE  {code}: ")), "{}", ended.stdout);
        let ended = run(folder.path(), NOT_SO, &["inspect", name, "--format", "json"]).await?;
        let shown: Value = serde_json::from_str(&ended.stdout)?;
        ensure!(shown["fault"]["reason"] == code && shown["policy"].is_null(), "{shown}");
        ensure!(
            shown["bytes"] == bytes.len() && shown["sha256"].as_str().is_some_and(|hash| hash.len() == 64),
            "{shown}"
        );
        ensure!(import.is_none_or(|import| shown["imports"][0] == import), "{shown}");
    }
    run(folder.path(), UNUSABLE, &["inspect", "gone.wasm"]).await?;
    Ok(())
}

/// A gateway that has recorded some templates, ended again.
async fn recorded() -> Result<GatewayConfig> {
    let config = GatewayConfig::new("shadow")?
        .embedded("207fffff", 5)
        .set("source", "refresh", "100ms")
        .set("source", "low_fee_every", 2)
        .set("record", "dir", "recordings")
        .policy("floor", &policy("fee-floor")?, &floor())?;
    let mut gateway = Gateway::start(&config).await?;
    let judged =
        |events: &[Value]| events.iter().filter(|event| event["event"] == "template_judged").count() >= 8;
    gateway.wait_until("eight verdicts", DEADLINE, judged).await?;
    ensure!(gateway.stop().await?.success());
    Ok(config)
}

/// The first four recordings, each as a file of its own in the folder `alone`.
async fn recordings(config: &GatewayConfig) -> Result<Vec<PathBuf>> {
    let folder = config.folder().join("alone");
    fs::create_dir(&folder)?;
    let listed = reservegrid(config.folder(), 0, &["record", "list", "recordings"]).await?;
    let mut files = Vec::new();
    for line in listed.stdout.lines().take(4) {
        let place = line.split_whitespace().next().context("a place")?;
        let shown = reservegrid(config.folder(), 0, &["record", "show", place]).await?;
        files.push(folder.join(format!("{}.json", files.len())));
        fs::write(&files[files.len() - 1], shown.stdout)?;
    }
    Ok(files)
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut recording: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    change(&mut recording);
    Ok(fs::write(file, serde_json::to_string(&recording)?)?)
}

#[tokio::test]
async fn recorded_verdicts_are_bit_for_bit_the_same_when_computed_again() -> Result<()> {
    let config = recorded().await?;
    let files = recordings(&config).await?;
    ensure!(files.len() == 4, "recorded: {files:?}");
    for folder in ["recordings", "alone"] {
        let ended = run(config.folder(), 0, &["replay", folder]).await?;
        ensure!(ended.stdout.contains(" the same, 0 different, 0 skipped, 0 unusable"), "{}", ended.stdout);
        ensure!(ended.stdout.matches("same       ").count() >= 4, "{}", ended.stdout);
    }
    // With the configuration too, and without the secrets that a gateway would need.
    run(config.folder(), 0, &["replay", "recordings", "--config", "gateway.toml"]).await?;

    // Each kind of difference is found and told.
    let file = text(&files[0])?;
    let original = fs::read_to_string(file)?;
    for (place, value, words) in [
        ("/memory_limit", json!(32 << 20), "policy set: recorded "),
        ("/policies/0/fuel", json!(1), "policy floor: fuel: recorded 1, now "),
        ("/policies/0/verdict/accepted", json!("maybe"), "policy floor: verdict: recorded "),
        ("/verdict/policy_context", json!({ "a": 1 }), "verdict: recorded "),
        ("/digest", json!("00"), "template: recorded 00, now "),
        ("/policy_set", json!("00"), "policy set: recorded 00, now "),
        ("/decided_by", json!("nobody"), "decided by: recorded nobody, now "),
        ("/template/declared/current_time", json!(2_000_000_000), "template: recorded "),
    ] {
        edit(&files[0], |recording| *recording.pointer_mut(place).unwrap() = value)?;
        let ended = run(config.folder(), NOT_SO, &["replay", file]).await?;
        ensure!(
            ended.stdout.contains("DIFFERENT") && ended.stdout.contains(words),
            "{place}: {}",
            ended.stdout
        );
        fs::write(file, &original)?;
    }
    // What was about the machine is listed and not compared.
    edit(&files[0], |recording| {
        recording["infrastructure_fault"] = json!(true);
        recording["verdict"]["reason_code"] = json!("policy_deadline_exceeded");
    })?;
    let ended = run(config.folder(), 0, &["replay", file]).await?;
    ensure!(
        ended.stdout.contains("skipped") && ended.stdout.contains("policy_deadline_exceeded"),
        "{}",
        ended.stdout
    );
    fs::write(file, &original)?;

    // So is what one policy said after another had decided.
    edit(&files[0], |recording| {
        recording["policies"][0]["infrastructure_fault"] = json!(true);
        recording["policies"][0]["verdict"]["reason_code"] = json!("policy_deadline_exceeded");
    })?;
    let ended = run(config.folder(), 0, &["replay", file]).await?;
    ensure!(ended.stdout.contains("1 the same"), "{}", ended.stdout);
    fs::write(file, &original)?;

    // A set that cannot be had any more, and a file that is none; the others are computed all the same.
    edit(&files[0], |recording| recording["policies"][0]["module"] = json!("/nowhere/floor.wasm"))?;
    let ended = run(config.folder(), UNUSABLE, &["replay", "alone"]).await?;
    ensure!(ended.stdout.contains("3 the same, 0 different, 0 skipped, 1 unusable"), "{}", ended.stdout);
    ensure!(
        ended.stderr.contains("--config") && ended.stderr.contains("/nowhere/floor.wasm"),
        "{}",
        ended.stderr
    );
    fs::write(file, "{}")?;
    let ended = run(config.folder(), UNUSABLE, &["replay", file]).await?;
    ensure!(ended.stderr.contains("no recording"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn one_verdict_on_a_recorded_template_is_json_and_an_exit_code() -> Result<()> {
    let config = recorded().await?;
    let folder = config.folder();
    let template = recordings(&config).await?.remove(0);
    let recording: Value = serde_json::from_str(&fs::read_to_string(&template)?)?;
    fs::write(folder.join("alone.json"), recording["template"].to_string())?;
    let module = policy("fee-floor")?;
    let judge = |settings: &'static str, template: &str, expected: i32| {
        let arguments = ["run", module.to_str().unwrap(), "--template", template, "--settings", settings];
        let arguments: Vec<_> = arguments.map(str::to_owned).into();
        async move {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            run(folder, expected, &arguments).await
        }
    };
    fs::write(
        folder.join("lax.json"),
        json!({ "min_avg_fee": { "mid": 0, "high": 0 }, "unknown_mempool": "low" }).to_string(),
    )?;
    fs::write(
        folder.join("strict.toml"),
        "unknown_mempool = \"mid\"\nmin_avg_fee = { mid = 1_000_000_000, high = 1_000_000_000, low = 1_000_000_000 }\n",
    )?;
    fs::write(folder.join("wrong.json"), "{\"min_avg_fee\": 3}")?;
    let listed = reservegrid(folder, 0, &["record", "list", "recordings"]).await?.stdout;
    let place = listed.split_whitespace().next().context("a place")?;
    for template in [text(&template)?, "alone.json", place] {
        let ended = judge("lax.json", template, 0).await?;
        let verdict: Value = serde_json::from_str(&ended.stdout)?;
        ensure!(
            verdict
                == json!({ "accepted": true, "reason_code": null, "reason_detail": null, "policy_context": {} }),
            "{verdict}"
        );
        let ended = judge("strict.toml", template, NOT_SO).await?;
        let verdict: Value = serde_json::from_str(&ended.stdout)?;
        ensure!(verdict["reason_code"] == "avg_fee_below_minimum", "{verdict}");
    }
    let ended = judge("wrong.json", "alone.json", UNUSABLE).await?;
    ensure!(ended.stderr.contains("min_avg_fee: must be an object"), "{}", ended.stderr);
    judge("lax.json", "gone.json", UNUSABLE).await?;

    // As a case, too.
    fs::create_dir(folder.join("cases"))?;
    let case = "meaning = \"Recorded.\"\nsettings = { min_avg_fee = { mid = 0, high = 0 }, unknown_mempool = \"low\" }\n\
        template = { recorded = \"../alone.json\" }\nexpect = { accepted = true }\n";
    fs::write(folder.join("cases/recorded.toml"), case)?;
    run(folder, 0, &["test", "cases", "--module", text(&module)?]).await?;
    Ok(())
}

#[tokio::test]
async fn other_policies_are_audited_on_recorded_templates_by_a_gateway_without_a_node() -> Result<()> {
    let recorded = recorded().await?;
    let listed = reservegrid(recorded.folder(), 0, &["record", "list", "recordings"]).await?.stdout;
    ensure!(listed.lines().all(|line| line.contains("#") && line.contains("  height 102  ")), "{listed}");

    let strict =
        json!({ "min_avg_fee": { "low": 1_000_000_000, "mid": 1_000_000_000, "high": 1_000_000_000 } });
    let config = GatewayConfig::new("shadow")?
        .set("source", "kind", "replay")
        .set("source", "from", text(&recorded.folder().join("recordings"))?)
        .set("source", "network", "regtest")
        .set("source", "pace", "fast")
        .set("record", "dir", "audit")
        .policy("floor", &policy("fee-floor")?, &strict)?;
    let mut gateway = Gateway::start(&config).await?;
    let ended = |e: &Value| e["event"] == "source_down" && e["reason"] == "replay_ended";
    let ended = gateway.wait_for_event("the end of the recordings", DEADLINE, ended).await?;
    let count = listed.lines().count();
    ensure!(ended["detail"] == format!("{count} templates were given; there are no more"), "{ended}");
    let judged =
        |events: &[Value]| events.iter().filter(|e| e["event"] == "template_judged").count() >= count;
    gateway.wait_until("a verdict on each", DEADLINE, judged).await?;
    ensure!(gateway.stop().await?.success());
    for judged in gateway.events_named("template_judged")? {
        ensure!(judged["verdict"]["reason_code"] == "avg_fee_below_minimum", "{judged}");
    }

    let rejected = reservegrid(config.folder(), 0, &["record", "list", "audit", "--rejected"]).await?.stdout;
    ensure!(rejected.lines().all(|line| line.ends_with("  avg_fee_below_minimum")), "{rejected}");
    ensure!(!rejected.is_empty(), "nothing was recorded");

    // Nobody mines on the past.
    let inline = config.clone().mode("inline");
    inline.write()?;
    let ended = reservegrid(inline.folder(), UNUSABLE, &["config", "check", "gateway.toml"]).await?;
    ensure!(ended.stderr.contains("nobody can mine on templates of the past"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_folder_for_recordings_that_cannot_be_made_stops_the_start() -> Result<()> {
    let config = GatewayConfig::new("shadow")?.embedded("207fffff", 5).set("record", "dir", "taken").policy(
        "floor",
        &policy("fee-floor")?,
        &floor(),
    )?;
    fs::write(config.folder().join("taken"), "a file")?;
    let mut gateway = Gateway::spawn(&config)?;
    let status = gateway.process().wait(DEADLINE).await?;
    let said = gateway.process().stderr();
    ensure!(!status.success() && said.contains("[record] dir"), "{status}: {said}");
    Ok(())
}
