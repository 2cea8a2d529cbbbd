//! A real Prometheus scrapes the gateway and evaluates the alerts of the examples, while things go wrong.

use super::{Pool, config};
use anyhow::{Result, ensure};
use reservegrid_tests::{
    backend::Behaviour,
    gateway::DEADLINE,
    pair::{TOO_MUCH, with_floor},
    prometheus::{Prometheus, promtool},
};

#[test]
fn the_rules_of_the_examples_are_well_formed_and_fire_when_they_should() -> Result<()> {
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "alerts.yml"],
        &["test", "rules", "alerts_test.yml"],
    ] {
        let done = promtool(arguments, "")?;
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{arguments:?}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_hold_rejections_and_a_dead_backend_fire_their_alerts_and_nothing_else_does() -> Result<()> {
    let mut pool = Pool::start(|backend| config(backend, 1), 60).await?;
    let mut prometheus = Prometheus::start(pool.gateway.api()?).await?;
    // Healthy: everything is there and nothing fires.
    reservegrid_tests::wait::until("a scrape", DEADLINE, async || {
        let accepted = prometheus.value("reservegrid_shares_accepted_total").await?;
        Ok((accepted > Some(0.0)).then_some(()))
    })
    .await?;
    ensure!(prometheus.value("up").await? == Some(1.0));
    ensure!(prometheus.value("reservegrid_gate_phase{phase=\"following\"}").await? == Some(1.0));
    ensure!(prometheus.value("reservegrid_connections").await? == Some(2.0));
    let ours = ["GateHolding", "RejectionsInARow", "BackendDead", "GateExpired", "SourceSilent"];
    let firing = prometheus.firing().await?;
    ensure!(!ours.iter().any(|alert| firing.contains(*alert)), "{firing:?}");

    pool.backend.behave(Behaviour::ServerError);
    prometheus.wait_for("BackendDead", true).await?;
    ensure!(!prometheus.firing().await?.contains("GateHolding"));
    pool.backend.behave(Behaviour::Accept);
    prometheus.wait_for("BackendDead", false).await?;

    // A policy that refuses everything: what miners have is taken back, and each new template is refused.
    with_floor(&pool.config, TOO_MUCH)?.write()?;
    pool.gateway.process().signal("HUP")?;
    prometheus.wait_for("GateHolding", true).await?;
    prometheus.wait_for("RejectionsInARow", true).await?;
    let firing = prometheus.firing().await?;
    for quiet in
        ["GateExpired", "SourceSilent", "BackendDead", "BlockRefused", "LedgerRefuses", "GatewayDown"]
    {
        ensure!(!firing.contains(quiet), "{quiet} fires for nothing: {firing:?}");
    }
    // And back.
    with_floor(&pool.config, 1)?.write()?;
    pool.gateway.process().signal("HUP")?;
    prometheus.wait_for("GateHolding", false).await?;
    prometheus.wait_for("RejectionsInARow", false).await?;

    pool.gateway.process().kill()?;
    prometheus.wait_for("GatewayDown", true).await
}
