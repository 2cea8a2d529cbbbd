//! Group channels: unless a client wants standard jobs, its channels hear of new work together (SV2
//! specification 05, "Group channel").

use super::client;
use anyhow::{Result, bail, ensure};
use parsers_sv2::MiningOwned;
use reservegrid_tests::{
    client::{Client, Message, OpenChannel, REQUIRES_STANDARD_JOBS, gateway_for_clients},
    gateway::{Channel, GatewayConfig},
};
use std::collections::BTreeSet;

async fn four_channels(client: &mut Client) -> Result<Vec<OpenChannel>> {
    let mut channels = Vec::new();
    for kind in [Channel::Standard, Channel::Extended, Channel::Standard, Channel::Extended] {
        let user = format!("{kind:?}");
        channels.push(match kind {
            Channel::Standard => client.open_standard(&user).await?,
            Channel::Extended => client.open_extended(&user).await?,
        });
    }
    Ok(channels)
}

async fn mining_message(client: &mut Client) -> Result<MiningOwned> {
    match client.next_message().await? {
        Message::Mining(message) => Ok(message),
        other => bail!("awaited a message of the mining protocol, came {other:?}"),
    }
}

#[tokio::test]
async fn a_new_tip_reaches_a_group_as_one_future_job_and_one_tip() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let (mut finder, mut proxy) = (client(&gateway, 0).await?, client(&gateway, 0).await?);
    let block = finder.open_standard("finder").await?;
    let mut channels = four_channels(&mut proxy).await?;
    let before = channels.clone();
    let group = channels[0].group;
    ensure!(channels.iter().all(|channel| channel.group == group), "{channels:?}");

    ensure!(finder.submit(&block, &block.solution()?).await?.is_accepted());
    let (job, tip) = (mining_message(&mut proxy).await?, mining_message(&mut proxy).await?);
    ensure!(matches!(&job, MiningOwned::NewExtendedMiningJob(m) if m.channel_id == group), "{job:?}");
    ensure!(matches!(&tip, MiningOwned::SetNewPrevHash(m) if m.channel_id == group), "{tip:?}");
    for channel in &mut channels {
        let job_id = channel.take_job(&job)?;
        ensure!(channel.job.min_ntime.is_none(), "a future job: {channel:?}");
        channel.take_tip(job_id, &tip)?;
        ensure!(before.iter().all(|old| old.job.id != job_id), "a job id came twice");
    }
    // Every channel can mine it, and what comes next are the answers and nothing else.
    for (channel, old) in channels.iter().zip(&before) {
        let number = proxy.send_share(channel.id, &channel.good_share(0)?).await?;
        let answer = mining_message(&mut proxy).await?;
        let MiningOwned::SubmitSharesSuccess(m) = answer else { bail!("{answer:?}") };
        ensure!((m.channel_id, m.last_sequence_number) == (channel.id, number), "{m:?}");
        let answer = proxy.submit(old, &old.good_share(0)?).await?;
        ensure!(answer.code() == "stale-share", "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn new_transactions_reach_a_group_as_one_job_to_be_mined_at_once() -> Result<()> {
    let refresh = |config: GatewayConfig| config.set("source", "refresh", "3s");
    let (_backend, gateway) = gateway_for_clients(refresh).await?;
    let mut proxy = client(&gateway, 0).await?;
    let mut channels = four_channels(&mut proxy).await?;
    // A refresh in the middle of the opens has given the first of them a job of the group already.
    let mut jobs = BTreeSet::new();
    for _ in 0..3 {
        let message = proxy.pick("a job", |m| match m {
            MiningOwned::NewMiningJob(_) | MiningOwned::NewExtendedMiningJob(_) => Some(m.clone()),
            MiningOwned::SetNewPrevHash(_) => Some(m.clone()),
            _ => None,
        });
        let message = message.await?;
        let MiningOwned::NewExtendedMiningJob(m) = &message else { bail!("{message:?}") };
        ensure!(m.channel_id == channels[0].group, "{m:?}");
        ensure!(m.min_ntime.as_ref().is_some(), "the tip is the same: {m:?}");
        ensure!(jobs.insert(m.job_id), "job {} came twice", m.job_id);
        for channel in &mut channels {
            channel.take_job(&message)?;
            let answer = proxy.submit(channel, &channel.good_share(0)?).await?;
            ensure!(answer.is_accepted(), "{channel:?}: {answer:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_client_of_standard_jobs_hears_of_work_channel_by_channel() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let (mut finder, mut farm) =
        (client(&gateway, 0).await?, client(&gateway, REQUIRES_STANDARD_JOBS).await?);
    let block = finder.open_standard("finder").await?;
    let mut channels = vec![farm.open_standard("a").await?, farm.open_standard("b").await?];
    ensure!(finder.submit(&block, &block.solution()?).await?.is_accepted());
    for channel in &mut channels {
        let job = mining_message(&mut farm).await?;
        ensure!(matches!(&job, MiningOwned::NewMiningJob(m) if m.channel_id == channel.id), "{job:?}");
        let tip = mining_message(&mut farm).await?;
        ensure!(matches!(&tip, MiningOwned::SetNewPrevHash(m) if m.channel_id == channel.id), "{tip:?}");
        let job_id = channel.take_job(&job)?;
        channel.take_tip(job_id, &tip)?;
    }
    ensure!(channels[0].job.id != channels[1].job.id, "job ids repeat on a connection");
    for channel in &channels {
        let answer = farm.submit(channel, &channel.good_share(0)?).await?;
        ensure!(answer.is_accepted(), "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_that_opens_in_a_group_gets_its_own_first_job_and_the_others_nothing() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut proxy = client(&gateway, 0).await?;
    let first = proxy.open_extended("first").await?;
    // `open` fails unless its three messages are the next ones, each for the channel itself.
    let second = proxy.open_standard("second").await?;
    ensure!(first.job.id != second.job.id, "job ids repeat on a connection");
    for channel in [&first, &second] {
        let answer = proxy.submit(channel, &channel.good_share(0)?).await?;
        ensure!(answer.is_accepted(), "{answer:?}");
    }
    Ok(())
}
