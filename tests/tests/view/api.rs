//! The HTTP surface: what it shows, who may ask, and events as they happen.

use super::{Pool, config, stream::Stream};
use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use reservegrid_tests::{gateway::DEADLINE, wait};
use serde_json::{Value, json};

async fn json_of(url: &str) -> Result<Value> {
    let response = Client::new().get(url).send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status == StatusCode::OK, "{url}: {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

#[tokio::test]
async fn everything_that_the_description_names_can_be_looked_at() -> Result<()> {
    let pool = Pool::start(|backend| config(backend, 400), 40).await?;
    let api = pool.gateway.api()?;
    let description = json_of(&format!("{api}/v1/openapi.json")).await?;
    let paths = description["paths"].as_object().context("paths")?;
    for (path, _) in paths.iter().filter(|(path, how)| how.get("get").is_some() && *path != "/v1/events") {
        let response = Client::new().get(format!("{api}{path}")).send().await?;
        ensure!(response.status() == StatusCode::OK, "{path}: {}", response.status());
        ensure!(response.headers()["x-content-type-options"] == "nosniff", "{path}");
    }

    let shown = wait::until("the shares of both miners", DEADLINE, async || {
        let miners = json_of(&format!("{api}/v1/miners")).await?;
        let channels: Vec<_> = miners["connections"]
            .as_array()
            .context("connections")?
            .iter()
            .map(|c| &c["channels"][0])
            .collect();
        let both =
            channels.iter().filter(|channel| channel["shares_accepted"].as_u64() > Some(0)).count() == 2;
        Ok(both.then(|| miners.clone()))
    });
    let miners = shown.await?;
    ensure!(miners["connections_total"] == 2 && miners["channels_total"] == 2, "{miners}");
    let first = json_of(&format!("{api}/v1/miners?limit=1")).await?;
    let next = first["next"].as_u64().context("a next page")?;
    let second = json_of(&format!("{api}/v1/miners?limit=1&after={next}")).await?;
    ensure!(second["next"].is_null() && second["connections"][0]["connection"] != next, "{second}");

    let templates = json_of(&format!("{api}/v1/templates?limit=1")).await?;
    let record = &templates["records"][0];
    ensure!(record["event"] == "template_judged" && record["policies"][0]["name"] == "fee-floor", "{record}");
    let timeline = json_of(&format!("{api}/v1/timeline")).await?;
    let names: Vec<_> = timeline["records"]
        .as_array()
        .context("records")?
        .iter()
        .filter_map(|e| e["event"].as_str())
        .collect();
    for name in ["gateway_started", "tip_changed", "work_released"] {
        ensure!(names.contains(&name), "{name} is not in {names:?}");
    }
    let overview = json_of(&format!("{api}/v1/overview")).await?;
    ensure!(overview["gate"]["mode"] == "inline" && overview["readiness"]["ready"] == true, "{overview}");
    ensure!(overview["now"]["connections"] == 2, "{overview}");
    let ledger = json_of(&format!("{api}/v1/ledger")).await?;
    ensure!(ledger["active"] == true && ledger["backend_up"] == true, "{ledger}");

    let metrics = Client::new().get(format!("{api}/metrics")).send().await?;
    ensure!(metrics.headers()["content-type"].to_str()?.starts_with("application/openmetrics-text"));
    let metrics = metrics.text().await?;
    for part in ["reservegrid_shares_accepted_total ", "reservegrid_connections 2", "mode{mode=\"inline\"} 1"]
    {
        ensure!(metrics.contains(part), "{part} is not in\n{metrics}");
    }
    let page = Client::new().get(api).send().await?;
    let policy = page.headers()["content-security-policy"].to_str()?;
    ensure!(policy.starts_with("default-src 'none'"), "{policy}");
    ensure!(page.text().await?.contains("<title>ReserveGrid</title>"));
    Ok(())
}

#[tokio::test]
async fn a_token_that_looks_changes_nothing_and_what_is_refused_is_counted() -> Result<()> {
    let [change, look] = ["the-token-that-changes", "the-token-that-looks!"];
    let tokens = |backend: &_| {
        let config = config(backend, 400)?.variable("RESERVEGRID_API__TOKEN", change);
        Ok(config.variable("RESERVEGRID_API__READ_TOKEN", look))
    };
    let pool = Pool::start(tokens, 40).await?;
    let api = pool.gateway.api()?;
    let ask = async |method: Method, path: &str, token: &str, body: String| -> Result<(StatusCode, Value)> {
        let request = Client::new().request(method, format!("{api}{path}")).bearer_auth(token).body(body);
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    };
    let observe = || json!({ "mode": "observe" }).to_string();
    let none = String::new;
    for (method, path, token, body, status, code) in [
        (Method::GET, "/v1/gate", look, none(), StatusCode::OK, None),
        (Method::GET, "/v1/gate", change, none(), StatusCode::OK, None),
        (Method::GET, "/metrics", look, none(), StatusCode::OK, None),
        (Method::POST, "/v1/mode", look, observe(), StatusCode::FORBIDDEN, Some("api_forbidden")),
        (Method::POST, "/v1/policies/swap", look, none(), StatusCode::FORBIDDEN, Some("api_forbidden")),
        (Method::GET, "/v1/gate", "wrong", none(), StatusCode::UNAUTHORIZED, Some("api_unauthorized")),
        (Method::GET, "/etc/passwd", change, none(), StatusCode::NOT_FOUND, Some("api_request_invalid")),
        (
            Method::GET,
            "/page/../v1/gate",
            "wrong",
            none(),
            StatusCode::UNAUTHORIZED,
            Some("api_unauthorized"),
        ),
        (
            Method::GET,
            "/v1/miners?limit=0",
            look,
            none(),
            StatusCode::BAD_REQUEST,
            Some("api_request_invalid"),
        ),
        (
            Method::POST,
            "/v1/mode",
            change,
            "x".repeat(4_096),
            StatusCode::PAYLOAD_TOO_LARGE,
            Some("api_request_invalid"),
        ),
        (Method::POST, "/v1/mode", change, observe(), StatusCode::OK, Some("mode_changed")),
    ] {
        let (got, answer) = ask(method, path, token, body).await?;
        ensure!(got == status, "{path}: {got} {answer}");
        ensure!(code.is_none_or(|code| answer["reason_code"] == code), "{path}: {answer}");
    }
    // Guessing is slowed down; who has the token does not notice.
    let mut limited = 0;
    for _ in 0..20 {
        limited += usize::from(
            ask(Method::GET, "/v1/gate", "guess", none()).await?.0 == StatusCode::TOO_MANY_REQUESTS,
        );
    }
    ensure!(limited > 0, "20 guesses and none was one too many");
    let (_, metrics) = ask(Method::GET, "/metrics", look, none()).await?;
    let metrics = metrics.as_str().context("text")?;
    for code in
        ["api_forbidden\"} 2", "api_unauthorized\"} ", "api_request_invalid\"} 3", "api_rate_limited\"} "]
    {
        let line = format!("reservegrid_http_refused_total{{code=\"{code}");
        ensure!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    // The page itself is open; the health too.
    for path in ["/", "/page/app.js", "/v1/health"] {
        ensure!(Client::new().get(format!("{api}{path}")).send().await?.status() == StatusCode::OK, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn events_are_followed_by_filter_and_gone_on_with_by_id() -> Result<()> {
    let mut pool = Pool::start(|backend| config(backend, 400), 40).await?;
    let api = pool.gateway.api()?.to_owned();
    let mut stream = Stream::open(&api, "event=template_judged", None).await?;
    let [first, second, third] = [stream.next().await?, stream.next().await?, stream.next().await?];
    ensure!([&first, &second, &third].iter().all(|m| m.event == "template_judged"), "{first:?} {second:?}");
    drop(stream);
    let mut again = Stream::open(&api, "event=template_judged", Some(&first.id)).await?;
    let [one, two] = [again.next().await?, again.next().await?];
    ensure!(
        one.id == second.id && one.data == second.data && two.id == third.id,
        "{one:?} is not {second:?}"
    );

    let mut foreign = Stream::open(&api, "room=gate,source&severity=info", Some("0-12")).await?;
    let gap = foreign.next().await?;
    ensure!(gap.event == "gap" && gap.data["reason_code"] == "event_gap" && gap.id.is_empty(), "{gap:?}");
    let event = foreign.next().await?;
    // The same record as in the file, where it may arrive a moment later.
    pool.gateway.wait_for_event("the same event", DEADLINE, |e| *e == event.data).await?;
    let mut warnings = Stream::open(&api, "severity=warning&after=start", None).await?;
    let warning = warnings.next().await?;
    ensure!(warning.data["verdict"]["accepted"] == false, "{warning:?}");

    for query in ["event=gate_hold", "severity=grave", "rooms=gate", "after=nonsense"] {
        let response = Client::new().get(format!("{api}/v1/events?{query}")).send().await?;
        ensure!(response.status() == StatusCode::BAD_REQUEST, "{query}: {}", response.status());
    }
    // The end of the gateway is an end of the stream that is said.
    let mut last = Stream::open(&api, "event=gateway_stopped", None).await?;
    pool.gateway.process().signal("TERM")?;
    let end = last.next().await?;
    ensure!(end.event == "end" && end.data["reason_code"] == "shutdown_drain", "{end:?}");
    Ok(())
}
