//! A gateway with two miners on it, Alice on a standard channel and Bob on an extended one, and one policy whose
//! strictness a test chooses.

use crate::{
    backend::Backend,
    gateway::{Channel, DEADLINE, Gateway, GatewayConfig, Miner, policy},
};
use anyhow::Result;
use serde_json::{Value, json};

/// A floor that no template of the embedded chain reaches.
pub const TOO_MUCH: u64 = 1_000_000_000;

/// Settings of the policy `fee-floor`.
pub fn floor(min_avg_fee: u64) -> Value {
    json!({ "min_avg_fee": { "low": min_avg_fee, "mid": min_avg_fee, "high": min_avg_fee } })
}

/// An inline gateway of the embedded chain with an HTTP surface, for slow miners of whose hashes nearly every one
/// is a share. It looks at no file by itself.
///
/// # Errors
/// When there is no folder for it, or no policy.
pub fn config(backend: &Backend, min_avg_fee: u64) -> Result<GatewayConfig> {
    GatewayConfig::new("inline")?
        .embedded("1b00ffff", 20)
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

/// The same with another floor.
///
/// # Errors
/// When there is no policy.
pub fn with_floor(config: &GatewayConfig, min_avg_fee: u64) -> Result<GatewayConfig> {
    config.clone().without_policies().policy("fee-floor", &policy("fee-floor")?, &floor(min_avg_fee))
}

/// Starts the two, and waits until each has a share accepted.
///
/// # Errors
/// When that does not happen.
pub async fn miners(gateway: &mut Gateway, hashrate: u64) -> Result<[Miner; 2]> {
    let miners = [
        Miner::start(gateway, Channel::Standard, hashrate, "alice")?,
        Miner::start(gateway, Channel::Extended, hashrate, "bob")?,
    ];
    let has_a_share = |events: &[Value], user: &str| {
        events.iter().any(|e| e["event"] == "share_accepted" && e["user_identity"] == *user)
    };
    gateway
        .wait_until("a share of both", DEADLINE, |events| {
            ["alice", "bob"].iter().all(|user| has_a_share(events, user))
        })
        .await?;
    Ok(miners)
}
