//! Difficulty that follows the accepted shares, and its bounds. The rules themselves are tested on a
//! simulated clock in the gateway.

use super::client;
use anyhow::{Result, bail, ensure};
use bitcoin::Target;
use parsers_sv2::MiningOwned;
use reservegrid_tests::{
    client::{Client, EASIEST, Open, OpenChannel, REQUIRES_STANDARD_JOBS, Share, gateway_for_clients},
    gateway::{Channel, DEADLINE, GatewayConfig},
};

/// Hands in whatever hashes there are until the target changes; gives the new one.
async fn flood_until_retargeted(client: &mut Client, channel: &OpenChannel) -> Result<[u8; 32]> {
    let network = channel.network_target();
    let mut share = channel.share();
    loop {
        share = channel.find(&share, |hash| !network.is_met_by(hash))?;
        let answer = client.submit(channel, &share).await?;
        ensure!(answer.is_accepted(), "{answer:?}");
        share = Share { nonce: share.nonce + 1, ..share };
        let told = client.heard(|m| match m {
            MiningOwned::SetTarget(m) if m.channel_id == channel.id => Some(m.maximum_target.to_array()),
            _ => None,
        });
        if let Some(target) = told {
            return Ok(target);
        }
    }
}

#[tokio::test]
async fn too_many_shares_make_a_harder_target_for_the_next_job_which_comes_with_it() -> Result<()> {
    let on =
        |config: GatewayConfig| config.set("miners", "vardiff", "on").set("miners", "shares_per_minute", 6.0);
    for (kind, flags) in
        [(Channel::Standard, REQUIRES_STANDARD_JOBS), (Channel::Standard, 0), (Channel::Extended, 0)]
    {
        let (_backend, mut gateway) = gateway_for_clients(on).await?;
        let mut client = client(&gateway, flags).await?;
        let mut channel = client.open(&Open::new(kind, "alice")).await?;
        let before = channel.clone();
        let bytes = flood_until_retargeted(&mut client, &channel).await?;
        let target = Target::from_le_bytes(bytes);
        ensure!(target < before.share_target() && target >= before.network_target(), "{bytes:02x?}");

        // The same work again, for this channel, with a later time.
        ensure!(!client.follow(&mut channel).await?, "a job on the same tip: {channel:?}");
        ensure!(channel.job.id != before.job.id && channel.job.ntime > before.job.ntime, "{channel:?}");
        ensure!(channel.job.prev_hash == before.job.prev_hash, "{channel:?}");

        // Each job has the target it was sent with.
        let low = |hash| !target.is_met_by(hash);
        let start = |channel: &OpenChannel| Share { nonce: 1 << 20, ..channel.share() };
        let answer = client.submit(&before, &before.find(&start(&before), low)?).await?;
        ensure!(answer.is_accepted(), "{kind:?}, the old job: {answer:?}");
        let answer = client.submit(&channel, &channel.find(&start(&channel), low)?).await?;
        ensure!(answer.code() == "difficulty-too-low", "{kind:?}, the new job: {answer:?}");
        let good = channel.find(&start(&channel), |hash| target.is_met_by(hash))?;
        let answer = client.submit(&channel, &good).await?;
        ensure!(answer.is_accepted(), "{kind:?}, the new job: {answer:?}");

        let told = gateway.wait_for_event("it", DEADLINE, |e| e["event"] == "target_changed").await?;
        let shares = told["shares"].as_u64().unwrap_or(0);
        let (hashrate, window) = (told["hashrate"].as_f64(), told["window_s"].as_f64());
        let (Some(hashrate), Some(window)) = (hashrate, window) else { bail!("{told}") };
        // Each share was one hash.
        ensure!(shares > 0 && window >= 1.0, "{told}");
        ensure!((hashrate * window / shares as f64 - 1.0).abs() < 0.01, "{told}");
        ensure!(told["user_identity"] == "alice" && told["channel"] == channel.id, "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn silence_makes_an_easier_target_down_to_what_the_pool_allows() -> Result<()> {
    // One share of 16,384 hashes, wanted ten times a second.
    let floor = 16_384.0 / 4_295_032_833.0;
    let on = |config: GatewayConfig| {
        config.set("miners", "vardiff", "on").set("miners", "shares_per_minute", 600.0).set(
            "miners",
            "min_difficulty",
            floor,
        )
    };
    let (_backend, gateway) = gateway_for_clients(on).await?;
    let mut client = client(&gateway, 0).await?;
    // A hash rate that is not there asks for the network's target.
    let channel = client.open(&Open { hashrate: 1e12, ..Open::new(Channel::Extended, "braggart") }).await?;
    ensure!(channel.share_target() == channel.network_target(), "{:02x?}", channel.target);
    let mut target = channel.share_target();
    let easiest = loop {
        let told = client.pick("SetTarget", |m| match m {
            MiningOwned::SetTarget(m) => Some(Target::from_le_bytes(m.maximum_target.to_array())),
            _ => None,
        });
        let told = told.await?;
        ensure!(told > target, "silence made it harder");
        target = told;
        let hashes = 1.0
            / (target.to_be_bytes()[..4].iter().fold(0.0, |n, b| n * 256.0 + f64::from(*b)) / 2f64.powi(32));
        if hashes < 16_500.0 {
            break hashes;
        }
    };
    ensure!(easiest > 16_200.0, "easier than the pool allows: one of {easiest} hashes");
    Ok(())
}

#[tokio::test]
async fn a_hash_rate_of_nothing_does_not_make_every_hash_a_share() -> Result<()> {
    let floor = |config: GatewayConfig| config.set("miners", "min_difficulty", 1000.0 / 4_295_032_833.0);
    let (_backend, gateway) = gateway_for_clients(floor).await?;
    let mut client = client(&gateway, 0).await?;
    for hashrate in [0.0, f32::MIN_POSITIVE, 1.0] {
        let channel = client.open(&Open { hashrate, ..Open::new(Channel::Standard, "modest") }).await?;
        // One of 1,000 hashes: 2^256 / 1,000 = 0x0041…
        ensure!(channel.target[30..] == [0x41, 0x00], "{hashrate}: {:02x?}", channel.target);
        ensure!(channel.target != EASIEST);
    }
    Ok(())
}
