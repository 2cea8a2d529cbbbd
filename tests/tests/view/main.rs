//! The operator's view of a running gateway: its HTTP surface, the event stream, the dashboard in a real
//! browser, a real Prometheus with the alerts of the examples, logs, reloads, and the quick start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alerts;
mod api;
mod dashboard;
mod logs;
mod packaging;
mod quick_start;
mod reload;
mod stream;
mod surface;

use anyhow::Result;
use reservegrid_tests::{
    backend::Backend,
    gateway::{Gateway, GatewayConfig, Miner},
    pair,
};

const SECRET: &str = "a secret of the pool";

/// A gateway whose every third template pays little.
fn config(backend: &Backend, min_avg_fee: u64) -> Result<GatewayConfig> {
    Ok(pair::config(backend, min_avg_fee)?.embedded("1f00ffff", 30).set("source", "refresh", "400ms").set(
        "source",
        "low_fee_every",
        3,
    ))
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
        let miners = pair::miners(&mut gateway, hashrate).await?;
        Ok(Self { backend, gateway, config, _miners: miners })
    }
}
