//! Peers that are broken, wrong or malicious. Whatever they do, it is theirs alone: in every test a miner
//! that was connected before gets its shares accepted afterwards, and the event stream says what happened.
//!
//! - `entry`: before the first message
//! - `frames`: frames and messages that no honest miner sends
//! - `admission`: limits by source, in all, and on what one peer may ask for
//! - `crowd`: too many peers, peers that do not listen, peers that vanish
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admission;
mod crowd;
mod entry;
mod frames;

use anyhow::{Context, Result, ensure};
use bitcoin::hashes::{Hash, sha256d};
use reservegrid_tests::{
    backend::Backend,
    client::{Client, OpenChannel, gateway_for_clients},
    gateway::{DEADLINE, Gateway, GatewayConfig},
};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
};

/// A gateway, and a miner on it that must come to no harm.
struct Scene {
    backend: Backend,
    gateway: Gateway,
    healthy: Client,
    channel: OpenChannel,
    nonce: u32,
    /// Connections by address that `ended` has seen the end of.
    ended: BTreeMap<String, usize>,
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
        let mut scene = Self { backend, gateway, healthy, channel, nonce: 0, ended: BTreeMap::new() };
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
        // An address may come again; this is about its latest connection.
        let before = self.ended.entry(peer.to_owned()).or_default();
        let nth = std::mem::replace(before, *before + 1);
        let end = |e: &&Value| e["event"] == "connection_closed" && e["peer"] == peer;
        let what = format!("the end of {peer} with {reason}");
        self.gateway.wait_until(&what, DEADLINE, |events| events.iter().filter(end).count() > nth).await?;
        let event = self.gateway.events()?.iter().filter(end).nth(nth).context("an event that was there")?;
        ensure!(event["reason"] == reason, "awaited {reason}: {event}");
        self.healthy_miner_works().await
    }

    /// What people are told about the end of a connection; it must have ended.
    fn detail(&mut self, peer: &str) -> Result<String> {
        let ends = self.gateway.events_named("connection_closed")?;
        let last = ends.iter().rfind(|e| e["peer"] == peer).context("a connection that ended")?;
        Ok(last["detail"].as_str().unwrap_or_default().to_owned())
    }

    /// A connection from another address of this machine, without even a handshake, and its address.
    async fn socket_from(&self, address: &str) -> Result<(TcpStream, String)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{address}:0").parse()?)?;
        let stream = socket.connect(self.gateway.address()?.parse()?).await?;
        let peer = stream.local_addr()?.to_string();
        Ok((stream, peer))
    }

    /// Waits until so many connections have ended.
    async fn all_ended(&mut self, connections: usize) -> Result<()> {
        let ended = |events: &[Value]| events.iter().filter(|e| e["event"] == "connection_closed").count();
        self.gateway.wait_until("the end of each", DEADLINE, |events| ended(events) == connections).await
    }
}

/// Bytes that look like nothing, the same in every run.
fn garbage(seed: usize, length: usize) -> Vec<u8> {
    let block =
        |i: usize| sha256d::Hash::hash(&[seed.to_le_bytes(), i.to_le_bytes()].concat()).to_byte_array();
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

/// SubmitSharesStandard; its number is its nonce.
fn share_payload(channel: &OpenChannel, number: u32) -> Vec<u8> {
    let job = &channel.job;
    [channel.id, number, job.id, number, job.ntime, job.version]
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}
