//! The gateway that a [`Client`](super::Client) talks to when a test does not care which.

use crate::{
    backend::Backend,
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
};
use anyhow::Result;
use serde_json::json;

/// Network target of [`gateway_for_clients`]: one of 65,537 hashes solves a block, so that a test finds
/// one on purpose at once and by accident hardly ever, and only if it does not look.
pub const BITS: &str = "1f00ffff";

/// A gateway on the embedded chain, and its backend, whose work changes when a block is found and at no
/// other time, however slow the machine is. `adjust` has the last word on the configuration.
///
/// # Errors
/// When one of the two does not start.
pub async fn gateway_for_clients(
    adjust: impl FnOnce(GatewayConfig) -> GatewayConfig,
) -> Result<(Backend, Gateway)> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let floor = json!({ "min_avg_fee": { "low": 1, "mid": 1, "high": 1 } });
    let config = GatewayConfig::new("inline")?
        .embedded(BITS, 20)
        .set("source", "refresh", "1h")
        .set("source", "stale_after", "1h")
        .set("gate", "verdict_timeout", "10s")
        .set("gate", "hold_timeout", "2m")
        // A channel keeps the target it was opened with, and every hash may be a share.
        .set("miners", "vardiff", "off")
        .set("miners", "min_difficulty", 0.0)
        .pool(&backend)
        .policy("fee-floor", &policy("fee-floor")?, &floor)?;
    let mut gateway = Gateway::start(&adjust(config)).await?;
    gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
    Ok((backend, gateway))
}
