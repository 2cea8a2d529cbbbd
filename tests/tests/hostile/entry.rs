//! Before the first message: handshakes that are none, and connections that come to nothing.

use super::{Scene, drain, garbage};
use anyhow::{Result, ensure};
use reservegrid_tests::{
    client::{Client, gateway_for_clients, setup_payload},
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
async fn a_peer_that_speaks_something_else_is_sent_away_and_named() -> Result<()> {
    let mut scene = Scene::new().await?;
    let subscribe = "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n";
    // Shorter than a first act: whoever waits for the rest of one waits in vain.
    ensure!(subscribe.len() < 64);
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend(garbage(0, 500));
    let setup = setup_payload(0, (2, 2), 0, "bare");
    let plain = [&[0, 0, 0, setup.len() as u8, 0, 0], &setup[..]].concat();
    for (bytes, name) in [
        (subscribe.as_bytes(), "Stratum V1"),
        (&hello[..11], "TLS"),
        (&hello, "TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
        (&plain, "without encryption"),
    ] {
        let (mut stream, peer) = scene.socket().await?;
        stream.write_all(bytes).await?;
        ensure!(drain(&mut stream).await? == 0, "an answer to {name}");
        scene.ended(&peer, "noise_handshake_failed").await?;
        let detail = scene.detail(&peer)?;
        ensure!(detail.contains(name), "{name}: {detail}");
    }
    Ok(())
}

#[tokio::test]
async fn a_miner_that_leaves_after_the_handshake_is_said_to_expect_another_key() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (stream, peer) = scene.socket().await?;
    // The foreign client checks the certificate and finds that another authority signed it.
    let another = bitcoin::base58::encode_check(&[&[1, 0][..], &GENERATOR].concat());
    ensure!(Client::over(stream, &another).await.is_err());
    scene.ended(&peer, "connection_closed").await?;
    let detail = scene.detail(&peer)?;
    ensure!(detail.contains("authority key"), "{detail}");
    Ok(())
}

/// The x coordinate of secp256k1's generator: a public key that is not the gateway's.
const GENERATOR: [u8; 32] = [
    0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07, 0x02,
    0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98,
];
