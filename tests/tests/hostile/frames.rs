//! Frames and messages that no honest miner sends.

use super::{Scene, garbage, share_payload};
use anyhow::{Result, ensure};
use reservegrid_tests::client::{Client, setup_payload};

#[tokio::test]
async fn a_message_in_the_wrong_state_or_from_the_wrong_side_ends_the_connection() -> Result<()> {
    let mut scene = Scene::new().await?;
    for msg_type in [0x10, 0x13, 0x1a, 0x01, 0x7f] {
        let mut client = Client::connect(&scene.gateway).await?;
        client.send_raw_frame(0, false, msg_type, &[0; 64]).await?;
        ensure!(client.until_closed().await?.is_empty(), "an answer before SetupConnection");
        let peer = client.peer().to_owned();
        scene.ended(&peer, "message_unexpected").await?;
    }
    // Setup happens once.
    let mut client = scene.client().await?;
    client.send_raw_frame(0, false, 0x00, &setup_payload(0, (2, 2), 0, "tests")).await?;
    ensure!(client.until_closed().await?.is_empty());
    let peer = client.peer().to_owned();
    scene.ended(&peer, "message_unexpected").await?;
    // SetTarget, NewMiningJob and SubmitShares.Success are for the server to say.
    for (msg_type, length) in [(0x21, 36), (0x15, 45), (0x1c, 20)] {
        let mut client = scene.client().await?;
        client.send_raw_frame(0, true, msg_type, &vec![0; length]).await?;
        ensure!(client.until_closed().await?.is_empty());
        let peer = client.peer().to_owned();
        scene.ended(&peer, "message_unexpected").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_header_that_announces_sixteen_mebibytes_ends_the_connection_before_they_come() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mut early = Client::connect(&scene.gateway).await?;
    let header = early.seal(0, false, 0x00, (1 << 24) - 1, &[])?;
    early.send_bytes(&header).await?;
    let peer = early.peer().to_owned();
    scene.ended(&peer, "frame_too_large").await?;
    for msg_type in [0x00, 0x10, 0x1b, 0x22, 0xff] {
        let mut client = scene.client().await?;
        client.open_extended("big").await?;
        let header = client.seal(0, true, msg_type, (1 << 24) - 1, &[])?;
        client.send_bytes(&header).await?;
        client.until_closed().await?;
        let peer = client.peer().to_owned();
        scene.ended(&peer, "frame_too_large").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_cut_short_ends_the_connection() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mut early = Client::connect(&scene.gateway).await?;
    let setup = setup_payload(0, (2, 2), 0, "tests");
    early.send_raw_frame(0, false, 0x00, &setup[..setup.len() - 1]).await?;
    let peer = early.peer().to_owned();
    scene.ended(&peer, "frame_decode_failed").await?;
    // One byte less than the fixed fields, and nothing at all.
    for (msg_type, length) in
        [(0x10, 40), (0x13, 42), (0x16, 39), (0x18, 4), (0x1a, 23), (0x1b, 24), (0x22, 60)]
    {
        for length in [length, 0] {
            let mut client = scene.client().await?;
            client.send_raw_frame(0, true, msg_type, &vec![0; length]).await?;
            ensure!(client.until_closed().await?.is_empty(), "type {msg_type:#x} with {length} bytes");
            let peer = client.peer().to_owned();
            scene.ended(&peer, "frame_decode_failed").await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn messages_of_nonsense_end_a_connection_at_most() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mut connections = 0;
    for msg_type in (0x00..=0x25).chain([0x50, 0x57, 0x70, 0x76, 0xff]) {
        for length in [1, 25, 41, 77, 300] {
            let mut client =
                if msg_type == 0 { Client::connect(&scene.gateway).await? } else { scene.client().await? };
            let payload = garbage(usize::from(msg_type) * 1_000 + length, length);
            client.send_raw_frame(0, length % 2 == 0, msg_type, &payload).await?;
            connections += 1;
        }
    }
    // A task that died would never say how its connection ended.
    scene.all_ended(connections).await?;
    let log = scene.gateway.process().stderr();
    ensure!(!log.contains("panicked"), "{log}");
    scene.healthy_miner_works().await
}

#[tokio::test]
async fn thirty_two_unknown_messages_are_tolerated_and_not_many_more() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mut client = scene.client().await?;
    // Unknown types and types of other protocols.
    for number in 0..32u8 {
        let payload = garbage(number.into(), number.into());
        client.send_raw_frame(0, number % 3 == 0, 0x70 + number, &payload).await?;
    }
    let channel = client.open_standard("curious").await?;
    let answer = client.submit(&channel, &channel.good_share(0)?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    // The budget grows by one in 100 seconds; this is more than any test lasts.
    for _ in 0..100 {
        if client.send_raw_frame(0, false, 0x7f, &[]).await.is_err() {
            break;
        }
    }
    client.until_closed().await?;
    let peer = client.peer().to_owned();
    scene.ended(&peer, "message_unknown_budget_exceeded").await
}

#[tokio::test]
async fn endless_requests_for_extensions_end_the_connection() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mut client = scene.client().await?;
    for _ in 0..200 {
        // Request 0 for no extension.
        if client.send_raw_frame(1, false, 0x00, &[0; 4]).await.is_err() {
            break;
        }
    }
    while client.next_frame().await?.is_some() {}
    let peer = client.peer().to_owned();
    scene.ended(&peer, "message_unknown_budget_exceeded").await?;
    for payload in [&[0; 3][..], &[0, 0, 9, 0], &[0, 0, 0xff, 0xff, 1]] {
        let mut client = scene.client().await?;
        client.send_raw_frame(1, false, 0x00, payload).await?;
        ensure!(client.until_closed().await?.is_empty());
        let peer = client.peer().to_owned();
        scene.ended(&peer, "frame_decode_failed").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_frame_that_was_changed_on_its_way_ends_the_connection() -> Result<()> {
    let mut scene = Scene::new().await?;
    // In the header, in the header's tag, in the payload, in the payload's tag.
    for position in [0, 21, 30, 61] {
        let mut client = scene.client().await?;
        let channel = client.open_standard("bent").await?;
        let mut frame = client.seal(0, true, 0x1a, 24, &share_payload(&channel, 0))?;
        ensure!(frame.len() == 22 + 24 + 16, "{}", frame.len());
        frame[position] ^= 0x10;
        client.send_bytes(&frame).await?;
        client.until_closed().await?;
        let peer = client.peer().to_owned();
        scene.ended(&peer, "frame_decrypt_failed").await?;
    }
    // The same frame twice: the second is a forgery.
    let mut client = scene.client().await?;
    let channel = client.open_standard("again").await?;
    let frame = client.seal(0, true, 0x1a, 24, &share_payload(&channel, 1))?;
    client.send_bytes(&[&frame[..], &frame[..]].concat()).await?;
    client.until_closed().await?;
    let peer = client.peer().to_owned();
    scene.ended(&peer, "frame_decrypt_failed").await
}
