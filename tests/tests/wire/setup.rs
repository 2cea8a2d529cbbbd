//! SetupConnection (SV2 specification 03).

use super::client;
use anyhow::{Context, Result, ensure};
use parsers_sv2::CommonMessagesOwned;
use reservegrid_tests::{
    client::{
        Client, Message, REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, REQUIRES_WORK_SELECTION,
        gateway_for_clients, setup_payload,
    },
    gateway::DEADLINE,
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
async fn an_empty_vendor_and_a_wide_range_of_versions_are_welcome() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    for (versions, vendor) in [((2, 2), ""), ((0, 9), "Bitaxe"), ((2, u16::MAX), "")] {
        let mut client = Client::connect(&gateway).await?;
        client.send_raw_frame(0, false, 0x00, &setup_payload(0, versions, 0, vendor)).await?;
        let answer = client.next_message().await?;
        ensure!(
            matches!(&answer, Message::Common(CommonMessagesOwned::SetupConnectionSuccess(m)) if m.used_version == 2),
            "{versions:?} {vendor:?}: {answer:?}"
        );
        client.open_standard("alice").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_setup_that_cannot_be_served_is_refused_with_its_code_and_ends_the_connection() -> Result<()> {
    const PROTOCOL: (&str, &str) = ("unsupported-protocol", "unsupported_protocol");
    const VERSION: (&str, &str) = ("protocol-version-mismatch", "unsupported_protocol_version");
    const FLAGS: (&str, &str) = ("unsupported-feature-flags", "unsupported_feature_flags");
    let supported = REQUIRES_STANDARD_JOBS | REQUIRES_VERSION_ROLLING;
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    for (protocol, versions, flags, (code, reason), named) in [
        (1, (2, 2), 0, PROTOCOL, 0),
        (2, (2, 2), 0, PROTOCOL, 0),
        (9, (2, 2), 0, PROTOCOL, 0),
        (0, (3, 9), 0, VERSION, 0),
        (0, (0, 1), 0, VERSION, 0),
        (0, (9, 0), 0, VERSION, 0),
        (0, (2, 2), REQUIRES_WORK_SELECTION, FLAGS, REQUIRES_WORK_SELECTION),
        (0, (2, 2), u32::MAX, FLAGS, !supported),
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
