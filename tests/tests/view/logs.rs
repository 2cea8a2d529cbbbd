//! The log on standard error: text or JSON, with levels by room, from the file or the variables.

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use reservegrid_tests::{
    client::gateway_for_clients,
    gateway::{DEADLINE, Gateway, GatewayConfig},
    wait,
};
use serde_json::Value;
use std::path::Path;

const TOKEN: (&str, &str) = ("RESERVEGRID_API__TOKEN", "a-token-for-nobody");

/// A gateway that has something to say in two rooms: a request without a token, and a file of users that goes.
async fn talkative(users: &Path, adjust: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Result<Gateway> {
    std::fs::write(users, "alice\n")?;
    let (_backend, gateway) = gateway_for_clients(|config| {
        adjust(config.set("api", "listen", "127.0.0.1:0").variable(TOKEN.0, TOKEN.1)).set(
            "miners",
            "users_file",
            users.display().to_string(),
        )
    })
    .await?;
    let refused = Client::new().get(format!("{}/v1/gate", gateway.api()?)).send().await?;
    ensure!(refused.status().as_u16() == 401, "{}", refused.status());
    std::fs::remove_file(users)?;
    Ok(gateway)
}

/// The log, once it has this in it.
async fn log_with(gateway: &mut Gateway, part: &str) -> Result<String> {
    let said = wait::until(part, DEADLINE, async || {
        let log = gateway.process().stderr();
        Ok(log.lines().any(|line| line.contains(part)).then_some(log))
    });
    said.await
}

#[tokio::test]
async fn as_json_each_line_is_an_object_with_time_level_room_and_fields() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let json = |config: GatewayConfig| config.set("log", "format", "json");
    let mut gateway = talkative(&folder.path().join("users"), json).await?;
    log_with(&mut gateway, "users_file").await?;
    ensure!(gateway.stop().await?.success());
    let log = gateway.process().stderr();
    let lines: Vec<Value> =
        log.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(log.clone())?;
    for line in &lines {
        for field in ["timestamp", "level", "target", "fields"] {
            ensure!(!line[field].is_null(), "{field} is not in {line}");
        }
    }
    let of =
        |room: &str| lines.iter().find(|line| line["target"].as_str().is_some_and(|t| t.starts_with(room)));
    let refused = of("reservegrid::api").with_context(|| log.clone())?;
    ensure!(refused["level"] == "WARN" && refused["fields"]["code"] == "api_unauthorized", "{refused}");
    ensure!(refused["fields"]["peer"] == "127.0.0.1" && refused["fields"]["path"] == "/v1/gate", "{refused}");
    ensure!(of("reservegrid::miner").is_some(), "{log}");
    Ok(())
}

#[tokio::test]
async fn as_text_a_room_speaks_at_its_own_level_and_a_file_gets_no_colours() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let levels = |config: GatewayConfig| config.set("log", "levels", "error,reservegrid::miner=warn");
    let mut gateway = talkative(&folder.path().join("users"), levels).await?;
    let log = log_with(&mut gateway, "users_file").await?;
    ensure!(log.contains("WARN reservegrid::miner") && !log.contains("reservegrid::api"), "{log}");
    ensure!(!log.contains('\x1b'), "{log}");
    Ok(())
}

#[tokio::test]
async fn the_variables_go_before_the_file_and_are_checked_like_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let both = |config: GatewayConfig| {
        config
            .set("log", "levels", "off")
            .variable("RESERVEGRID_LOG", "error,reservegrid::api=warn")
            .variable("RESERVEGRID_LOG_FORMAT", "json")
    };
    let mut gateway = talkative(&folder.path().join("users"), both).await?;
    let log = log_with(&mut gateway, "[api] refused").await?;
    ensure!(log.lines().all(|line| line.starts_with('{')), "{log}");

    let config = gateway.config().clone().variable("RESERVEGRID_LOG_FORMAT", "xml");
    std::fs::write(folder.path().join("users"), "alice\n")?;
    let mut wrong = Gateway::spawn(&config)?;
    ensure!(wrong.process().wait(DEADLINE).await?.code() == Some(64));
    let said = wrong.process().stderr();
    ensure!(said.contains("RESERVEGRID_LOG_FORMAT: [log] format: \"xml\" is not a choice"), "{said}");
    Ok(())
}
