//! Extensions: negotiation (0x0001) and worker names behind shares (0x0002), byte by byte.

use super::client;
use anyhow::{Context, Result, ensure};
use mining_sv2::MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED;
use reservegrid_tests::{
    client::{Client, Frame, OpenChannel, gateway_for_clients},
    gateway::{DEADLINE, Gateway},
};
use serde_json::Value;

const NEGOTIATION: u16 = 0x0001;

/// Asks for extensions; gives the answer, which must be of extension 1 and without the channel bit.
async fn request(client: &mut Client, request_id: u16, extensions: &[u16]) -> Result<Frame> {
    let mut payload = request_id.to_le_bytes().to_vec();
    payload.extend((extensions.len() as u16).to_le_bytes());
    payload.extend(extensions.iter().flat_map(|extension| extension.to_le_bytes()));
    client.send_raw_frame(NEGOTIATION, false, 0x00, &payload).await?;
    let frame = client.next_frame().await?.context("the gateway closed the connection")?;
    ensure!(frame.extension == NEGOTIATION && !frame.channel_bit, "{frame:?}");
    Ok(frame)
}

#[tokio::test]
async fn extensions_that_both_sides_know_are_agreed_on_and_others_are_named() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    // Success: the request's id and those that are supported.
    for asked in [&[2][..], &[1, 2, 7], &[0x7abc, 2]] {
        let answer = request(&mut client, 0x1234, asked).await?;
        ensure!(answer.msg_type == 0x01, "{answer:?}");
        ensure!(answer.payload == [0x34, 0x12, 1, 0, 2, 0], "{answer:?}");
    }
    // Error: the id, what is not supported, and what the server requires, which is nothing.
    let answer = request(&mut client, 5, &[7, 0x7abc]).await?;
    ensure!(answer.msg_type == 0x02, "{answer:?}");
    ensure!(answer.payload == [5, 0, 2, 0, 7, 0, 0xbc, 0x7a, 0, 0], "{answer:?}");
    let answer = request(&mut client, 6, &[]).await?;
    ensure!(answer.msg_type == 0x02 && answer.payload == [6, 0, 0, 0, 0, 0], "{answer:?}");
    // The connection goes on.
    let channel = client.open_standard("alice").await?;
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    Ok(())
}

/// Hands in a share with bytes behind it; gives its event.
async fn share_with(
    gateway: &mut Gateway,
    client: &mut Client,
    channel: &OpenChannel,
    nonce: u32,
    behind: &[u8],
) -> Result<Value> {
    let share = channel.good_share(nonce)?;
    let mut payload = Vec::new();
    for field in [channel.id, nonce, share.job_id, share.nonce, share.ntime, share.version] {
        payload.extend(field.to_le_bytes());
    }
    payload.push(12);
    payload.extend(share.extranonce.as_deref().unwrap());
    payload.extend(behind);
    client.send_raw_frame(0, true, MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED, &payload).await?;
    let answer = client.answer(channel.id, nonce).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    gateway
        .wait_for_event("the share", DEADLINE, |e| {
            e["event"] == "share_accepted" && e["nonce"] == share.nonce && e["channel"] == channel.id
        })
        .await
}

#[tokio::test]
async fn a_worker_behind_a_proxy_is_named_in_events_once_that_is_agreed() -> Result<()> {
    let (backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let channel = client.open_extended("proxy").await?;
    let name = |name: &[u8]| [&[2, 0, 1, name.len() as u8, 0], name].concat();
    let told = share_with(&mut gateway, &mut client, &channel, 1_000, &name(b"rig1")).await?;
    ensure!(told.get("worker").is_none(), "nobody agreed on it: {told}");

    request(&mut client, 1, &[2]).await?;
    let told = share_with(&mut gateway, &mut client, &channel, 2_000, &name(b"rig1")).await?;
    ensure!(told["worker"] == "rig1" && told["user_identity"] == "proxy", "{told}");
    let share_id = told["share_id"].as_str().unwrap().to_owned();
    gateway
        .wait_for_event("its result", DEADLINE, |e| {
            e["event"] == "share_forward_result" && e["share_id"] == share_id.as_str()
        })
        .await?;
    let paid = backend.shares();
    ensure!(paid.contains_key(&share_id), "the pool does not have {share_id}");

    // Nothing, something else, too long, cut short: shares all the same.
    let cut = name(b"rig1");
    for (nonce, behind) in [
        (3_000, vec![]),
        (4_000, [&[9, 0, 1, 2, 0][..], b"xy"].concat()),
        (5_000, name(&[b'a'; 33])),
        (6_000, cut[..cut.len() - 1].to_vec()),
        (7_000, vec![0xff; 3]),
    ] {
        let told = share_with(&mut gateway, &mut client, &channel, nonce, &behind).await?;
        ensure!(told.get("worker").is_none(), "{behind:?}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn messages_of_unknown_extensions_are_discarded_however_many_there_are() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    for number in 0..200u16 {
        client.send_raw_frame(2 + number, number % 2 == 0, number as u8, &vec![7; number.into()]).await?;
    }
    let channel = client.open_standard("curious").await?;
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    Ok(())
}
