//! Too many peers, peers that talk without listening, peers that vanish, and the end of the gateway.

use super::{Scene, drain, garbage, share_payload};
use anyhow::{Result, ensure};
use reservegrid_tests::{
    account::check_every_share_has_one_result,
    client::{Client, OpenChannel, setup_payload},
    gateway::{DEADLINE, GatewayConfig},
    wait,
};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpSocket};

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
    let mut fourth =
        wait::until("a place", DEADLINE, async || Ok(Client::connect(gateway).await.ok())).await?;
    fourth.setup(0).await?;
    fourth.open_standard("fourth").await?;
    scene.healthy_miner_works().await
}

#[tokio::test]
async fn a_peer_that_was_refused_and_goes_on_talking_disturbs_nobody() -> Result<()> {
    let mut scene = Scene::new().await?;
    for _ in 0..10 {
        let mut client = Client::connect(&scene.gateway).await?;
        let mut bytes = client.seal(
            0,
            false,
            0x00,
            setup_payload(1, (2, 2), 0, "").len(),
            &setup_payload(1, (2, 2), 0, ""),
        )?;
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
async fn a_hundred_busy_miners_that_vanish_at_once_leave_nothing_but_their_shares() -> Result<()> {
    let mut scene = Scene::with(|config| config.set("drain", "timeout", "1m")).await?;
    let mut miners = Vec::new();
    for number in 0..100 {
        let mut client = scene.client().await?;
        let channel = client.open_standard(&format!("miner.{number}")).await?;
        miners.push((client, channel));
    }
    for (client, channel) in &mut miners {
        let bytes = sealed_shares(client, channel, 0)?;
        client.send_bytes(&bytes).await?;
    }
    let recorded = |events: &[Value]| events.iter().filter(|e| e["event"] == "share_accepted").count();
    scene.gateway.wait_until("a thousand shares", DEADLINE, |events| recorded(events) > 1_000).await?;
    for (client, channel) in &mut miners {
        let mut bytes = sealed_shares(client, channel, 1_000)?;
        // And half of a frame. What is answered, nobody has read.
        bytes.extend(&client.seal(0, true, 0x1a, 24, &[0; 24])?[..30]);
        client.send_bytes(&bytes).await?;
    }
    drop(miners);
    scene.all_ended(100).await?;
    scene.healthy_miner_works().await?;
    let mut newcomer = scene.client().await?;
    newcomer.open_standard("newcomer").await?;
    ensure!(scene.gateway.stop().await?.success());
    let shares = check_every_share_has_one_result(scene.gateway.events()?, &scene.backend)?;
    ensure!(shares > 1_000, "{shares}");
    Ok(())
}

/// Forty good shares with nonces from `from` on, ready to be sent.
fn sealed_shares(client: &mut Client, channel: &OpenChannel, from: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut nonce = from;
    for _ in 0..40 {
        nonce = channel.good_share(nonce)?.nonce + 1;
        bytes.extend(client.seal(0, true, 0x1a, 24, &share_payload(channel, nonce - 1))?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_peer_that_never_ends_its_handshake_does_not_hold_up_the_end_of_the_gateway() -> Result<()> {
    // Both far beyond the time that `stop` waits.
    let patient =
        |config: GatewayConfig| config.set("miners", "handshake_timeout", "5m").set("drain", "timeout", "5m");
    let mut scene = Scene::with(patient).await?;
    let (mut stream, _) = scene.socket().await?;
    stream.write_all(&garbage(0, 63)).await?;
    // The gateway has accepted it once it serves a connection that came later.
    scene.client().await?;
    ensure!(scene.gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_peer_that_asks_and_never_reads_is_dropped_while_others_are_served() -> Result<()> {
    // Its questions are refused, each with an answer, which would be slowed down long before it hurts.
    let patient = |config: GatewayConfig| config.set("miners", "max_refusals_per_second", 1_000_000);
    let mut scene = Scene::with(patient).await?;
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
