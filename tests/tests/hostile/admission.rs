//! Limits on what one source, one connection or all of them together may have.

use super::{Scene, drain, share_payload};
use anyhow::{Result, ensure};
use parsers_sv2::MiningOwned;
use reservegrid_tests::{
    backend::Behaviour,
    client::{Client, Message},
    gateway::{DEADLINE, GatewayConfig},
    wait,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

#[tokio::test]
async fn one_address_gets_so_many_connections_and_another_its_own() -> Result<()> {
    // One of them is the healthy miner's.
    let mut scene = Scene::with(|config| config.set("miners", "max_connections_per_address", 3)).await?;
    let (_second, third) = (scene.client().await?, scene.client().await?);
    for _ in 0..3 {
        let (mut stream, peer) = scene.socket().await?;
        ensure!(drain(&mut stream).await? == 0, "an answer to a connection too many");
        scene.ended(&peer, "peer_quota_exceeded").await?;
    }
    let (stream, _) = scene.socket_from("127.0.0.2").await?;
    let mut neighbour = Client::over(stream, scene.gateway.authority_key()?).await?;
    neighbour.setup(0).await?;
    neighbour.open_standard("neighbour").await?;
    let peer = third.peer().to_owned();
    drop(third);
    scene.ended(&peer, "connection_closed").await?;
    scene.client().await?;
    Ok(())
}

#[tokio::test]
async fn unfinished_handshakes_are_limited_by_address_and_in_all() -> Result<()> {
    let limits = |config: GatewayConfig| {
        config.set("miners", "max_handshakes", 3).set("miners", "max_handshakes_per_address", 2).set(
            "miners",
            "handshake_timeout",
            "5m",
        )
    };
    let mut scene = Scene::with(limits).await?;
    let (first, first_peer) = scene.socket().await?;
    let _second = scene.socket().await?;
    let (mut stream, peer) = scene.socket().await?;
    drain(&mut stream).await?;
    scene.ended(&peer, "peer_quota_exceeded").await?;
    let _third = scene.socket_from("127.0.0.2").await?;
    let (mut stream, peer) = scene.socket_from("127.0.0.3").await?;
    drain(&mut stream).await?;
    scene.ended(&peer, "connection_rate_limited").await?;
    // A place is free again when one gives up.
    drop(first);
    scene.ended(&first_peer, "noise_handshake_failed").await?;
    let mut client = scene.client().await?;
    client.open_standard("patient").await?;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_sends_too_many_shares_gets_some_answered_with_no() -> Result<()> {
    // Ten at once and one a second; the healthy miner sends a few in the whole test. What is refused is
    // answered at once.
    let limits = |config: GatewayConfig| {
        config.set("miners", "max_shares_per_second", 1).set("miners", "max_refusals_per_second", 1_000)
    };
    let mut scene = Scene::with(limits).await?;
    let mut client = scene.client().await?;
    let channel = client.open_standard("flood").await?;
    const SHARES: u32 = 2_000;
    let mut bytes = Vec::new();
    let mut nonce = 0;
    for _ in 0..SHARES {
        nonce = channel.good_share(nonce)?.nonce + 1;
        bytes.extend(client.seal(0, true, 0x1a, 24, &share_payload(&channel, nonce - 1))?);
    }
    client.send_bytes(&bytes).await?;
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..SHARES {
        let answer = match client.next_message().await? {
            Message::Mining(MiningOwned::SubmitSharesSuccess(_)) => String::new(),
            Message::Mining(MiningOwned::SubmitSharesError(m)) => m.error_code.as_utf8_or_hex(),
            other => anyhow::bail!("awaited answers, came {other:?}"),
        };
        *answers.entry(answer).or_default() += 1;
    }
    ensure!(answers.keys().eq(["", "share-rate-limited"]) && answers[""] >= 10, "{answers:?}");
    let told = |e: &serde_json::Value| e["event"] == "share_rejected" && e["reason"] == "share_rate_limited";
    scene.gateway.wait_for_event("it", DEADLINE, told).await?;
    scene.healthy_miner_works().await
}

#[tokio::test]
async fn one_connection_cannot_fill_what_waits_for_the_pool() -> Result<()> {
    let mut scene = Scene::with(|config| config.set("miners", "max_unanswered_shares", 5)).await?;
    scene.backend.behave(Behaviour::ServerError);
    let mut client = scene.client().await?;
    let channel = client.open_standard("many").await?;
    let mut nonce = 0;
    let mut codes = Vec::new();
    for _ in 0..6 {
        let share = channel.good_share(nonce)?;
        nonce = share.nonce + 1;
        codes.push(client.submit(&channel, &share).await?.code().to_owned());
    }
    ensure!(codes == ["", "", "", "", "", "peer-quota-exceeded"], "{codes:?}");
    scene.healthy_miner_works().await?;
    scene.backend.behave(Behaviour::default());
    // The share that was refused was forgotten, too: it may come again.
    let share = channel.good_share(nonce - 1)?;
    wait::until("the pool has answered", DEADLINE, async || {
        Ok(client.submit(&channel, &share).await?.is_accepted().then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_peer_that_is_refused_without_end_is_read_slowly_and_hurts_nobody() -> Result<()> {
    // Fifty at once and one a second.
    let mut scene = Scene::with(|config| config.set("miners", "max_refusals_per_second", 1)).await?;
    let mut client = scene.client().await?;
    let channel = client.open_extended("declarer").await?;
    // The shortest SetCustomMiningJob: request id, and nothing in any of its other fields.
    let declared = |number: u32| {
        [&channel.id.to_le_bytes()[..], &number.to_le_bytes(), &[0; 1 + 4 + 32 + 12 + 1 + 4 + 2 + 4 + 1]]
            .concat()
    };
    const DECLARED: u32 = 58;
    let mut bytes = Vec::new();
    for number in 0..DECLARED {
        bytes.extend(client.seal(0, true, 0x22, declared(number).len(), &declared(number))?);
    }
    let begin = Instant::now();
    client.send_bytes(&bytes).await?;
    for number in 0..DECLARED {
        match client.next_message().await? {
            Message::Mining(MiningOwned::SetCustomMiningJobError(m)) => {
                ensure!(m.request_id == number, "{m:?}")
            }
            other => anyhow::bail!("awaited SetCustomMiningJob.Error {number}, came {other:?}"),
        }
        if number == DECLARED / 2 {
            scene.healthy_miner_works().await?;
        }
    }
    // The last of them waited for their second; a machine that is busy only makes it longer.
    ensure!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
    scene.healthy_miner_works().await
}
