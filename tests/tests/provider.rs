//! Templates from an SV2 Template Provider in front of a real node: work, blocks, future jobs, and a provider
//! that does everything wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Result, ensure};
use parsers_sv2::MiningOwned;
use reservegrid_tests::{
    account::check_every_share_has_one_result,
    backend::Backend,
    client::{Client, Message, OpenChannel},
    gateway::{DEADLINE, Gateway, GatewayConfig, policy},
    mempool::Wallet,
    node::Node,
    provider::{Mischief, Provider},
};
use serde_json::{Value, json};

/// Transactions in the node's mempool; they stay there unless a block of ours takes them.
const TRANSACTIONS: usize = 20;
/// What the payout address of the tests takes in a coinbase: a value, a length, a script of 22 bytes.
const P2WPKH_OUTPUT: (u32, u16) = (31, 0);

/// A node with transactions, a provider in front of it, a gateway behind that.
struct Scene {
    node: Node,
    provider: Provider,
    backend: Backend,
    gateway: Gateway,
}

impl Scene {
    async fn new(adjust: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Result<Self> {
        let node = Node::start().await?;
        let mut wallet = Wallet::funded(&node, 2 * TRANSACTIONS + 20).await?;
        wallet.fill(&node, TRANSACTIONS).await?;
        let provider = Provider::start(&node).await?;
        let backend = Backend::start("test", "a secret of the pool").await?;
        let config = provider
            .configure(GatewayConfig::new("inline")?)
            .pool(&backend)
            .set("gate", "verdict_timeout", "5s")
            .set("gate", "hold_timeout", "2m")
            .set("source", "request_timeout", "3s")
            .set("source", "stale_after", "2m")
            .set("miners", "vardiff", "off")
            .set("miners", "min_difficulty", 0.0)
            .policy("integrity", &policy("integrity")?, &json!({}))?;
        let gateway = Gateway::start(&adjust(config)).await?;
        Ok(Self { node, provider, backend, gateway })
    }

    async fn event(&mut self, skip: usize, name: &str, reason: &str) -> Result<Value> {
        let is = |e: &Value| e["event"] == name && e["reason"] == reason;
        self.gateway.wait_for_event_after(skip, &format!("{name} with {reason}"), DEADLINE, is).await
    }

    async fn client(&mut self) -> Result<(Client, OpenChannel)> {
        self.gateway.wait_for_event("work", DEADLINE, |e| e["event"] == "work_released").await?;
        let mut client = Client::connect(&self.gateway).await?;
        client.setup(0).await?;
        let channel = client.open_extended("alice").await?;
        Ok((client, channel))
    }

    /// A block without transactions, which the provider is not told of; gives its hash.
    async fn empty_block(&self) -> Result<String> {
        let to = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        self.node.rpc.call("generateblock", json!([to, []])).await?;
        self.node.tip().await
    }

    /// The gateway ends in order, and every share has reached the pool.
    async fn end(mut self) -> Result<()> {
        ensure!(self.gateway.stop().await?.success());
        check_every_share_has_one_result(self.gateway.events()?, &self.backend)?;
        Ok(())
    }
}

fn job_id(message: &MiningOwned) -> Option<u32> {
    match message {
        MiningOwned::NewExtendedMiningJob(m) => Some(m.job_id),
        MiningOwned::SetNewPrevHash(m) => Some(m.job_id),
        _ => None,
    }
}

#[tokio::test]
async fn blocks_on_work_of_a_provider_are_in_the_chain_of_its_node() -> Result<()> {
    let mut scene = Scene::new(|config| config).await?;
    let before = scene.node.height().await?;
    let (mut client, mut channel) = scene.client().await?;
    ensure!(scene.provider.constraints() == Some(P2WPKH_OUTPUT), "{:?}", scene.provider.constraints());
    let judged = scene.gateway.events_named("template_judged")?.remove(0);
    ensure!(judged["transactions"].as_u64() >= Some(TRANSACTIONS as u64), "{judged}");
    ensure!(judged["verdict"]["accepted"] == true && judged["total_fees"].as_u64() > Some(0), "{judged}");
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    for number in 0..3 {
        let skip = scene.gateway.events()?.len();
        client.send_share(channel.id, &channel.solution()?).await?;
        let found = scene.event(skip, "block_found", "block_submitted").await?;
        let hash = found["hash"].as_str().unwrap();
        let said = scene.provider.said_to(hash);
        ensure!(said.as_deref() == Some("accepted"), "{said:?}: {found}");
        let block = scene.node.rpc.call("getblock", json!([hash, 1])).await?;
        ensure!(block["confirmations"].as_i64() > Some(0), "{block}");
        let transactions = block["nTx"].as_u64().unwrap();
        ensure!(if number == 0 { transactions > TRANSACTIONS as u64 } else { transactions == 1 }, "{block}");
        scene.event(skip, "work_released", "prevhash_switched").await?;
        ensure!(client.follow(&mut channel).await?, "a new tip");
    }
    ensure!(scene.node.height().await? == before + 3);
    scene.end().await
}

#[tokio::test]
async fn a_future_template_is_a_future_job_and_its_tip_reaches_miners_as_one_message() -> Result<()> {
    let mut scene = Scene::new(|config| config).await?;
    let (mut client, mut channel) = scene.client().await?;
    for _ in 0..2 {
        let skip = scene.gateway.events()?.len();
        scene.provider.offer_ahead().await?;
        let ahead = scene.event(skip, "work_ahead", "template_ahead").await?;
        ensure!(ahead["coinbase_only"] == false && ahead["mode"] == "inline", "{ahead}");
        let is_job = |m: &MiningOwned| matches!(m, MiningOwned::NewExtendedMiningJob(_)).then(|| m.clone());
        let future = client.pick("the future job", is_job).await?;
        let id = channel.take_job(&future)?;
        ensure!(channel.job.min_ntime.is_none(), "{future:?}");

        let tip = scene.empty_block().await?;
        scene.provider.tell_ahead().await?;
        let Message::Mining(told) = client.next_message().await? else { panic!("another protocol") };
        ensure!(matches!(told, MiningOwned::SetNewPrevHash(_)) && job_id(&told) == Some(id), "{told:?}");
        channel.take_tip(id, &told)?;
        let released = scene.event(skip, "work_released", "prevhash_activated").await?;
        ensure!(
            released["previous_block_hash"] == *tip && released["height"] == ahead["height"],
            "{released}"
        );
        ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    }
    let skip = scene.gateway.events()?.len();
    client.send_share(channel.id, &channel.solution()?).await?;
    let found = scene.event(skip, "block_found", "block_submitted").await?;
    ensure!(scene.node.tip().await? == found["hash"].as_str().unwrap(), "{found}");
    scene.end().await
}

#[tokio::test]
async fn what_a_provider_says_wrongly_becomes_nobodys_work() -> Result<()> {
    let mut scene = Scene::new(|config| config).await?;
    let (mut client, mut channel) = scene.client().await?;
    for (mischief, code) in [
        (Mischief::WrongPath, "merkle_root_mismatch"),
        (Mischief::OtherOrder, "merkle_root_mismatch"),
        (Mischief::Value(-4_000_000_000), "coinbase_value_mismatch"),
    ] {
        let skip = scene.gateway.events()?.len();
        scene.provider.misbehave(mischief);
        let tip = scene.empty_block().await?;
        scene.provider.refresh().await?;
        let on_tip = |e: &Value| e["event"] == "template_judged" && e["previous_block_hash"] == *tip;
        let judged = scene.gateway.wait_for_event_after(skip, "a verdict", DEADLINE, on_tip).await?;
        ensure!(judged["verdict"]["reason_code"] == code, "{mischief:?}: {judged}");
        ensure!(judged["enforced"] == "refused", "{mischief:?}: {judged}");
        scene.event(skip, "gate_held", "prevhash_held").await?;
        let released = |e: &&Value| e["event"] == "work_released";
        ensure!(scene.gateway.events()?.iter().skip(skip).find(released).is_none(), "{mischief:?}");

        scene.provider.misbehave(Mischief::None);
        scene.provider.refresh().await?;
        let released = scene.event(skip, "work_released", "prevhash_switched").await?;
        ensure!(released["previous_block_hash"] == *tip, "{released}");
        ensure!(client.follow(&mut channel).await?);
        ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    }
    scene.end().await
}

#[tokio::test]
async fn whatever_a_provider_does_wrong_has_its_code_and_costs_nobody_the_connection() -> Result<()> {
    let mut scene = Scene::new(|config| config).await?;
    let (mut client, channel) = scene.client().await?;
    let jobs = scene.gateway.events_named("work_released")?.len();
    for (mischief, code) in [
        (Mischief::Silent, "template_source_unreachable"),
        (Mischief::OtherAuthority, "template_provider_untrusted"),
        (Mischief::RefusesSetup, "template_source_refused"),
        (Mischief::OffersNothing, "template_source_unreachable"),
        (Mischief::UnknownTemplate, "template_id_unknown"),
        (Mischief::Nonsense, "template_provider_protocol"),
        (Mischief::PastHeight, "template_source_invalid"),
        (Mischief::Undecodable, "template_undecodable"),
        (Mischief::Oversized, "template_message_too_large"),
        (Mischief::CutOff, "template_source_unreachable"),
        (Mischief::Hangs, "template_data_missing"),
        (Mischief::Stale, "template_outdated"),
        (Mischief::NotFound, "template_id_unknown"),
    ] {
        scene.provider.misbehave(mischief);
        let skip = scene.gateway.events()?.len();
        scene.provider.hang_up().await?;
        let down = scene.event(skip, "source_down", "template_source_unreachable").await?;
        // The next attempt meets the mischief.
        let skip = scene.gateway.events()?.iter().rposition(|e| *e == down).unwrap() + 1;
        let down = scene.event(skip, "source_down", code).await;
        let down = down.map_err(|error| error.context(format!("{mischief:?}")))?;
        ensure!(!down["detail"].as_str().unwrap().is_empty(), "{down}");
        scene.provider.misbehave(Mischief::None);
        let is_up = |e: &Value| e["event"] == "source_up";
        scene.gateway.wait_for_event_after(skip, "the provider to be back", DEADLINE, is_up).await?;
    }
    // The same tip all the time; miners keep their job, and none of a bad template came.
    ensure!(client.submit(&channel, &channel.good_share(0)?).await?.is_accepted());
    let judged = scene.gateway.events_named("template_judged")?;
    ensure!(judged.iter().all(|e| e["verdict"]["accepted"] == true), "{judged:?}");
    ensure!(scene.gateway.events_named("work_released")?.len() >= jobs);
    for name in ["connection_closed", "gate_held", "gate_expired"] {
        let found = scene.gateway.events_named(name)?;
        ensure!(found.is_empty(), "{found:?}");
    }
    scene.end().await
}

#[tokio::test]
async fn a_provider_that_is_gone_and_back_costs_no_miner_its_connection() -> Result<()> {
    let mut scene = Scene::new(|config| config).await?;
    let (mut client, mut channel) = scene.client().await?;
    let (skip, address) = (scene.gateway.events()?.len(), scene.provider.address());
    drop(std::mem::replace(&mut scene.provider, Provider::start(&scene.node).await?));
    scene.event(skip, "source_down", "template_source_unreachable").await?;
    let tip = scene.empty_block().await?;
    scene.provider = Provider::start_at(&scene.node, &address).await?;
    let released = scene.event(skip, "work_released", "prevhash_switched").await?;
    ensure!(released["previous_block_hash"] == *tip, "{released}");
    ensure!(client.follow(&mut channel).await?);
    let skip = scene.gateway.events()?.len();
    client.send_share(channel.id, &channel.solution()?).await?;
    scene.event(skip, "block_found", "block_submitted").await?;
    ensure!(scene.gateway.events_named("connection_closed")?.is_empty());
    scene.end().await
}

#[tokio::test]
async fn a_provider_that_has_nothing_new_is_asked_whether_it_is_alive() -> Result<()> {
    let mut scene = Scene::new(|config| config.set("source", "stale_after", "6s")).await?;
    scene.client().await?;
    let questions = scene.provider.questions();
    // Every two seconds, so for longer than it may be silent.
    scene
        .gateway
        .wait_until("four questions", DEADLINE, |_| scene.provider.questions() >= questions + 4)
        .await?;
    ensure!(scene.gateway.events_named("source_down")?.is_empty());
    ensure!(scene.gateway.events_named("gate_expired")?.is_empty());
    let skip = scene.gateway.events()?.len();
    scene.provider.misbehave(Mischief::Hangs);
    let down = scene.event(skip, "source_down", "template_source_unreachable").await?;
    ensure!(down["detail"].as_str().unwrap().contains("did not answer within 3000 ms"), "{down}");
    scene.event(skip, "gate_expired", "template_source_stale").await?;
    scene.provider.misbehave(Mischief::None);
    scene.event(skip, "work_released", "prevhash_switched").await?;
    scene.end().await
}

#[tokio::test]
async fn a_block_that_does_not_show_up_is_unconfirmed_and_kept_for_the_operator() -> Result<()> {
    let mut scene = Scene::new(|config| config).await?;
    let (mut client, channel) = scene.client().await?;
    scene.provider.misbehave(Mischief::DropsSolutions);
    client.send_share(channel.id, &channel.solution()?).await?;
    let found = scene.event(0, "block_found", "block_unconfirmed").await?;
    let detail = found["detail"].as_str().unwrap();
    let hash = found["hash"].as_str().unwrap();
    let file = scene.gateway.config().ledger().join(format!("block-{hash}.hex"));
    ensure!(detail.contains("gives no answer") && detail.contains(&file.display().to_string()), "{detail}");
    // It is whole, and a node takes it.
    let said = scene.node.rpc.call("submitblock", json!([std::fs::read_to_string(file)?])).await?;
    ensure!(said.is_null() && scene.node.tip().await? == hash, "{said}");
    scene.end().await
}

#[tokio::test]
async fn a_provider_of_another_network_gives_no_usable_template() -> Result<()> {
    let other = |config: GatewayConfig| {
        config.set("source", "network", "signet").set(
            "coinbase",
            "payout_address",
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        )
    };
    let mut scene = Scene::new(other).await?;
    let down = scene.event(0, "source_down", "template_source_invalid").await?;
    ensure!(
        down["detail"].as_str().unwrap().contains("is no target that a block on signet may have"),
        "{down}"
    );
    ensure!(scene.gateway.events_named("work_released")?.is_empty());
    scene.end().await
}
