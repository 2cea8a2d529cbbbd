//! Who may mine: the users of a file, or those the pool says yes to.

use super::client;
use anyhow::{Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use hmac::{Hmac, Mac};
use reservegrid_tests::{
    client::{Client, Open, gateway_for_clients},
    gateway::{Channel, DEADLINE, Gateway, GatewayConfig},
    wait,
};
use serde_json::Value;
use sha2::Sha256;
use std::sync::{Arc, Mutex};

async fn refused(client: &mut Client, gateway: &mut Gateway, user: &str) -> Result<(String, String)> {
    let skip = gateway.events()?.len();
    let code = client.open_refused(&Open::new(Channel::Extended, user)).await?;
    let event = gateway
        .wait_for_event_after(skip, "the refusal", DEADLINE, |e| e["event"] == "channel_refused")
        .await?;
    ensure!(event["user_identity"] == user, "{event}");
    Ok((code, event["reason"].as_str().unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn only_users_of_the_file_may_mine_and_the_file_may_change() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("users");
    std::fs::write(&path, "# who may mine\nalice\nbob.rig1\n")?;
    let file = path.display().to_string();
    let (_backend, mut gateway) =
        gateway_for_clients(|config| config.set("miners", "users_file", file.as_str())).await?;
    let mut client = client(&gateway, 0).await?;
    for user in ["alice", "alice.rig7", "bob.rig1"] {
        client.open_standard(user).await?;
    }
    for user in ["bob", "bob.rig2", "carol"] {
        let told = refused(&mut client, &mut gateway, user).await?;
        ensure!(told == ("unknown-user".into(), "user_unknown".into()), "{user}: {told:?}");
    }
    std::fs::write(&path, "carol # instead of alice\n")?;
    wait::until("carol is let in", DEADLINE, async || {
        let mut client = super::client(&gateway, 0).await?;
        client.request_open(&Open::new(Channel::Standard, "carol")).await?;
        let frame = client.next_frame().await?;
        Ok((frame.is_some_and(|frame| frame.msg_type == 0x11)).then_some(()))
    })
    .await?;
    let told = refused(&mut client, &mut gateway, "alice").await?;
    ensure!(told.1 == "user_unknown", "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_file_of_users_that_is_not_there_stops_the_start() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let config = gateway.config().clone().set("miners", "users_file", "nowhere");
    drop(gateway);
    let mut gateway = Gateway::spawn(&config)?;
    let process = gateway.process();
    let status = wait::until("its end", DEADLINE, async || process.exited()).await?;
    ensure!(!status.success());
    let told = gateway.process().stderr();
    ensure!(told.contains("[miners] users_file") && told.contains("nowhere"), "{told}");
    Ok(())
}

/// A pool that knows three users and remembers who was asked about.
async fn pool() -> Result<(String, Arc<Mutex<Vec<String>>>)> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    async fn answer(
        State(asked): State<Arc<Mutex<Vec<String>>>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        // The key and the way that shares are signed with.
        let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret of the pool").unwrap();
        mac.update(header("x-reservegrid-timestamp").as_bytes());
        mac.update(b".");
        mac.update(&body);
        let signature = hex::encode(mac.finalize().into_bytes());
        if header("x-reservegrid-key-id") != "test" || header("x-reservegrid-signature") != signature {
            return StatusCode::UNAUTHORIZED;
        }
        let question: Value = serde_json::from_slice(&body).unwrap();
        let user = question["user_identity"].as_str().unwrap_or_default().to_owned();
        asked.lock().unwrap().push(user.clone());
        match user.as_str() {
            "alice" => StatusCode::OK,
            "mallory" => StatusCode::FORBIDDEN,
            "broken" => StatusCode::INTERNAL_SERVER_ERROR,
            "slow" => std::future::pending().await,
            _ => StatusCode::NOT_FOUND,
        }
    }
    let app = Router::new().route("/may-mine", post(answer)).with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/may-mine", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((url, asked))
}

#[tokio::test]
async fn the_pool_says_who_may_mine_and_is_asked_once() -> Result<()> {
    let (url, asked) = pool().await?;
    let ask = |config: GatewayConfig| {
        config.set("miners", "users_url", url.as_str()).set("miners", "users_timeout", "1s")
    };
    let (_backend, mut gateway) = gateway_for_clients(ask).await?;
    let (mut first, mut second) = (client(&gateway, 0).await?, client(&gateway, 0).await?);
    for client in [&mut first, &mut second] {
        let channel = client.open_extended("alice").await?;
        ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
        client.open_standard("alice").await?;
    }
    let asked = || asked.lock().unwrap().clone();
    ensure!(asked() == ["alice"], "{:?}", asked());
    for (user, code, reason) in [
        ("carol", "unknown-user", "user_unknown"),
        ("mallory", "unknown-user", "user_not_allowed"),
        ("broken", "user-check-unavailable", "user_check_unavailable"),
        ("slow", "user-check-unavailable", "user_check_unavailable"),
    ] {
        let told = refused(&mut first, &mut gateway, user).await?;
        ensure!(told == (code.into(), reason.into()), "{user}: {told:?}");
    }
    // Nobody waits for somebody else's answer.
    first.request_open(&Open::new(Channel::Standard, "slow")).await?;
    second.open_standard("alice").await?;
    Ok(())
}

#[tokio::test]
async fn a_pool_that_cannot_be_reached_lets_nobody_in() -> Result<()> {
    let ask = |config: GatewayConfig| {
        config.set("miners", "users_url", "http://127.0.0.1:1/").set("miners", "users_timeout", "1s")
    };
    let (_backend, mut gateway) = gateway_for_clients(ask).await?;
    let mut client = client(&gateway, 0).await?;
    let told = refused(&mut client, &mut gateway, "alice").await?;
    ensure!(told.1 == "user_check_unavailable", "{told:?}");
    Ok(())
}
