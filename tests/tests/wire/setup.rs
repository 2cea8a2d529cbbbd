//! SetupConnection (SV2 specification 03).

use super::client;
use anyhow::{Context, Result, ensure};
use parsers_sv2::{CommonMessagesOwned, MiningOwned};
use reservegrid_tests::{
    client::{
        Client, Message, Open, REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, REQUIRES_WORK_SELECTION,
        gateway_for_clients, setup_payload,
    },
    gateway::{Channel, DEADLINE},
};

#[tokio::test]
async fn a_setup_is_answered_with_version_two_and_no_flags() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let both = REQUIRES_STANDARD_JOBS | REQUIRES_VERSION_ROLLING;
    for flags in [0, REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, both] {
        client(&gateway, flags).await.with_context(|| format!("flags {flags:#b}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_with_work_of_its_own_gets_extended_channels_and_no_jobs_of_the_pool() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    // `setup` fails unless the answer has the flag for extended channels.
    let mut declarer = client(&gateway, REQUIRES_WORK_SELECTION | REQUIRES_VERSION_ROLLING).await?;
    let refused = declarer.open_refused(&Open::new(Channel::Standard, "declarer")).await?;
    ensure!(refused == "standard-channels-not-supported-for-custom-work", "{refused}");
    declarer.request_open(&Open::new(Channel::Extended, "declarer")).await?;
    let Message::Mining(MiningOwned::OpenExtendedMiningChannelSuccess(channel)) =
        declarer.next_message().await?
    else {
        anyhow::bail!("awaited an extended channel");
    };
    let mut miner = client(&gateway, 0).await?;
    let block = miner.open_standard("miner").await?;
    ensure!(miner.submit(&block, &block.solution()?).await?.is_accepted());
    gateway
        .wait_for_event("the next tip", DEADLINE, |e| e["event"] == "work_released" && e["job"] == 2)
        .await?;
    // The very next message answers this; a job would have come before it.
    let job = [channel.channel_id.to_le_bytes(), 7u32.to_le_bytes()].concat();
    declarer
        .send_raw_frame(0, true, 0x22, &[job, vec![0; 1 + 4 + 32 + 12 + 1 + 4 + 2 + 4 + 1]].concat())
        .await?;
    match declarer.next_message().await? {
        Message::Mining(MiningOwned::SetCustomMiningJobError(m)) => {
            ensure!((m.channel_id, m.request_id) == (channel.channel_id, 7), "{m:?}");
            ensure!(m.error_code.as_utf8_or_hex() == "jd-not-supported", "{m:?}");
        }
        other => anyhow::bail!("awaited SetCustomMiningJob.Error, came {other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn an_empty_vendor_and_a_wide_range_of_versions_are_welcome() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    for (versions, vendor) in [((2, 2), ""), ((0, 9), "Bitaxe"), ((2, u16::MAX), "")] {
        let skip = gateway.events()?.len();
        let mut client = Client::connect(&gateway).await?;
        client.send_raw_frame(0, false, 0x00, &setup_payload(0, versions, 0, vendor)).await?;
        let answer = client.next_message().await?;
        ensure!(
            matches!(&answer, Message::Common(CommonMessagesOwned::SetupConnectionSuccess(m)) if m.used_version == 2),
            "{versions:?} {vendor:?}: {answer:?}"
        );
        let channel = client.open_standard("alice").await?;
        let opened = gateway
            .wait_for_event_after(skip, "the channel", DEADLINE, |e| e["event"] == "channel_opened")
            .await?;
        ensure!(opened["device"] == vendor && opened["channel"] == channel.id, "{vendor:?}: {opened}");
    }
    Ok(())
}

#[tokio::test]
async fn a_setup_that_cannot_be_served_is_refused_with_its_code_and_ends_the_connection() -> Result<()> {
    const PROTOCOL: (&str, &str) = ("unsupported-protocol", "unsupported_protocol");
    const VERSION: (&str, &str) = ("protocol-version-mismatch", "unsupported_protocol_version");
    const FLAGS: (&str, &str) = ("unsupported-feature-flags", "unsupported_feature_flags");
    // Each of the two for itself is welcome; together they leave no kind of channel.
    let both = REQUIRES_STANDARD_JOBS | REQUIRES_WORK_SELECTION;
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    for (protocol, versions, flags, (code, reason), named) in [
        (1, (2, 2), 0, PROTOCOL, 0),
        (2, (2, 2), 0, PROTOCOL, 0),
        (9, (2, 2), 0, PROTOCOL, 0),
        (0, (3, 9), 0, VERSION, 0),
        (0, (0, 1), 0, VERSION, 0),
        (0, (9, 0), 0, VERSION, 0),
        (0, (2, 2), both, FLAGS, REQUIRES_WORK_SELECTION),
        (0, (2, 2), u32::MAX, FLAGS, !(REQUIRES_STANDARD_JOBS | REQUIRES_VERSION_ROLLING)),
        (0, (2, 2), 0x8000_0001, FLAGS, 0x8000_0000),
    ] {
        let asked = format!("protocol {protocol}, versions {versions:?}, flags {flags:#x}");
        let mut client = Client::connect(&gateway).await?;
        client.send_raw_frame(0, false, 0x00, &setup_payload(protocol, versions, flags, "tests")).await?;
        let messages = client.until_closed().await.with_context(|| asked.clone())?;
        let [Message::Common(CommonMessagesOwned::SetupConnectionError(error))] = &messages[..] else {
            anyhow::bail!("{asked}: came {messages:?}");
        };
        ensure!(error.error_code.as_utf8_or_hex() == code, "{asked}: {error:?}");
        ensure!(error.flags == named, "{asked}: {error:?}");
        let peer = client.peer().to_owned();
        let closed = gateway
            .wait_for_event("the end of a connection", DEADLINE, |e| {
                e["event"] == "connection_closed" && e["peer"] == peer.as_str()
            })
            .await?;
        ensure!(closed["reason"] == reason, "{asked}: {closed}");
    }
    Ok(())
}
