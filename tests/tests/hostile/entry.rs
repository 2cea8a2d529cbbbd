//! Before the first message: handshakes that are none, and connections that come to nothing.

use super::{Scene, drain, garbage};
use anyhow::{Result, ensure};
use reservegrid_tests::{
    client::{Client, gateway_for_clients},
    gateway::DEADLINE,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn garbage_that_passes_for_a_first_act_ends_with_the_first_frame() -> Result<()> {
    let mut scene = Scene::new().await?;
    for seed in 0..8 {
        let (mut stream, peer) = scene.socket().await?;
        // Any 64 bytes are a public key in ElligatorSwift, so there is an answer to them.
        stream.write_all(&garbage(seed, 64)).await?;
        let mut act2 = [0; 234];
        stream.read_exact(&mut act2).await?;
        stream.write_all(&garbage(seed + 100, 22 + seed * 1_000)).await?;
        drain(&mut stream).await?;
        scene.ended(&peer, "frame_decrypt_failed").await?;
    }
    Ok(())
}

#[tokio::test]
async fn half_a_handshake_ends_with_its_timeout() -> Result<()> {
    let mut scene = Scene::with(|config| config.set("miners", "handshake_timeout", "3s")).await?;
    let mut peers = Vec::new();
    for length in [0, 1, 63] {
        let (mut stream, peer) = scene.socket().await?;
        stream.write_all(&garbage(length, length)).await?;
        peers.push((stream, peer));
    }
    for (mut stream, peer) in peers {
        ensure!(drain(&mut stream).await? == 0, "an answer to half a handshake");
        scene.ended(&peer, "noise_handshake_timeout").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_that_leaves_during_the_handshake_is_noticed() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (mut stream, peer) = scene.socket().await?;
    stream.write_all(&garbage(0, 10)).await?;
    drop(stream);
    scene.ended(&peer, "noise_handshake_failed").await
}

#[tokio::test]
async fn a_connection_without_a_channel_ends_with_its_timeout() -> Result<()> {
    let mut scene = Scene::with(|config| config.set("miners", "setup_timeout", "4s")).await?;
    let mut silent = Client::connect(&scene.gateway).await?;
    let mut without_channel = scene.client().await?;
    // Chatter is no channel.
    without_channel.send_raw_frame(0, false, 0x7f, b"hello").await?;
    for client in [&mut silent, &mut without_channel] {
        ensure!(client.until_closed().await?.is_empty());
        let peer = client.peer().to_owned();
        scene.ended(&peer, "setup_timeout").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_miner_that_falls_silent_is_let_go_in_the_end() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (_backend, mut gateway) =
        gateway_for_clients(|config| config.set("miners", "idle_timeout", "2s")).await?;
    let mut client = Client::connect(&gateway).await?;
    client.setup(0).await?;
    client.open_standard("sleepy").await?;
    client.until_closed().await?;
    gateway.wait_for_event("the end", DEADLINE, |e| e["reason"] == "idle_timeout").await?;
    scene.healthy_miner_works().await
}

#[tokio::test]
async fn a_stratum_v1_miner_at_the_wrong_door_is_sent_away() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (mut stream, peer) = scene.socket().await?;
    let subscribe = "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"cgminer/4.12.1\"]}\n";
    let authorize = "{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"alice.1\",\"x\"]}\n";
    stream.write_all(subscribe.as_bytes()).await?;
    stream.write_all(authorize.as_bytes()).await?;
    drain(&mut stream).await?;
    scene.ended(&peer, "frame_decrypt_failed").await
}
