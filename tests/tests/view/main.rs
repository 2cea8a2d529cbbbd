//! The operator's view of a running gateway: its HTTP surface, the event stream, the dashboard in a real
//! browser, a real Prometheus with the alerts of the examples, logs, reloads, and the quick start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alerts;
mod api;
mod dashboard;
mod logs;
mod quick_start;
mod reload;
mod stream;
mod surface;

use anyhow::Result;
use reservegrid_tests::{
    backend::Backend,
    gateway::{Channel, DEADLINE, Gateway, GatewayConfig, Miner, policy},
};
use serde_json::{Value, json};

const SECRET: &str = "a secret of the pool";
/// No template of the embedded chain pays that much.
const TOO_MUCH: u64 = 1_000_000_000;

fn floor(min_avg_fee: u64) -> Value {
    json!({ "min_avg_fee": { "low": min_avg_fee, "mid": min_avg_fee, "high": min_avg_fee } })
}

/// An inline gateway of the embedded chain whose every third template pays little.
fn config(backend: &Backend, min_avg_fee: u64) -> Result<GatewayConfig> {
    GatewayConfig::new("inline")?
        .embedded("1f00ffff", 30)
        .set("source", "refresh", "400ms")
        .set("source", "low_fee_every", 3)
        .set("gate", "verdict_timeout", "10s")
        .set("gate", "hold_timeout", "5m")
        .set("miners", "shares_per_minute", 600.0)
        .set("miners", "vardiff", "off")
        .set("miners", "min_difficulty", 0.0)
        .set("api", "listen", "127.0.0.1:0")
        .set("swap", "watch", "0s")
        .pool(backend)
        .policy("fee-floor", &policy("fee-floor")?, &floor(min_avg_fee))
}

fn with_floor(config: &GatewayConfig, min_avg_fee: u64) -> Result<GatewayConfig> {
    config.clone().without_policies().policy("fee-floor", &policy("fee-floor")?, &floor(min_avg_fee))
}

/// A gateway with two miners that have a share accepted already.
struct Pool {
    backend: Backend,
    gateway: Gateway,
    config: GatewayConfig,
    _miners: [Miner; 2],
}

impl Pool {
    async fn start(config: impl FnOnce(&Backend) -> Result<GatewayConfig>, hashrate: u64) -> Result<Self> {
        let backend = Backend::start("test", SECRET).await?;
        let config = config(&backend)?;
        let mut gateway = Gateway::start(&config).await?;
        let miners = [
            Miner::start(&gateway, Channel::Standard, hashrate, "alice")?,
            Miner::start(&gateway, Channel::Extended, hashrate, "bob")?,
        ];
        gateway
            .wait_until("a share of both", DEADLINE, |events| {
                ["alice", "bob"].iter().all(|user| {
                    events.iter().any(|e| e["event"] == "share_accepted" && e["user_identity"] == *user)
                })
            })
            .await?;
        Ok(Self { backend, gateway, config, _miners: miners })
    }
}
