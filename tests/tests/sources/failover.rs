//! Who gives the templates when nodes die, fall behind, split and come back.

use super::{backend, client, event, follow_to, nobody_was_disturbed, patient, two_nodes, work_on};
use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    front::{Front, Twist},
    gateway::{DEADLINE, Gateway},
    mempool::Wallet,
};
use serde_json::{Value, json};

/// What the HTTP surface says of the sources.
async fn shown(gateway: &Gateway) -> Result<Value> {
    Ok(reqwest::get(format!("{}/v1/sources", gateway.api()?)).await?.json().await?)
}

#[tokio::test]
async fn when_a_node_dies_the_other_gives_the_work_at_once_and_miners_notice_nothing() -> Result<()> {
    let (mut first, second) = two_nodes().await?;
    let mut wallet = Wallet::funded(&first, 20).await?;
    second.follows(&first.tip().await?).await?;
    // What only the second has, so that its template is another one.
    first.disconnect(&second).await?;
    wallet.fill(&second, 5).await?;
    let backend = backend().await?;
    let config = patient(&backend)?.node(&first).set("source", "name", "main").backup("second", &second);
    let mut gateway = Gateway::start(&config).await?;
    let tip = first.tip().await?;
    work_on(&mut gateway, &tip).await?;
    let both = |e: &Value| e["event"] == "source_up" && e["source"] == "second";
    gateway.wait_for_event("the second source", DEADLINE, both).await?;
    let (mut client, mut channel) = client(&gateway).await?;

    let skip = gateway.events()?.len();
    first.process().kill()?;
    let leads = event(&mut gateway, skip, "source_leads", "source_failed_over").await?;
    ensure!(leads["source"] == "second" && leads["from"] == "main", "{leads}");
    ensure!(leads["tip"] == tip.as_str() && leads["tip_before"] == tip.as_str(), "{leads}");
    let down = event(&mut gateway, skip, "source_down", "template_source_unreachable").await?;
    ensure!(down["source"] == "main", "{down}");
    let released = |e: &Value| e["event"] == "work_released";
    let work = gateway.wait_for_event_after(skip, "work of the second", DEADLINE, released).await?;
    let millis = |event: &Value| event["time_ms"].as_i64().context("a time");
    let took = millis(&work)? - millis(&down)?.min(millis(&leads)?);
    println!("from the failure of the first node to work of the second: {took} ms");
    ensure!(took <= 1_000, "{took} ms: {:?}", &gateway.events()?[skip..]);

    // Its blocks are followed, and shares count all the time.
    let answer = client.submit(&channel, &channel.good_share(0)?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    let tip = second.mine(1).await?;
    work_on(&mut gateway, &tip).await?;
    follow_to(&mut client, &mut channel, &tip).await?;
    let answer = client.submit(&channel, &channel.good_share(5_000)?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");

    let shown = shown(&gateway).await?;
    let (of_first, of_second) = (&shown["sources"][0], &shown["sources"][1]);
    ensure!(of_first["name"] == "main" && of_first["state"] == "down", "{shown}");
    ensure!(
        of_first["leads"] == false && of_first["reason_code"] == "template_source_unreachable",
        "{shown}"
    );
    ensure!(of_second["state"] == "up" && of_second["leads"] == true, "{shown}");
    ensure!(of_second["tip"] == tip.as_str(), "{shown}");
    let ready: Value = reqwest::get(format!("{}/v1/ready", gateway.api()?)).await?.json().await?;
    ensure!(ready["ready"] == true, "{ready}");
    ensure!(ready["warnings"][0]["reason_code"] == "source_redundancy_lost", "{ready}");
    let metrics = reqwest::get(format!("{}/metrics", gateway.api()?)).await?.text().await?;
    for line in [
        "reservegrid_source_up 1.0",
        "reservegrid_source_healthy{source=\"main\"} 0.0",
        "reservegrid_source_leads{source=\"second\"} 1.0",
        "reservegrid_source_changes_total{code=\"source_failed_over\"} 1",
        &format!("reservegrid_source_height{{source=\"second\"}} {}.0", second.height().await?),
    ] {
        ensure!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    nobody_was_disturbed(&mut gateway)?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_node_that_comes_back_leads_again_when_it_has_been_well_for_a_while() -> Result<()> {
    let (first, second) = two_nodes().await?;
    let (backend, front) = (backend().await?, Front::start(&first).await?);
    let config =
        front.configure(patient(&backend)?).backup("second", &second).set("failover", "return_after", "1s");
    let mut gateway = Gateway::start(&config).await?;
    work_on(&mut gateway, &first.tip().await?).await?;
    let both = |e: &Value| e["event"] == "source_up" && e["source"] == "second";
    gateway.wait_for_event("the second source", DEADLINE, both).await?;
    let skip = gateway.events()?.len();
    front.twist(Twist::Away);
    event(&mut gateway, skip, "source_leads", "source_failed_over").await?;
    front.twist(Twist::Honest);
    let back = event(&mut gateway, skip, "source_leads", "source_returned").await?;
    ensure!(back["source"] == "main" && back["from"] == "second", "{back}");
    let up = |e: &Value| e["event"] == "source_up" && e["source"] == "main";
    let up = gateway.wait_for_event_after(skip, "the first source", DEADLINE, up).await?;
    let waited = back["time_ms"].as_i64().unwrap() - up["time_ms"].as_i64().unwrap();
    ensure!(waited >= 990, "it led again after {waited} ms");
    let tip = first.mine(1).await?;
    work_on(&mut gateway, &tip).await?;
    nobody_was_disturbed(&mut gateway)?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn nodes_split_by_a_reorganisation_of_three_blocks_are_told_and_the_longer_branch_is_worked_on()
-> Result<()> {
    let (first, second) = two_nodes().await?;
    let backend = backend().await?;
    let config = patient(&backend)?
        .node(&first)
        .set("source", "stale_after", "6s")
        .backup("second", &second)
        .set("failover", "disagree_after", "1s")
        .set("failover", "return_after", "1s");
    let mut gateway = Gateway::start(&config).await?;
    work_on(&mut gateway, &first.tip().await?).await?;
    let (mut client, mut channel) = client(&gateway).await?;

    let skip = gateway.events()?.len();
    first.disconnect(&second).await?;
    let lost = first.mine(3).await?;
    let rival = second.mine_apart(3).await?;
    follow_to(&mut client, &mut channel, &lost).await?;
    let told = event(&mut gateway, skip, "source_tips", "source_tips_disagree").await?;
    let tips = json!([
        { "source": "main", "tip": lost, "height": 13, "leads": true },
        { "source": "second", "tip": rival, "height": 13, "leads": false },
    ]);
    ensure!(told["tips"] == tips, "{told}");
    ensure!(
        gateway.events()?[skip..].iter().all(|e| e["event"] != "source_leads"),
        "two blocks at one height are a race"
    );

    let won = second.mine(1).await?;
    let leads = event(&mut gateway, skip, "source_leads", "source_behind").await?;
    ensure!(leads["source"] == "second" && leads["tip"] == won.as_str(), "{leads}");
    ensure!(leads["tip_before"] == lost.as_str() && leads["height_before"] == 13, "{leads}");
    follow_to(&mut client, &mut channel, &won).await?;
    let answer = client.submit(&channel, &channel.good_share(0)?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");

    first.connect(&second).await?;
    first.follows(&won).await?;
    event(&mut gateway, skip, "source_tips", "source_tips_agree").await?;
    let back = event(&mut gateway, skip, "source_leads", "source_returned").await?;
    ensure!(back["source"] == "main" && back["tip"] == won.as_str(), "{back}");
    nobody_was_disturbed(&mut gateway)?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}
