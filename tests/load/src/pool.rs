//! What is measured: the gateway, started here, or any pool that runs already.

use crate::usage;
use anyhow::{Context, Result};
use reservegrid_tests::{
    backend::Backend,
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
};
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A pool to be driven.
pub struct Pool {
    /// Where miners connect.
    pub address: SocketAddr,
    /// Its process, when that is on this machine.
    pub pid: Option<u32>,
    /// The gateway, when it was started here.
    pub own: Option<Own>,
    _bare: Option<Bare>,
}

/// A gateway of ours.
pub struct Own {
    /// The gateway.
    pub gateway: Gateway,
    /// Its pool backend.
    pub backend: Backend,
}

/// A process that ends with its handle.
struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pool {
    /// A pool that runs already.
    pub fn elsewhere(address: SocketAddr, pid: Option<u32>) -> Self {
        Self { address, pid, own: None, _bare: None }
    }

    /// Starts the gateway on its embedded chain with limits that a crowd from one machine does not meet;
    /// `adjust` has the last word. One policy that accepts: what policies cost is measured elsewhere.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(adjust: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Result<Self> {
        let backend = Backend::start("load", "a secret of the pool").await?;
        let floor = json!({ "min_avg_fee": { "low": 1, "mid": 1, "high": 1 } });
        let config = GatewayConfig::new("inline")?
            // One of 2^32 hashes solves a block, so that none does by accident.
            .embedded("1d00ffff", 200)
            .set("source", "refresh", "1h")
            .set("source", "stale_after", "1h")
            .set("gate", "verdict_timeout", "10s")
            .set("gate", "hold_timeout", "2m")
            .set("events", "console", "off")
            .set("miners", "vardiff", "off")
            .set("miners", "min_difficulty", 0.0)
            .set("miners", "max_connections", 50_000)
            .set("miners", "max_connections_per_address", 50_000)
            .set("miners", "max_handshakes", 50_000)
            .set("miners", "max_handshakes_per_address", 50_000)
            .set("miners", "handshake_timeout", "1m")
            .set("miners", "setup_timeout", "1m")
            .set("miners", "max_shares_per_second", 1_000_000)
            .set("miners", "max_unanswered_shares", 100_000)
            .pool(&backend)
            .policy("fee-floor", &policy("fee-floor")?, &floor)?;
        let mut gateway = Gateway::start(&adjust(config)).await?;
        gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
        let (address, pid) = (gateway.address()?.parse()?, gateway.process().id());
        Ok(Self { address, pid: Some(pid), own: Some(Own { gateway, backend }), _bare: None })
    }

    /// Starts the mining server alone ([`bare`](crate::bare)) in a process of its own: `program serve-bare`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn bare(program: &Path, success_batch: u32) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["serve-bare", "--success-batch", &success_batch.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let pid = child.id();
        let child = Bare(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("no address: {line:?}"))?;
        Ok(Self { address, pid: Some(pid), own: None, _bare: Some(child) })
    }

    /// Processor time so far; zero for a pool on another machine.
    ///
    /// # Errors
    /// When its process is gone.
    pub fn cpu(&self) -> Result<Duration> {
        self.pid.map_or(Ok(Duration::ZERO), usage::cpu)
    }

    /// Resident memory, bytes; zero for a pool on another machine.
    ///
    /// # Errors
    /// When its process is gone.
    pub fn resident(&self) -> Result<u64> {
        self.pid.map_or(Ok(0), usage::resident)
    }
}
