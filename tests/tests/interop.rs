//! Miners and proxies that are not ours, from the crate registry, against the real binary: SRI's translating
//! proxy (Stratum V1 to V2) with a V1 miner behind it, and SRI's mining device.
//!
//! `make interop` installs them and runs this; without them it cannot run, so `make test` leaves it out.

use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    backend::Backend,
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
    process::Process,
    sv1::Sv1Miner,
    wait,
};
use serde_json::json;
use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
    time::Duration,
};

/// A block takes about two million hashes: seconds for one core, so that tips change while we watch.
const BITS: &str = "1e07ffff";
/// Everything here takes hashes, and the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(240);

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A gateway whose first guess of a miner is far too easy, so that its difficulty has to move.
fn config(backend: &Backend, port: u16) -> Result<GatewayConfig> {
    let floor = json!({ "min_avg_fee": { "low": 1, "mid": 1, "high": 1 } });
    GatewayConfig::new("inline")?
        .embedded(BITS, 20)
        .set("miners", "listen", format!("127.0.0.1:{port}"))
        .set("miners", "shares_per_minute", 60.0)
        .set("miners", "min_difficulty", 0.000_001)
        .set("gate", "verdict_timeout", "5s")
        .pool(backend)
        .policy("integrity", &policy("integrity")?, &json!({}))?
        .policy("fee-floor", &policy("fee-floor")?, &floor)
}

/// What every foreign miner must come to on `gateway`: shares that the pool gets, a difficulty that moves, a
/// block that the source takes, and shares on the tip after it.
async fn comes_to_mine(gateway: &mut Gateway, backend: &Backend) -> Result<()> {
    gateway.wait_for_event("a moved difficulty", PATIENCE, |e| e["event"] == "target_changed").await?;
    let block = gateway.wait_for_event("a block", PATIENCE, |e| e["event"] == "block_found").await?;
    ensure!(block["reason"] == "block_submitted", "{block}");
    let found = block["hash"].as_str().context("a hash")?.to_owned();
    // The block is the tip now; a share on it shows that the miner has followed.
    gateway
        .wait_for_event("the tip after the block", PATIENCE, |e| {
            e["event"] == "tip_served" && e["tip"] == found.as_str()
        })
        .await?;
    let before = backend.shares().len();
    wait::until("shares on the tip after the block", PATIENCE, async || {
        Ok((backend.shares().len() > before + 3).then_some(()))
    })
    .await?;
    ensure!(backend.bad_signatures() == 0);
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs that `make interop` installs"]
async fn a_stratum_v1_miner_behind_the_translating_proxy_mines_and_comes_back() -> Result<()> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let (port, downstream) = (free_port()?, free_port()?);
    let config = config(&backend, port)?;
    let mut gateway = Gateway::start(&config).await?;
    gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;

    // It tries an upstream for three seconds and never again; the same gateway many times is how it comes back.
    let upstream = format!(
        "[[upstreams]]\naddress = \"127.0.0.1\"\nport = {port}\nauthority_pubkey = \"{}\"\nuser_identity = \"alice\"\n",
        gateway.authority_key()?
    );
    let file = config.folder().join("translator.toml");
    std::fs::write(
        &file,
        format!(
            "downstream_address = \"127.0.0.1\"\ndownstream_port = {downstream}\nmax_supported_version = 2\n\
             min_supported_version = 2\ndownstream_extranonce2_size = 4\nverify_payout = false\n\
             aggregate_channels = false\nsupported_extensions = [2]\n[miner_telemetry]\ncidrs = []\n\
             [downstream_difficulty_config]\nmin_individual_miner_hashrate = 10000.0\nshares_per_minute = 60.0\n\
             enable_vardiff = false\njob_keepalive_interval_secs = 60\n{}",
            upstream.repeat(20)
        ),
    )?;
    let mut command = Command::new("translator_sv2");
    command.arg("-c").arg(&file);
    let mut proxy = Process::start("translator", command, config.folder())?;

    let address = SocketAddr::from(([127, 0, 0, 1], downstream));
    let miner = connect(&mut proxy, address).await?;
    comes_to_mine(&mut gateway, &backend).await?;
    let seen = miner.seen();
    ensure!(seen.ended.is_none() && seen.accepted > 0, "{seen:?}\n{}", proxy.tail());
    ensure!(seen.difficulties.len() > 1, "the miner was told of the new difficulty: {seen:?}");
    ensure!(seen.tips.len() > 1, "the miner has followed the tip: {seen:?}");

    // The miner leaves and comes back: a channel closes, another opens.
    drop(miner);
    let miner = connect(&mut proxy, address).await?;
    let before = backend.shares().len();
    wait::until("shares of the miner that came back", PATIENCE, async || {
        Ok((backend.shares().len() > before + 3).then_some(()))
    })
    .await?;
    drop(miner);

    // The gateway leaves and comes back: the proxy finds it again.
    gateway.stop().await?;
    let mut gateway = Gateway::start(&config).await?;
    let miner = connect(&mut proxy, address).await?;
    let before = backend.shares().len();
    gateway.wait_for_event("the proxy's channel", PATIENCE, |e| e["event"] == "channel_opened").await?;
    wait::until("shares through the proxy that came back", PATIENCE, async || {
        Ok((backend.shares().len() > before + 3).then_some(()))
    })
    .await
    .with_context(|| format!("{:?}\n{}", miner.seen(), proxy.tail()))
}

/// A V1 miner, as soon as the proxy listens.
async fn connect(proxy: &mut Process, address: SocketAddr) -> Result<Sv1Miner> {
    wait::until("the proxy's port", DEADLINE, async || {
        proxy.check_running()?;
        Ok(Sv1Miner::start(address, "alice.v1").ok())
    })
    .await
}

#[tokio::test]
#[ignore = "needs the programs that `make interop` installs"]
async fn the_mining_device_of_the_reference_implementation_mines_and_comes_back() -> Result<()> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let port = free_port()?;
    let config = config(&backend, port)?;
    let mut gateway = Gateway::start(&config).await?;
    gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
    let device = |name: &str, gateway: &Gateway| {
        let mut command = Command::new("mining_device");
        command
            .args(["--pubkey-pool", gateway.authority_key()?, "--address-pool", &format!("127.0.0.1:{port}")])
            .args(["--id-user", "bob", "--id-device", name, "--cores", "1"])
            // It says that it is far slower than it is, so that its difficulty has to move.
            .args(["--nominal-hashrate-multiplier", "0.01"]);
        Process::start(name, command, config.folder())
    };

    let first = device("device-1", &gateway)?;
    comes_to_mine(&mut gateway, &backend).await.with_context(|| first.tail())?;
    drop(first);
    gateway.wait_for_event("its end", DEADLINE, |e| e["event"] == "connection_closed").await?;

    let second = device("device-2", &gateway)?;
    let before = backend.shares().len();
    wait::until("shares of the device that came back", PATIENCE, async || {
        Ok((backend.shares().len() > before + 3).then_some(()))
    })
    .await
    .with_context(|| second.tail())?;
    let opened = gateway.events_named("channel_opened")?;
    ensure!(opened.iter().all(|e| e["user_identity"] == "bob"), "{opened:?}");
    Ok(())
}
