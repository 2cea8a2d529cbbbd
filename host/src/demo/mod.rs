//! `reservegrid demo`: gateway, embedded chain, a small pool backend and two miners in one process,
//! talking over real sockets, so that a newcomer sees the whole flow in one terminal.

mod backend;

use crate::{
    client::{self, MinerConfig, MinerEvent},
    config::{Config, Environment},
    gateway::Gateway,
    noise::AuthoritySecretKey,
};
use anyhow::{Context, Result};
use backend::Backend;
use bitcoin::secp256k1::rand::{RngCore, thread_rng};
use std::{future::Future, path::Path};
use tokio::sync::{mpsc, watch};

/// Hashes a second of each of the two miners: a block every half a minute or so with the demo's bits.
const HASHRATE: u64 = 150_000;

/// Runs the demo until `stop` is ready.
///
/// # Errors
/// When the configuration is faulty or something does not start.
pub async fn run(config: &Path, stop: impl Future<Output = ()>) -> Result<()> {
    let mut secret = [0; 32];
    thread_rng().fill_bytes(&mut secret);
    let secret = hex::encode(secret);
    let backend = Backend::start(secret.clone()).await.context("the demo's pool backend does not start")?;
    let folder = tempfile::tempdir().context("no folder for the demo's ledger")?;
    let variables = Environment::from([
        ("RESERVEGRID_MINERS__AUTHORITY_SECRET".into(), AuthoritySecretKey::generate().expose_text()),
        ("RESERVEGRID_POOL__SECRET".into(), secret),
        ("RESERVEGRID_POOL__URL".into(), backend.url()),
        ("RESERVEGRID_LEDGER__DIR".into(), folder.path().display().to_string()),
    ]);
    let config = Config::load_with(config, &variables)?;
    let gateway = Gateway::start(config).await?;
    let listen = gateway.listen.context("the demo needs a mode that serves miners")?;
    let authority_key = gateway.authority_key.as_deref().map(str::parse).transpose()?;
    let (stop_miners, stopped) = watch::channel(false);
    let mut miners = Vec::new();
    for (user, extended) in [("alice.standard", false), ("bob.extended", true)] {
        let (sender, events) = mpsc::channel(64);
        let config = MinerConfig {
            connect: listen.to_string(),
            authority_key,
            user_identity: user.into(),
            extended,
            hashrate: HASHRATE,
            reconnect: true,
        };
        miners.push(tokio::spawn(client::mine(config, sender, stopped.clone())));
        miners.push(tokio::spawn(count(events)));
    }
    stop.await;
    println!("stopping: miners are told, open shares are recorded and forwarded ...");
    // The gateway says goodbye to its miners; only then do they stop, so that the drain is seen.
    gateway.drain().await;
    let _ = stop_miners.send(true);
    for miner in miners {
        let _ = miner.await;
    }
    println!("the pool backend: {}", backend.summary());
    Ok(())
}

/// The gateway's own lines tell the story; the miners' view is only drained here.
async fn count(mut events: mpsc::Receiver<MinerEvent>) -> Result<()> {
    while events.recv().await.is_some() {}
    Ok(())
}
