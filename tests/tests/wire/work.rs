//! Jobs and tips as they reach miners, and the header of everything the gateway sends.

use super::client;
use anyhow::{Result, ensure};
use binary_sv2::U256;
use bitcoin::hashes::Hash;
use mining_sv2::UpdateChannel;
use parsers_sv2::{CommonMessagesOwned, Mining, MiningOwned};
use reservegrid_tests::{
    client::{Client, EASIEST, Message, Open, Share, gateway_for_clients, setup_payload},
    gateway::{Channel, DEADLINE, GatewayConfig},
};

#[tokio::test]
async fn a_new_tip_reaches_every_channel_as_a_future_job_and_the_tip_that_names_it() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let (mut finder, mut follower) = (client(&gateway, 0).await?, client(&gateway, 0).await?);
    let block = finder.open_standard("alice").await?;
    let mut other = client(&gateway, 0).await?;
    let mut standard = follower.open_standard("bob").await?;
    let mut extended = other.open_extended("bob").await?;

    let solution = block.solution()?;
    ensure!(finder.submit(&block, &solution).await?.is_accepted());
    for (follower, channel) in [(&mut follower, &mut standard), (&mut other, &mut extended)] {
        let before = channel.job.clone();
        // `follow` fails unless the job comes first, is a future job, and is the one that is named.
        ensure!(follower.follow(channel).await?, "{channel:?}");
        ensure!(channel.job.id != before.id && channel.job.prev_hash != before.prev_hash, "{channel:?}");
        ensure!(channel.job.prev_hash == block.header(&solution).block_hash().to_byte_array(), "{channel:?}");
        ensure!(follower.submit(channel, &channel.good_share(0)?).await?.is_accepted(), "{channel:?}");
    }
    gateway
        .wait_for_event("the switch", DEADLINE, |e| {
            e["event"] == "work_released" && e["reason"] == "prevhash_switched" && e["job"] == 2
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn new_transactions_on_the_same_tip_reach_miners_as_jobs_to_be_mined_at_once() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config.set("source", "refresh", "3s")).await?;
    for kind in [Channel::Standard, Channel::Extended] {
        let mut client = client(&gateway, 0).await?;
        let mut channel = client.open(&Open::new(kind, "alice")).await?;
        let before = channel.clone();
        ensure!(!client.follow(&mut channel).await?, "a job on the same tip: {channel:?}");
        ensure!(channel.job.min_ntime.is_some() && channel.job.id != before.job.id, "{channel:?}");
        ensure!(channel.job.ntime >= before.job.ntime, "time goes back: {channel:?}");
        let (old, new) = (before.good_share(0)?, channel.good_share(0)?);
        ensure!(before.header(&old).merkle_root != channel.header(&new).merkle_root, "the same transactions");
        ensure!(client.submit(&channel, &new).await?.is_accepted(), "{kind:?}: the new job");
        ensure!(
            client.submit(&before, &old).await?.is_accepted(),
            "{kind:?}: the job before, on the same tip"
        );
    }
    Ok(())
}

#[tokio::test]
async fn every_message_of_the_gateway_has_the_channel_bit_of_the_specification() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut refused = Client::connect(&gateway).await?;
    refused.send_raw_frame(0, false, 0x00, &setup_payload(1, (2, 2), 0, "tests")).await?;
    refused.until_closed().await?;

    // The client fails at the first wrong bit; here it hears everything that the gateway can say.
    let mut client = client(&gateway, 0).await?;
    client.open_refused(&Open { hashrate: f32::NAN, ..Open::new(Channel::Standard, "alice") }).await?;
    client.open_extended("alice").await?;
    let channel = client.open_standard("alice").await?;
    let half = [0x7f; 32];
    for (channel_id, maximum_target) in
        [(channel.id, U256::from(&half)), (channel.id + 50, U256::from(&EASIEST))]
    {
        let update = UpdateChannel { channel_id, nominal_hash_rate: 0.0, maximum_target };
        client.send(Mining::UpdateChannel(update)).await?;
    }
    client.send_raw_frame(0, true, 0x22, &custom_job(channel.id)).await?;
    let unknown = Share { job_id: 999, ..channel.share() };
    ensure!(!client.submit(&channel, &unknown).await?.is_accepted());
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    gateway.process().signal("TERM")?;
    let last = client.until_closed().await?;
    let goodbyes: Vec<_> = last
        .iter()
        .filter_map(|message| match message {
            Message::Mining(MiningOwned::CloseChannel(m)) => Some(m.reason_code.as_utf8_or_hex()),
            _ => None,
        })
        .collect();
    ensure!(goodbyes == ["shutdown_drain", "shutdown_drain"], "{last:?}");

    let seen: Vec<u8> = client.seen().union(refused.seen()).copied().collect();
    let all = [0x01, 0x02, 0x11, 0x12, 0x14, 0x15, 0x17, 0x18, 0x1c, 0x1d, 0x1f, 0x20, 0x21, 0x24];
    ensure!(seen == all, "came {seen:02x?}");
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_ends_sends_miners_elsewhere_where_that_is_configured() -> Result<()> {
    let elsewhere = |config: GatewayConfig| config.set("miners", "reconnect", "pool.example:34254");
    let (_backend, mut gateway) = gateway_for_clients(elsewhere).await?;
    let mut silent = Client::connect(&gateway).await?;
    let mut client = client(&gateway, 0).await?;
    let channel = client.open_standard("alice").await?;
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    gateway.process().signal("TERM")?;
    let last = client.until_closed().await?;
    match &last[..] {
        [Message::Common(CommonMessagesOwned::Reconnect(m))] => {
            ensure!(m.new_host.as_utf8_or_hex() == "pool.example" && m.new_port == 34_254, "{m:?}");
        }
        other => anyhow::bail!("awaited Reconnect and no more, came {other:?}"),
    }
    // Before SetupConnection no other message has a meaning.
    ensure!(silent.until_closed().await?.is_empty());
    Ok(())
}

/// The shortest SetCustomMiningJob.
fn custom_job(channel_id: u32) -> Vec<u8> {
    let mut payload = channel_id.to_le_bytes().to_vec();
    // Request id, empty token, version, previous hash; time, target and version of the coinbase; empty
    // prefix, sequence, empty outputs, lock time, empty merkle path.
    payload.extend([0; 4 + 1 + 4 + 32 + 12 + 1 + 4 + 2 + 4 + 1]);
    payload
}
