//! Jobs and tips as they reach miners, and the header of everything the gateway sends.

use super::client;
use anyhow::{Context, Result, ensure};
use binary_sv2::U256;
use bitcoin::hashes::Hash;
use mining_sv2::UpdateChannel;
use parsers_sv2::Mining;
use reservegrid_tests::{
    client::{Client, EASIEST, Open, channel_bit, gateway_for_clients, setup_payload},
    gateway::{Channel, DEADLINE},
};
use std::collections::BTreeSet;

#[tokio::test]
async fn a_new_tip_reaches_every_channel_as_a_future_job_and_the_tip_that_names_it() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let (mut finder, mut follower) = (client(&gateway, 0).await?, client(&gateway, 0).await?);
    let block = finder.open_standard("alice").await?;
    let mut standard = follower.open_standard("bob").await?;
    let mut extended = follower.open_extended("bob").await?;

    let solution = block.solution()?;
    ensure!(finder.submit(&block, &solution).await?.is_accepted());
    for channel in [&mut standard, &mut extended] {
        let before = channel.job.clone();
        // `follow` fails unless the job comes first, is a future job, and is the one that is named.
        ensure!(follower.follow(channel).await?, "{channel:?}");
        ensure!(channel.job.id != before.id && channel.job.prev_hash != before.prev_hash, "{channel:?}");
        ensure!(channel.job.prev_hash == block.header(&solution).block_hash().to_byte_array(), "{channel:?}");
        ensure!(follower.submit(channel, &channel.good_share(0)?).await?.is_accepted(), "{channel:?}");
    }
    ensure!(standard.job.id != extended.job.id, "two jobs of one connection have the same id");
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
    let mut client = client(&gateway, 0).await?;
    for kind in [Channel::Standard, Channel::Extended] {
        let mut channel = client.open(&Open::new(kind, "alice")).await?;
        let before = channel.clone();
        ensure!(!client.follow(&mut channel).await?, "a job on the same tip: {channel:?}");
        ensure!(channel.job.min_ntime.is_some() && channel.job.id != before.job.id, "{channel:?}");
        ensure!(channel.job.ntime >= before.job.ntime, "time goes back: {channel:?}");
        let (old, new) = (before.good_share(0)?, channel.good_share(0)?);
        ensure!(before.header(&old).merkle_root != channel.header(&new).merkle_root, "the same transactions");
        ensure!(client.submit(&channel, &new).await?.is_accepted(), "{kind:?}: the new job");
        ensure!(client.submit(&before, &old).await?.is_accepted(), "{kind:?}: the job before, on the same tip");
    }
    Ok(())
}

#[tokio::test]
async fn every_message_of_the_gateway_has_the_channel_bit_of_the_specification() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut refused = Client::connect(&gateway).await?;
    refused.send_raw_frame(0, false, 0x00, &setup_payload(1, (2, 2), 0, "tests")).await?;

    let mut client = Client::connect(&gateway).await?;
    client.send_raw_frame(0, false, 0x00, &setup_payload(0, (2, 2), 0, "tests")).await?;
    let (standard, extended) = (Open::new(Channel::Standard, "alice"), Open::new(Channel::Extended, "alice"));
    client.request_open(&Open { hashrate: f32::NAN, ..standard.clone() }).await?;
    client.request_open(&standard).await?;
    client.request_open(&extended).await?;
    // Channel ids of their own accord are no test of what is sent for them: ids are read off a twin.
    let mut twin = super::client(&gateway, 0).await?;
    let channel = twin.open(&standard).await?;
    for (id, target) in [(channel.id, [0x7f; 32]), (channel.id + 50, EASIEST)] {
        let maximum_target = U256::from(&target);
        let update = UpdateChannel { channel_id: id, nominal_hash_rate: 0.0, maximum_target };
        client.send(Mining::UpdateChannel(update)).await?;
    }
    let mut share = channel.share();
    share.job_id += 999;
    client.send_share(channel.id, &share).await?;
    client.send_raw_frame(0, true, 0x22, &custom_job(channel.id)).await?;
    let solution = twin.submit(&channel, &channel.solution()?).await?;
    ensure!(solution.is_accepted(), "{solution:?}");

    let mut seen = BTreeSet::new();
    let mut look = async |client: &mut Client, last: Option<u8>| -> Result<()> {
        loop {
            let frame = client.next_frame().await.with_context(|| format!("so far {seen:02x?}"))?;
            let Some(frame) = frame else { return Ok(()) };
            ensure!(frame.extension == 0, "{frame:02x?}");
            ensure!(channel_bit(frame.msg_type) == Some(frame.channel_bit), "{frame:02x?}");
            seen.insert(frame.msg_type);
            if Some(frame.msg_type) == last {
                return Ok(());
            }
        }
    };
    look(&mut refused, None).await?;
    // SetCustomMiningJob.Error comes last of what was asked for.
    look(&mut client, Some(0x24)).await?;
    gateway.process().signal("TERM")?;
    look(&mut client, None).await?;
    let mut twin_seen = BTreeSet::new();
    while let Some(frame) = twin.next_frame().await? {
        ensure!(channel_bit(frame.msg_type) == Some(frame.channel_bit), "{frame:02x?}");
        twin_seen.insert(frame.msg_type);
    }
    let all = [0x01, 0x02, 0x11, 0x12, 0x14, 0x15, 0x17, 0x18, 0x1d, 0x1f, 0x20, 0x21, 0x24];
    ensure!(seen.iter().copied().eq(all), "came {seen:02x?}");
    Ok(())
}

/// The shortest SetCustomMiningJob.
fn custom_job(channel_id: u32) -> Vec<u8> {
    let mut payload = channel_id.to_le_bytes().to_vec();
    payload.extend(1u32.to_le_bytes()); // request id
    payload.push(0); // token
    payload.extend([0; 4]); // version
    payload.extend([0; 32]); // previous hash
    payload.extend([0; 4 + 4 + 4]); // time, target, version of the coinbase
    payload.push(0); // prefix
    payload.extend([0; 4]); // sequence
    payload.extend([0; 2]); // outputs
    payload.extend([0; 4]); // lock time
    payload.push(0); // merkle path
    payload
}
