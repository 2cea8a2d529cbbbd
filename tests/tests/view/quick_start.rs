//! The quick start of the documentation, done as it says: the shadow example, edited, against a real node.

use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    gateway::{DEADLINE, command, policy},
    node::Node,
    process::Process,
    wait,
};
use std::{path::Path, process::Command};

#[tokio::test]
async fn the_shadow_example_gives_a_verdict_on_a_real_nodes_template() -> Result<()> {
    let node = Node::start().await?;
    let folder = tempfile::tempdir()?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shadow.toml");
    let policies = policy("fee-floor")?.parent().context("a folder")?.display().to_string();
    // Step 2: where the node is, and (there is another target folder here) where the policies are.
    let mut text = std::fs::read_to_string(example)?;
    for (before, after) in [
        ("http://127.0.0.1:8332", node.url()),
        ("\"mainnet\"", "\"regtest\""),
        ("/var/lib/bitcoind/.cookie", &node.cookie_file().display().to_string()),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"),
        ("../target/policies", &policies),
    ] {
        ensure!(text.contains(before), "the example has no {before}");
        text = text.replace(before, after);
    }
    // Step 4, with a port that is free.
    text += "\n[api]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("mine.toml"), text)?;
    let start = |name: &str, arguments: &[&str]| -> Result<Process> {
        let mut command: Command = command()?;
        command.args(arguments).current_dir(folder.path());
        Process::start(name, command, folder.path())
    };
    let mut check = start("check", &["config", "check", "mine.toml"])?;
    ensure!(check.wait(DEADLINE).await?.success(), "{}", check.tail());

    // Step 3: the line that the page promises.
    let mut gateway = start("gateway", &["run", "--config", "mine.toml"])?;
    let line = wait::until("a verdict", DEADLINE, async || {
        gateway.check_running()?;
        Ok(gateway.stdout().lines().find(|line| line.contains("(shadow) height")).map(str::to_owned))
    });
    let line = line.await?;
    ensure!(line.contains("sat fees") && line.contains("judged in"), "{line}");
    let out = gateway.stdout();
    let told = out.lines().find_map(|line| line.split_once("dashboard: http://"));
    let address = told.context("no address of the HTTP surface")?.1.trim_end_matches('/');
    let page = reqwest::get(format!("http://{address}/")).await?.text().await?;
    ensure!(page.contains("<title>ReserveGrid</title>"), "{page}");
    let ready = reqwest::get(format!("http://{address}/v1/ready")).await?;
    ensure!(ready.status().is_success(), "{}", ready.text().await?);
    Ok(())
}
