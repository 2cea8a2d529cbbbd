//! The promise of the ledger, checked from outside: from the event stream or the ledger's own export, and
//! from the pool's books.

use crate::{
    backend::Backend,
    gateway::{GatewayConfig, command},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, process::Output};

/// Runs `reservegrid ledger` with these arguments on the ledger of a configuration.
///
/// # Errors
/// When there is no binary.
pub fn ledger(config: &GatewayConfig, subcommand: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = command()?;
    command.args(["ledger", subcommand]).arg(config.ledger()).args(arguments);
    Ok(command.envs(config.variables()).output()?)
}

/// Every record of a ledger, as `reservegrid ledger export` gives them.
///
/// # Errors
/// When it is not as it was written.
pub fn ledger_records(config: &GatewayConfig) -> Result<Vec<Value>> {
    let output = ledger(config, "export", &[])?;
    ensure!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What `reservegrid ledger verify` says.
///
/// # Errors
/// When it finds a fault; the error is its words.
pub fn verified(config: &GatewayConfig) -> Result<Value> {
    let output = ledger(config, "verify", &["--format", "json"])?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_str(&said)?)
}

/// Checks that every accepted share has exactly one result, and that the backend has exactly these
/// shares, under signatures that were right. Gives their number.
///
/// # Errors
/// Names the first share for which it is not so.
pub fn check_every_share_has_one_result(events: &[Value], backend: &Backend) -> Result<usize> {
    let mut results: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for event in events {
        let id = || event["share_id"].as_str().context("a share event without share_id");
        if event["event"] == "share_accepted" {
            results.entry(id()?).or_default().0 += 1;
        } else if event["event"] == "share_forward_result" {
            results.entry(id()?).or_default().1 += 1;
        }
    }
    for (id, counts) in &results {
        ensure!(*counts == (1, 1), "share {id} was accepted {} times and has {} results", counts.0, counts.1);
    }
    let paid = backend.shares();
    ensure!(
        paid.keys().eq(results.keys()),
        "the backend has {} shares, the events {}",
        paid.len(),
        results.len()
    );
    ensure!(backend.bad_signatures() == 0, "{} requests with a bad signature", backend.bad_signatures());
    Ok(results.len())
}
