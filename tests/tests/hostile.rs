//! Peers that are broken, wrong or malicious. Whatever they do, it is theirs alone: in every test a miner
//! that was connected before gets its shares accepted afterwards, and the event stream says what happened.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use bitcoin::hashes::{Hash, sha256d};
use reservegrid_tests::{
    account::check_every_share_has_one_result,
    backend::Backend,
    client::{Client, OpenChannel, gateway_for_clients, setup_payload},
    gateway::{DEADLINE, Gateway, GatewayConfig},
    wait,
};
use serde_json::Value;
use std::collections::BTreeSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// A gateway, and a miner on it that must come to no harm.
struct Scene {
    backend: Backend,
    gateway: Gateway,
    healthy: Client,
    channel: OpenChannel,
    nonce: u32,
}

impl Scene {
    async fn new() -> Result<Self> {
        Self::with(|config| config).await
    }

    async fn with(adjust: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Result<Self> {
        let (backend, gateway) = gateway_for_clients(adjust).await?;
        let mut healthy = Client::connect(&gateway).await?;
        healthy.setup(0).await?;
        let channel = healthy.open_standard("healthy").await?;
        let mut scene = Self { backend, gateway, healthy, channel, nonce: 0 };
        scene.healthy_miner_works().await?;
        Ok(scene)
    }

    async fn healthy_miner_works(&mut self) -> Result<()> {
        let share = self.channel.good_share(self.nonce)?;
        self.nonce = share.nonce + 1;
        let answer = self.healthy.submit(&self.channel, &share).await.context("the healthy miner's share")?;
        ensure!(answer.is_accepted(), "the healthy miner's share: {answer:?}");
        Ok(())
    }

    /// A connection that is set up.
    async fn client(&self) -> Result<Client> {
        let mut client = Client::connect(&self.gateway).await?;
        client.setup(0).await?;
        Ok(client)
    }

    /// A connection without even a handshake, and its address.
    async fn socket(&self) -> Result<(TcpStream, String)> {
        let stream = TcpStream::connect(self.gateway.address()?).await?;
        let peer = stream.local_addr()?.to_string();
        Ok((stream, peer))
    }

    /// Waits for the end of a connection, which must have this reason.
    async fn ended(&mut self, peer: &str, reason: &str) -> Result<()> {
        let what = format!("the end of {peer} with {reason}");
        let is_end = |e: &Value| e["event"] == "connection_closed" && e["peer"] == peer;
        let event = self.gateway.wait_for_event(&what, DEADLINE, is_end).await?;
        ensure!(event["reason"] == reason, "awaited {reason}: {event}");
        self.healthy_miner_works().await
    }
}

/// Bytes that look like nothing, the same in every run.
fn garbage(seed: usize, length: usize) -> Vec<u8> {
    let block = |i: usize| sha256d::Hash::hash(&[seed.to_le_bytes(), i.to_le_bytes()].concat()).to_byte_array();
    (0..length.div_ceil(32)).flat_map(block).take(length).collect()
}

/// Reads a socket to its end, however that comes.
async fn drain(stream: &mut TcpStream) -> Result<usize> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    // A reset is an end, too.
    let _ = read.context("the gateway keeps the connection open")?;
    Ok(bytes.len())
}

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
    for (msg_type, length) in [(0x10, 40), (0x13, 42), (0x16, 39), (0x18, 4), (0x1a, 23), (0x1b, 24), (0x22, 60)] {
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
    let mut peers = BTreeSet::new();
    for msg_type in (0x00..=0x25).chain([0x50, 0x57, 0x70, 0x76, 0xff]) {
        for length in [1, 25, 41, 77, 300] {
            let mut client = if msg_type == 0 { Client::connect(&scene.gateway).await? } else { scene.client().await? };
            let payload = garbage(usize::from(msg_type) * 1_000 + length, length);
            client.send_raw_frame(0, length % 2 == 0, msg_type, &payload).await?;
            peers.insert(client.peer().to_owned());
        }
    }
    let told = |events: &[Value]| {
        let ended = events.iter().filter(|e| e["event"] == "connection_closed");
        ended.filter_map(|e| e["peer"].as_str()).filter(|peer| peers.contains(*peer)).count()
    };
    // A task that died would never say how its connection ended.
    scene.gateway.wait_until("the end of each", DEADLINE, |events| told(events) == peers.len()).await?;
    let log = scene.gateway.process().stderr();
    ensure!(!log.contains("panicked"), "{log}");
    scene.healthy_miner_works().await
}

#[tokio::test]
async fn thirty_two_unknown_messages_are_tolerated_and_no_more() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mut client = scene.client().await?;
    for number in 0..32 {
        // Unknown types, types of other protocols, and extensions nobody agreed on.
        let (extension, msg_type) = if number % 2 == 0 { (0, 0x70 + number) } else { (u16::from(number), 0x10) };
        client.send_raw_frame(extension, number % 3 == 0, msg_type, &garbage(number.into(), number.into())).await?;
    }
    let channel = client.open_standard("curious").await?;
    let answer = client.submit(&channel, &channel.good_share(0)?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    client.send_raw_frame(1, false, 0x00, &[]).await?;
    client.until_closed().await?;
    let peer = client.peer().to_owned();
    scene.ended(&peer, "message_unknown_budget_exceeded").await
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

/// SubmitSharesStandard; its number is its nonce.
fn share_payload(channel: &OpenChannel, number: u32) -> Vec<u8> {
    let job = &channel.job;
    [channel.id, number, job.id, number, job.ntime, job.version].iter().flat_map(|field| field.to_le_bytes()).collect()
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_and_the_others_go_on() -> Result<()> {
    let mut scene = Scene::with(|config| config.set("miners", "max_connections", 3)).await?;
    let mut second = scene.client().await?;
    second.open_standard("second").await?;
    let third = scene.client().await?;
    for _ in 0..20 {
        let (mut stream, peer) = scene.socket().await?;
        ensure!(drain(&mut stream).await? == 0, "an answer to a connection too many");
        scene.ended(&peer, "connection_limit_reached").await?;
    }
    // One leaves, and there is a place again.
    let peer = third.peer().to_owned();
    drop(third);
    scene.ended(&peer, "connection_closed").await?;
    let gateway = &scene.gateway;
    let mut fourth = wait::until("a place", DEADLINE, async || Ok(Client::connect(gateway).await.ok())).await?;
    fourth.setup(0).await?;
    fourth.open_standard("fourth").await?;
    scene.healthy_miner_works().await
}

#[tokio::test]
async fn a_peer_that_was_refused_and_goes_on_talking_disturbs_nobody() -> Result<()> {
    let mut scene = Scene::new().await?;
    for _ in 0..10 {
        let mut client = Client::connect(&scene.gateway).await?;
        let mut bytes = client.seal(0, false, 0x00, setup_payload(1, (2, 2), 0, "").len(), &setup_payload(1, (2, 2), 0, ""))?;
        for _ in 0..200 {
            bytes.extend(client.seal(0, false, 0x10, 60, &[1; 60])?);
        }
        let peer = client.peer().to_owned();
        // The gateway may well hang up in the middle of it.
        for _ in 0..10 {
            if client.send_bytes(&bytes).await.is_err() {
                break;
            }
        }
        scene.ended(&peer, "unsupported_protocol").await?;
    }
    let mut newcomer = scene.client().await?;
    newcomer.open_standard("newcomer").await?;
    Ok(())
}

#[tokio::test]
async fn a_hundred_busy_miners_that_vanish_at_once_leave_no_trace_but_their_shares() -> Result<()> {
    const SHARES: u32 = 40;
    let mut scene = Scene::with(|config| config.set("drain", "timeout", "1m")).await?;
    let mut clients = Vec::new();
    for number in 0..100 {
        let mut client = scene.client().await?;
        let channel = client.open_standard(&format!("miner.{number}")).await?;
        clients.push((client, channel));
    }
    let peers: BTreeSet<String> = clients.iter().map(|(client, _)| client.peer().to_owned()).collect();
    for (client, channel) in &mut clients {
        let network = channel.network_target();
        let mut bytes = Vec::new();
        let mut share = channel.share();
        for number in 0..SHARES {
            share = channel.find(&share, |hash| !network.is_met_by(hash))?;
            let mut payload = share_payload(channel, share.nonce);
            payload[4..8].copy_from_slice(&number.to_le_bytes());
            bytes.extend(client.seal(0, true, 0x1a, 24, &payload)?);
            share.nonce += 1;
        }
        // Half of a frame more, and nobody reads what is answered.
        bytes.extend(&client.seal(0, true, 0x1a, 24, &[0; 24])?[..30]);
        client.send_bytes(&bytes).await?;
    }
    drop(clients);
    scene
        .gateway
        .wait_until("the end of each", DEADLINE, |events| {
            let ended = events.iter().filter(|e| e["event"] == "connection_closed");
            ended.filter_map(|e| e["peer"].as_str()).filter(|peer| peers.contains(*peer)).count() == peers.len()
        })
        .await?;
    scene.healthy_miner_works().await?;
    let mut newcomer = scene.client().await?;
    newcomer.open_standard("newcomer").await?;
    ensure!(scene.gateway.stop().await?.success());
    let shares = check_every_share_has_one_result(scene.gateway.events()?, &scene.backend)?;
    ensure!(shares >= 2, "{shares}");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_asks_and_never_reads_is_dropped_while_others_are_served() -> Result<()> {
    let mut scene = Scene::new().await?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    let stream = socket.connect(scene.gateway.address()?.parse()?).await?;
    let mut client = Client::over(stream, scene.gateway.authority_key()?).await?;
    client.setup(0).await?;
    client.open_standard("deaf").await?;
    let peer = client.peer().to_owned();
    // UpdateChannel for a channel that does not exist: each has an answer, and none an event.
    let update = [&9_999u32.to_le_bytes()[..], &0f32.to_le_bytes(), &[0xff; 32]].concat();
    let talking = tokio::spawn(async move {
        loop {
            let mut bytes = Vec::new();
            for _ in 0..1_000 {
                bytes.extend(client.seal(0, true, 0x16, update.len(), &update)?);
            }
            // Ends when the gateway hangs up; until then it waits once nothing is read any more.
            client.send_bytes(&bytes).await?;
        }
        #[expect(unreachable_code, reason = "gives the task its type")]
        Ok::<(), anyhow::Error>(())
    });
    scene.healthy_miner_works().await?;
    scene.ended(&peer, "outbound_queue_full").await?;
    ensure!(talking.await?.is_err());
    Ok(())
}
