//! The command line as an operator meets it: exit codes, and what is said when something is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    backend::Backend,
    client::{Client, gateway_for_clients},
    gateway::{DEADLINE, Gateway, GatewayConfig, command, policy},
    process::Process,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

/// Exit code for a configuration that cannot be used.
const CONFIG: i32 = 64;
const AUTHORITY: &str = "RESERVEGRID_MINERS__AUTHORITY_SECRET";
const POOL: (&str, &str) = ("RESERVEGRID_POOL__SECRET", "a secret of the pool");

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the command in a folder until it ends.
async fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Ended> {
    let mut command = command()?;
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder);
    let mut process = Process::start("command", command, folder)?;
    let status = process.wait(DEADLINE).await?;
    Ok(Ended { code: status.code(), stdout: process.stdout(), stderr: process.stderr() })
}

/// [`run`] with the secrets that a gateway needs.
async fn run_with_secrets(folder: &Path, arguments: &[&str]) -> Result<Ended> {
    let key = bitcoin::base58::encode_check(&[0x24; 32]);
    run(folder, arguments, &[(AUTHORITY, &key), POOL]).await
}

/// A configuration in which nothing is wrong, but for the policies that the caller adds.
const GOOD: &str = r#"mode = "inline"
[source]
kind = "embedded"
transactions = 5
[miners]
listen = "127.0.0.1:0"
[pool]
url = "http://127.0.0.1:9/shares"
key_id = "test"
[ledger]
dir = "ledger"
"#;

const ONE_POLICY: &str = "[[policy]]\nname = \"any\"\nmodule = \"any.wasm\"\n";

#[tokio::test]
async fn every_fault_of_a_configuration_is_listed_with_its_line() -> Result<()> {
    let faulty = r#"mode = "inline"
speed = 3
[source]
kind = "embedded"
bits = "zz"
refresh = "50"
cookie_file = "cookie"
[miners]
listen = "localhost"
max_connections = "many"
authority_secret = "in the file"
shares_per_minute = 1000.0
[pool]
url = "https://pool.example/shares"
key_id = "with spaces"
secret_file = "no-such-file"
[ledgr]
dir = "ledger"
[record]
keep = 0
[gate]
verdict_timeout = "5s"
hold_timeout = "1s"
[[policy]]
name = "Fee Floor"
module = 5
"#;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("faulty.toml"), faulty)?;
    let expected = [
        ("2:", "speed: unknown key"),
        ("5:", "[source] bits: \"zz\" is not"),
        ("6:", "[source] refresh: \"50\" is not a duration; write e.g. \"50ms\""),
        ("7:", "[source] cookie_file: belongs to another kind of source"),
        ("9:", "[miners] listen: \"localhost\" is not an address and port"),
        ("10:", "[miners] max_connections: \"many\" is not"),
        ("11:", "RESERVEGRID_MINERS__AUTHORITY_SECRET"),
        ("12:", "[miners] shares_per_minute: 1000.0 is not between 0.1 and 600"),
        ("14:", "[pool] url: \"https://pool.example/shares\" asks for https"),
        ("15:", "[pool] key_id: \"with spaces\""),
        ("16:", "[pool] secret_file:"),
        ("17:", "unknown section [ledgr]; did you mean [ledger]?"),
        ("20:", "[record] keep: 0 is not a duration"),
        ("22:", "[gate] verdict_timeout: is longer than hold_timeout"),
        ("25:", "[[policy]] name: \"Fee Floor\""),
        ("26:", "[[policy]] module: 5 is not a path"),
        (" ", "[ledger] dir: is missing"),
    ];
    for arguments in [["config", "check", "faulty.toml"], ["run", "--config", "faulty.toml"]] {
        let ended = run(folder.path(), &arguments, &[]).await?;
        ensure!(ended.code == Some(CONFIG), "{:?}: {}", ended.code, ended.stderr);
        let lines: Vec<_> = ended.stderr.trim_end().lines().collect();
        ensure!(lines.len() == expected.len(), "{} faults:\n{}", lines.len(), ended.stderr);
        for (line, (place, text)) in lines.iter().zip(expected) {
            let line = line.strip_prefix("reservegrid: ").unwrap_or(line);
            ensure!(
                line.starts_with(&format!("faulty.toml:{place}")),
                "not at {place} {line}\n{}",
                ended.stderr
            );
            ensure!(line.contains(text), "not {text:?}: {line}\n{}", ended.stderr);
        }
        ensure!(!ended.stderr.contains("in the file\""), "a secret is shown: {}", ended.stderr);
    }
    ensure!(!folder.path().join("ledger").exists(), "something was started");
    Ok(())
}

#[tokio::test]
async fn a_missing_secret_is_named_with_the_variable_that_gives_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("gateway.toml"), GOOD.to_owned() + ONE_POLICY)?;
    let ended = run(folder.path(), &["run", "--config", "gateway.toml"], &[]).await?;
    ensure!(ended.code == Some(CONFIG), "{:?}: {}", ended.code, ended.stderr);
    for name in [AUTHORITY, POOL.0] {
        ensure!(ended.stderr.contains(name), "{name} is not named: {}", ended.stderr);
    }
    ensure!(ended.stderr.contains("keys generate"), "not said how to make a key: {}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_good_configuration_is_said_to_be_good_and_a_missing_one_to_be_missing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("gateway.toml"), GOOD.to_owned() + ONE_POLICY)?;
    let ended = run_with_secrets(folder.path(), &["config", "check", "gateway.toml"]).await?;
    ensure!(ended.code == Some(0), "{}", ended.stderr);
    ensure!(ended.stdout.contains("no faults"), "{}", ended.stdout);
    for arguments in [["config", "check", "other.toml"], ["run", "--config", "other.toml"]] {
        let ended = run_with_secrets(folder.path(), &arguments).await?;
        ensure!(ended.code == Some(CONFIG), "{:?}: {}", ended.code, ended.stderr);
        ensure!(
            ended.stderr.contains("other.toml") && ended.stderr.contains("cannot be read"),
            "{}",
            ended.stderr
        );
    }
    Ok(())
}

#[tokio::test]
async fn policies_that_cannot_be_loaded_are_all_listed_with_code_and_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes);
    write("core.wasm", &wat::parse_str("(module)")?)?;
    write("text.wasm", b"this is no module")?;
    write("empty.wasm", &wat::parse_str("(component)")?)?;
    let clock = r#"(component (import "wasi:clocks/wall-clock@0.2.0"
        (instance (export "now" (func (result u64))))))"#;
    write("clock.wasm", &wat::parse_str(clock)?)?;
    let other_version = r#"(component (import "reservegrid:policy/log@9.0.0"
        (instance (export "debug" (func (param "message" string))))))"#;
    write("future.wasm", &wat::parse_str(other_version)?)?;
    let floor = policy("fee-floor")?;
    let floor = floor.to_str().context("a path that is text")?;

    const INVALID: &str = "policy_module_invalid";
    const IMPORT: &str = "policy_import_refused";
    let entries = [
        ("gone", "gone.wasm", "", "policy_set_unavailable", "gone.wasm"),
        ("core", "core.wasm", "", INVALID, "not a component"),
        ("text", "text.wasm", "", INVALID, "not WebAssembly"),
        ("empty", "empty.wasm", "", INVALID, "contract"),
        ("clock", "clock.wasm", "", IMPORT, "wasi:clocks/wall-clock@0.2.0"),
        ("future", "future.wasm", "", IMPORT, "0.1.0"),
        (
            "unset",
            floor,
            "settings = { min_avg_fee = { low = 1 } }",
            "policy_settings_invalid",
            "min_avg_fee.mid",
        ),
        (
            "wrong",
            floor,
            "settings = { min_avg_fee = { low = 1, mid = 2, high = -3 } }",
            "policy_settings_invalid",
            "min_avg_fee.high",
        ),
        ("pinned", floor, &format!("sha256 = \"{}\"\nsettings = {{}}", "ab".repeat(32)), INVALID, "sha256"),
    ];
    let mut text = GOOD.to_owned();
    let mut expected = Vec::new();
    for (name, module, more, code, detail) in entries {
        expected.push((text.lines().count() + 1, name, code, detail));
        text += &format!("[[policy]]\nname = \"{name}\"\nmodule = \"{module}\"\n{more}\n");
    }
    std::fs::write(folder.path().join("gateway.toml"), text)?;
    let ended = run_with_secrets(folder.path(), &["run", "--config", "gateway.toml"]).await?;
    ensure!(ended.code == Some(CONFIG), "{:?}: {}", ended.code, ended.stderr);
    for (line, name, code, detail) in expected {
        let start = format!("gateway.toml:{line}: policy \"{name}\": {code}: ");
        ensure!(
            ended.stderr.lines().any(|line| line.contains(&start) && line.contains(detail)),
            "no line with {start:?} and {detail:?}:\n{}",
            ended.stderr
        );
    }
    ensure!(!folder.path().join("ledger").exists(), "something was started");
    Ok(())
}

#[tokio::test]
async fn the_reason_codes_are_json_with_unique_codes_and_a_sentence_each() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ended = run(folder.path(), &["reasons", "--json"], &[]).await?;
    ensure!(ended.code == Some(0), "{}", ended.stderr);
    let reasons: Vec<Value> = serde_json::from_str(&ended.stdout)?;
    let codes: BTreeSet<_> = reasons.iter().filter_map(|reason| reason["code"].as_str()).collect();
    ensure!(codes.len() == reasons.len() && reasons.len() > 40, "{} codes of {}", codes.len(), reasons.len());
    for reason in &reasons {
        for field in ["category", "fault", "severity", "meaning"] {
            ensure!(reason[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {reason}");
        }
    }
    ensure!(codes.contains("share_duplicate") && codes.contains("policy_import_refused"), "{codes:?}");
    let plain = run(folder.path(), &["reasons"], &[]).await?;
    ensure!(codes.iter().all(|code| plain.stdout.contains(code)), "{}", plain.stdout);
    Ok(())
}

#[tokio::test]
async fn a_generated_key_pair_is_one_that_gateway_and_miner_accept() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ended = run(folder.path(), &["keys", "generate"], &[]).await?;
    ensure!(ended.code == Some(0), "{}", ended.stderr);
    let key = |name: &str| {
        let line = ended.stdout.lines().find(|line| line.starts_with(name)).context("no such line")?;
        line.split_whitespace().last().context("an empty line").map(str::to_owned)
    };
    let (public, secret) = (key("public key")?, key("secret key")?);
    let with_secret = |config: GatewayConfig| config.variable(AUTHORITY, &secret);
    let (_backend, gateway) = gateway_for_clients(with_secret).await?;
    ensure!(gateway.authority_key()? == public, "{} is not {public}", gateway.authority_key()?);
    // The reference implementation checks the certificate against the public key.
    let mut client = Client::connect(&gateway).await?;
    client.setup(0).await?;

    // And one with another key turns away.
    let other = run(folder.path(), &["keys", "generate"], &[]).await?;
    let other =
        other.stdout.lines().next().and_then(|line| line.split_whitespace().last()).unwrap().to_owned();
    ensure!(other != public);
    let stream = tokio::net::TcpStream::connect(gateway.address()?).await?;
    ensure!(Client::over(stream, &other).await.is_err(), "a certificate of another authority was accepted");
    let miner = ["miner", "--once", "--connect", gateway.address()?, "--authority-key", &other];
    let ended = run(folder.path(), &miner, &[]).await?;
    ensure!(ended.code == Some(1), "{:?}: {}", ended.code, ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_secret_key_in_a_file_serves_as_well_and_a_public_one_in_its_place_does_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ended = run(folder.path(), &["keys", "generate"], &[]).await?;
    let mut keys = ended.stdout.lines().filter_map(|line| line.split_whitespace().last());
    let (public, secret) = (keys.next().unwrap(), keys.next().unwrap());
    std::fs::write(folder.path().join("key"), format!("{secret}\n"))?;
    std::fs::write(folder.path().join("wrong"), format!("{public}\n"))?;
    for (file, code) in [("key", 0), ("wrong", CONFIG)] {
        let text = GOOD.replace("[miners]\n", &format!("[miners]\nauthority_secret_file = \"{file}\"\n"));
        std::fs::write(folder.path().join("gateway.toml"), text + ONE_POLICY)?;
        let ended = run(folder.path(), &["config", "check", "gateway.toml"], &[POOL]).await?;
        ensure!(ended.code == Some(code), "{file}: {:?}: {}", ended.code, ended.stderr);
        ensure!(!ended.stderr.contains(public), "a key is shown: {}", ended.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_command_line_exits_with_two_and_the_usage() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for arguments in [
        &["mine-gold"][..],
        &["run"],
        &["config"],
        &["miner", "--hashrate", "0"],
        &["policy"],
        &["policy", "replay"],
        &["policy", "bench", "any.wasm", "--runs", "0"],
        &["policy", "inspect", "any.wasm", "--format", "xml"],
        &[],
    ] {
        let ended = run(folder.path(), arguments, &[]).await?;
        ensure!(ended.code == Some(2), "{arguments:?}: {:?}", ended.code);
        ensure!(ended.stderr.contains("Usage") || ended.stderr.contains("error:"), "{}", ended.stderr);
    }
    let ended = run(folder.path(), &["--version"], &[]).await?;
    ensure!(ended.code == Some(0) && ended.stdout.starts_with("reservegrid "), "{}", ended.stdout);
    Ok(())
}

#[tokio::test]
async fn a_second_gateway_on_the_same_ledger_does_not_start() -> Result<()> {
    let (_backend, mut first) = gateway_for_clients(|config| config).await?;
    let mut second = Gateway::spawn(first.config())?;
    let status = second.process().wait(DEADLINE).await?;
    let said = second.process().stderr();
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(said.contains("another gateway is using this ledger") && said.contains("[ledger] dir"), "{said}");
    first.process().check_running()?;

    // The ledger is free again when the first one ends.
    ensure!(first.stop().await?.success());
    Gateway::start(first.config()).await?;
    Ok(())
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let backend = Backend::start("test", "a secret of the pool").await?;
    let floor = json!({ "min_avg_fee": { "low": 1, "mid": 1, "high": 1 } });
    let config = GatewayConfig::new("inline")?
        .embedded("207fffff", 5)
        .pool(&backend)
        .policy("fee-floor", &policy("fee-floor")?, &floor)?
        .set("miners", "listen", address.as_str());
    let mut gateway = Gateway::spawn(&config)?;
    let status = gateway.process().wait(DEADLINE).await?;
    let said = gateway.process().stderr();
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(said.contains("[miners] listen") && said.contains(&address), "{said}");
    Ok(())
}

#[tokio::test]
async fn configurations_are_explained_and_what_is_in_force_is_shown_without_secrets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("gateway.toml"), GOOD.to_owned() + ONE_POLICY)?;
    let keys = run(folder.path(), &["config", "keys", "--json"], &[]).await?;
    let keys: Value = serde_json::from_str(&keys.stdout)?;
    let all = keys.as_array().context("a list")?;
    ensure!(all.len() >= 51, "{}", all.len());
    let hold = all.iter().find(|key| key["variable"] == "RESERVEGRID_GATE__HOLD_TIMEOUT").context("a key")?;
    ensure!(hold["kind"] == "duration" && hold["default"] == "5s", "{hold}");
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md"))?;
    for key in all {
        let meaning = key["meaning"].as_str().context("a meaning")?;
        ensure!(page.contains(meaning), "the documentation says something else than {meaning:?}");
    }
    let shown = run_with_secrets(folder.path(), &["config", "show", "gateway.toml"]).await?;
    ensure!(shown.code == Some(0) && shown.stdout.contains("RESERVEGRID_POOL__SECRET"), "{}", shown.stdout);
    ensure!(!shown.stdout.contains(POOL.1), "a secret is shown: {}", shown.stdout);
    let faulty = run(folder.path(), &["config", "show", "gateway.toml"], &[]).await?;
    ensure!(faulty.code == Some(CONFIG) && faulty.stderr.contains("is missing"), "{}", faulty.stderr);
    let defaults = run(folder.path(), &["config", "defaults"], &[]).await?;
    ensure!(defaults.stdout.parse::<toml::Table>()?.contains_key("gate"), "{}", defaults.stdout);
    Ok(())
}

#[tokio::test]
async fn help_names_the_exit_codes_and_shells_get_their_completions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let help = run(folder.path(), &["--help"], &[]).await?;
    ensure!(help.stdout.contains("64  wrong configuration"), "{}", help.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let script = run(folder.path(), &["completions", shell], &[]).await?;
        let whole = ["policy", "config", "completions"].iter().all(|command| script.stdout.contains(command));
        ensure!(script.code == Some(0) && whole, "{shell}: {}", script.stdout);
    }
    for (name, value, said) in [
        ("RESERVEGRID_LOG", "warn,[", "RESERVEGRID_LOG: [log] levels: \"warn,[\" names no levels"),
        ("RESERVEGRID_LOG_FORMAT", "xml", "RESERVEGRID_LOG_FORMAT: [log] format: \"xml\" is not a choice"),
    ] {
        let ended = run(folder.path(), &["reasons"], &[(name, value)]).await?;
        ensure!(
            ended.code == Some(CONFIG) && ended.stderr.contains(said),
            "{:?}: {}",
            ended.code,
            ended.stderr
        );
    }
    Ok(())
}
