//! `docs/policies/writing-a-policy.md`, done as it says: every command in it runs, in order, against a
//! gateway that is judging templates.

#![allow(missing_docs)]

use anyhow::{Context, Result, ensure};
use reservegrid_tests::gateway::{Gateway, GatewayConfig, binary, policy};
use serde_json::json;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// Compiling a policy for the first time compiles the standard library, on some machines.
const COMPILER: Duration = Duration::from_secs(1500);
const DEADLINE: Duration = Duration::from_secs(60);

/// The shell commands of a page, block by block.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split_once("\n```")).map(|(commands, _)| commands).collect()
}

#[tokio::test]
async fn the_walk_through_for_authors_works_as_it_is_written() -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(repository.join("docs/policies/writing-a-policy.md"))?;
    let blocks = commands(&page);
    let (first, rest) = blocks.split_first().context("the page has no commands")?;
    ensure!(first.contains("cd my-rule"), "the first block makes the project: {first}");

    let config = GatewayConfig::new("shadow")?
        .embedded("1b00ffff", 20)
        .set("source", "refresh", "300ms")
        .set("api", "listen", "127.0.0.1:0")
        .set("swap", "watch", "0s")
        .policy("fee-floor", &policy("fee-floor")?, &json!({ "min_avg_fee": { "mid": 1, "high": 1 } }))?;
    let mut gateway = Gateway::start(&config).await?;
    let before = gateway.wait_for_event("a verdict", DEADLINE, |e| e["event"] == "template_judged").await?;

    // In one place, so that the compiler's work is kept from run to run.
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("new-policy");
    let project = place.join("my-rule");
    if project.exists() {
        fs::remove_dir_all(&project)?;
    }
    fs::create_dir_all(&place)?;
    // The versions of this repository, which are on this machine.
    let script = format!("{first}\ncp \"$LOCK\" Cargo.lock\n{}\n", rest.join("\n"));
    let binary = binary()?;
    let folder = binary.parent().context("the binary has no folder")?;
    let path = env::join_paths(
        std::iter::once(folder.to_owned()).chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(&place)
        .env("PATH", path)
        .env("LOCK", repository.join("Cargo.lock"))
        .env("CONFIG", config.file())
        .env("API", gateway.api()?)
        .env("CARGO_TARGET_DIR", place.join("target"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = timeout(COMPILER, shell.output()).await.context("the commands take too long")??;
    let (said, noise) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{said}\n{noise}", output.status);
    for words in ["test result: ok. 2 passed", "2 cases, 2 passed, 0 failed", "replaceable_above_limit"] {
        ensure!(said.contains(words), "{words:?} is not in\n{said}\n{noise}");
    }

    // What the gateway lived through: two swaps, each compared on templates that it had judged, and a step back.
    let swaps = gateway.events_named("policy_set_swapped")?;
    ensure!(swaps.len() == 2 && swaps.iter().all(|swap| swap["trigger"] == "http"), "{swaps:?}");
    ensure!(swaps[0]["from"] == before["policy_set"], "{swaps:?}");
    ensure!(swaps.iter().all(|swap| swap["difference"]["replayed"].as_u64() >= Some(1)), "{swaps:?}");
    let back = gateway.events_named("policy_set_rolled_back")?;
    ensure!(back.len() == 1 && back[0]["to"] == swaps[0]["to"], "{back:?}");
    ensure!(gateway.stop().await?.success());
    Ok(())
}
